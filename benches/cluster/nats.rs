//! NATS JetStream: three servers, and a stream with three replicas.

use std::io::Write as _;
use std::net::{Shutdown as End, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::callers::CALLERS;
use super::contestant::{Append, Contestant, LARGE, Load, Read, SMALL, Shared, Tail};
use super::harness::eventually;
use super::nats_wire::{Api, Frame, Publisher, check_acknowledgement, frame, open, publish};
use super::server::{Server, free_ports};
use super::wire::{Input, Wire, rate_of_all, rate_of_threads};

/// A producer of batches has this many publishes in flight.
const WINDOW: u64 = 4000;

pub struct Nats {
    // Stopped before their directory is removed.
    servers: Vec<Server>,
    addrs: Vec<String>,
    /// The server that leads the stream `bench`.
    leader: usize,
    /// Numbers the inboxes.
    inboxes: AtomicUsize,
    _home: tempfile::TempDir,
}

impl Nats {
    /// Starts three servers with one more line in the section `jetstream`.
    pub fn start(setting: &str) -> Nats {
        let home = tempfile::tempdir().expect("a folder");
        let (clients, routes) = (free_ports::<3>(), free_ports::<3>());
        let servers = (0..3).map(|i| start(home.path(), i, clients[i], &routes, setting)).collect();
        let addrs: Vec<String> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut nats = Nats { servers, addrs, leader: 0, inboxes: AtomicUsize::new(0), _home: home };
        nats.leader = nats.create_stream("bench");
        nats
    }

    /// Creates a stream with three replicas, and waits until they are up to date. Returns the server that leads it.
    fn create_stream(&self, name: &str) -> usize {
        let config = json!({
            "name": name, "subjects": [name], "retention": "limits", "storage": "file", "num_replicas": 3,
        });
        eventually("NATS creates a stream", || {
            let mut api = Api::open(&self.addrs[0]).map_err(|e| e.to_string())?;
            api.request(&format!("STREAM.CREATE.{name}"), &config)
        });
        eventually("the stream has three replicas", || {
            let mut api = Api::open(&self.addrs[0]).map_err(|e| e.to_string())?;
            let info = api.request(&format!("STREAM.INFO.{name}"), &Value::Null)?;
            let replicas = info["cluster"]["replicas"].as_array().ok_or("no replicas")?;
            let current = replicas.iter().filter(|replica| replica["current"] == true).count();
            let leader = info["cluster"]["leader"].as_str().ok_or("no leader")?;
            let is_good = info["config"]["num_replicas"] == 3 && current == 2;
            let leader = (0..3).find(|i| is_good && leader == server_name(*i));
            leader.ok_or_else(|| info["cluster"].to_string())
        })
    }

    fn addr(&self) -> &str {
        &self.addrs[self.leader]
    }

    fn publisher(&self, value_bytes: usize) -> Wire<Publisher> {
        let number = self.inboxes.fetch_add(1, Ordering::Relaxed);
        Publisher::open(self.addr(), "bench", value_bytes, number)
    }
}

fn server_name(number: usize) -> String {
    format!("s{number}")
}

fn start(home: &Path, number: usize, port: u16, routes: &[u16; 3], setting: &str) -> Server {
    let name = server_name(number);
    let others: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let config = format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n\
         jetstream {{\n store_dir: \"{store}\"\n max_file_store: 64GB\n {setting}\n}}\n\
         cluster {{\n name: bench\n listen: \"127.0.0.1:{route}\"\n routes: {others:?}\n}}\n",
        store = home.join(&name).display(),
        route = routes[number],
    );
    let file = home.join(format!("{name}.conf"));
    std::fs::write(&file, config).expect("a configuration file");
    Server::start("nats-server", &name, home, [Path::new("-c"), &file])
}

impl Contestant for Nats {
    fn pids(&self) -> Vec<u32> {
        let others = (0..3).filter(|i| *i != self.leader);
        [self.leader].into_iter().chain(others).map(|i| self.servers[i].pid()).collect()
    }

    fn append(&self) -> Append {
        let mut publisher = self.publisher(SMALL);
        Box::new(move || publisher.append())
    }

    fn tail(&self) -> Option<Tail> {
        let mut messages = Subscription::open(self.addr(), "bench", json!({"deliver_policy": "new"}));
        let receive = move || {
            messages.next();
            Instant::now()
        };
        Some(Tail { append: self.append(), receive: Box::new(receive) })
    }

    fn shared(&self, form: Shared) -> Option<Load> {
        match form {
            Shared::Threads => {
                let client = ThreadsClient::open(self.addr(), self.inboxes.fetch_add(1, Ordering::Relaxed));
                Some(Box::new(move |took| client.rate(took)))
            }
            Shared::OneThread => {
                let mut publisher = self.publisher(SMALL);
                Some(Box::new(move |took| publisher.rate(CALLERS as u64, took)))
            }
            Shared::Unary | Shared::Stream => None,
        }
    }

    fn own_connections(&self) -> Load {
        let mut all: Vec<_> = (0..CALLERS).map(|_| self.publisher(SMALL)).collect();
        Box::new(move |took| rate_of_all(&mut all, took))
    }

    fn batched(&self, value_bytes: usize, producers: usize) -> Load {
        let mut all: Vec<_> = (0..producers).map(|_| self.publisher(value_bytes)).collect();
        Box::new(move |took| rate_of_threads(&mut all, WINDOW, took))
    }

    fn catch_up(&self, records: usize) -> Read {
        let leader = self.create_stream("catchup");
        let addr = self.addrs[leader].clone();
        Publisher::open(&addr, "catchup", LARGE, self.inboxes.fetch_add(1, Ordering::Relaxed))
            .fill(records as u64, WINDOW);
        Box::new(move || {
            // As an ordered consumer of the official clients, but for the checks of its order.
            let settings = json!({
                "deliver_policy": "all", "flow_control": true, "idle_heartbeat": 5_000_000_000u64,
                "mem_storage": true, "num_replicas": 1,
            });
            let mut messages = Subscription::open(&addr, "catchup", settings);
            (0..records).map(|_| messages.next() as u64).sum()
        })
    }
}

/// A push consumer without acknowledgements.
struct Subscription {
    api: Api,
}

impl Subscription {
    fn open(addr: &str, stream: &str, settings: Value) -> Subscription {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let inbox = format!("_INBOX.deliver.{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut config = json!({"deliver_subject": inbox, "ack_policy": "none", "replay_policy": "instant"});
        let settings = settings.as_object().cloned().unwrap_or_default();
        config.as_object_mut().expect("an object").extend(settings);
        let mut api = Api::open(addr).expect("NATS accepts");
        let request = json!({"stream_name": stream, "config": config});
        // Records may arrive before the response, so the subscription follows it. The server waits for interest.
        api.request(&format!("CONSUMER.CREATE.{stream}"), &request).expect("a consumer");
        api.stream.write_all(format!("SUB {inbox} 2\r\nPING\r\n").as_bytes()).expect("the server reads");
        api.stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut subscription = Subscription { api };
        subscription.wait_for_pong();
        subscription
    }

    /// Waits until the server has the subscription.
    fn wait_for_pong(&mut self) {
        let input = &mut self.api.input;
        while !input.unread().windows(4).any(|text| text == b"PONG") {
            input.receive();
        }
    }

    /// Waits for the next record. Returns the bytes of its value.
    fn next(&mut self) -> usize {
        loop {
            let input = self.api.input.unread();
            let Some((bytes, frame)) = frame(input) else {
                self.api.input.receive();
                continue;
            };
            let mut found = None;
            let mut answer = Vec::new();
            match frame {
                // A heartbeat, or flow control that asks for a response.
                Frame::Message { headers, reply, .. } if input[headers.clone()].starts_with(b"NATS/1.0 100") => {
                    let reply = reply.map_or(&[][..], |reply| &input[reply]);
                    if !reply.is_empty() {
                        answer = [b"PUB ", reply, b" 0\r\n\r\n"].concat();
                    }
                }
                Frame::Message { payload, .. } => found = Some(payload.len()),
                Frame::Ping => answer = b"PONG\r\n".to_vec(),
                Frame::Other => {}
                Frame::Error => panic!("NATS: {}", String::from_utf8_lossy(&input[..bytes])),
            }
            self.api.input.consume(bytes);
            if !answer.is_empty() {
                self.api.stream.write_all(&answer).expect("the server reads");
            }
            if let Some(found) = found {
                return found;
            }
        }
    }
}

/// A client of many threads, which wait for their acknowledgements. One thread reads. The thread that finds the socket
/// unused writes what all have published meanwhile.
struct ThreadsClient {
    stream: TcpStream,
    inbox: String,
    output: Mutex<Output>,
    waiting: Mutex<Vec<Option<Sender<()>>>>,
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    is_writing: bool,
}

impl Drop for ThreadsClient {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(End::Both);
    }
}

impl ThreadsClient {
    fn open(addr: &str, number: usize) -> ThreadsClient {
        let mut stream = open(addr).expect("NATS accepts");
        let inbox = format!("_INBOX.threads.{number}");
        stream.write_all(format!("SUB {inbox}.* 1\r\n").as_bytes()).expect("the server reads");
        ThreadsClient { stream, inbox, output: Mutex::default(), waiting: Mutex::default() }
    }

    fn write(&self, message: &[u8]) {
        let mut output = self.output.lock();
        output.bytes.extend_from_slice(message);
        if output.is_writing {
            return;
        }
        output.is_writing = true;
        while !output.bytes.is_empty() {
            let bytes = std::mem::take(&mut output.bytes);
            drop(output);
            (&self.stream).write_all(&bytes).expect("the server reads");
            output = self.output.lock();
        }
        output.is_writing = false;
    }

    fn rate(&self, took: Duration) -> f64 {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..CALLERS).map(|_| bounded::<()>(1)).unzip();
        *self.waiting.lock() = senders.into_iter().map(Some).collect();
        let (done, begin) = (AtomicU64::new(0), Instant::now());
        let end = begin + took;
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.read());
            let callers = receivers.into_iter().enumerate().map(|(slot, receiver)| {
                let (message, done) = (publish("bench", &format!("{}.{slot}", self.inbox), SMALL), &done);
                scope.spawn(move || {
                    let mut calls = 0;
                    while Instant::now() < end {
                        self.write(&message);
                        receiver.recv().expect("acknowledged");
                        calls += 1;
                    }
                    done.fetch_add(calls, Ordering::Relaxed);
                })
            });
            let callers: Vec<_> = callers.collect();
            callers.into_iter().for_each(|caller| caller.join().expect("appends"));
            // The response ends the reader.
            self.write(b"PING\r\n");
            reader.join().expect("reads");
        });
        done.into_inner() as f64 / begin.elapsed().as_secs_f64()
    }

    /// Wakes the caller of each acknowledgement until a `PONG` arrives.
    fn read(&self) {
        let mut input = Input::new(self.stream.try_clone().expect("a descriptor"));
        let waiting = std::mem::take(&mut *self.waiting.lock());
        loop {
            input.receive();
            while let Some((bytes, frame)) = frame(input.unread()) {
                let text = input.unread();
                match frame {
                    Frame::Message { subject, payload, .. } => {
                        check_acknowledgement(&text[payload]);
                        let subject = std::str::from_utf8(&text[subject]).expect("a subject");
                        let slot: usize = subject[self.inbox.len() + 1..].parse().expect("a slot");
                        if let Some(Some(caller)) = waiting.get(slot) {
                            caller.send(()).expect("it waits");
                        }
                    }
                    Frame::Ping => self.write(b"PONG\r\n"),
                    Frame::Other if text.starts_with(b"PONG") => return,
                    Frame::Other => {}
                    Frame::Error => panic!("NATS: {}", String::from_utf8_lossy(&text[..bytes])),
                }
                input.consume(bytes);
            }
        }
    }
}
