//! Hostile clients: whatever they do, an honest client's calls succeed and the node's memory stays within its bound.
//!
//! The hostile ones have certificates, where they have any, of other names than the honest one. `make hostile` runs the
//! whole; without `SERIATIM_TEST_HOSTILE=full` it is a tenth of it. Times are printed and not judged: they are the
//! machine's. How much of them is, is seen at a second node that nobody attacks: it has the same honest calls at the same time,
//! on processors that the attackers use as well. They get of them what the nodes and the honest clients leave (`from_afar`).

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::stream::StreamExt as _;
use grpcio::{CallOption, ClientSStreamReceiver};
use seriatim::client::Client;
use seriatim::pb::log::{ConsumeRequest, ConsumeResponse, ProduceRequest, Start};
use seriatim::pb::log_grpc::LogClient;

use crate::harness::{Cluster, PATIENCE, eventually, loudly, memory_bytes, record};
use crate::raw::{Connection, Dialer};

/// What docs/PROTOCOL.md, "Memory", promises of a node with the default limits.
fn memory_bytes_max(scale: &Scale) -> u64 {
    let connections = (scale.idle + scale.garbage + scale.few + 20) as u64;
    let (program, grpc, in_flight, uncommitted) = (32 << 20, 512 << 20, 64 << 20, 64 << 20);
    program + grpc + in_flight + uncommitted + connections * (100 << 10) + scale.tails as u64 * (11 << 10)
}

/// The honest client calls ten times a second, and not as fast as it is answered: each of its records is one more message to
/// each of ten thousand tails.
const PACE: Duration = Duration::from_millis(100);

/// The node's memory is looked at as often.
const MEMORY_PACE: Duration = Duration::from_millis(20);

/// How much of everything.
pub struct Scale {
    idle: usize,
    garbage: usize,
    tails: usize,
    /// Connections of each of the other kinds.
    pub few: usize,
    pub seconds: u64,
}

fn is_full() -> bool {
    std::env::var("SERIATIM_TEST_HOSTILE").is_ok_and(|v| v == "full")
}

pub fn scale() -> Scale {
    if is_full() {
        Scale { idle: 1000, garbage: 1000, tails: 10_000, few: 16, seconds: 10 }
    } else {
        Scale { idle: 100, garbage: 100, tails: 1000, few: 2, seconds: 1 }
    }
}

/// Who watches the node's memory.
pub struct Memory {
    process: u32,
    peak: AtomicU64,
}

impl Memory {
    pub fn of(process: u32) -> Memory {
        Memory { process, peak: AtomicU64::default() }
    }

    fn look(&self) -> u64 {
        let now = memory_bytes(self.process);
        self.peak.fetch_max(now, Ordering::Relaxed);
        now
    }
}

/// The honest client: appends and reads, one after the other, and fails at the first call that does.
pub struct Honest {
    attacked: Calls,
    alone: Calls,
    /// The produces of an attack that has two parts, its coming and its staying.
    attack: Mutex<Vec<Duration>>,
}

impl Honest {
    pub fn new(attacked: Client, alone: Client) -> Honest {
        Honest { attacked: Calls::new(attacked), alone: Calls::new(alone), attack: Mutex::default() }
    }

    fn report(&self, what: &str, memory: &Memory) {
        let (produces, consumes) = (take_sorted(&self.attacked.produce), take_sorted(&self.attacked.consume));
        let alone = median(&take_sorted(&self.alone.produce));
        take_sorted(&self.alone.consume);
        let (now, peak) = (memory.look() >> 10, memory.peak.load(Ordering::Relaxed) >> 10);
        let mut attack = self.attack.lock().expect("no panic");
        let goes_on = what.starts_with("and ");
        if !goes_on {
            attack.clear();
        }
        attack.extend(&produces);
        attack.sort();
        let whole = if goes_on { format!(", in all since they came {:.2?}", median(&attack)) } else { String::new() };
        loudly(&format!(
            "  {what:29} {:4} calls, median produce {:8.2?} (alone {alone:8.2?}, worst {:8.2?}) consume {:8.2?}, memory {now} KiB, \
             peak so far {peak}{whole}",
            produces.len(),
            median(&produces),
            produces.last().copied().unwrap_or_default(),
            median(&consumes),
        ));
    }
}

