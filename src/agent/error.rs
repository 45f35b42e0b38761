//! The errors of starting and stopping a node, and their exit codes.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::files::FileError;
use crate::api::server::StartError;
use crate::consensus::HostError;
use crate::feature_level::BadTestLevel;
use crate::membership::admission::{AdmissionError, FoundCluster};
use crate::storage::error::StorageError;
use crate::storage::reader::ReadError;
use crate::types::NodeId;

fn lines(errors: &[FileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Why a node does not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Unusable files of the configuration.
    #[error("{}", lines(.0))]
    Files(Vec<FileError>),
    /// An unusable data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A group that can't be recovered.
    #[error(transparent)]
    Consensus(#[from] HostError),
    /// The client listener does not start.
    #[error(transparent)]
    Api(#[from] StartError),
    /// This process can't listen on an address of the configuration.
    #[error("{flag}: {why}")]
    ListenAddr {
        /// The option.
        flag: &'static str,
        /// The address, and why it can't be used.
        why: String,
    },
    /// The peer listener does not start.
    #[error("bind-addr: can't listen for peers on {addr} ({error})")]
    PeerListener {
        /// The configured address.
        addr: SocketAddr,
        /// gRPC's error.
        error: grpcio::Error,
    },
    /// The system refused a thread or random bytes, or a part of the node failed.
    #[error("{0}")]
    System(String),
    /// The data directory belongs to a member of a cluster with another name.
    #[error(
        "cluster-name: {} is the data directory of a member of cluster {stored:?}, but {given:?} is configured. \
         Start it with --cluster-name {stored}, or, to join {given:?} as a new node, with an empty --data-dir",
        data_dir.display()
    )]
    OtherClusterName {
        /// The data directory.
        data_dir: PathBuf,
        /// The name of the cluster that its data belongs to.
        stored: String,
        /// The configured name.
        given: String,
    },
    /// `--bootstrap` is set and the data directory is blank, but a cluster of the same name answers.
    #[error(
        "bootstrap: this node has no data, and a cluster of the same name answers at {} (id {}): founding another one is refused. \
         Start without --bootstrap to join it, or choose another cluster-name",
        .0.addr, .0.cluster_id
    )]
    ClusterExists(FoundCluster),
    /// `--bootstrap` is set, and this node has pledged to another one, which may have founded the cluster.
    #[error(
        "bootstrap: this node has pledged to node {node} at {addr}, which may have founded the cluster: founding another one is \
         refused. Start without --bootstrap to join it; if the disk of that node is gone for good, remove pledge.toml from \
         data-dir first"
    )]
    Pledged {
        /// The other node.
        node: NodeId,
        /// Its address when this node pledged.
        addr: String,
    },
    /// An unusable test switch for feature levels.
    #[error(transparent)]
    FeatureLevel(#[from] BadTestLevel),
    /// The cluster does not admit this node.
    #[error("{0}")]
    NotAdmitted(AdmissionError),
}

impl AgentError {
    /// Returns whether stored data is damaged (exit code 65).
    pub fn is_damage(&self) -> bool {
        match self {
            AgentError::Storage(e) => e.is_damage(),
            AgentError::Consensus(e) => e.is_damage(),
            AgentError::Files(_)
            | AgentError::Api(_)
            | AgentError::ListenAddr { .. }
            | AgentError::PeerListener { .. }
            | AgentError::System(_)
            | AgentError::OtherClusterName { .. }
            | AgentError::ClusterExists(_)
            | AgentError::Pledged { .. }
            | AgentError::FeatureLevel(_)
            | AgentError::NotAdmitted(_) => false,
        }
    }

    /// Returns whether every start will fail until the configuration is changed (exit code 78).
    pub fn is_config(&self) -> bool {
        match self {
            AgentError::Files(_)
            | AgentError::OtherClusterName { .. }
            | AgentError::ClusterExists(_)
            | AgentError::Pledged { .. }
            | AgentError::FeatureLevel(_)
            | AgentError::NotAdmitted(_) => true,
            AgentError::Storage(e) => e.is_config(),
            AgentError::Consensus(e) => e.is_config(),
            AgentError::Api(_)
            | AgentError::ListenAddr { .. }
            | AgentError::PeerListener { .. }
            | AgentError::System(_) => false,
        }
    }

    /// Returns whether the path of the data directory is unusable (exit code 78 at a start).
    pub fn is_unusable_path(&self) -> bool {
        self.storage().is_some_and(StorageError::is_unusable_path)
    }

    /// Returns whether the disk failed to read stored data (exit code 65 at a start).
    pub fn is_unreadable(&self) -> bool {
        // Errors of reading entries have a separate type, which only occurs at a start.
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

/// Returns the error if the system can't create a thread.
pub(super) fn no_thread(error: std::io::Error) -> AgentError {
    AgentError::System(format!("can't create a thread: {error}"))
}
