//! Why a node refuses a stream or a join of another one, and how that travels: a status with `google.rpc.ErrorInfo`.
//!
//! The other side tells refusals apart by [`Reason`], never by a status' message. Whether a reason passes by itself is a
//! property of the reason: see [`Reason::is_final`].

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use grpcio::{RpcStatus, RpcStatusCode};
use parking_lot::Mutex;
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageFull as _};

use crate::catalog::is_address;
use crate::pb::error_details::ErrorInfo;
use crate::pb::status::Status;

/// The domain of our reasons in `ErrorInfo`.
const DOMAIN: &str = "seriatim";
/// In `ErrorInfo.metadata`: [`Refusal::leader`].
const LEADER: &str = "leader";

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller's certificate is no peer's of this cluster.
    NoPeer,
    /// The policy does not give the caller the right `replicate`.
    NotAllowed,
    /// The caller's certificate is another node's, or one that is refused.
    PeerName,
    /// This node is not a member of a cluster yet, or is stopping.
    NotReady,
    /// No leader of the catalog is in reach, or it changed, or is overloaded.
    NoLeader,
    /// The caller speaks another version of the protocol.
    ProtocolVersion,
    /// The caller wants a cluster of another name.
    ClusterName,
    /// The caller belongs to another cluster.
    ClusterId,
    /// The caller wanted another node than the one at this address.
    WrongNode,
    /// The caller was removed from the cluster, for good.
    Removed,
    /// Another member has the caller's name.
    NameTaken,
    /// Another member, which is there, has one of the caller's addresses.
    AddressTaken,
    /// A process with the caller's id runs at another address: one of the two has a copy of the other's data directory.
    IdTaken,
    /// The request makes no sense.
    Malformed,
    /// Too many nodes of unknown id.
    TooMany,
    /// Another node is joining, and one joins at a time.
    AnotherJoins,
}

impl Reason {
    const ALL: [Reason; 16] = [
        Reason::NoPeer,
        Reason::NotAllowed,
        Reason::PeerName,
        Reason::NotReady,
        Reason::NoLeader,
        Reason::ProtocolVersion,
        Reason::ClusterName,
        Reason::ClusterId,
        Reason::WrongNode,
        Reason::Removed,
        Reason::NameTaken,
        Reason::AddressTaken,
        Reason::IdTaken,
        Reason::Malformed,
        Reason::TooMany,
        Reason::AnotherJoins,
    ];

    /// As it stands in `ErrorInfo.reason`.
    fn text(self) -> &'static str {
        match self {
            Reason::NoPeer => "NO_PEER",
            Reason::NotAllowed => "PEER_NOT_ALLOWED",
            Reason::PeerName => "PEER_NAME",
            Reason::NotReady => "JOINING",
            Reason::NoLeader => "NO_LEADER",
            Reason::ProtocolVersion => "PROTOCOL_VERSION",
            Reason::ClusterName => "CLUSTER_NAME",
            Reason::ClusterId => "CLUSTER_ID",
            Reason::WrongNode => "WRONG_NODE",
            Reason::Removed => "NODE_REMOVED",
            Reason::NameTaken => "NODE_NAME_TAKEN",
            Reason::AddressTaken => "NODE_ADDRESS_TAKEN",
            Reason::IdTaken => "NODE_ID_TAKEN",
            Reason::Malformed => "MALFORMED",
            Reason::TooMany => "TOO_MANY_NODES",
            Reason::AnotherJoins => "ANOTHER_NODE_JOINS",
        }
    }

    fn code(self) -> RpcStatusCode {
        match self {
            Reason::NoPeer => RpcStatusCode::UNAUTHENTICATED,
            Reason::NotAllowed | Reason::PeerName => RpcStatusCode::PERMISSION_DENIED,
            Reason::NotReady | Reason::NoLeader | Reason::AnotherJoins => RpcStatusCode::UNAVAILABLE,
            Reason::ProtocolVersion | Reason::ClusterName | Reason::ClusterId | Reason::WrongNode | Reason::Removed => {
                RpcStatusCode::FAILED_PRECONDITION
            }
            Reason::NameTaken | Reason::AddressTaken | Reason::IdTaken => RpcStatusCode::ALREADY_EXISTS,
            Reason::Malformed => RpcStatusCode::INVALID_ARGUMENT,
            Reason::TooMany => RpcStatusCode::RESOURCE_EXHAUSTED,
        }
    }

    /// What the owner of a node can do that was refused for good.
    pub fn next_step(self) -> &'static str {
        match self {
            Reason::NameTaken => {
                "start it with a --node-name that no other member has; its previous name is still valid"
            }
            Reason::Removed | Reason::IdTaken => {
                "to come back it must join as a new node: with an empty data directory"
            }
            Reason::PeerName => {
                "give it a peer certificate with its node name, and with its former one too if it is being renamed \
                 (`seriatim certs --use-ca --peers NEW+OLD`)"
            }
            Reason::NoPeer
            | Reason::NotAllowed
            | Reason::NotReady
            | Reason::NoLeader
            | Reason::ProtocolVersion
            | Reason::ClusterName
            | Reason::ClusterId
            | Reason::WrongNode
            | Reason::AddressTaken
            | Reason::Malformed
            | Reason::TooMany
            | Reason::AnotherJoins => "",
        }
    }

    /// True if the refusal is a normal event while a node starts, joins or stops, or while a leader is elected.
    fn passes(self) -> bool {
        match self {
            Reason::NotReady | Reason::NoLeader | Reason::AnotherJoins => true,
            Reason::NoPeer
            | Reason::NotAllowed
            | Reason::PeerName
            | Reason::ProtocolVersion
            | Reason::ClusterName
            | Reason::ClusterId
            | Reason::WrongNode
            | Reason::Removed
            | Reason::NameTaken
            | Reason::AddressTaken
            | Reason::IdTaken
            | Reason::Malformed
            | Reason::TooMany => false,
        }
    }

    /// True for what a node that asks to join can't wait out: it must be started otherwise.
    pub fn is_final(self) -> bool {
        match self {
            Reason::Removed | Reason::NameTaken | Reason::IdTaken | Reason::PeerName => true,
            // The address may be another cluster's or an old node's, and the next one right.
            Reason::ProtocolVersion | Reason::ClusterName | Reason::ClusterId | Reason::WrongNode => false,
            Reason::NoPeer | Reason::NotAllowed | Reason::Malformed => false,
            Reason::NotReady | Reason::NoLeader | Reason::AnotherJoins => false,
            Reason::TooMany | Reason::AddressTaken => false,
        }
    }
}