/// The calls to one node, and how long they took.
struct Calls {
    client: Client,
    produce: Mutex<Vec<Duration>>,
    consume: Mutex<Vec<Duration>>,
}

impl Calls {
    fn new(client: Client) -> Calls {
        Calls { client, produce: Mutex::default(), consume: Mutex::default() }
    }

    fn until(&self, over: &AtomicBool) {
        let mut next = Instant::now();
        while !over.load(Ordering::Acquire) {
            self.call();
            next = (next + PACE).max(Instant::now());
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
    }

    fn call(&self) {
        let start = Instant::now();
        let answer = self.client.produce("", vec![record([b'h'; 100])]).expect("an honest produce");
        self.produce.lock().expect("no panic").push(start.elapsed());
        let start = Instant::now();
        let record = self.client.consume_at("", answer.offset).expect("an honest consume");
        self.consume.lock().expect("no panic").push(start.elapsed());
        assert_eq!(&record.value[..], [b'h'; 100]);
    }
}

fn take_sorted(times: &Mutex<Vec<Duration>>) -> Vec<Duration> {
    let mut times = std::mem::take(&mut *times.lock().expect("no panic"));
    times.sort();
    times
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Does what comes from other hosts. On this one it would take the node's processors as well: with sixteen attackers on two of
/// them a busy node waits for its turn among theirs, and an honest call took 11 ms instead of 3 for that alone. So it gets what
/// the others leave, where nothing else runs: among other tests that may be nothing.
fn from_afar<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let afar = scope.spawn(|| {
            if is_full() {
                // Of this thread, and of those that it starts. What gRPC has for all clients of a process runs already.
                rustix::process::nice(19).expect("that needs no rights");
            }
            act()
        });
        afar.join().expect("no panic")
    })
}

/// Runs an attack while the honest client works.
pub fn under(what: &str, honest: &Honest, memory: &Memory, attack: impl FnOnce() + Send) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| honest.attacked.until(&over));
        scope.spawn(|| honest.alone.until(&over));
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                memory.look();
                std::thread::park_timeout(MEMORY_PACE);
            }
        });
        from_afar(attack);
        over.store(true, Ordering::Release);
    });
    honest.report(what, memory);
}

/// Bytes that are no TLS, half a handshake, HTTP/2 without TLS, nothing at all; some stay open.
fn garbage(dialer: &Dialer, connections: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for i in 0..connections {
        let Ok(mut tcp) = dialer.tcp() else { continue };
        let bytes: Vec<u8> = match i % 4 {
            0 => (0..4096)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (noise >> 56) as u8
                })
                .collect(),
            // The header of a record of a handshake, and the beginning of a ClientHello that never ends.
            1 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat(),
            2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            _ => Vec::new(),
        };
        // The node may have closed it already.
        let _ = tcp.write_all(&bytes);
        open.push(tcp);
    }
    open
}

/// Tails that wait at the end, as many on each connection as one takes.
fn tails(clients: &[Client], tails: usize) -> Vec<ClientSStreamReceiver<ConsumeResponse>> {
    let request = ConsumeRequest { start: Start::START_LATEST.into(), max_records: 10, ..ConsumeRequest::default() };
    let logs: Vec<LogClient> = clients.iter().map(|c| LogClient::new(c.channel().clone())).collect();
    (0..tails)
        .map(|i| logs[i % logs.len()].consume_stream_opt(&request, CallOption::default()).expect("a stream"))
        .collect()
}

