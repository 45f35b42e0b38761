//! A TCP forwarder between the nodes, which can delay, hold and cut what passes.
//!
//! ```text
//!   node a ──dials the advertised address of b──► listener of b ──► real address of b
//!            (the source address shows that it is a)    │
//!                                        the rules of (a, b) and of (b, a)
//! ```
//!
//! Each node advertises an address of the forwarder, one port for each node, and the forwarder passes connections on to
//! the real address. Rules are for a direction: those of `(a, b)` concern all bytes from `a` to `b`, whichever of the two
//! has opened the connection. TCP cannot lose bytes in the middle of a stream, so bytes are held, and a lost connection
//! is one that is reset, or one that is accepted and stays silent.
//!
//! Each connection has two threads for each direction: one reads, one writes when a chunk is due. A bounded channel
//! between them makes the sender wait, as a full window would.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

use crate::load::Random;

/// A chunk of bytes, or the end of the stream, with the time at which it arrives.
type Chunk = (Instant, Vec<u8>);

const CHUNK_BYTES: usize = 16 << 10;
/// The number of chunks of a direction that are under way. Then the sender waits.
const CHUNKS_MAX: usize = 256;
/// How long a connection to a node may take. A node is on the same machine.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How often a thread that waits looks whether the forwarder ends.
const POLL: Duration = Duration::from_millis(50);

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The number of faults that hold the bytes. They wait until it is 0.
    pub held: u32,
    /// Each chunk is late by this, and by a random part of the jitter.
    pub delay: Duration,
    pub jitter: Duration,
    /// One of this many chunks resets its connection. 0: none.
    pub reset_one_in: u64,
    /// The number of faults that reset connections which this node opens to the other one.
    pub refused: u32,
}

/// One node that is reached through the forwarder.
struct Target {
    /// Its real address.
    real: SocketAddr,
    /// Where the forwarder listens for it.
    advertised: SocketAddr,
    /// A socket that is bound to this address and never listens. Without it, the system could use the port for an outgoing
    /// connection while the forwarder refuses connections.
    _port: OwnedFd,
    /// The thread that accepts. Without it, connections are refused.
    listening: Option<Listening>,
}

struct Listening {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Both sockets of a connection, so that it can be cut.
struct Open {
    id: u64,
    ends: [usize; 2],
    sockets: [TcpStream; 2],
}

struct State {
    /// By source and destination.
    rules: Vec<Vec<Rule>>,
    open: Vec<Open>,
    random: Random,
    ends: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    next_id: AtomicU64,
    /// The real addresses of the nodes, without ports.
    hosts: Vec<IpAddr>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes of a direction may pass. Returns false if the connection must be reset.
    fn wait_to_pass(&self, from: usize, to: usize, due: Instant, is_cut: &AtomicBool) -> bool {
        let mut state = self.state();
        loop {
            if state.ends || is_cut.load(Ordering::Relaxed) {
                return false;
            }
            let now = Instant::now();
            let wait = match (state.rules[from][to].held > 0, due.saturating_duration_since(now)) {
                (true, _) => POLL,
                (false, Duration::ZERO) => return true,
                (false, left) => left.min(POLL),
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns when a chunk that was read now arrives. `None`: the connection is reset.
    fn due(&self, from: usize, to: usize) -> Option<Instant> {
        let mut state = self.state();
        let rule = state.rules[from][to];
        if rule.reset_one_in > 0 && state.random.below(rule.reset_one_in) == 0 {
            return None;
        }
        let jitter = rule.jitter.as_micros() as u64;
        let more = if jitter == 0 { 0 } else { state.random.below(jitter) };
        Some(Instant::now() + rule.delay + Duration::from_micros(more))
    }
}

/// Returns a socket that is bound to an address, and to which others can be bound that this function returns.
fn bound(addr: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_reuseport(&socket, true)?;
    bind(&socket, &addr)?;
    Ok(socket)
}

/// The forwarder. Dropping it ends all connections and threads.
pub struct Forwarder {
    shared: Arc<Shared>,
    targets: Vec<Target>,
}

impl Forwarder {
    /// Creates a forwarder on `host` for nodes at these addresses. It listens for none of them yet.
    pub fn new(host: IpAddr, nodes: &[SocketAddr], seed: u64) -> Forwarder {
        let state = State {
            rules: vec![vec![Rule::default(); nodes.len()]; nodes.len()],
            open: Vec::new(),
            random: Random::new(seed),
            ends: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            next_id: AtomicU64::new(0),
            hosts: nodes.iter().map(SocketAddr::ip).collect(),
        };
        let targets = nodes.iter().map(|real| {
            let port = bound(SocketAddr::new(host, 0)).expect("a port");
            let advertised = getsockname(&port).ok().and_then(|addr| SocketAddr::try_from(addr).ok());
            Target { real: *real, advertised: advertised.expect("an address"), _port: port, listening: None }
        });
        Forwarder { shared: Arc::new(shared), targets: targets.collect() }
    }

    /// Returns the address that a node advertises.
    pub fn advertised(&self, node: usize) -> SocketAddr {
        self.targets[node].advertised
    }

    /// Accepts connections to a node.
    pub fn listen(&mut self, node: usize) {
        let target = &mut self.targets[node];
        if target.listening.is_some() {
            return;
        }
        let listener = bound(target.advertised).expect("the port is this forwarder's");
        listen(&listener, 128).expect("a listener");
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, real, stopped) = (self.shared.clone(), target.real, stop.clone());
        let thread = std::thread::spawn(move || accept(&shared, &listener, node, real, &stopped));
        target.listening = Some(Listening { stop, thread });
    }

    /// Refuses connections to a node, as the kernel of a host does where nothing listens.
    pub fn close(&mut self, node: usize) {
        if let Some(listening) = self.targets[node].listening.take() {
            listening.stop.store(true, Ordering::Relaxed);
            listening.thread.join().expect("the thread that accepts");
        }
    }

    /// Changes the rule of a direction.
    pub fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Rule)) {
        change(&mut self.shared.state().rules[from][to]);
        self.shared.changed.notify_all();
    }

