//! The protocol of NATS: frames, requests of JetStream's API, and publishes with an acknowledgement.

use std::io::Write as _;
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

use super::wire::{Input, Protocol, connect};

/// What a server sends.
#[derive(Debug)]
pub enum Frame {
    /// A message, as ranges of the input.
    Message {
        subject: Range<usize>,
        reply: Option<Range<usize>>,
        headers: Range<usize>,
        payload: Range<usize>,
    },
    Ping,
    /// `INFO`, `+OK` and `PONG`.
    Other,
    Error,
}

/// Reads the first frame of the input. Returns its length, or `None` if it is incomplete.
pub fn frame(input: &[u8]) -> Option<(usize, Frame)> {
    let line = input.iter().position(|byte| *byte == b'\n')?;
    let words = || {
        let at = |word: &[u8]| word.as_ptr() as usize - input.as_ptr() as usize;
        input[..line].trim_ascii_end().split(|b| *b == b' ').map(move |word| at(word)..at(word) + word.len())
    };
    let has_headers = input.starts_with(b"HMSG ");
    if !has_headers && !input.starts_with(b"MSG ") {
        let frame = match &input[..line] {
            line if line.starts_with(b"PING") => Frame::Ping,
            line if line.starts_with(b"-ERR") => Frame::Error,
            _ => Frame::Other,
        };
        return Some((line + 1, frame));
    }
    let number = |range: Range<usize>| {
        let text = std::str::from_utf8(&input[range]).expect("a number");
        text.parse::<usize>().expect("a number")
    };
    let count = words().count();
    let bytes = number(words().next_back()?);
    let header_bytes = if has_headers { number(words().nth(count - 2)?) } else { 0 };
    let begin = line + 1;
    let end = begin + bytes;
    // The frame ends with "\r\n".
    if input.len() < end + 2 {
        return None;
    }
    let has_reply = count == if has_headers { 6 } else { 5 };
    let frame = Frame::Message {
        subject: words().nth(1)?,
        reply: if has_reply { words().nth(3) } else { None },
        headers: begin..begin + header_bytes,
        payload: begin + header_bytes..end,
    };
    Some((end + 2, frame))
}

/// Connects as a client, without confirmations of each command.
pub fn open(addr: &str) -> std::io::Result<TcpStream> {
    let mut stream = connect(addr)?;
    stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n")?;
    Ok(stream)
}

/// A connection for requests of JetStream's API.
pub struct Api {
    pub stream: TcpStream,
    pub input: Input,
}

impl Api {
    pub fn open(addr: &str) -> std::io::Result<Api> {
        let mut stream = open(addr)?;
        // Without a leader, the servers do not respond to a request.
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"SUB _INBOX.api 1\r\n")?;
        Ok(Api { input: Input::new(stream.try_clone()?), stream })
    }

    /// Sends a request, and returns the JSON of its response or a text about its failure.
    pub fn request(&mut self, subject: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let text = format!("PUB $JS.API.{subject} _INBOX.api {}\r\n{body}\r\n", body.len());
        self.stream.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
        let payload = self.next_payload().map_err(|e| format!("no response: {e}"))?;
        let response: Value = serde_json::from_slice(&payload).map_err(|e| format!("{e}: {payload:?}"))?;
        match response.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(response),
        }
    }

    /// Waits for the next message, and returns its payload. That of a status is empty.
    fn next_payload(&mut self) -> std::io::Result<Vec<u8>> {
        loop {
            while let Some((bytes, frame)) = frame(self.input.unread()) {
                let is_ping = matches!(frame, Frame::Ping);
                let payload = match frame {
                    Frame::Message { payload, .. } => Some(self.input.unread()[payload].to_vec()),
                    Frame::Error => panic!("NATS: {}", String::from_utf8_lossy(&self.input.unread()[..bytes])),
                    Frame::Ping | Frame::Other => None,
                };
                self.input.consume(bytes);
                if is_ping {
                    self.stream.write_all(b"PONG\r\n")?;
                }
                if let Some(payload) = payload {
                    return Ok(payload);
                }
            }
            self.input.try_receive()?;
        }
    }
}

/// Publishes records to a subject of a stream, and counts the acknowledgements.
pub struct Publisher {
    message: Vec<u8>,
}

/// Panics if the response to a publish is not an acknowledgement.
pub fn check_acknowledgement(payload: &[u8]) {
    let is_good = payload.starts_with(b"{\"stream\"");
    assert!(is_good, "NATS did not append: {}", String::from_utf8_lossy(payload));
}

/// Returns a publish whose acknowledgement arrives at `inbox`.
pub fn publish(subject: &str, inbox: &str, value_bytes: usize) -> Vec<u8> {
    let mut message = format!("PUB {subject} {inbox} {value_bytes}\r\n").into_bytes();
    message.resize(message.len() + value_bytes, 7);
    message.extend_from_slice(b"\r\n");
    message
}

impl Publisher {
    /// Subscribes to the acknowledgements of a new publisher.
    pub fn open(addr: &str, subject: &str, value_bytes: usize, number: usize) -> super::wire::Wire<Publisher> {
        let mut stream = open(addr).expect("NATS accepts");
        // The same subject on two connections would deliver each acknowledgement to both.
        let inbox = format!("_INBOX.{value_bytes}.{number}");
        stream.write_all(format!("SUB {inbox} 1\r\n").as_bytes()).expect("the server reads");
        super::wire::Wire::new(stream, Publisher { message: publish(subject, &inbox, value_bytes) })
    }
}

impl Protocol for Publisher {
    fn append(&mut self, records: u64, output: &mut Vec<u8>) {
        for _ in 0..records {
            output.extend_from_slice(&self.message);
        }
    }

    fn read(&mut self, input: &[u8], output: &mut Vec<u8>) -> Option<(usize, u64)> {
        let (bytes, frame) = frame(input)?;
        let acknowledged = match frame {
            Frame::Message { payload, .. } => {
                check_acknowledgement(&input[payload]);
                1
            }
            Frame::Ping => {
                output.extend_from_slice(b"PONG\r\n");
                0
            }
            Frame::Other => 0,
            Frame::Error => panic!("NATS: {}", String::from_utf8_lossy(&input[..bytes])),
        };
        Some((bytes, acknowledged))
    }
}
