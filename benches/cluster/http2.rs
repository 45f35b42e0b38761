//! Unary gRPC calls on a connection without TLS (RFC 9113), with as little work for the client as possible: it neither
//! unpacks the responses' headers nor parses their messages.
//!
//! With 256 connections of a library in one process, the client would need more processor time than the servers that
//! are measured.

use super::http2_frames::{DATA, END_HEADERS, HEADERS, PREFACE, RST_STREAM, SETTINGS, put_frame};
use super::wire::{Protocol, Wire, connect};

/// The connection and each stream begin with a window of this size.
const WINDOW_BYTES: usize = 65_535;
/// After this many received bytes, the server may send as many again.
const UPDATE_BYTES: usize = 16 << 10;

const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;

const FRAME_HEADER_BYTES: usize = 9;

/// A connection that calls one method.
pub struct Calls {
    addr: String,
    path: &'static str,
    /// Returns the next request.
    request: Box<dyn Fn() -> Vec<u8> + Send>,
    /// 0: nothing was sent.
    last_stream: u32,
    /// How many bytes may be sent.
    window: usize,
    /// Received bytes that were not reported to the server.
    received: usize,
    /// The streams whose response has a message.
    with_message: Vec<u32>,
}

impl Calls {
    /// Connects to a server.
    pub fn open(addr: &str, path: &'static str, request: impl Fn() -> Vec<u8> + Send + 'static) -> Wire<Calls> {
        let calls = Calls {
            addr: addr.to_owned(),
            path,
            request: Box::new(request),
            last_stream: 0,
            window: WINDOW_BYTES,
            received: 0,
            with_message: Vec::new(),
        };
        Wire::new(connect(addr).expect("a server"), calls)
    }

    /// The headers of a request (RFC 7541). Those of the first add fields to the dynamic table, to which the later ones
    /// refer.
    fn headers(&self, is_first: bool) -> Vec<u8> {
        // ":method: POST" and ":scheme: http" of the static table.
        let mut block = vec![0x83, 0x86];
        if !is_first {
            // The newest field has the lowest index, and those that begin with ":" come first.
            block.extend((62..=66).rev().map(|index| 0x80 | index));
            return block;
        }
        // A literal that is added to the table; its name is a field of the static table, or follows.
        let mut add = |name: Result<u8, &str>, value: &str| {
            match name {
                Ok(index) => block.push(0x40 | index),
                Err(name) => block.extend([0x40, name.len() as u8].iter().chain(name.as_bytes())),
            }
            block.push(value.len() as u8);
            block.extend(value.as_bytes());
        };
        add(Ok(4), self.path);
        add(Ok(1), &self.addr);
        add(Err("te"), "trailers");
        add(Ok(31), "application/grpc");
        add(Ok(58), "seriatim-bench");
        block
    }
}

impl Protocol for Calls {
    fn append(&mut self, records: u64, output: &mut Vec<u8>) {
        for _ in 0..records {
            let is_first = self.last_stream == 0;
            if is_first {
                output.extend(PREFACE);
                put_frame(SETTINGS, 0, 0, &[], output);
                self.last_stream = 1;
            } else {
                self.last_stream += 2;
            }
            put_frame(HEADERS, END_HEADERS, self.last_stream, &self.headers(is_first), output);
            let request = (self.request)();
            let mut message = vec![0];
            message.extend((request.len() as u32).to_be_bytes());
            message.extend(request);
            self.window = self.window.checked_sub(message.len()).expect("the server updates the window");
            put_frame(DATA, END_STREAM, self.last_stream, &message, output);
        }
    }

    fn read(&mut self, input: &[u8], output: &mut Vec<u8>) -> Option<(usize, u64)> {
        let (header, rest) = input.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let payload = rest.get(..u32::from_be_bytes([0, a, b, c]) as usize)?;
        let stream = u32::from_be_bytes(stream);
        let mut done = 0;
        match kind {
            DATA => {
                self.received += payload.len();
                if self.received >= UPDATE_BYTES {
                    put_frame(WINDOW_UPDATE, 0, 0, &(self.received as u32).to_be_bytes(), output);
                    self.received = 0;
                }
                self.with_message.push(stream);
            }
            HEADERS if flags & END_STREAM != 0 => {
                // A call that failed has no message.
                let at = self.with_message.iter().position(|with| *with == stream);
                self.with_message.swap_remove(at.expect("a call succeeds"));
                done = 1;
            }
            SETTINGS if flags & ACK == 0 => put_frame(SETTINGS, ACK, 0, &[], output),
            PING if flags & ACK == 0 => put_frame(PING, ACK, 0, payload, output),
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().expect("four bytes");
                self.window += u32::from_be_bytes(*more) as usize;
            }
            RST_STREAM | GOAWAY => panic!("the server ends a call or the connection: {payload:?}"),
            _ => {}
        }
        Some((FRAME_HEADER_BYTES + payload.len(), done))
    }
}
