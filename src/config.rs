//! The configuration of `serve`: flags, then the environment (`SERIATIM_*`), then a TOML file, then defaults.
//!
//! Every value has a meaning, a default and bounds. A bad one is refused, never mended in silence, and all that is wrong is
//! named at once. What is kept here are paths of secrets, never secrets. What the files hold is checked by who reads them
//! (`security/`).

mod args;
mod space;
mod tls;

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use args::ServeArgs;
pub use space::DiskSpace;
pub use tls::TlsFiles;

use crate::types::NodeName;

/// Bytes of a segment: small ones are for tests, large ones recover slowly.
const SEGMENT_BYTES: (u64, u64) = (64 * KIB, GIB);
/// The default ports of `rpc_addr` and `bind_addr`.
const CLIENT_PORT: u16 = 8400;
const PEER_PORT: u16 = 8401;
const STREAMS: (u64, u64) = (1, 1 << 20);
const CALLS: (u64, u64) = (1, 1 << 20);
/// At least one entry of the largest size.
const BYTES: (u64, u64) = (9 * MIB, 64 * GIB);
const MEMORY_BYTES: (u64, u64) = (64 * MIB, 256 * GIB);
const SCRUB_BYTES_PER_SECOND: (u64, u64) = (0, 64 * GIB);
const SCRUB_INTERVAL_SECONDS: (u64, u64) = (1, 366 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 60 * 60;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What one principal, or the process, may use at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open streams of one principal.
    pub streams_per_principal_max: u64,
    /// Open streams of all.
    pub streams_max: u64,
    /// Unanswered calls, streams aside, of one principal.
    pub calls_per_principal_max: u64,
    /// Unanswered calls of all.
    pub calls_max: u64,
    /// Bytes of one principal's requests that are not answered yet, and of answers that it has not taken yet.
    pub bytes_per_principal_max: u64,
    /// The same of all.
    pub bytes_max: u64,
    /// Memory that gRPC may use for the client listener.
    pub client_memory_bytes_max: u64,
    /// Memory that gRPC may use for the peer listener.
    pub peer_memory_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams_per_principal_max: 12_288,
            streams_max: 16_384,
            calls_per_principal_max: 1024,
            calls_max: 4096,
            bytes_per_principal_max: 24 * MIB,
            bytes_max: 64 * MIB,
            client_memory_bytes_max: 512 * MIB,
            peer_memory_bytes_max: 256 * MIB,
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Peers whose certificate does not name their node are refused.
    pub require_named_peers: bool,
    /// Names of nodes whose peer certificates are refused.
    pub peer_deny_file: Option<PathBuf>,
    /// The casbin model; none: the built-in one.
    pub acl_model_file: Option<PathBuf>,
    /// The access policy.
    pub acl_policy_file: PathBuf,
    /// A segment rolls beyond this.
    pub segment_bytes: u64,
    /// How fast the scrub reads what is on the disk; 0: there is none.
    pub scrub_bytes_per_second: u64,
    /// It begins again so long after it began.
    pub scrub_interval_seconds: u64,
    /// How much of the disk is left free.
    pub disk_space: DiskSpace,
    /// A thread without a sign of life for so many seconds hangs.
    pub hang_seconds_max: u64,
    /// What one principal, or the process, may use at once.
    pub limits: Limits,
    /// The log's level.
    pub log_level: log::LevelFilter,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<String>);

