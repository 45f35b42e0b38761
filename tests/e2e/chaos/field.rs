//! What the clients of a run share: where the nodes are, when to stop, and what was observed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use seriatim::client::{Client, ClientError, ClientFiles, Cluster, ClusterOptions};

use super::checker::{Checker, Found, Item, Time};
use super::progress::Acks;
use crate::harness::client_with;
use crate::load::Random;

/// The observations of one log.
pub struct Observed {
    pub log: &'static str,
    checker: Mutex<Checker>,
    /// The acknowledgements of clients that send one request at a time.
    pub acks: Mutex<Acks>,
}

impl Observed {
    fn new(log: &'static str) -> Observed {
        Observed { log, checker: Mutex::default(), acks: Mutex::default() }
    }

    /// A request of a client that sends one at a time has failed.
    pub fn failed(&self, field: &Field, sent: Time, client: &Client, error: &ClientError) {
        let mut acks = self.acks.lock().expect("no panic");
        acks.failed(sent, field.now(), client.addr(), &error.to_string());
    }
}

pub struct Field {
    pub begin: Instant,
    stop: AtomicBool,
    pub logs: [Observed; 2],
    /// The client addresses of the members, by the number of their host.
    addrs: Mutex<HashMap<usize, String>>,
    files: ClientFiles,
    /// Errors that no fault explains.
    problems: Mutex<Vec<String>>,
}

impl Field {
    pub fn new(files: ClientFiles) -> Field {
        Field {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            logs: [Observed::new("default"), Observed::new("race")],
            addrs: Mutex::default(),
            files,
            problems: Mutex::default(),
        }
    }

    pub fn now(&self) -> Time {
        self.begin.elapsed().as_micros() as Time
    }

    /// Notes an observation, at a time that is not before any that was noted.
    pub fn note<T>(&self, observed: &Observed, note: impl FnOnce(&mut Checker, Time) -> T) -> T {
        let mut checker = observed.checker.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut checker, self.now())
    }

    /// Takes the checker of a log, after all clients have ended.
    pub fn take_checker(&self, observed: &Observed) -> Checker {
        std::mem::take(&mut *observed.checker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The flag that ends the clients.
    pub fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Waits, for at most this long, or until the run stops.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stops() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left.min(Duration::from_millis(50)));
        }
    }

    pub fn add(&self, host: usize, addr: String) {
        self.addrs.lock().unwrap_or_else(PoisonError::into_inner).insert(host, addr);
    }

    pub fn remove(&self, host: usize) {
        self.addrs.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// Returns the client addresses of all members, in order of their hosts.
    pub fn addrs(&self) -> Vec<String> {
        let addrs = self.addrs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addrs: Vec<(usize, String)> = addrs.iter().map(|(host, addr)| (*host, addr.clone())).collect();
        addrs.sort();
        addrs.into_iter().map(|(_, addr)| addr).collect()
    }

    /// A cluster of the client library. Its pauses are short, so that the figures are those of the nodes.
    pub fn cluster(&self) -> Cluster {
        let options = ClusterOptions {
            files: Some(self.files.clone()),
            attempt_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(1),
            backoff_max: Duration::from_millis(500),
            ..ClusterOptions::new(self.addrs())
        };
        Cluster::new(options).expect("the certificates are readable")
    }

    /// A client of the node at an address.
    pub fn client(&self, addr: &str) -> Client {
        client_with(addr, Some(self.files.clone()))
    }

    pub fn problem(&self, text: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Returns what was reported, and what the checkers have found so far.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for observed in &self.logs {
            let found = self.note(observed, |checker, _| checker.found().to_vec());
            problems.extend(found.iter().map(|wrong| format!("log {}: {wrong:?}", observed.log)));
        }
        problems
    }
}

/// Clients of single nodes, by address. One of them is used until it fails.
pub struct Clients<'a> {
    field: &'a Field,
    known: HashMap<String, Client>,
    turn: usize,
}

impl<'a> Clients<'a> {
    pub fn new(field: &'a Field, random: &mut Random) -> Clients<'a> {
        Clients { field, known: HashMap::new(), turn: random.below(16) as usize }
    }

    /// Returns the client of the node whose turn it is.
    pub fn get(&mut self) -> Client {
        let addrs = self.field.addrs();
        let addr = &addrs[self.turn % addrs.len()];
        self.known.retain(|known, _| addrs.contains(known));
        self.known.entry(addr.clone()).or_insert_with(|| self.field.client(addr)).clone()
    }

    /// It is the next node's turn.
    pub fn next(&mut self) {
        self.turn += 1;
    }
}

/// The content of a record: its producer and number, and padding of a length that it states.
pub fn value(item: Item, padding: usize) -> Vec<u8> {
    format!("{} {} {padding} {}", item.producer, item.number, "x".repeat(padding)).into_bytes()
}

/// A record of which this is the number was never sent: its value is damaged.
const DAMAGED: Item = Item { producer: u16::MAX, number: 0 };

/// Returns which record a value is.
pub fn item(value: &[u8]) -> Item {
    parse(value).unwrap_or(DAMAGED)
}

fn parse(value: &[u8]) -> Option<Item> {
    let mut words = std::str::from_utf8(value).ok()?.splitn(4, ' ');
    let item = Item { producer: words.next()?.parse().ok()?, number: words.next()?.parse().ok()? };
    let (length, padding) = (words.next()?.parse::<usize>().ok()?, words.next()?);
    (length == padding.len() && padding.bytes().all(|byte| byte == b'x')).then_some(item)
}

/// Returns what a reader found in a record of the API.
pub fn found(record: &seriatim::pb::v1::Record) -> Found {
    Found { offset: record.offset, item: item(&record.value), append_time_us: record.append_time_us }
}

#[test]
fn a_damaged_value_is_no_record_that_was_sent() {
    let sent = Item { producer: 3, number: 70 };
    assert_eq!(item(&value(sent, 5)), sent);
    for damaged in ["3 70 5 xxxx", "3 70 5 xxxxy", "3 70 5", "", "3 x 1 x"] {
        assert_eq!(item(damaged.as_bytes()), DAMAGED, "{damaged}");
    }
}
