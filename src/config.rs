//! The configuration of `serve`: flags, then environment, then a TOML file, then defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::types::NodeName;

/// The options of `seriatim serve`, as they are given.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// A TOML file with the same options
    #[arg(long, env = "SERIATIM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Certificates and keys, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority of clients' certificates.
    pub client_ca_file: PathBuf,
    /// The authority of peers' certificates.
    pub peer_ca_file: PathBuf,
    /// The certificate of the client listener.
    pub server_cert_file: PathBuf,
    /// Its key.
    pub server_key_file: PathBuf,
    /// The certificate of the peer listener and of this node as it dials its peers.
    pub peer_cert_file: PathBuf,
    /// Its key.
    pub peer_key_file: PathBuf,
}

/// What one principal, or the process, may use at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open streams of one principal.
    pub streams_per_principal_max: u32,
    /// Bytes of one principal's requests that are not answered yet.
    pub bytes_per_principal_max: u64,
    /// Memory that gRPC may use for the client listener.
    pub client_memory_bytes_max: u64,
    /// Memory that gRPC may use for the peer listener.
    pub peer_memory_bytes_max: u64,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the node is called.
    pub node_name: NodeName,
    /// The cluster that it belongs to.
    pub cluster_name: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Where it listens for peers.
    pub bind_addr: SocketAddr,
    /// Where it listens for clients.
    pub rpc_addr: SocketAddr,
    /// Where peers reach it; none: at `bind_addr`, with the port that it got.
    pub advertise_bind_addr: Option<String>,
    /// Where clients reach it; none: at `rpc_addr`, with the port that it got.
    pub advertise_rpc_addr: Option<String>,
    /// `bind_addr`s of other nodes.
    pub join: Vec<String>,
    /// Found a cluster on a blank data directory.
    pub bootstrap: bool,
    /// Look for peers by mDNS.
    pub mdns: bool,
    /// None: `--insecure`.
    pub tls: Option<TlsFiles>,
    /// The casbin model; none: the built-in one.
    pub acl_model_file: Option<PathBuf>,
    /// The access policy.
    pub acl_policy_file: PathBuf,
    /// A segment rolls beyond this.
    pub segment_bytes: u64,
    /// What one principal, or the process, may use at once.
    pub limits: Limits,
    /// The log's level.
    pub log_level: log::LevelFilter,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<String>);

impl Config {
    /// Puts flags, environment (clap reads both), file and defaults together and checks them.
    ///
    /// # Errors
    /// [`ConfigProblems`]: all of them at once.
    pub fn load(args: &ServeArgs) -> Result<Config, ConfigProblems> {
        todo!("{args:?}")
    }

    /// For tests in one process: node `name` with its data in `<dir>/<name>`, on free ports of 127.0.0.1, insecure, with the
    /// policy in `<dir>/policy.csv`.
    pub fn for_test(dir: &Path, name: &str) -> Config {
        todo!("{dir:?} {name}")
    }
}
