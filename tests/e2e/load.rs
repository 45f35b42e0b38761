//! Load and its checks: clients produce in every way, keep the responses, and compare them with the log.
//!
//! The checks hold for every fault: each acknowledged record is at the acknowledged offset, offsets have no gap, no
//! record is in the log twice, a record of unknown outcome is in it at most once, a refused one is not in it, and all
//! nodes have the same bytes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seriatim::client::{Client, Outcome as ErrorOutcome};
use seriatim::pb::v1::{ProduceRequest, Record};

use crate::harness::{Cluster, Site, eventually, read_all, record};

/// The number of concurrent clients.
const PRODUCERS: usize = 4;

/// The outcome of each record that a producer sent, by value.
#[derive(Default)]
pub struct Sent {
    pub acknowledged: BTreeMap<String, u64>,
    pub unknown: Vec<String>,
    pub refused: Vec<String>,
}

/// Runs producers through all addresses while `act` runs. Returns the outcomes that each of them saw.
pub fn under_load<T>(
    site: &Site,
    addrs: &[String],
    random: &mut Random,
    act: impl FnOnce(&mut Random) -> T,
) -> (Vec<Sent>, T) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let seed = random.next();
                scope.spawn(move || {
                    let clients: Vec<Client> = addrs.iter().map(|addr| site.client(addr, "root")).collect();
                    let random = Random::new(seed);
                    // Two send one request at a time, two send pipelined streams.
                    if producer % 2 == 0 {
                        produce(producer, &clients, random, stop)
                    } else {
                        stream(producer, &clients, random, stop)
                    }
                })
            })
            .collect();
        // Producers must also stop when `act` panics, or the scope would wait forever.
        let ending = StopOnDrop(stop);
        let done = act(random);
        drop(ending);
        (producers.into_iter().map(|producer| producer.join().expect("a producer")).collect(), done)
    })
}

/// Sets the flag when dropped.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Compares the nodes' records with the outcomes that the producers saw. Nothing may have been trimmed.
pub fn check(cluster: &Cluster, sent: &[Sent]) {
    let clients = cluster.clients();
    let log = clients[0].get_log("").expect("a log");
    // A node without a replica relays the reads below.
    let replicas = clients
        .iter()
        .filter_map(|client| {
            eventually("every replica has all records", || {
                let node = client.get_node().map_err(|e| e.to_string())?;
                let Some(group) = node.groups.iter().find(|g| g.log == "default") else { return Ok(None) };
                let is_equal = group.next_offset == log.position.next_offset;
                is_equal.then_some(Some(group.next_offset)).ok_or(format!("{group:?}"))
            })
        })
        .count();
    assert!(replicas >= clients.len().min(3), "{replicas} replicas");
    let all: Vec<Vec<Record>> = clients.iter().map(read_all).collect();
    for (node, records) in all.iter().enumerate() {
        assert_eq!(records.len() as u64, log.position.next_offset, "node {node}");
        for (number, record) in records.iter().enumerate() {
            assert_eq!(record.offset, number as u64, "node {node}: offsets have no gap");
        }
        assert!(records == &all[0], "node {node} has other bytes than the first");
    }
    let mut found: HashMap<&[u8], u64> = HashMap::new();
    for record in &all[0] {
        let twice = found.insert(&record.value[..], record.offset);
        assert_eq!(twice, None, "twice in the log: {:?}, again at {}", record.value, record.offset);
    }
    let (mut acknowledged, mut unknown, mut unknown_in_log, mut refused) = (0, 0, 0, 0);
    for producer in sent {
        for (value, offset) in &producer.acknowledged {
            assert_eq!(found.remove(value.as_bytes()), Some(*offset), "{value} was acknowledged at {offset}");
            acknowledged += 1;
        }
        for value in &producer.unknown {
            unknown_in_log += usize::from(found.remove(value.as_bytes()).is_some());
            unknown += 1;
        }
        for value in &producer.refused {
            assert_eq!(found.get(value.as_bytes()), None, "{value} was refused and is in the log");
            refused += 1;
        }
    }
    assert!(found.is_empty(), "in the log, but never sent: {found:?}");
    assert!(acknowledged > 0, "nothing was acknowledged in the whole run");
    eprintln!(
        "{acknowledged} records acknowledged, {unknown} of unknown outcome ({unknown_in_log} of them in the log), {refused} refused"
    );
}

