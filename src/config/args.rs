//! The options as they are given: all of them text, so that every bad value is found, not the first alone.

use std::collections::BTreeMap;
use std::path::Path;

/// The options of `seriatim serve`. Flags win over the environment, and both over the file of `--config`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// A TOML file with these options, their names with _ for -
    #[arg(long, env = "SERIATIM_CONFIG", value_name = "FILE")]
    pub config: Option<String>,
    /// What this node is called in the cluster [default: the name of the host]
    #[arg(long, env = "SERIATIM_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// The cluster it belongs to: it ignores nodes of other clusters. A member's data directory stores the name and can't be used
    /// with another one [default: seriatim]
    #[arg(long, env = "SERIATIM_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Where it keeps its data [default: /var/lib/seriatim]
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where it listens for peers [default: 127.0.0.1:8401]
    #[arg(long, env = "SERIATIM_BIND_ADDR", value_name = "IP:PORT")]
    pub bind_addr: Option<String>,
    /// Where it listens for clients [default: 127.0.0.1:8400]
    #[arg(long, env = "SERIATIM_RPC_ADDR", value_name = "IP:PORT")]
    pub rpc_addr: Option<String>,
    /// Where peers reach it [default: bind-addr]
    #[arg(long, env = "SERIATIM_ADVERTISE_BIND_ADDR", value_name = "HOST:PORT")]
    pub advertise_bind_addr: Option<String>,
    /// Where clients reach it [default: rpc-addr]
    #[arg(long, env = "SERIATIM_ADVERTISE_RPC_ADDR", value_name = "HOST:PORT")]
    pub advertise_rpc_addr: Option<String>,
    /// Peer addresses of other nodes; separated by commas, or given again
    #[arg(long, env = "SERIATIM_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    pub join: Vec<String>,
    /// Found a cluster when the data directory is blank and no cluster of that name answers
    #[arg(long, env = "SERIATIM_BOOTSTRAP", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub bootstrap: Option<String>,
    /// Look for peers, and be found, by mDNS [default: true unless bind-addr is loopback]
    #[arg(long, env = "SERIATIM_MDNS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub mdns: Option<String>,
    /// The authority that signs clients' certificates
    #[arg(long, env = "SERIATIM_CLIENT_CA_FILE", value_name = "PEM")]
    pub client_ca_file: Option<String>,
    /// The authority that signs peers' certificates [default: client-ca-file]
    #[arg(long, env = "SERIATIM_PEER_CA_FILE", value_name = "PEM")]
    pub peer_ca_file: Option<String>,
    /// This node's certificate for clients
    #[arg(long, env = "SERIATIM_SERVER_CERT_FILE", value_name = "PEM")]
    pub server_cert_file: Option<String>,
    /// Its key
    #[arg(long, env = "SERIATIM_SERVER_KEY_FILE", value_name = "PEM")]
    pub server_key_file: Option<String>,
    /// This node's certificate for its peers
    #[arg(long, env = "SERIATIM_PEER_CERT_FILE", value_name = "PEM")]
    pub peer_cert_file: Option<String>,
    /// Its key
    #[arg(long, env = "SERIATIM_PEER_KEY_FILE", value_name = "PEM")]
    pub peer_key_file: Option<String>,
    /// Refuse peers whose certificate does not name their node [default: false]
    #[arg(long, env = "SERIATIM_REQUIRE_NAMED_PEERS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub require_named_peers: Option<String>,
    /// File with the names of nodes whose peer certificates are refused, one a line, for example of a stolen host
    #[arg(long, env = "SERIATIM_PEER_DENY_FILE", value_name = "FILE")]
    pub peer_deny_file: Option<String>,
    /// No TLS, on loopback addresses only. Everybody is "anonymous" in the access policy, which is needed as well: a line is
    /// `p, anonymous, *, produce`
    #[arg(long, env = "SERIATIM_INSECURE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub insecure: Option<String>,
    /// A casbin model in place of the built-in one
    #[arg(long, env = "SERIATIM_ACL_MODEL_FILE", value_name = "CONF")]
    pub acl_model_file: Option<String>,
    /// Who may do what: lines like "p, root, *, produce"; what no line gives is denied
    #[arg(long, env = "SERIATIM_ACL_POLICY_FILE", value_name = "CSV")]
    pub acl_policy_file: Option<String>,
    /// A file of a log is closed and a new one begun beyond this size [default: 64MiB]
    #[arg(long, env = "SERIATIM_SEGMENT_BYTES", value_name = "BYTES")]
    pub segment_bytes: Option<String>,
    /// How fast what is on the disk is checked, again and again; 0: never [default: 4MiB]
    #[arg(long, env = "SERIATIM_SCRUB_BYTES_PER_SECOND", value_name = "BYTES")]
    pub scrub_bytes_per_second: Option<String>,
    /// A check of all that is on the disk begins so long after the last one began [default: 604800, a week]
    #[arg(long, env = "SERIATIM_SCRUB_INTERVAL_SECONDS", value_name = "SECONDS")]
    pub scrub_interval_seconds: Option<String>,
    /// With less free space on the disk there is a warning [default: 2GiB, at most an eighth of the file system]
    #[arg(long, env = "SERIATIM_DISK_FREE_SOFT_BYTES", value_name = "BYTES")]
    pub disk_free_soft_bytes: Option<String>,
    /// With less free space appends are refused [default: 256MiB, at most a sixteenth of the file system]
    #[arg(long, env = "SERIATIM_DISK_FREE_HARD_BYTES", value_name = "BYTES")]
    pub disk_free_hard_bytes: Option<String>,
    /// A file that is given back when a full disk would stop the node itself [default: 32MiB, at most a 32nd of the file system]
    #[arg(long, env = "SERIATIM_DISK_RESERVE_BYTES", value_name = "BYTES")]
    pub disk_reserve_bytes: Option<String>,
    /// A disk that does not answer for so long ends the process, so that others take over [default: 30]
    #[arg(long, env = "SERIATIM_HANG_SECONDS_MAX", value_name = "SECONDS")]
    pub hang_seconds_max: Option<String>,
    /// How many streams one caller may have open [default: 12288]
    #[arg(long, env = "SERIATIM_STREAMS_PER_PRINCIPAL_MAX", value_name = "N")]
    pub streams_per_principal_max: Option<String>,
    /// How many streams all callers may have open [default: 16384]
    #[arg(long, env = "SERIATIM_STREAMS_MAX", value_name = "N")]
    pub streams_max: Option<String>,
    /// How many calls of one caller, streams aside, may wait for their answer [default: 1024]
    #[arg(long, env = "SERIATIM_CALLS_PER_PRINCIPAL_MAX", value_name = "N")]
    pub calls_per_principal_max: Option<String>,
    /// How many calls of all may [default: 4096]
    #[arg(long, env = "SERIATIM_CALLS_MAX", value_name = "N")]
    pub calls_max: Option<String>,
    /// How many bytes of one caller may be on their way, in requests and in answers [default: 24MiB]
    #[arg(long, env = "SERIATIM_BYTES_PER_PRINCIPAL_MAX", value_name = "BYTES")]
    pub bytes_per_principal_max: Option<String>,
    /// How many bytes of all may [default: 64MiB]
    #[arg(long, env = "SERIATIM_BYTES_MAX", value_name = "BYTES")]
    pub bytes_max: Option<String>,
    /// How much memory gRPC may use for clients [default: 512MiB]
    #[arg(long, env = "SERIATIM_CLIENT_MEMORY_BYTES_MAX", value_name = "BYTES")]
    pub client_memory_bytes_max: Option<String>,
    /// How much memory gRPC may use for peers [default: 256MiB]
    #[arg(long, env = "SERIATIM_PEER_MEMORY_BYTES_MAX", value_name = "BYTES")]
    pub peer_memory_bytes_max: Option<String>,
    /// What is logged: error, warn, info, debug or trace [default: info]
    #[arg(long, env = "SERIATIM_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ServeArgs {
    /// Fills what is not given from a TOML file; gives what is wrong with the file.
    pub(super) fn fill_from(&mut self, file: &Path, text: &str) -> Vec<String> {
        // Some editors begin a file with a byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        let mut table: BTreeMap<String, toml::Value> = match toml::from_str(text) {
            Ok(table) => table,
            Err(e) => return vec![format!("{}: {}", file.display(), e.to_string().trim_end())],
        };
        let mut problems = Vec::new();
        for (key, slot) in self.slots() {
            let Some(value) = table.remove(key) else { continue };
            match one(&value) {
                Some(value) => drop(slot.get_or_insert(value)),
                None => problems.push(format!("{}: {key} is not one value", file.display())),
            }
        }
        if let Some(join) = table.remove("join") {
            let addresses = match &join {
                toml::Value::Array(values) => values.iter().map(one).collect::<Option<Vec<_>>>(),
                value => one(value).map(|v| v.split(',').map(str::to_owned).collect()),
            };
            match addresses {
                Some(addresses) if self.join.is_empty() => self.join = addresses,
                Some(_) => {}
                None => problems.push(format!("{}: join is not a list of addresses", file.display())),
            }
        }
        for key in table.keys() {
            let meant = key.replace('-', "_");
            let is_one = meant == "join" || self.slots().iter().any(|(name, _)| *name == meant);
            let hint = if is_one { format!("; in a file it is written {meant}") } else { String::new() };
            problems.push(format!("{}: there is no option {key:?}{hint}", file.display()));
        }
        problems
    }

    /// Every option that has one value, by its name in the file.
    fn slots(&mut self) -> [(&'static str, &mut Option<String>); 36] {
        [
            ("node_name", &mut self.node_name),
            ("cluster_name", &mut self.cluster_name),
            ("data_dir", &mut self.data_dir),
            ("bind_addr", &mut self.bind_addr),
            ("rpc_addr", &mut self.rpc_addr),
            ("advertise_bind_addr", &mut self.advertise_bind_addr),
            ("advertise_rpc_addr", &mut self.advertise_rpc_addr),
            ("bootstrap", &mut self.bootstrap),
            ("mdns", &mut self.mdns),
            ("client_ca_file", &mut self.client_ca_file),
            ("peer_ca_file", &mut self.peer_ca_file),
            ("server_cert_file", &mut self.server_cert_file),
            ("server_key_file", &mut self.server_key_file),
            ("peer_cert_file", &mut self.peer_cert_file),
            ("peer_key_file", &mut self.peer_key_file),
            ("require_named_peers", &mut self.require_named_peers),
            ("peer_deny_file", &mut self.peer_deny_file),
            ("insecure", &mut self.insecure),
            ("acl_model_file", &mut self.acl_model_file),
            ("acl_policy_file", &mut self.acl_policy_file),
            ("segment_bytes", &mut self.segment_bytes),
            ("scrub_bytes_per_second", &mut self.scrub_bytes_per_second),
            ("scrub_interval_seconds", &mut self.scrub_interval_seconds),
            ("disk_free_soft_bytes", &mut self.disk_free_soft_bytes),
            ("disk_free_hard_bytes", &mut self.disk_free_hard_bytes),
            ("disk_reserve_bytes", &mut self.disk_reserve_bytes),
            ("hang_seconds_max", &mut self.hang_seconds_max),
            ("streams_per_principal_max", &mut self.streams_per_principal_max),
            ("streams_max", &mut self.streams_max),
            ("calls_per_principal_max", &mut self.calls_per_principal_max),
            ("calls_max", &mut self.calls_max),
            ("bytes_per_principal_max", &mut self.bytes_per_principal_max),
            ("bytes_max", &mut self.bytes_max),
            ("client_memory_bytes_max", &mut self.client_memory_bytes_max),
            ("peer_memory_bytes_max", &mut self.peer_memory_bytes_max),
            ("log_level", &mut self.log_level),
        ]
    }
}

fn one(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