/// A refusal, with a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub reason: Reason,
    /// For the log.
    pub text: String,
    /// Where the leader is, which can decide what this node can't: the peer address.
    pub leader: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: Reason, text: impl Into<String>) -> Refusal {
        Refusal { reason, text: text.into(), leader: None }
    }

    /// The refusal of what only the leader, at this address, can decide.
    pub fn ask_leader(addr: String) -> Refusal {
        let text = format!("the leader of the catalog, at {addr}, decides that");
        Refusal { reason: Reason::NoLeader, text, leader: Some(addr) }
    }

    /// The status that says so.
    pub fn status(&self) -> RpcStatus {
        let metadata = self.leader.iter().map(|addr| (LEADER.to_owned(), addr.clone())).collect();
        let (reason, domain) = (self.reason.text().to_owned(), DOMAIN.to_owned());
        let info = ErrorInfo { reason, domain, metadata, ..ErrorInfo::default() };
        let mut status = Status::new();
        status.code = self.reason.code().into();
        status.message.clone_from(&self.text);
        status.details.push(Any {
            type_url: type_url(),
            value: info.write_to_bytes().unwrap_or_default(),
            ..Any::default()
        });
        RpcStatus::with_details(self.reason.code(), self.text.clone(), status.write_to_bytes().unwrap_or_default())
    }

    /// Reads what [`Refusal::status`] wrote; `None` for any other status. What is refused before a handler runs comes
    /// without details, but says by its code alone what it is.
    pub fn from_status(status: &RpcStatus) -> Option<Refusal> {
        if status.details().is_empty() {
            let bare = [Reason::NoPeer, Reason::NotAllowed].into_iter().find(|r| r.code() == status.code())?;
            return Some(Refusal::new(bare, status.message()));
        }
        let details: Status = crate::pb::parse(status.details()).ok()?;
        let any = details.details.iter().find(|any| any.type_url == type_url())?;
        let info: ErrorInfo = crate::pb::parse(&any.value).ok()?;
        let reason = Reason::ALL.into_iter().find(|r| info.domain == DOMAIN && r.text() == info.reason)?;
        let leader = info.metadata.get(LEADER).filter(|addr| is_address(addr)).cloned();
        Some(Refusal { reason, text: status.message().to_owned(), leader })
    }

    /// The same for what a call ended with.
    pub fn from_error(error: &grpcio::Error) -> Option<Refusal> {
        match error {
            grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => {
                Refusal::from_status(status)
            }
            _ => None,
        }
    }
}

