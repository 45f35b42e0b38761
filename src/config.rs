//! The configuration of `seriatim serve`.
//!
//! The value of an option is the first of these that is set: its flag, its environment variable, its key in the TOML
//! file of `--config`, its default.
//!
//! ```text
//!   options.rs     the table of options: name, type, form, default, bounds, help
//!   definition.rs  the types of the table's entries
//!   args.rs        reads flags, environment and file, as text
//!   value.rs       parses and checks each value
//!   problems.rs    collects the errors
//!   config.rs      checks the rules that concern several options
//!   document.rs    generates dist/seriatim.toml and the table in docs/OPERATIONS.md
//! ```
//!
//! An invalid value is always an error, and all errors are reported together. The configuration contains the paths of
//! keys and certificates; `security/` reads and checks the files.

mod address;
mod args;
mod definition;
mod names;
mod options;
mod problems;
mod tls;
mod units;
mod value;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use address::host_port;
pub use definition::OptionDef;
pub use names::{check_cluster_name, host_name};
pub use options::{
    AccessOptions, CLIENT_PORT, ClusterOptions, DiskSpace, Limits, LoggingOptions, NodeOptions, PEER_PORT,
    PeerRuleOptions, ServeArgs, StorageOptions, options,
};
pub use tls::TlsFiles;

use address::check_host_port;
use definition::Form;
use options::{CERTIFICATES, PEERS, Values};
use problems::Problems;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name, addresses and data directory.
    pub node: NodeOptions,
    /// The cluster, and how to find it.
    pub cluster: ClusterOptions,
    /// `None` with `--insecure`.
    pub tls: Option<TlsFiles>,
    /// Rules for accepting peers.
    pub peer_rules: PeerRuleOptions,
    /// The access policy.
    pub access: AccessOptions,
    /// Size of segments, and the verification of stored files.
    pub storage: StorageOptions,
    /// Watermarks of free space.
    pub disk_space: DiskSpace,
    /// Limits of clients and peers.
    pub limits: Limits,
    /// The log level.
    pub logging: LoggingOptions,
}

/// All errors of a configuration. Each starts with the flag of its option, or the path of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(.0))]
pub struct ConfigProblems(pub Vec<String>);

/// Formats the errors, one per line.
fn list(problems: &[String]) -> String {
    match problems {
        [one] => format!("invalid configuration: {one}"),
        many => format!("invalid configuration, {} errors:\n  {}", many.len(), many.join("\n  ")),
    }
}

impl Config {
    /// Combines `args` (flags and environment, read by clap) with the file and the defaults, and checks the result.
    ///
    /// # Errors
    /// All errors at once.
    pub fn load(args: &ServeArgs) -> Result<Config, ConfigProblems> {
        let (config, problems) = Config::read(&mut args.clone());
        if problems.is_empty() { Ok(config) } else { Err(ConfigProblems(problems)) }
    }

    /// Like [`Config::load`], but also reports the files that can't be read.
    ///
    /// # Errors
    /// All errors at once.
    pub fn load_with_files(args: &ServeArgs) -> Result<Config, ConfigProblems> {
        let mut args = args.clone();
        let (config, mut problems) = Config::read(&mut args);
        problems.extend(unreadable_files(&mut args));
        if problems.is_empty() { Ok(config) } else { Err(ConfigProblems(problems)) }
    }

    /// Adds the options of the file to `args`. Returns a configuration that is only valid without problems.
    fn read(args: &mut ServeArgs) -> (Config, Vec<String>) {
        let mut problems = Problems::default();
        if let Some(file) = args.config.clone().map(PathBuf::from) {
            match fs::read_to_string(&file) {
                Ok(text) => args.fill_from(&file, &text, &mut problems),
                Err(e) => {
                    problems.push(format!("config: {}: {e}", file.display()));
                    problems.set_all_unknown();
                }
            }
        }
        (Config::check(args, &mut problems), problems.list)
    }

    /// Returns a configuration for tests: node `name` with its data in `<dir>/<name>` and the policy
    /// `<dir>/policy.csv`, on free ports of 127.0.0.1, without TLS and mDNS.
    pub fn for_test(dir: &Path, name: &str) -> Result<Config, ConfigProblems> {
        Config::load(&ServeArgs {
            node_name: Some(name.to_owned()),
            data_dir: Some(dir.join(name).display().to_string()),
            bind_addr: Some("127.0.0.1:0".to_owned()),
            rpc_addr: Some("127.0.0.1:0".to_owned()),
            insecure: Some("true".to_owned()),
            acl_policy_file: Some(dir.join("policy.csv").display().to_string()),
            ..ServeArgs::default()
        })
    }

