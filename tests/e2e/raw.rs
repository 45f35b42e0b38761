//! HTTP/2 over mutual TLS, frame by frame, for clients that break the rules that gRPC's own clients follow.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream};
use seriatim::client::ClientFiles;

use crate::http2_frames::{DATA, END_HEADERS, HEADERS, PREFACE, RST_STREAM, SETTINGS, put_frame};

/// Opens connections to one node.
pub struct Dialer {
    addr: SocketAddr,
    connector: SslConnector,
}

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: &'static [u8],
}

/// A connection whose preface and settings have been sent.
pub struct Connection {
    tls: SslStream<TcpStream>,
    next_stream: u32,
    out: Vec<u8>,
}

impl Dialer {
    /// Connects as the client with these certificates.
    pub fn new(addr: &str, files: &ClientFiles) -> Dialer {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        connector.set_ca_file(&files.ca_file).expect("a CA");
        connector.set_certificate_chain_file(&files.cert_file).expect("a certificate");
        connector.set_private_key_file(&files.key_file, SslFiletype::PEM).expect("a key");
        connector.set_alpn_protos(b"\x02h2").expect("a protocol");
        Dialer { addr: addr.parse().expect("an address"), connector: connector.build() }
    }

    /// Opens a TCP connection without a TLS handshake.
    pub fn tcp(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect_timeout(&self.addr, Duration::from_secs(10))?;
        tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
        tcp.set_write_timeout(Some(Duration::from_secs(2)))?;
        Ok(tcp)
    }

    /// Opens a connection and completes the TLS handshake.
    pub fn connect(&self) -> io::Result<Connection> {
        let tls = self.connector.connect("localhost", self.tcp()?).map_err(|e| io::Error::other(e.to_string()))?;
        let mut connection = Connection { tls, next_stream: 1, out: PREFACE.to_vec() };
        connection.frame(SETTINGS, 0, 0, &[]);
        connection.flush()?;
        Ok(connection)
    }
}

impl Connection {
    /// Queues a frame of any kind until [`Connection::flush`].
    pub fn raw(&mut self, frame: &Frame, stream: u32) {
        self.frame(frame.kind, frame.flags, stream, frame.payload);
    }

    /// Queues the first frame of a call whose headers continue in CONTINUATION frames.
    pub fn endless_headers(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.frame(HEADERS, 0, stream, &[0x83, 0x87]);
        stream
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        put_frame(kind, flags, stream, payload, &mut self.out);
    }

    /// Queues the headers of a call until [`Connection::flush`]; returns its stream.
    pub fn call(&mut self, path: &str) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        // HPACK: indexed POST and https, then literal fields.
        let mut block = vec![0x83, 0x87];
        for (name, value) in [(&[0x04][..], path), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/grpc")] {
            block.extend_from_slice(name);
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        block.extend_from_slice(b"\x00\x02te\x08trailers");
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    /// Queues bytes of a request message.
    pub fn data(&mut self, stream: u32, bytes: &[u8]) {
        self.frame(DATA, 0, stream, bytes);
    }

    /// Queues the cancellation of a call.
    pub fn reset(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    }

    /// Sends the queued frames.
    pub fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.tls.write_all(&out)
    }

    /// Returns true if the node has closed the connection. Discards what the node sent.
    pub fn is_closed(&mut self) -> bool {
        self.tls.get_ref().set_nonblocking(true).expect("a socket");
        let closed = loop {
            match self.tls.read(&mut [0; 4096]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(e) => break e.kind() != io::ErrorKind::WouldBlock,
            }
        };
        self.tls.get_ref().set_nonblocking(false).expect("a socket");
        closed
    }
}

/// Floods a node: keeps `connections` connections open for `seconds`, and replaces each one that the node closes. On each
/// connection it calls `begin` once, then queues and sends batches with `batch`, which gets the stream that `begin` returned.
/// Returns how many batches were sent, and how many connections were closed.
pub fn flood(
    dialer: &Dialer,
    connections: usize,
    seconds: u64,
    begin: impl Fn(&mut Connection) -> u32 + Sync,
    batch: impl Fn(&mut Connection, u32) + Sync,
) -> (u64, u64) {
    let (batches, closed) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let run = |mut connection: Connection| {
        let stream = begin(&mut connection);
        while Instant::now() < until {
            batch(&mut connection, stream);
            if connection.flush().is_err() || connection.is_closed() {
                closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            batches.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while Instant::now() < until {
                    // The node may close the connection during its handshake.
                    if let Ok(connection) = dialer.connect() {
                        run(connection);
                    }
                }
            });
        }
    });
    (batches.into_inner(), closed.into_inner())
}
