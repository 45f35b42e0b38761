//! Connections without a library: what is sent and read is as little as the protocol allows.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll;

/// The requests that append records, and their responses.
pub trait Protocol {
    /// Writes the requests that append this many records.
    fn append(&mut self, records: u64, output: &mut Vec<u8>);

    /// Reads the first item of the input. Returns its length and the number of records that it acknowledges, or `None`
    /// if it is incomplete. Writes what the server expects in response.
    fn read(&mut self, input: &[u8], output: &mut Vec<u8>) -> Option<(usize, u64)>;
}

/// Received bytes that are not read yet.
pub struct Input {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// `bytes` begins with this many that were read.
    start: usize,
    chunk: Vec<u8>,
}

impl Input {
    pub fn new(stream: TcpStream) -> Input {
        Input { stream, bytes: Vec::new(), start: 0, chunk: vec![0; 256 << 10] }
    }

    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Waits for more bytes.
    pub fn receive(&mut self) {
        self.try_receive().expect("the server responds within a minute");
    }

    /// Waits for more bytes. Fails if the server closes the connection or does not respond.
    pub fn try_receive(&mut self) -> std::io::Result<()> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let count = self.stream.read(&mut self.chunk)?;
        self.bytes.extend_from_slice(&self.chunk[..count]);
        if count == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Connects to a server. A response that does not arrive within a minute is an error.
pub fn connect(addr: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// A connection that appends records.
pub struct Wire<P> {
    stream: TcpStream,
    input: Input,
    output: Vec<u8>,
    protocol: P,
}

impl<P> Drop for Wire<P> {
    fn drop(&mut self) {
        // The input has a clone of the stream.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl<P: Protocol> Wire<P> {
    pub fn new(stream: TcpStream, protocol: P) -> Wire<P> {
        let input = Input::new(stream.try_clone().expect("a descriptor"));
        Wire { stream, input, output: Vec::new(), protocol }
    }

    fn send(&mut self, records: u64) {
        self.protocol.append(records, &mut self.output);
        self.flush();
    }

    fn flush(&mut self) {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).expect("the server reads");
            self.output.clear();
        }
    }

    /// Waits for bytes. Returns the number of records that they acknowledge.
    fn receive(&mut self) -> u64 {
        self.input.receive();
        let mut acknowledged = 0;
        while let Some((bytes, records)) = self.protocol.read(self.input.unread(), &mut self.output) {
            self.input.consume(bytes);
            acknowledged += records;
        }
        self.flush();
        acknowledged
    }

    /// Appends one record, and waits for its acknowledgement.
    pub fn append(&mut self) {
        self.send(1);
        while self.receive() == 0 {}
    }

    /// Keeps this many records in flight. Returns acknowledged records per second.
    pub fn rate(&mut self, in_flight: u64, took: Duration) -> f64 {
        let begin = Instant::now();
        self.send(in_flight);
        let (mut open, mut done, mut last) = (in_flight, 0, begin);
        while open > 0 {
            let acknowledged = self.receive();
            last = Instant::now();
            done += acknowledged;
            open -= acknowledged;
            if acknowledged > 0 && last - begin < took {
                self.send(acknowledged);
                open += acknowledged;
            }
        }
        done as f64 / (last - begin).as_secs_f64()
    }

    /// Appends this many records, with at most `in_flight` of them unacknowledged.
    pub fn fill(&mut self, records: u64, in_flight: u64) {
        let (mut sent, mut done) = (0, 0);
        while done < records {
            let more = (records - sent).min(in_flight - (sent - done));
            if more > 0 {
                self.send(more);
                sent += more;
            }
            done += self.receive();
        }
    }
}

/// Keeps one record in flight on each connection, all driven by this thread. Returns acknowledged records per second.
pub fn rate_of_all<P: Protocol>(wires: &mut [Wire<P>], took: Duration) -> f64 {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
    for (i, wire) in wires.iter().enumerate() {
        epoll::add(&poll, &wire.stream, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN).expect("added");
    }
    let begin = Instant::now();
    wires.iter_mut().for_each(|wire| wire.send(1));
    let (mut open, mut done, mut last) = (wires.len() as u64, 0, begin);
    let mut events = Vec::with_capacity(wires.len());
    while open > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).expect("events");
        for event in &events {
            let wire = &mut wires[event.data.u64() as usize];
            let acknowledged = wire.receive();
            last = Instant::now();
            done += acknowledged;
            open -= acknowledged;
            if acknowledged > 0 && last - begin < took {
                wire.send(1);
                open += 1;
            }
        }
    }
    done as f64 / (last - begin).as_secs_f64()
}

/// Keeps this many records in flight on each connection, each driven by a thread. Returns acknowledged records per
/// second.
pub fn rate_of_threads<P: Protocol + Send>(wires: &mut [Wire<P>], in_flight: u64, took: Duration) -> f64 {
    std::thread::scope(|scope| {
        let all: Vec<_> = wires.iter_mut().map(|wire| scope.spawn(move || wire.rate(in_flight, took))).collect();
        all.into_iter().map(|thread| thread.join().expect("appends")).sum()
    })
}