/// A refusal that passes by itself is normal for this long: a node that joins is refused until it is a member.
const NORMAL: Duration = Duration::from_secs(60);
/// The same refusal is logged again after this time.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// At most this many different refusals are kept apart; others are counted together.
const KEPT_MAX: usize = 16;

/// Logs refusals, each at most once per [`LOG_AGAIN`]: a refused node retries within a second, and several may at once.
#[derive(Debug, Default)]
pub(super) struct Rarely(Mutex<HashMap<String, Logged>>);

/// One refusal.
#[derive(Debug)]
struct Logged {
    first: Instant,
    latest: Instant,
    logged: Instant,
}

impl Rarely {
    /// Logs that `what` was refused: as a warning, unless the reason passes by itself and has not lasted.
    pub(super) fn log(&self, what: &str, refusal: &Refusal) {
        if let Some(level) = self.level(format!("{what}: {refusal}"), refusal.reason.passes(), Instant::now()) {
            log::log!(level, "refused {what}: {refusal}");
        }
    }

    fn level(&self, mut text: String, passes: bool, now: Instant) -> Option<log::Level> {
        // Each entry is complete whenever the lock is free.
        let mut kept = self.0.lock();
        kept.retain(|_, refusal| now.saturating_duration_since(refusal.latest) <= LOG_AGAIN);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&text) {
            // Whoever can choose the text must not fill the log: the rest counts as one refusal.
            text.clear();
        }
        let Some(known) = kept.get_mut(&text) else {
            kept.insert(text, Logged { first: now, latest: now, logged: now });
            return Some(if passes { log::Level::Info } else { log::Level::Warn });
        };
        known.latest = now;
        if now.saturating_duration_since(known.logged) <= LOG_AGAIN {
            return None;
        }
        known.logged = now;
        Some(if passes && now.saturating_duration_since(known.first) <= NORMAL {
            log::Level::Info
        } else {
            log::Level::Warn
        })
    }
}

fn type_url() -> String {
    format!("type.googleapis.com/{}", ErrorInfo::descriptor().full_name())
}

/// What a call ended with, in few words for the log.
pub fn error_text(error: &grpcio::Error) -> String {
    match error {
        grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => status.message().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearly each join logged "this node is not a member of a cluster yet" as a warning.
    #[test]
    fn a_refusal_that_passes_is_no_warning_unless_it_lasts() {
        let (rarely, start) = (Rarely::default(), Instant::now());
        let at =
            |text: &str, passes, seconds| rarely.level(text.to_owned(), passes, start + Duration::from_secs(seconds));
        assert_eq!(at("not a member yet", true, 0), Some(log::Level::Info));
        (1..=60).for_each(|second| assert_eq!(at("not a member yet", true, second), None));
        assert_eq!(at("not a member yet", true, 61), Some(log::Level::Warn), "it lasts");
        assert_eq!(at("not a member yet", true, 62), None);
        assert_eq!(at("not a member yet", true, 200), Some(log::Level::Info), "it was over meanwhile");
        assert_eq!(at("another cluster", false, 201), Some(log::Level::Warn));
        assert_eq!(at("another cluster", false, 202), None);
        assert_eq!(at("another cluster", false, 300), Some(log::Level::Warn));
        assert!(Reason::NotReady.passes() && !Reason::ClusterId.passes());
    }

    /// Only the last refusal was remembered: two refused nodes wrote a line for each attempt, 103 a minute, for ever.
    #[test]
    fn several_refused_nodes_write_a_line_each_and_a_flood_of_texts_writes_few() {
        let (rarely, start) = (Rarely::default(), Instant::now());
        let lines = |count: u64, texts: u64| {
            let attempts = (0..count).map(|n| (format!("node {}", n % texts), start + Duration::from_millis(n)));
            attempts.filter_map(|(text, at)| rarely.level(text, false, at)).count()
        };
        assert_eq!(lines(1000, 2), 2);
        assert_eq!(lines(10_000, 10_000), KEPT_MAX - 2 + 1);
    }

    #[test]
    fn every_reason_survives_the_way() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(reason, "because");
            assert_eq!(Refusal::from_status(&refusal.status()), Some(refusal));
        }
        let elsewhere = Refusal::ask_leader("node-2.example:8401".to_owned());
        assert_eq!(Refusal::from_status(&elsewhere.status()), Some(elsewhere));
        let nowhere = Refusal::ask_leader("node-2 example".to_owned());
        assert_eq!(Refusal::from_status(&nowhere.status()).map(|r| r.leader), Some(None));
        assert_eq!(Refusal::from_status(&RpcStatus::new(RpcStatusCode::UNAVAILABLE)), None);
    }
}
