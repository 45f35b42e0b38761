//! The thread `http`: accepts connections, and drives all of them with poll(2).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures::task::ArcWake;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use super::connection::Connection;
use super::handler::Handler;
use super::hosts::Hosts;
use crate::thread::{FatalSender, Joiner, spawn};

/// The maximum number of open connections. A page has one or two at a time, and Prometheus one. If it is reached, see
/// [`Loop::make_room`].
const CONNECTIONS_MAX: usize = 64;
/// The pause after a connection could not be accepted, because the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Wakes the thread, and stops it.
struct Bell {
    fd: OwnedFd,
    stopping: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        // If the counter is full, the thread is awake already.
        let _ = write(&self.fd, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let _ = read(&self.fd, &mut [0; 8]);
    }
}

impl ArcWake for Bell {
    fn wake_by_ref(bell: &Arc<Self>) {
        bell.ring();
    }
}

/// A running server. Dropping it stops it; open connections are closed.
pub struct HttpServer {
    addr: SocketAddr,
    bell: Arc<Bell>,
    thread: Option<Joiner>,
}

impl HttpServer {
    /// Serves the connections to a listener.
    ///
    /// # Errors
    /// If the system refuses a descriptor or a thread.
    pub fn start(listener: TcpListener, hosts: Hosts, handler: Handler, fatal: &FatalSender) -> io::Result<HttpServer> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell { fd, stopping: AtomicBool::new(false) });
        let waker = futures::task::waker(bell.clone());
        let bell_of_loop = bell.clone();
        let run = move || {
            let state = Loop {
                listener,
                hosts,
                handler,
                waker,
                bell: bell_of_loop,
                connections: Vec::new(),
                pause_until: None,
            };
            state.run()
        };
        let thread = spawn("http", fatal, run)?;
        Ok(HttpServer { addr, bell, thread: Some(thread) })
    }

    /// Returns the address of the listener, with its actual port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.bell.stopping.store(true, Ordering::Release);
        self.bell.ring();
        self.thread = None;
    }
}

struct Loop {
    listener: TcpListener,
    hosts: Hosts,
    handler: Handler,
    waker: Waker,
    bell: Arc<Bell>,
    connections: Vec<Connection>,
    /// Until then no connection is accepted.
    pause_until: Option<Instant>,
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        loop {
            let events = self.wait()?;
            if self.bell.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = Instant::now();
            for (connection, events) in self.connections.iter_mut().zip(events) {
                connection.proceed(events, now, &self.hosts, &self.handler, &self.waker);
            }
            self.connections.retain(|connection| !connection.is_closed());
            self.accept(now);
        }
    }

    /// Waits for an event, or for the next deadline. Returns the events of each connection.
    fn wait(&mut self) -> io::Result<Vec<PollFlags>> {
        let now = Instant::now();
        let deadlines = self.connections.iter().map(Connection::deadline).chain(self.pause_until);
        let timeout = deadlines.min().map(|at| timespec(at.saturating_duration_since(now)));
        let accepts = self.pause_until.is_none_or(|until| now >= until);
        let mut fds = vec![PollFd::new(&self.bell.fd, PollFlags::IN)];
        fds.push(PollFd::new(&self.listener, if accepts { PollFlags::IN } else { PollFlags::empty() }));
        fds.extend(self.connections.iter().map(|connection| PollFd::new(connection.stream(), connection.waits_for())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = fds.iter().skip(2).map(PollFd::revents).collect();
        self.bell.silence();
        Ok(events)
    }

    fn accept(&mut self, now: Instant) {
        if self.pause_until.is_some_and(|until| now < until) {
            return;
        }
        self.pause_until = None;
        // Not more in one round, so that a flood of connections does not keep the others from being served.
        for _ in 0..CONNECTIONS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if self.make_room() && stream.set_nonblocking(true).is_ok() {
                        let mut connection = Connection::new(stream, now);
                        // The request is usually there already.
                        connection.proceed(PollFlags::empty(), now, &self.hosts, &self.handler, &self.waker);
                        self.connections.push(connection);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client is gone, or the process has no descriptor left.
                Err(_) => {
                    self.pause_until = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// If the maximum number of connections is open, closes the one whose client has sent no complete request, or has had its
    /// response, for the longest time; if there is none, the one whose client has not read its response for the longest
    /// time. Returns false if all clients wait for the node: then the new connection is closed.
    fn make_room(&mut self) -> bool {
        if self.connections.len() < CONNECTIONS_MAX {
            return true;
        }
        let waiting = self.connections.iter().enumerate().filter_map(|(at, c)| Some((c.waits_since()?, at)));
        let Some((_, oldest)) = waiting.min() else { return false };
        self.connections.swap_remove(oldest);
        true
    }
}

/// Rounded up, so that the deadline has passed when the wait ends.
fn timespec(time: Duration) -> Timespec {
    let time = time + Duration::from_millis(1);
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}
