//! Why a node does not start, and what that means for whoever would start it again.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::server::StartError;
use crate::consensus::HostError;
use crate::feature_level::BadTestLevel;
use crate::membership::admission::{AdmissionError, FoundCluster};
use crate::security::acl::AclError;
use crate::security::peer_rules::PeerRulesError;
use crate::security::tls::TlsError;
use crate::storage::error::StorageError;
use crate::storage::reader::ReadError;

/// Why a node does not start, or did not stop cleanly.
#[derive(Debug)]
pub enum AgentError {
    /// A certificate, a key, or an authority can't be used.
    Tls(TlsError),
    /// The access policy can't be used.
    Acl(AclError),
    /// The list of denied peers can't be used.
    PeerRules(PeerRulesError),
    /// The data directory can't be used.
    Storage(StorageError),
    /// A group can't be recovered.
    Consensus(HostError),
    /// The client listener does not start.
    Api(StartError),
    /// The peer listener does not start.
    PeerListener {
        /// Where it should listen.
        addr: SocketAddr,
        /// gRPC's word.
        error: grpcio::Error,
    },
    /// The system gives no thread, or no randomness.
    System(String),
    /// The data directory is that of a member of a cluster with another name.
    OtherClusterName {
        /// The data directory.
        data_dir: PathBuf,
        /// The name of its cluster.
        stored: String,
        /// The configured name.
        given: String,
    },
    /// `--bootstrap` on a blank data directory, and a cluster of that name answers.
    ClusterExists(FoundCluster),
    /// The test switch for feature levels can't be used.
    FeatureLevel(BadTestLevel),
    /// The cluster will not have this node.
    NotAdmitted(AdmissionError),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentError::Tls(e) => e.fmt(f),
            AgentError::Acl(e) => e.fmt(f),
            AgentError::PeerRules(e) => write!(f, "peer-deny-file: {e}"),
            AgentError::Storage(e) => e.fmt(f),
            AgentError::Consensus(e) => e.fmt(f),
            AgentError::Api(e) => e.fmt(f),
            AgentError::PeerListener { addr, error } => {
                write!(
                    f,
                    "bind-addr: can't listen for peers on {addr}: in use by another process, or no address of this host ({error})"
                )
            }
            AgentError::System(what) => f.write_str(what),
            AgentError::OtherClusterName { data_dir, stored, given } => write!(
                f,
                "cluster-name: {} is the data directory of a member of cluster {stored:?}, and the configuration says {given:?}. \
                 Start it with --cluster-name {stored}, or, to join {given:?} as a new node, with an empty --data-dir",
                data_dir.display()
            ),
            AgentError::ClusterExists(found) => write!(
                f,
                "bootstrap: this node has no data, and a cluster of that name answers at {} (id {}): it would found a second one. \
                 Start without --bootstrap to join it, or choose another cluster-name",
                found.addr, found.cluster_id
            ),
            AgentError::FeatureLevel(e) => e.fmt(f),
            AgentError::NotAdmitted(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for AgentError {}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {
        $(impl From<$error> for AgentError {
            fn from(error: $error) -> AgentError {
                AgentError::$variant(error)
            }
        })*
    };
}
from!(BadTestLevel => FeatureLevel, TlsError => Tls, AclError => Acl, PeerRulesError => PeerRules, StorageError => Storage, HostError => Consensus, StartError => Api);

impl AgentError {
    /// True when what is on the disk is not what was written there (exit code 65).
    pub fn is_damage(&self) -> bool {
        match self {
            AgentError::Storage(e) => e.is_damage(),
            AgentError::Consensus(e) => e.is_damage(),
            AgentError::Tls(_)
            | AgentError::Acl(_)
            | AgentError::PeerRules(_)
            | AgentError::Api(_)
            | AgentError::PeerListener { .. }
            | AgentError::System(_)
            | AgentError::OtherClusterName { .. }
            | AgentError::ClusterExists(_)
            | AgentError::FeatureLevel(_)
            | AgentError::NotAdmitted(_) => false,
        }
    }

    /// True when starting again will not help before somebody changes the configuration (exit code 78).
    pub fn is_config(&self) -> bool {
        match self {
            AgentError::Tls(_)
            | AgentError::Acl(_)
            | AgentError::OtherClusterName { .. }
            | AgentError::PeerRules(_)
            | AgentError::ClusterExists(_)
            | AgentError::FeatureLevel(_)
            | AgentError::NotAdmitted(_) => true,
            AgentError::Storage(e) => e.is_config(),
            AgentError::Consensus(e) => e.is_config(),
            AgentError::Api(_) | AgentError::PeerListener { .. } | AgentError::System(_) => false,
        }
    }

    /// True when the data directory's path can't be used (exit code 78 at a start).
    pub fn is_unusable_path(&self) -> bool {
        self.storage().is_some_and(StorageError::is_unusable_path)
    }

    /// True when the disk could not read what is stored (exit code 65 at a start).
    pub fn is_unreadable(&self) -> bool {
        // A read of entries has no storage error of its own; it fails at a start only.
        let entries = matches!(self, AgentError::Consensus(HostError::Read(_, ReadError::Io(_))));
        entries || self.storage().is_some_and(StorageError::is_unreadable)
    }

    fn storage(&self) -> Option<&StorageError> {
        if let AgentError::Storage(error) | AgentError::Consensus(HostError::Storage(error)) = self {
            Some(error)
        } else {
            None
        }
    }
}

/// The system has refused to create a thread.
pub(super) fn no_thread(error: std::io::Error) -> AgentError {
    AgentError::System(format!("no thread can be made: {error}"))
}
