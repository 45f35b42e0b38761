//! The table of refusal reasons. A new reason is one entry here.
//!
//! Each entry consists of the code in `ErrorInfo.reason`, the status code, the consequence for the refused node, and
//! the next step for the owner of that node.

use grpcio::RpcStatusCode;

use crate::codes::codes;

/// The consequence of a refusal for the refused node. It retries, except in the last two cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Normal while a node starts, joins or stops, or while a leader is elected. Not logged as a warning.
    PassesSoon,
    /// Another node, or another address of the same node, may accept.
    AskAnother,
    /// An operator must change something. Until then every attempt is refused.
    NeedsAChange,
    /// A node that asks to join, to be renamed or to be moved exits: it must be started differently.
    EndsJoin,
    /// Like [`Consequence::EndsJoin`], and a member whose stream is refused exits as well.
    EndsNode,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $consequence:ident $(, $next:literal)?;)+) => {
        codes! {
            /// Why a node refuses a call of another node.
            pub enum Reason: str, "refusal reason" {
                $($(#[$doc])* $name = $code),+
            }
        }

        impl Reason {
            /// Returns the code of the status with which the refusal is sent.
            pub(super) fn status(self) -> RpcStatusCode {
                match self { $(Reason::$name => RpcStatusCode::$status),+ }
            }

            /// Returns the consequence for the refused node.
            pub fn consequence(self) -> Consequence {
                match self { $(Reason::$name => Consequence::$consequence),+ }
            }

            /// Returns what the owner of the refused node can do if it exits. May be empty.
            pub fn next_step(self) -> &'static str {
                match self { $(Reason::$name => concat!($($next)?)),+ }
            }
        }
    };
}

reasons! {
    /// The caller's certificate is not a peer certificate of this cluster.
    NoPeer = "NO_PEER", UNAUTHENTICATED, NeedsAChange;
    /// The access policy does not grant the caller the permission `replicate`.
    NotAllowed = "PEER_NOT_ALLOWED", PERMISSION_DENIED, NeedsAChange;
    /// The caller's certificate belongs to another node, or is denied.
    PeerName = "PEER_NAME", PERMISSION_DENIED, EndsJoin,
        "give it a peer certificate with its node name, and with its former one too if it is being renamed \
         (`seriatim certs --use-ca --peers NEW+OLD`)";
    /// This node is not a member of a cluster yet, or is stopping.
    NotReady = "JOINING", UNAVAILABLE, PassesSoon;
    /// No leader of the catalog is reachable, or it changed, or is overloaded.
    NoLeader = "NO_LEADER", UNAVAILABLE, PassesSoon;
    /// The caller sends no feature levels, and its version of the peer protocol is not supported at the cluster's
    /// level.
    ProtocolVersion = "PROTOCOL_VERSION", FAILED_PRECONDITION, NeedsAChange;
    /// The caller's version does not support the cluster's feature level, which is higher.
    VersionTooOld = "VERSION_TOO_OLD", FAILED_PRECONDITION, EndsNode,
        "start it with the version of the other members, or a newer one";
    /// The caller's version no longer supports the cluster's feature level. This node may lag and know an old level.
    VersionTooNew = "VERSION_TOO_NEW", FAILED_PRECONDITION, NeedsAChange;
    /// According to the caller, the cluster is at a feature level that this node's version does not support.
    OwnVersionTooOld = "OWN_VERSION_TOO_OLD", FAILED_PRECONDITION, NeedsAChange;
    /// The caller asks for a cluster with another name.
    ClusterName = "CLUSTER_NAME", FAILED_PRECONDITION, NeedsAChange;
    /// The caller belongs to another cluster.
    ClusterId = "CLUSTER_ID", FAILED_PRECONDITION, NeedsAChange;
    /// The caller expected another node at this address.
    WrongNode = "WRONG_NODE", FAILED_PRECONDITION, AskAnother;
    /// The caller was removed from the cluster, permanently.
    Removed = "NODE_REMOVED", FAILED_PRECONDITION, EndsNode,
        "to come back it must join as a new node: with an empty data directory";
    /// Another member has the caller's name.
    NameTaken = "NODE_NAME_TAKEN", ALREADY_EXISTS, EndsJoin,
        "start it with a --node-name that no other member has; its previous name is still valid";
    /// The caller has no data, and the name of a member that does not answer. An operator decides whether it replaces
    /// that member.
    MayReplace = "NODE_MAY_REPLACE", FAILED_PRECONDITION, NeedsAChange;
    /// Another member, which answers, has one of the caller's addresses.
    AddressTaken = "NODE_ADDRESS_TAKEN", ALREADY_EXISTS, NeedsAChange;
    /// A process with the caller's id runs at another address: one of the two has a copy of the other's data directory.
    IdTaken = "NODE_ID_TAKEN", ALREADY_EXISTS, EndsJoin,
        "to come back it must join as a new node: with an empty data directory";
    /// The request is malformed.
    Malformed = "MALFORMED", INVALID_ARGUMENT, NeedsAChange;
    /// Too many nodes that the catalog does not contain have called, or the cluster has the maximum number of members.
    TooMany = "TOO_MANY_NODES", RESOURCE_EXHAUSTED, AskAnother;
    /// Another node is joining, and one joins at a time.
    AnotherJoins = "ANOTHER_NODE_JOINS", UNAVAILABLE, PassesSoon;
    /// This node has no replica of the log whose request the caller relays.
    NoReplica = "NO_REPLICA", UNAVAILABLE, AskAnother;
    /// A reason that only a newer version knows. The text contains its code.
    Unknown = "UNKNOWN", UNKNOWN, NeedsAChange;
}

impl Reason {
    /// Returns true if waiting does not help a node that asks to join: it must be started differently.
    pub fn is_final(self) -> bool {
        match self.consequence() {
            Consequence::EndsJoin | Consequence::EndsNode => true,
            Consequence::PassesSoon | Consequence::AskAnother | Consequence::NeedsAChange => false,
        }
    }

    /// Returns true if the two versions are incompatible. The caller then can't tell whether a cluster of its name
    /// answers.
    pub fn is_about_versions(self) -> bool {
        matches!(
            self,
            Reason::ProtocolVersion
                | Reason::VersionTooOld
                | Reason::VersionTooNew
                | Reason::OwnVersionTooOld
                | Reason::Unknown
        )
    }

    pub(super) fn passes_soon(self) -> bool {
        self.consequence() == Consequence::PassesSoon
    }
}
