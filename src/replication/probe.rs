//! Finds out whether the process of a peer has ended, after a connection to it was lost.
//!
//! When a process ends, its kernel closes its connections and its listener. gRPC reports a lost connection, but not
//! why a new one fails. So a thread of its own opens plain connections to the peer's address, and closes them. The
//! process has ended if all of these hold:
//!
//! - the connection to the peer was lost;
//! - the address actively refuses two connections in a row. A timeout or an unreachable host proves nothing, and a
//!   connection that is accepted is a reason to try only once more: the kernel may close the listener last;
//! - the peer has no stream to this node any more. So a firewall that refuses connections to a leader that still
//!   reaches this node is not taken for its end.
//!
//! The verdict may still be wrong. It only makes this node ask for pre-votes earlier, which voters that hear the
//! leader refuse.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::replication::node::LocalNode;
use crate::thread::{FatalSender, Joiner, spawn};
use crate::types::NodeId;

/// The pauses before the attempts. Their sum is less than the time after which a silent leader is replaced anyway.
const PAUSES_MS: [u64; 6] = [0, 15, 20, 40, 80, 160];
/// A connection that takes longer was not refused.
const CONNECT_MAX: Duration = Duration::from_millis(150);
/// The number of refusals in a row that prove that nothing listens.
const REFUSALS_MIN: u32 = 2;
/// The number of accepted connections that prove that the process lives, or runs again.
const ACCEPTED_MAX: u32 = 2;

/// What the attempts have shown so far.
#[derive(Debug, Default)]
struct Evidence {
    refused: u32,
    accepted: u32,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Gone,
    Unclear,
    /// It lives, or nothing can be found out.
    Ends,
}

impl Evidence {
    /// Records the result of an attempt. `is_heard`: the peer has a stream to this node.
    fn judge(&mut self, attempt: &io::Result<()>, is_heard: bool) -> Verdict {
        match attempt {
            Ok(()) => {
                self.refused = 0;
                self.accepted += 1;
                if self.accepted >= ACCEPTED_MAX { Verdict::Ends } else { Verdict::Unclear }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.refused += 1;
                if self.refused >= REFUSALS_MIN && !is_heard { Verdict::Gone } else { Verdict::Unclear }
            }
            Err(_) => Verdict::Ends,
        }
    }
}

/// Opens a connection and closes it. Refused only if each address of a host with several ones refuses.
fn attempt(addresses: &[SocketAddr]) -> io::Result<()> {
    let mut refused = Err(io::Error::from(ErrorKind::NotFound));
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_MAX) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused = Err(error),
            other => return other.map(drop),
        }
    }
    refused
}

/// The thread of one probe. It ends soon after this is dropped, which waits for it: for a connection attempt, or for
/// the name service if the address contains a name.
pub struct Probe {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    _thread: Joiner,
}

impl Probe {
    /// Starts to probe the peer at `addr`. The verdict is passed on to consensus. `None` if the system can't create a
    /// thread.
    pub fn start(id: NodeId, addr: String, node: Arc<LocalNode>, fatal: &FatalSender) -> Option<Probe> {
        let (stop, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stopped, ends) = (stop.clone(), ended.clone());
        let body = move || {
            probe(id, &addr, &node, &stopped);
            ends.store(true, Ordering::Release);
            Ok::<(), Infallible>(())
        };
        let thread = spawn("probe-peer", fatal, body).ok()?;
        Some(Probe { stop, ended, _thread: thread })
    }

    /// Makes its verdict void, without waiting for its thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Returns true if its thread has nothing left to do.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop();
    }
}

fn probe(id: NodeId, addr: &str, node: &LocalNode, stopped: &AtomicBool) {
    let addresses: Vec<SocketAddr> = match addr.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return log::debug!("{addr} is not probed: {error}"),
    };
    let mut evidence = Evidence::default();
    for pause in PAUSES_MS {
        std::thread::sleep(Duration::from_millis(pause));
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let attempt = attempt(&addresses);
        let is_heard = node.heard.is_open(id);
        let verdict = evidence.judge(&attempt, is_heard);
        log::debug!("probe of node {id} at {addr}: {attempt:?}, heard {is_heard}: {verdict:?}");
        match verdict {
            Verdict::Unclear => {}
            Verdict::Ends => return,
            Verdict::Gone => {
                if !stopped.load(Ordering::Acquire) {
                    node.gone(id);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn error(kind: ErrorKind) -> io::Result<()> {
        Err(io::Error::from(kind))
    }

    #[test]
    fn only_two_refusals_in_a_row_of_a_node_that_is_not_heard_prove_its_end() {
        let refused = || error(ErrorKind::ConnectionRefused);
        let judge = |attempts: Vec<(io::Result<()>, bool)>| {
            let mut evidence = Evidence::default();
            attempts.iter().map(|(attempt, heard)| evidence.judge(attempt, *heard)).collect::<Vec<_>>()
        };
        use Verdict::{Ends, Gone, Unclear};
        assert_eq!(judge(vec![(refused(), false), (refused(), false)]), [Unclear, Gone]);
        assert_eq!(judge(vec![(refused(), true), (refused(), true), (refused(), false)]), [Unclear, Unclear, Gone]);
        assert_eq!(
            judge(vec![(refused(), false), (Ok(()), false), (refused(), false), (refused(), false)]),
            [Unclear, Unclear, Unclear, Gone]
        );
        assert_eq!(judge(vec![(Ok(()), false), (Ok(()), false)]), [Unclear, Ends]);
        for kind in [ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::ConnectionReset] {
            assert_eq!(judge(vec![(error(kind), false)]), [Ends]);
        }
    }

    #[test]
    fn an_attempt_tells_a_refused_connection_from_an_accepted_one() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        attempt(&[addr]).expect("accepted");
        drop(listener);
        let kind = |addresses: &[SocketAddr]| attempt(addresses).expect_err("not accepted").kind();
        assert_eq!(kind(&[addr]), ErrorKind::ConnectionRefused);
        assert_eq!(kind(&[]), ErrorKind::NotFound, "a name without an address proves nothing");
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        attempt(&[addr, other.local_addr().expect("an address")]).expect("one of its addresses accepts");
    }
}