/// Sends one request at a time, each to a random node.
fn produce(producer: usize, clients: &[Client], mut random: Random, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    for request in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let values = values(producer, request, &mut random);
        let node = random.below(clients.len() as u64) as usize;
        match clients[node].produce("", values.iter().map(record).collect()) {
            Ok(answer) => sent.acknowledge(values, answer.offset),
            Err(error) => {
                if error.outcome() == ErrorOutcome::None {
                    sent.refused.extend(values)
                } else {
                    sent.unknown.extend(values)
                }
                // A dead node refuses faster than a live one responds, so the loop must not spin.
                clients[node].wait_connected(Duration::from_millis(100));
            }
        }
    }
    sent
}

/// Sends pipelined streams, each to a random node.
fn stream(producer: usize, clients: &[Client], mut random: Random, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut request = 0;
    while !stop.load(Ordering::Relaxed) {
        let node = random.below(clients.len() as u64) as usize;
        let Ok(mut stream) = clients[node].produce_stream() else { continue };
        let (mut unanswered, mut answered, mut open) = (VecDeque::new(), 0, true);
        let length = 50 + random.below(500);
        let mut status = None;
        for _ in 0..length {
            let values = values(producer, request, &mut random);
            request += 1;
            let records = values.iter().map(record).collect();
            unanswered.push_back(values);
            open = stream.send(ProduceRequest { records, ..ProduceRequest::default() });
            if !open || stop.load(Ordering::Relaxed) {
                break;
            }
            if unanswered.len() >= 20 {
                match stream.answer() {
                    Some(Ok(answer)) => sent.acknowledge(unanswered.pop_front().expect("one"), answer.offset),
                    ended => {
                        status = ended;
                        break;
                    }
                }
                answered += 1;
            }
        }
        if open {
            stream.close();
        }
        while status.is_none() {
            match stream.answer() {
                Some(Ok(answer)) => sent.acknowledge(unanswered.pop_front().expect("one"), answer.offset),
                Some(Err(error)) => {
                    status = Some(Err(error));
                    break;
                }
                None => break,
            }
            answered += 1;
        }
        // Requests after the first failure are not proposed, except those that the status names.
        let error = status.and_then(Result::err);
        let certain = error.as_ref().is_some_and(|error| {
            let status = error.status();
            error.outcome() == ErrorOutcome::None
                && status.is_some_and(|s| {
                    s.number("failed_request") == Some(answered) && s.number("unknown_through").is_none()
                })
        });
        let rest = unanswered.into_iter().flatten();
        if certain {
            sent.refused.extend(rest)
        } else {
            sent.unknown.extend(rest)
        }
        clients[node].wait_connected(Duration::from_millis(100));
    }
    sent
}

impl Sent {
    fn acknowledge(&mut self, values: Vec<String>, offset: u64) {
        self.acknowledged.extend((offset..).zip(values).map(|(offset, value)| (value, offset)));
    }
}

/// Returns one to five unique values of various sizes.
fn values(producer: usize, request: u64, random: &mut Random) -> Vec<String> {
    let count = 1 + random.below(5);
    let padding = if random.below(20) == 0 { random.below(50_000) } else { random.below(200) } as usize;
    (0..count).map(|number| format!("{producer}-{request}-{number}-{}", "x".repeat(padding))).collect()
}

/// Sleeps. Only for reaching a random moment: a test never sleeps in order to wait for something.
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// xorshift64*. A seed repeats a run, as far as the timing of threads allows.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// Takes the seed from SEED or from the clock, and prints it.
    pub fn from_env(what: &str) -> Random {
        let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
        });
        eprintln!("{what}, SEED={seed}");
        Random::new(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
