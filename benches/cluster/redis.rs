//! Redis: a primary with two replicas that sync each command, and a stream. It is not consensus: nothing elects a new
//! primary, and a failover may lose acknowledged records.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::callers::CALLERS;
use super::contestant::{Append, Contestant, LARGE, Load, Read, SMALL, Shared, Tail};
use super::harness::eventually;
use super::server::{Server, free_ports};
use super::wire::{Input, Protocol, Wire, connect, rate_of_all, rate_of_threads};

/// A producer of batches sends this many records before a `WAIT`.
const WINDOW: u64 = 4000;
/// A reader requests this many records at once.
const PAGE: usize = 1000;

pub struct Redis {
    // Stopped before their directory is removed. The first one is the primary.
    servers: Vec<Server>,
    primary: String,
    _home: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Redis {
        let home = tempfile::tempdir().expect("a folder");
        let ports = free_ports::<3>();
        let servers = (0..3).map(|i| {
            let (name, port) = (format!("r{i}"), ports[i]);
            let dir = home.path().join(&name);
            std::fs::create_dir(&dir).expect("a folder");
            let mut args = format!(
                "--port {port} --bind 127.0.0.1 --dir {dir} --appendonly yes --appendfsync always \
                 --auto-aof-rewrite-percentage 0 --repl-diskless-sync-delay 0",
                dir = dir.display()
            );
            if i > 0 {
                args.push_str(&format!(" --replicaof 127.0.0.1 {}", ports[0]));
            }
            // No snapshots in the background.
            Server::start("redis-server", &name, home.path(), args.split(' ').chain(["--save", ""]))
        });
        let redis = Redis { servers: servers.collect(), primary: format!("127.0.0.1:{}", ports[0]), _home: home };
        eventually("Redis has two replicas", || {
            let mut client = Client::open(&redis.primary).map_err(|e| e.to_string())?;
            let info = String::from_utf8_lossy(&client.request(&["INFO", "replication"])).into_owned();
            (info.matches("state=online").count() == 2).then_some(()).ok_or(info)
        });
        redis
    }

    fn adder(&self, log: &str, value_bytes: usize) -> Wire<Adder> {
        let stream = connect(&self.primary).expect("Redis accepts");
        let value = "7".repeat(value_bytes);
        Wire::new(stream, Adder { add: command(&["XADD", log, "*", "v", &value]), unconfirmed: 0 })
    }
}

impl Contestant for Redis {
    fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    fn append(&self) -> Append {
        let mut adder = self.adder("bench", SMALL);
        Box::new(move || adder.append())
    }

    fn tail(&self) -> Option<Tail> {
        let mut append = self.append();
        // From here on the stream exists, and its last id is known.
        append();
        let mut client = Client::open(&self.primary).expect("Redis accepts");
        let last = client.request(&["XREVRANGE", "bench", "+", "-", "COUNT", "1"]);
        let mut last = last_id(&last).expect("an id");
        let receive = move || {
            let reply = client.request(&["XREAD", "COUNT", "100", "BLOCK", "60000", "STREAMS", "bench", &last]);
            let now = Instant::now();
            last = last_id(&reply).expect("a record");
            now
        };
        Some(Tail { append, receive: Box::new(receive) })
    }

    fn shared(&self, form: Shared) -> Option<Load> {
        (form == Shared::OneThread).then(|| {
            let mut adder = self.adder("bench", SMALL);
            Box::new(move |took: Duration| adder.rate(CALLERS as u64, took)) as Load
        })
    }

    fn own_connections(&self) -> Load {
        let mut all: Vec<_> = (0..CALLERS).map(|_| self.adder("bench", SMALL)).collect();
        Box::new(move |took| rate_of_all(&mut all, took))
    }

    fn batched(&self, value_bytes: usize, producers: usize) -> Load {
        let mut all: Vec<_> = (0..producers).map(|_| self.adder("bench", value_bytes)).collect();
        Box::new(move |took| rate_of_threads(&mut all, WINDOW, took))
    }

    fn catch_up(&self, records: usize) -> Read {
        self.adder("catch-up", LARGE).fill(records as u64, WINDOW);
        let mut client = Client::open(&self.primary).expect("Redis accepts");
        Box::new(move || {
            let (mut last, mut read) = ("0".to_owned(), 0);
            let page = PAGE.to_string();
            while read < records {
                let reply = client.request(&["XREAD", "COUNT", &page, "STREAMS", "catch-up", &last]);
                last = last_id(&reply).expect("a record");
                read += PAGE.min(records - read);
            }
            (read * LARGE) as u64
        })
    }
}

/// Encodes a command.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Returns the length of the first reply of the input, or `None` if it is incomplete.
fn reply_bytes(input: &[u8]) -> Option<usize> {
    let end = input.iter().position(|byte| *byte == b'\n')? + 1;
    let number = || std::str::from_utf8(&input[1..end - 2]).expect("a number").parse::<i64>().expect("a number");
    let bytes = match input[0] {
        // -1: null.
        b'$' => end + usize::try_from(number()).map_or(0, |bytes| bytes + 2),
        b'*' => {
            let mut at = end;
            for _ in 0..number() {
                at += reply_bytes(&input[at..])?;
            }
            at
        }
        b'-' => panic!("Redis: {}", String::from_utf8_lossy(&input[..end])),
        _ => end,
    };
    (input.len() >= bytes).then_some(bytes)
}

/// Finds the last id of a record in a reply: the last text with digits around one hyphen.
fn last_id(reply: &[u8]) -> Option<String> {
    let lines = reply.rsplit(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let is_id = |line: &&[u8]| {
        line.iter().filter(|byte| **byte == b'-').count() == 1
            && line[0] != b'-'
            && line.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
    };
    lines.filter(|line| !line.is_empty()).find(is_id).map(|line| String::from_utf8_lossy(line).into_owned())
}

/// One request at a time.
struct Client {
    stream: TcpStream,
    input: Input,
}

impl Client {
    fn open(addr: &str) -> std::io::Result<Client> {
        let stream = connect(addr)?;
        Ok(Client { input: Input::new(stream.try_clone()?), stream })
    }

    fn request(&mut self, words: &[&str]) -> Vec<u8> {
        self.stream.write_all(&command(words)).expect("the server reads");
        loop {
            if let Some(bytes) = reply_bytes(self.input.unread()) {
                let reply = self.input.unread()[..bytes].to_vec();
                self.input.consume(bytes);
                return reply;
            }
            self.input.receive();
        }
    }
}

/// Adds records to a stream. A `WAIT` after them confirms that a replica has them. It also blocks its connection, so
/// later records follow its reply.
struct Adder {
    add: Vec<u8>,
    /// Added by the primary, and not confirmed by a replica.
    unconfirmed: u64,
}

impl Protocol for Adder {
    fn append(&mut self, records: u64, output: &mut Vec<u8>) {
        for _ in 0..records {
            output.extend_from_slice(&self.add);
        }
        output.extend_from_slice(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n");
    }

    fn read(&mut self, input: &[u8], _output: &mut Vec<u8>) -> Option<(usize, u64)> {
        let bytes = reply_bytes(input)?;
        if input[0] == b'$' {
            self.unconfirmed += 1;
            return Some((bytes, 0));
        }
        assert!(!input.starts_with(b":0"), "no replica has confirmed");
        Some((bytes, std::mem::take(&mut self.unconfirmed)))
    }
}
