//! The configuration of `seriatim serve`.
//!
//! The value of an option is the first of these that is set: its flag, its environment variable, its key in the TOML
//! file of `--config`, its default.
//!
//! ```text
//!   options.rs     the table of options: name, place in the file, type, form, default, bounds, help
//!   definition.rs  the types of the table's entries; the tables of the file
//!   origin.rs      where the value of an option was given
//!   args.rs        reads flags and environment, as text
//!   file.rs        reads the file, as text; hints.rs: suggestions for unknown keys
//!   value.rs       parses and checks each value; units.rs: sizes and durations
//!   problems.rs    collects the errors
//!   config.rs      checks the rules that concern several options
//!   document.rs    generates dist/seriatim.toml and the table in docs/OPERATIONS.md
//! ```
//!
//! An invalid value is always an error, and all errors are reported together. The configuration contains the paths of
//! keys and certificates; `security/` reads and checks the files. What users read always says which address is for
//! peers (`bind_addr`, `[listen.peer]`) and which for clients (`rpc_addr`, `[listen.client]`).

mod address;
mod args;
mod definition;
mod file;
mod hints;
mod names;
mod options;
mod origin;
mod problems;
mod tls;
mod units;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use address::host_port;
pub use definition::OptionDef;
pub use file::CONFIG_VERSION;
pub use names::{check_cluster_name, host_name};
pub use options::{
    AccessOptions, CLIENT_PORT, ClusterOptions, DiskSpace, HTTP_PORT, HttpOptions, Limits, LoggingOptions, NodeOptions,
    PEER_PORT, PeerRuleOptions, ReplicationOptions, ServeArgs, StorageOptions, options,
};
pub use origin::{Origin, Origins};
pub use tls::TlsFiles;
pub use value::HttpAddr;

use address::check_host_port;
use definition::{Default as OptionDefault, Form};
use options::{Values, tables};
use problems::Problems;
use units::Unit;

use crate::types::NodeName;

/// What a node advertises that listens on all addresses, if no address is named (`agent/advertised.rs`).
const ONLY_ADDRESS: &str = "the host's entry in join, or its only address";

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name, addresses and data directory.
    pub node: NodeOptions,
    /// The listener for monitoring.
    pub http: HttpOptions,
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
    /// How lagging followers catch up.
    pub replication: ReplicationOptions,
    /// Watermarks of free space.
    pub disk_space: DiskSpace,
    /// Limits of clients and peers.
    pub limits: Limits,
    /// The log level.
    pub logging: LoggingOptions,
}

/// All errors of a configuration. Each starts with the place at which the option was given, or with the path of the
/// file.
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

/// The value of one option, and where it was given.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is set.
    pub option: &'static OptionDef,
    /// The value as a user would write it; `None` if the option is not set and has no default.
    pub value: Option<String>,
    /// Where it was given.
    pub origin: Origin,
}

/// Everything that is known about a configuration, although it may have errors.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// All errors of the options and the file, and the files that can't be read.
    pub problems: Vec<String>,
    /// What the user should change although the node starts: a file in the form of earlier versions.
    pub warnings: Vec<String>,
    /// Every option, in the order of the file. Only meaningful without errors.
    pub settings: Vec<Setting>,
    /// Only usable without errors: an unknown value is replaced by a placeholder.
    config: Config,
    /// The files that are reported as unreadable.
    unreadable: BTreeSet<PathBuf>,
    is_name_known: bool,
    is_cluster_known: bool,
}

impl LoadedConfig {
    /// Combines `args` (flags and environment, read by clap) with the file and the defaults, checks the result, and
    /// whether the files that it names can be read.
    pub fn read(args: &ServeArgs) -> LoadedConfig {
        let mut args = args.clone();
        let (config, values, mut problems, warnings) = Config::read(&mut args);
        let unreadable = unreadable_files(&mut args, &mut problems);
        LoadedConfig {
            settings: settings(&mut args, &config, &values),
            is_name_known: !problems.is_unknown("node_name"),
            is_cluster_known: !problems.is_unknown("cluster_name"),
            problems: problems.list,
            warnings,
            config,
            unreadable,
        }
    }

    /// Returns the configuration.
    ///
    /// # Errors
    /// All errors at once.
    pub fn config(self) -> Result<Config, ConfigProblems> {
        if self.problems.is_empty() { Ok(self.config) } else { Err(ConfigProblems(self.problems)) }
    }

    /// Returns the configuration although it may have errors, to check the files that it names. Unknown paths are
    /// empty.
    pub fn with_placeholders(&self) -> &Config {
        &self.config
    }