/// Messages that never become whole: a byte now and then.
fn a_byte_a_second(dialer: &Dialer, connections: usize, seconds: u64) {
    let mut open: Vec<(Connection, Vec<u32>)> = Vec::new();
    for _ in 0..connections {
        let mut connection = dialer.connect().expect("connected");
        let streams: Vec<u32> = (0..100).map(|_| connection.call("/log.v1.Log/Produce")).collect();
        // A message of 8 MiB is announced.
        streams.iter().for_each(|stream| connection.data(*stream, &[0, 0, 0x80, 0, 0]));
        connection.flush().expect("sent");
        open.push((connection, streams));
    }
    for _ in 0..seconds {
        for (connection, streams) in &mut open {
            streams.iter().for_each(|stream| connection.data(*stream, &[0x0a]));
            connection.flush().expect("sent");
        }
        // The attack is made of waiting.
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// HTTP/2 rapid reset: calls that are taken back as they are made, and a new connection at once for one that was closed. How
/// many calls, and how many connections were closed.
fn rapid_reset(dialer: &Dialer, path: &str, connections: usize, seconds: u64) -> (u64, u64) {
    let (calls, closed) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let flood = |mut connection: Connection| {
        while Instant::now() < until {
            for _ in 0..100 {
                let stream = connection.call(path);
                // An empty request is a whole one.
                connection.data(stream, &[0; 5]);
                connection.reset(stream);
            }
            if connection.flush().is_err() || connection.is_closed() {
                closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            calls.fetch_add(100, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while Instant::now() < until {
                    // It may be closed while it says who it is.
                    if let Ok(connection) = dialer.connect() {
                        flood(connection);
                    }
                }
            });
        }
    });
    (calls.into_inner(), closed.into_inner())
}

/// Calls whose messages are larger than anything, side by side.
fn too_large(client: &Client, calls: usize, seconds: u64) {
    let log = LogClient::new(client.channel().clone());
    let until = Instant::now() + Duration::from_secs(seconds);
    for (round, bytes) in [5 << 20, 8 << 20].into_iter().cycle().enumerate() {
        if round >= 2 && Instant::now() >= until {
            return;
        }
        let request = ProduceRequest { records: vec![record(vec![b'x'; bytes])], ..ProduceRequest::default() };
        let option = || CallOption::default().timeout(PATIENCE);
        let calls: Vec<_> = (0..calls).map(|_| log.produce_async_opt(&request, option()).expect("a call")).collect();
        for call in calls {
            block_on(call).expect_err("it is too large");
        }
    }
}

/// Streams from the beginning on of which only the first message is taken.
fn never_read(clients: &[Client], streams: usize) -> Vec<ClientSStreamReceiver<ConsumeResponse>> {
    let request = ConsumeRequest { max_records: 10_000, max_bytes: 4 << 20, ..ConsumeRequest::default() };
    let logs: Vec<LogClient> = clients.iter().map(|c| LogClient::new(c.channel().clone())).collect();
    (0..streams).map(|i| logs[i % logs.len()].consume_stream(&request).expect("a stream")).collect()
}

#[test]
fn hostile_clients_do_not_stop_an_honest_client_or_exhaust_memory() {
    raise_open_files();
    let scale = scale();
    let Scale { idle, garbage: garbage_connections, tails: tail_count, few, seconds } = scale;
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let memory = Memory::of(node.pid());
    let client = cluster.client(0);
    let other = Cluster::start(1);
    let honest = Honest::new(client.clone(), other.client(0));
    loudly(&format!("hostile clients (memory idle: {} KiB)", memory.look() >> 10));
    let quiet = || std::thread::sleep(Duration::from_secs(seconds));
    under("nobody else", &honest, &memory, quiet);

    let dialer = Dialer::new(&node.rpc_addr, &cluster.site.client_files("reader"));
    let mut connections = Vec::new();
    under(&format!("{idle} idle connections come"), &honest, &memory, || {
        connections.extend((0..idle).map(|_| dialer.connect().expect("connected")));
    });
    under("and stay", &honest, &memory, quiet);
    assert!(connections.iter_mut().all(|c| !c.is_closed()), "idle connections stay open");
    let mut open = Vec::new();
    under(&format!("{garbage_connections} garbage connections come"), &honest, &memory, || {
        open = garbage(&dialer, garbage_connections);
    });
    under("and stay", &honest, &memory, quiet);
    drop((connections, open));

    let (site, addr) = (&cluster.site, node.rpc_addr.as_str());
    let readers: Vec<Client> =
        from_afar(|| (0..tail_count.div_ceil(1000)).map(|_| site.client(addr, "reader")).collect());
    let mut waiting = Vec::new();
    under(&format!("{tail_count} tails come"), &honest, &memory, || {
        waiting = tails(&readers, tail_count);
        eventually("all tails are there", || match counter(&client, "seriatim_streams_now") {
            now if now >= tail_count as u64 => Ok(()),
            now => Err(format!("{now} of them")),
        });
    });
    let next = client.get_log("").expect("a log").next_offset;
    under("and each gets every record", &honest, &memory, || {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut seen = next;
        loop {
            for tail in &mut waiting {
                let offset = loop {
                    let answer = block_on(tail.next()).expect("an answer").expect("records");
                    if let Some(last) = answer.records.last().filter(|last| last.offset >= seen) {
                        break last.offset;
                    }
                };
                assert!(offset >= seen);
            }
            if Instant::now() >= until {
                return;
            }
            seen = client.get_log("").expect("a log").next_offset;
        }
    });
    drop(waiting);

    for _ in 0..32 {
        client.produce("", vec![record(vec![b'x'; 1_000_000])]).expect("appended");
    }
    let mut stuck = Vec::new();
    under("readers that never read", &honest, &memory, || {
        stuck = never_read(&readers, few * 64);
        quiet();
    });
    let sibling = cluster.site.client(&node.rpc_addr, "reader");
    let got = sibling.consume_at("", 0).expect("another reader of the same name");
    assert_eq!(got.offset, 0);
    drop((stuck, readers));

    let writer = from_afar(|| site.client(addr, "writer"));
    under("messages of 5 and 8 MiB", &honest, &memory, || too_large(&writer, few * 4, seconds));
    let dialer = Dialer::new(&node.rpc_addr, &cluster.site.client_files("writer"));
    under("a byte a second", &honest, &memory, || a_byte_a_second(&dialer, few, seconds));
    under("nobody else any more", &honest, &memory, quiet);
    let peak = memory.peak.load(Ordering::Relaxed);
    assert!(peak < memory_bytes_max(&scale), "{} KiB of memory", peak >> 10);
    eventually("nothing is held", || match counter(&client, "seriatim_streams_now") {
        0 => Ok(()),
        now => Err(format!("{now} streams")),
    });
}

/// HTTP/2 rapid reset. Once, two connections for a second made an honest call wait for more than ten, and memory grew to 1.2 GiB:
/// gRPC's core reads such calls on any thread that polls, and cleans up behind them on one.
#[test]
fn rapid_resets_do_not_stop_an_honest_client() {
    raise_open_files();
    let Scale { few, seconds, .. } = scale();
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let memory = Memory::of(node.pid());
    let client = cluster.client(0);
    let other = Cluster::start(1);
    let honest = Honest::new(client.clone(), other.client(0));
    loudly(&format!("calls that are taken back (memory idle: {} KiB)", memory.look() >> 10));
    let quiet = || std::thread::sleep(Duration::from_secs(seconds));
    under("nobody else", &honest, &memory, quiet);
    // A method that no handler sees, too.
    for (user, path) in [("reader", "/log.v1.Log/ConsumeStream"), ("writer", "/log.v1.Log/NoSuchMethod")] {
        let dialer = Dialer::new(&node.rpc_addr, &cluster.site.client_files(user));
        let (mut calls, mut closed) = (0, 0);
        let before = counter(&client, "seriatim_flood_connections_closed_total");
        under(&format!("{few} connections of {user}"), &honest, &memory, || {
            (calls, closed) = rapid_reset(&dialer, path, few, seconds);
        });
        let counted = eventually("a closed connection is counted", || {
            match counter(&client, "seriatim_flood_connections_closed_total") - before {
                0 => Err("none".to_owned()),
                counted => Ok(counted),
            }
        });
        loudly(&format!("  {calls} calls were taken back; {closed} connections were closed, {counted} as a flood"));
        assert!(closed > 0, "nobody stopped it");
    }
    under("nobody else any more", &honest, &memory, quiet);
    let peak = memory.peak.load(Ordering::Relaxed);
    assert!(peak < memory_bytes_max(&scale()), "{} KiB of memory", peak >> 10);
}

pub fn counter(client: &Client, name: &str) -> u64 {
    let node = client.get_node().expect("an answer");
    node.counters.iter().find(|c| c.name == name).map_or(0, |c| c.value)
}

/// A connection is a file on each side.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }).expect("open files");
}
