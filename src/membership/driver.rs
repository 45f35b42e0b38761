//! The thread `membership`.

use crate::catalog::Member;
use crate::membership::admission::{Admission, AdmissionError, Found};
use crate::replication::dial::Dialer;
use crate::replication::peers::PeersHandle;
use crate::reply::ReplyReceiver;
use crate::thread::FatalSender;

/// What membership is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Only nodes of this cluster are asked.
    pub cluster_name: String,
    /// Peer addresses that may be members, `host:port`.
    pub join: Vec<String>,
    /// Find and be found by mDNS.
    pub mdns: bool,
}

/// The `membership` thread. Dropping it stops and joins it.
pub struct Membership {
    handle: MembershipHandle,
}

/// What others hold of [`Membership`].
#[derive(Clone, Debug)]
pub struct MembershipHandle {}

impl Membership {
    /// Starts the thread. `me` is this node with the addresses that it advertises.
    ///
    /// # Errors
    /// When the system can't make another thread.
    pub fn start(options: Options, me: Member, dialer: Dialer, fatal: FatalSender) -> std::io::Result<Membership> {
        let _ = (options, me, dialer, fatal);
        todo!()
    }

    /// The handle.
    pub fn handle(&self) -> MembershipHandle {
        self.handle.clone()
    }
}

impl MembershipHandle {
    /// Asks every join address and what mDNS finds, for a few seconds, whether a cluster of our name answers.
    pub fn probe(&self) -> ReplyReceiver<Option<Found>> {
        todo!()
    }

    /// Asks to be admitted, for as long as it takes. The answer comes when a cluster has admitted this node, or will never.
    pub fn admission(&self) -> ReplyReceiver<Result<Admission, AdmissionError>> {
        todo!()
    }

    /// This node is a member (or the founder). From now on it is announced by mDNS, its name and addresses in the catalog
    /// are kept as they are here, and what mDNS says of other members' addresses is suggested to `peers`.
    pub fn admitted(&self, peers: PeersHandle) {
        let _ = peers;
        todo!()
    }

    /// Says goodbye by mDNS and ends the thread; what is still waited for is answered [`AdmissionError::Stopped`].
    pub fn stop(&self) {
        todo!()
    }
}