    /// Returns the name of the node, if it is known.
    pub fn node_name(&self) -> Option<&NodeName> {
        self.is_name_known.then_some(&self.config.node.node_name)
    }

    /// Returns the name of the cluster, if it is known.
    pub fn cluster_name(&self) -> Option<&str> {
        self.is_cluster_known.then_some(self.config.cluster.cluster_name.as_str())
    }

    /// Returns the options whose values differ from `other`, with their new values.
    pub fn changed_from(&self, other: &[Setting]) -> Vec<Setting> {
        let differs = |(new, old): &(&Setting, &Setting)| new.value != old.value;
        self.settings.iter().zip(other).filter(differs).map(|(new, _)| new.clone()).collect()
    }

    /// Returns whether this file should be checked: its path is known, and it is not already reported as unreadable.
    pub fn is_checkable(&self, file: &Path) -> bool {
        !file.as_os_str().is_empty() && !self.unreadable.contains(file)
    }
}

impl Config {
    /// Combines `args` (flags and environment, read by clap) with the file and the defaults, and checks the result.
    ///
    /// # Errors
    /// All errors at once.
    pub fn load(args: &ServeArgs) -> Result<Config, ConfigProblems> {
        let (config, _, problems, _) = Config::read(&mut args.clone());
        if problems.list.is_empty() { Ok(config) } else { Err(ConfigProblems(problems.list)) }
    }

    /// Adds the options of the file to `args`. Returns a configuration that is only valid without problems, the values
    /// before rules that concern several options, the problems and the warnings.
    fn read(args: &mut ServeArgs) -> (Config, Values, Problems, Vec<String>) {
        let mut problems = Problems::default();
        let mut warnings = Vec::new();
        problems.list.append(&mut args.origins.twice);
        if let Some(file) = args.config.clone().map(PathBuf::from) {
            match fs::read_to_string(&file) {
                Ok(text) => warnings.extend(args.fill_from(&file, &text, &mut problems)),
                Err(e) => {
                    problems.push(format!("--config: {}: {e}", file.display()));
                    problems.set_all_unknown();
                }
            }
        }
        let (config, values) = Config::check(args, &mut problems);
        (config, values, problems, warnings)
    }