impl fmt::Display for ConfigProblems {
    /// A line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration can't be used: {one}"),
            many => {
                write!(f, "the configuration can't be used, for {} reasons:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigProblems {}

impl Config {
    /// Puts flags, environment (clap has read both into `args`), file and defaults together and checks them.
    ///
    /// # Errors
    /// [`ConfigProblems`]: all of them at once.
    pub fn load(args: &ServeArgs) -> Result<Config, ConfigProblems> {
        let mut args = args.clone();
        let mut check = Check(Vec::new());
        if let Some(file) = args.config.clone().map(PathBuf::from) {
            match fs::read_to_string(&file) {
                Ok(text) => check.0.extend(args.fill_from(&file, &text)),
                Err(e) => check.0.push(format!("config: {}: {e}", file.display())),
            }
        }
        check.config(&args).filter(|_| check.0.is_empty()).ok_or(ConfigProblems(check.0))
    }

    /// For tests in one process: node `name` with its data in `<dir>/<name>`, on free ports of 127.0.0.1, without mDNS and
    /// TLS, with the policy in `<dir>/policy.csv`.
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
}

/// Checks the name of a cluster. It stands in peers' certificates as `peer.<cluster>.seriatim.internal`, so it is one label
/// of a host's name: 1 to 63 of `a-z 0-9 -`, the first and the last no `-`.
///
/// # Errors
/// What is wrong.
pub fn check_cluster_name(name: &str) -> Result<(), String> {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        Ok(())
    } else {
        Err(format!("{name:?} is no name of a cluster: 1 to 63 of a-z 0-9 -, the first and the last no -"))
    }
}

/// The name of this host: that of its node if none is given.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Gathers what is wrong; each problem begins with the option's name.
struct Check(Vec<String>);

impl Check {
    /// None when a value that has no default is missing or bad; else problems may stand here all the same.
    fn config(&mut self, args: &ServeArgs) -> Option<Config> {
        let node_name = self.node_name(args.node_name.as_deref());
        let cluster_name = args.cluster_name.clone().unwrap_or_else(|| "seriatim".to_owned());
        if let Err(error) = check_cluster_name(&cluster_name) {
            self.0.push(format!("cluster-name: {error}"));
        }
        let bind_addr = self.listen("bind-addr", args.bind_addr.as_deref(), PEER_PORT);
        let rpc_addr = self.listen("rpc-addr", args.rpc_addr.as_deref(), CLIENT_PORT);
        if let (Some(bind), Some(rpc)) = (bind_addr, rpc_addr)
            && bind == rpc
            && bind.port() != 0
        {
            self.0.push(format!("bind-addr, rpc-addr: both are {bind}; peers and clients need an address each"));
        }
        let advertise_bind_addr = self.advertise("bind-addr", bind_addr, args.advertise_bind_addr.as_deref());
        let advertise_rpc_addr = self.advertise("rpc-addr", rpc_addr, args.advertise_rpc_addr.as_deref());
        let mut join = Vec::new();
        for addr in args.join.iter().map(|addr| addr.trim()).filter(|addr| !addr.is_empty()) {
            match host_port(addr, PEER_PORT) {
                Ok(addr) => join.push(addr),
                Err(error) => self.0.push(format!("join: {error}")),
            }
        }
        let loopback = bind_addr.is_none_or(|a| a.ip().is_loopback());
        let bootstrap = self.value("bootstrap", args.bootstrap.as_deref(), false, "true or false");
        let mdns = self.value("mdns", args.mdns.as_deref(), !loopback, "true or false");
        let insecure = self.value("insecure", args.insecure.as_deref(), false, "true or false");
        let tls = if insecure {
            self.insecure(args, &[("bind-addr", bind_addr), ("rpc-addr", rpc_addr)]);
            None
        } else {
            self.tls(args)
        };
        let named = args.require_named_peers.as_deref();
        let require_named_peers = self.value("require-named-peers", named, false, "true or false");
        let acl_policy_file = args.acl_policy_file.as_ref().map(PathBuf::from);
        if acl_policy_file.is_none() {
            let anonymous = if insecure { " (with --insecure everybody is \"anonymous\" in it)" } else { "" };
            self.0.push(format!("acl-policy-file: is missing; without a policy nobody may do anything{anonymous}"));
        }
        let data_dir = PathBuf::from(args.data_dir.as_deref().unwrap_or("/var/lib/seriatim"));
        if data_dir.as_os_str().is_empty() {
            self.0.push("data-dir: is empty".to_owned());
        }
        let limits = self.limits(args);
        let segment_bytes = self.bytes("segment-bytes", args.segment_bytes.as_deref(), 64 * MIB, SEGMENT_BYTES);
        let scrub = args.scrub_bytes_per_second.as_deref();
        let scrub_bytes_per_second = self.bytes("scrub-bytes-per-second", scrub, 4 * MIB, SCRUB_BYTES_PER_SECOND);
        let scrub = args.scrub_interval_seconds.as_deref();
        let scrub_interval_seconds =
            self.bytes("scrub-interval-seconds", scrub, 7 * DAY_SECONDS, SCRUB_INTERVAL_SECONDS);
        let disk_space = self.disk_space(args);
        let hang_seconds_max = self.hang_seconds(args);
        let level = "error, warn, info, debug or trace";
        let log_level = self.value("log-level", args.log_level.as_deref(), log::LevelFilter::Info, level);
        Some(Config {
            node_name: node_name?,
            cluster_name,
            data_dir,
            bind_addr: bind_addr?,
            rpc_addr: rpc_addr?,
            advertise_bind_addr,
            advertise_rpc_addr,
            join,
            bootstrap,
            mdns,
            tls,
            require_named_peers,
            peer_deny_file: args.peer_deny_file.as_ref().map(PathBuf::from),
            acl_model_file: args.acl_model_file.as_ref().map(PathBuf::from),
            acl_policy_file: acl_policy_file?,
            segment_bytes,
            scrub_bytes_per_second,
            scrub_interval_seconds,
            disk_space,
            hang_seconds_max,
            limits,
            log_level,
        })
    }

    fn limits(&mut self, args: &ServeArgs) -> Limits {
        let default = Limits::default();
        let mut number =
            |option, given: &Option<String>, default, bounds| self.bytes(option, given.as_deref(), default, bounds);
        Limits {
            streams_per_principal_max: number(
                "streams-per-principal-max",
                &args.streams_per_principal_max,
                default.streams_per_principal_max,
                STREAMS,
            ),
            streams_max: number("streams-max", &args.streams_max, default.streams_max, STREAMS),
            calls_per_principal_max: number(
                "calls-per-principal-max",
                &args.calls_per_principal_max,
                default.calls_per_principal_max,
                CALLS,
            ),
            calls_max: number("calls-max", &args.calls_max, default.calls_max, CALLS),
            bytes_per_principal_max: number(
                "bytes-per-principal-max",
                &args.bytes_per_principal_max,
                default.bytes_per_principal_max,
                BYTES,
            ),
            bytes_max: number("bytes-max", &args.bytes_max, default.bytes_max, BYTES),
            client_memory_bytes_max: number(
                "client-memory-bytes-max",
                &args.client_memory_bytes_max,
                default.client_memory_bytes_max,
                MEMORY_BYTES,
            ),
            peer_memory_bytes_max: number(
                "peer-memory-bytes-max",
                &args.peer_memory_bytes_max,
                default.peer_memory_bytes_max,
                MEMORY_BYTES,
            ),
        }
    }

    fn value<T: FromStr>(&mut self, option: &str, given: Option<&str>, default: T, what: &str) -> T {
        match given.map(str::parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.0.push(format!("{option}: {:?} is not {what}", given.unwrap_or_default()));
                default
            }
        }
    }

    /// A number, of bytes mostly: plain, or with KiB, MiB or GiB behind it.
    fn bytes(&mut self, option: &str, given: Option<&str>, default: u64, (min, max): (u64, u64)) -> u64 {
        let Some(given) = given else { return default };
        let units = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];
        let unit = units.into_iter().find_map(|(name, n)| given.strip_suffix(name).map(|digits| (digits, n)));
        let (digits, unit) = unit.unwrap_or((given, 1));
        match digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
            Some(n) if (min..=max).contains(&n) => n,
            Some(_) => {
                self.0.push(format!("{option}: {given} is not between {min} and {max}"));
                default
            }
            None => {
                let what = match option {
                    option if option.contains("bytes") => "number of bytes, like 67108864 or 64MiB",
                    option if option.contains("seconds") => "whole number of seconds",
                    _ => "whole number",
                };
                self.0.push(format!("{option}: {given:?} is not a {what}"));
                default
            }
        }
    }

    fn node_name(&mut self, given: Option<&str>) -> Option<NodeName> {
        let name = given.map_or_else(host_name, str::to_owned);
        let source = if given.is_some() { "" } else { " (the name of this host)" };
        NodeName::new(&name).map_err(|e| self.0.push(format!("node-name{source}: {e}"))).ok()
    }

    fn listen(&mut self, option: &str, given: Option<&str>, port: u16) -> Option<SocketAddr> {
        let Some(given) = given else { return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)) };
        let parsed = given.parse();
        if parsed.is_err() {
            self.0.push(format!(
                "{option}: {given:?} is not an IP address and a port, like 192.0.2.1:8401; a host's name goes into \
                 advertise-{option}"
            ));
        }
        parsed.ok()
    }

    fn advertise(&mut self, option: &str, listen: Option<SocketAddr>, given: Option<&str>) -> Option<String> {
        let Some(given) = given else {
            if let Some(listen) = listen.filter(|a| a.ip().is_unspecified()) {
                self.0.push(format!("{option}: nobody can dial {listen}; say advertise-{option} too"));
            }
            return None;
        };
        // Without a port: the listener's, unless that is chosen by the system.
        let port = listen.map(|addr| addr.port()).filter(|port| *port != 0);
        let checked = match port {
            Some(port) => host_port(given, port),
            None => check_host_port(given, CLIENT_PORT).map(|()| given.to_owned()),
        };
        checked.map_err(|error| self.0.push(format!("advertise-{option}: {error}"))).ok()
    }
}