    /// Resets all connections between two nodes. Returns their number.
    pub fn cut(&self, a: usize, b: usize) -> usize {
        let state = self.shared.state();
        let between = state.open.iter().filter(|open| open.ends == [a, b] || open.ends == [b, a]);
        between.map(|open| open.sockets.iter().for_each(reset)).count()
    }

    /// Returns true if no direction has a rule.
    pub fn is_plain(&self) -> bool {
        self.shared.state().rules.iter().flatten().all(|rule| *rule == Rule::default())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        for node in 0..self.targets.len() {
            self.close(node);
        }
        let mut state = self.shared.state();
        state.ends = true;
        state.open.iter().for_each(|open| open.sockets.iter().for_each(reset));
        drop(state);
        self.shared.changed.notify_all();
        // The threads of connections end by themselves: their sockets are closed.
    }
}

/// Closes a connection at once: what it has not sent yet is dropped, and the other side gets an error.
fn reset(socket: &TcpStream) {
    // It may be closed already.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
    let _ = socket.shutdown(Shutdown::Both);
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, to: usize, real: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((socket, source)) => {
                let Some(from) = shared.hosts.iter().position(|host| *host == source.ip()) else { continue };
                let shared = shared.clone();
                std::thread::spawn(move || connect(&shared, socket, from, to, real));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(Duration::from_millis(2)),
            Err(error) => panic!("the forwarder can't accept: {error}"),
        }
    }
}

/// Connects an accepted connection to its node.
fn connect(shared: &Arc<Shared>, near: TcpStream, from: usize, to: usize, real: SocketAddr) {
    near.set_nonblocking(false).expect("a socket");
    let is_refused = shared.state().rules[from][to].refused > 0;
    let Some(far) = (!is_refused).then(|| TcpStream::connect_timeout(&real, CONNECT_MAX).ok()).flatten() else {
        return reset(&near);
    };
    for socket in [&near, &far] {
        socket.set_nodelay(true).expect("a socket");
    }
    let clone = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let mut state = shared.state();
    if state.ends {
        return;
    }
    state.open.push(Open { id, ends: [from, to], sockets: [clone(&near), clone(&far)] });
    drop(state);
    let is_cut = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_cut = &is_cut;
        for (source, sink, from, to) in [(&near, &far, from, to), (&far, &near, to, from)] {
            let (sender, chunks) = bounded(CHUNKS_MAX);
            scope.spawn(move || read(shared, source, sink, from, to, &sender, is_cut));
            scope.spawn(move || write(shared, source, sink, from, to, &chunks, is_cut));
        }
    });
    shared.state().open.retain(|open| open.id != id);
}

fn read(
    shared: &Shared,
    mut source: &TcpStream,
    sink: &TcpStream,
    from: usize,
    to: usize,
    chunks: &Sender<Chunk>,
    is_cut: &AtomicBool,
) {
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut last = Instant::now();
    loop {
        // An error is a connection that was reset. Its end is passed on like bytes.
        let count = source.read(&mut bytes).unwrap_or(0);
        let Some(due) = shared.due(from, to) else {
            is_cut.store(true, Ordering::Relaxed);
            reset(source);
            return reset(sink);
        };
        // The order is kept.
        last = last.max(due);
        if chunks.send((last, bytes[..count].to_vec())).is_err() || count == 0 {
            return;
        }
    }
}

fn write(
    shared: &Shared,
    source: &TcpStream,
    mut sink: &TcpStream,
    from: usize,
    to: usize,
    chunks: &Receiver<Chunk>,
    is_cut: &AtomicBool,
) {
    for (due, bytes) in chunks {
        if !shared.wait_to_pass(from, to, due, is_cut) || bytes.is_empty() || sink.write_all(&bytes).is_err() {
            break;
        }
    }
    // One side that has ended ends the other one: no peer uses a connection that is half closed.
    is_cut.store(true, Ordering::Relaxed);
    let _ = sink.shutdown(Shutdown::Both);
    let _ = source.shutdown(Shutdown::Both);
}

#[cfg(test)]
#[path = "forwarder_tests.rs"]
mod tests;