    /// Returns whether the node uses mDNS.
    pub fn mdns(&self) -> bool {
        self.cluster.mdns.unwrap_or_else(|| !self.node.bind_addr.ip().is_loopback())
    }

    /// Reads each option, then checks the rules that concern several options. The result is only valid if no problem
    /// was added.
    fn check(args: &mut ServeArgs, problems: &mut Problems) -> Config {
        let Values { mut node, cluster, tls, peer_rules, access, storage, disk_space, limits, logging } =
            Values::read(args, problems);
        if node.bind_addr == node.rpc_addr && node.bind_addr.port() != 0 {
            let addr = node.bind_addr;
            problems.push(format!("bind-addr, rpc-addr: both are {addr}; give peers and clients different addresses"));
        }
        for (flag, listen_addr, advertised) in [
            ("bind-addr", node.bind_addr, &mut node.advertise_bind_addr),
            ("rpc-addr", node.rpc_addr, &mut node.advertise_rpc_addr),
        ] {
            let may_be_set = advertised.is_none() && problems.is_unknown(&format!("advertise-{flag}"));
            if let Err(problem) = check_advertised(flag, listen_addr, advertised)
                && !may_be_set
            {
                problems.push(problem);
            }
        }
        let tls = if tls.insecure {
            check_insecure(args, &node, problems);
            None
        } else {
            Some(TlsFiles::of(tls, problems))
        };
        if let (Some(soft), Some(hard)) = (disk_space.disk_free_soft_bytes, disk_space.disk_free_hard_bytes)
            && soft < hard
        {
            problems.push(format!("disk-free-soft-bytes: {soft} is below disk-free-hard-bytes, {hard}"));
        }
        Config { node, cluster, tls, peer_rules, access, storage, disk_space, limits, logging }
    }
}

/// Checks the advertised address of a listener, and adds the listener's port if it has none.
fn check_advertised(flag: &str, listen_addr: SocketAddr, advertised: &mut Option<String>) -> Result<(), String> {
    let Some(addr) = advertised else {
        return match listen_addr.ip().is_unspecified() {
            true => Err(format!("{flag}: {listen_addr} can't be dialled; set advertise-{flag} too")),
            false => Ok(()),
        };
    };
    // If the listener's port is 0, the system chooses it later, so it can't be added here.
    let checked = match listen_addr.port() {
        0 => check_host_port(addr, CLIENT_PORT).map(|()| addr.clone()),
        port => host_port(addr, port),
    };
    *addr = checked.map_err(|problem| format!("advertise-{flag}: {problem}"))?;
    Ok(())
}

/// Checks the rules for `--insecure`: other hosts must not be able to reach the node, and options that need TLS must
/// not be set.
fn check_insecure(args: &mut ServeArgs, node: &NodeOptions, problems: &mut Problems) {
    for (flag, addr) in [("bind-addr", node.bind_addr), ("rpc-addr", node.rpc_addr)] {
        if !addr.ip().is_loopback() {
            problems.push(format!("insecure: only allowed on loopback addresses, and {flag} is {addr}"));
        }
    }
    let of_tls = args.slots().filter(|(option, given)| {
        [CERTIFICATES, PEERS].contains(&option.section) && option.name != "insecure" && given.is_some()
    });
    for (option, _) in of_tls {
        problems.push(format!("insecure: conflicts with {}; remove one of them", option.flag));
    }
}

/// Returns the given files that can't be read. Only regular files are opened: a pipe can be read only once.
fn unreadable_files(args: &mut ServeArgs) -> Vec<String> {
    let check = |file: &str| {
        let metadata = fs::metadata(file)?;
        match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            (false, true) => fs::File::open(file).map(drop),
            (false, false) => Ok(()),
        }
    };
    let files = args.slots().filter(|(option, _)| matches!(option.spec.form, Form::File(_)));
    let problem = |(option, given): (&OptionDef, &mut Option<String>)| {
        let file = given.as_deref()?;
        check(file).err().map(|error| format!("{}: {file}: {error}", option.flag))
    };
    files.filter_map(problem).collect()
}

#[cfg(test)]
mod document;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