/// An address that others can dial, `host:port`, from one that may lack the port.
///
/// # Errors
/// What is wrong.
pub fn host_port(addr: &str, default_port: u16) -> Result<String, String> {
    let with_port = format!("{addr}:{default_port}");
    // A colon is part of a port, or of an IPv6 address in brackets.
    if (!addr.contains(':') || addr.ends_with(']')) && check_host_port(&with_port, default_port).is_ok() {
        return Ok(with_port);
    }
    check_host_port(addr, default_port).map(|()| addr.to_owned())
}

/// Checks an address that others can dial, `host:port`; `example_port` is for the message.
fn check_host_port(addr: &str, example_port: u16) -> Result<(), String> {
    let wrong = || format!("{addr:?} is not a host and a port, like node-1.example:{example_port}");
    let (host, port) = addr.rsplit_once(':').ok_or_else(wrong)?;
    if port.parse::<u16>().ok().is_none_or(|p| p == 0) {
        return Err(wrong());
    }
    let ip = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => Some(IpAddr::V6(v6.parse().map_err(|_| wrong())?)),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) if ip.is_unspecified() => Err(format!("nobody can dial {addr}")),
        Some(_) => Ok(()),
        None => {
            let label =
                |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let name = host.strip_suffix('.').unwrap_or(host);
            if name.len() <= 253 && name.split('.').all(label) { Ok(()) } else { Err(wrong()) }
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