    /// Returns a configuration for tests: node `name` with its data in `<dir>/<name>` and the policy
    /// `<dir>/policy.csv`, on free ports of 127.0.0.1, without TLS and mDNS.
    pub fn for_test(dir: &Path, name: &str) -> Result<Config, ConfigProblems> {
        Config::load(&ServeArgs {
            node_name: Some(name.to_owned()),
            data_dir: Some(dir.join(name).display().to_string()),
            bind_addr: Some("127.0.0.1:0".to_owned()),
            rpc_addr: Some("127.0.0.1:0".to_owned()),
            http_addr: Some("off".to_owned()),
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
    fn check(args: &mut ServeArgs, problems: &mut Problems) -> (Config, Values) {
        problems.set_labels(args.labels());
        let values = Values::read(args, problems);
        let Values {
            mut node,
            http,
            cluster,
            tls,
            peer_rules,
            access,
            storage,
            replication,
            disk_space,
            limits,
            logging,
        } = values.clone();
        if node.bind_addr == node.rpc_addr && node.bind_addr.port() != 0 {
            let (peers, addr) = (problems.label("bind_addr"), node.bind_addr);
            problems
                .push_for("rpc_addr", &format!("is {addr}, and so is {peers}; give clients and peers different ports"));
        }
        for (name, addr) in [("bind_addr", node.bind_addr), ("rpc_addr", node.rpc_addr)] {
            if http.http_addr.0 == Some(addr) && addr.port() != 0 {
                let other = problems.label(name);
                problems.push_for("http_addr", &format!("is {addr}, and so is {other}; give it a port of its own"));
            }
        }
        for (advertise, listen_addr, advertised) in [
            ("advertise_bind_addr", node.bind_addr, &mut node.advertise_bind_addr),
            ("advertise_rpc_addr", node.rpc_addr, &mut node.advertise_rpc_addr),
        ] {
            if let Err(problem) = check_advertised(listen_addr, advertised) {
                problems.push_for(advertise, &problem);
            }
        }
        if cluster.bootstrap && cluster.bootstrap_expect.is_some() {
            let conflict = format!("conflicts with {}; remove one of them", problems.label("bootstrap"));
            problems.push_for("bootstrap_expect", &conflict);
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
            let hard = format!("{}, {}", Unit::Bytes.show(hard), problems.label("disk_free_hard_bytes"));
            problems.push_for("disk_free_soft_bytes", &format!("{} is below {hard}", Unit::Bytes.show(soft)));
        }
        let config =
            Config { node, http, cluster, tls, peer_rules, access, storage, replication, disk_space, limits, logging };
        (config, values)
    }
}

/// Checks the advertised address of a listener, and adds the listener's port if it has none. Without one, the node
/// advertises the address on which it listens, or the one under which `join` lists its host, or the only one of its host
/// (`agent/advertised.rs`).
fn check_advertised(listen_addr: SocketAddr, advertised: &mut Option<String>) -> Result<(), String> {
    let Some(addr) = advertised else { return Ok(()) };
    // If the listener's port is 0, the system chooses it later, so it can't be added here.
    *addr = match listen_addr.port() {
        0 => check_host_port(addr, CLIENT_PORT).map(|()| addr.clone())?,
        port => host_port(addr, port)?,
    };
    Ok(())
}

/// Checks the rules for `--insecure`: other hosts must not be able to reach the node, and options that need TLS must
/// not be set.
fn check_insecure(args: &mut ServeArgs, node: &NodeOptions, problems: &mut Problems) {
    for (name, addr) in [("bind_addr", node.bind_addr), ("rpc_addr", node.rpc_addr)] {
        if !addr.ip().is_loopback() {
            let label = problems.label(name);
            problems.push_for("insecure", &format!("only allowed on loopback addresses, and {label} is {addr}"));
        }
    }
    for (option, _) in args.slots().filter(|(option, given)| option.spec.needs_tls && given.is_some()) {
        let label = problems.label(option.name);
        problems.push_for("insecure", &format!("conflicts with {label}; remove one of them"));
    }
}

/// Reports the given files that can't be read, and returns them. Only regular files are opened: a pipe can be read only
/// once.
fn unreadable_files(args: &mut ServeArgs, problems: &mut Problems) -> BTreeSet<PathBuf> {
    let check = |file: &str| {
        let metadata = fs::metadata(file)?;
        match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            (false, true) => fs::File::open(file).map(drop),
            (false, false) => Ok(()),
        }
    };
    let mut unreadable = BTreeSet::new();
    let files = args.slots().filter(|(option, _)| matches!(option.spec.form, Form::File(_)));
    for (option, given) in files {
        let Some(file) = given.as_deref() else { continue };
        if let Err(error) = check(file) {
            problems.push_for(option.name, &format!("{file}: {error}"));
            unreadable.insert(PathBuf::from(file));
        }
    }
    unreadable
}

/// Returns the effective value of every option, in the order of the file.
fn settings(args: &mut ServeArgs, config: &Config, values: &Values) -> Vec<Setting> {
    let shown = values.shown();
    let value_of = |name: &str| shown.iter().find(|(option, _)| option.name == name).and_then(|(_, v)| v.clone());
    let effective = |option: &OptionDef| match (option.name, option.spec.default) {
        ("mdns", _) => Some(config.mdns().to_string()),
        // With the listener's port.
        ("advertise_bind_addr", _) if config.node.advertise_bind_addr.is_some() => {
            config.node.advertise_bind_addr.clone()
        }
        ("advertise_rpc_addr", _) if config.node.advertise_rpc_addr.is_some() => config.node.advertise_rpc_addr.clone(),
        ("advertise_bind_addr", _) if config.node.bind_addr.ip().is_unspecified() => Some(ONLY_ADDRESS.to_owned()),
        ("advertise_rpc_addr", _) if config.node.rpc_addr.ip().is_unspecified() => Some(ONLY_ADDRESS.to_owned()),
        // A default that is the value of another option, or that only the running node knows.
        (_, OptionDefault::Derived(text)) => {
            value_of(option.name).or_else(|| match options().iter().any(|o| o.name == text) {
                true => value_of(text),
                false => Some(text.to_owned()),
            })
        }
        (_, OptionDefault::Value(_) | OptionDefault::None | OptionDefault::Required(_)) => value_of(option.name),
    };
    let given: Vec<bool> = args.slots().map(|(_, given)| given.is_some()).collect();
    let origins = options().iter().zip(given).map(|(option, is_set)| (option.name, args.origin(option, is_set)));
    let origins: BTreeMap<&str, Origin> = origins.collect();
    let of = |option: &'static OptionDef| Setting {
        option,
        value: effective(option),
        origin: origins.get(option.name).cloned().unwrap_or(Origin::Default),
    };
    tables().flat_map(|(_, _, options)| options.map(of)).collect()
}

#[cfg(test)]
mod document;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
