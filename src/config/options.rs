//! The table of options. To add an option, an entry here is enough.
//!
//! The table defines the flags, the environment variables and their help (`args.rs`), the keys of the TOML file, the
//! typed values and their checks, `dist/seriatim.toml`, and the table of settings in `docs/OPERATIONS.md`
//! (`document.rs`).
//!
//! An entry has the form `name as "table.key": type = form and default;`. Its doc comment is the help text. The type is
//! an `Option` if the option can be missing. Rules that concern several options are checked in `config.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use super::definition::{
    Form, OptionDef, Spec, TABLES, dial_addr, dial_addrs, duration, file, listen_addr, number, switch,
};
use super::origin::Origins;
use super::problems::Problems;
use super::units::{GIB, KIB, MIB, TIB, Unit};
use super::value::{HttpAddr, Value as _, read};
use crate::types::NodeName;

/// The default port of `rpc_addr`.
pub const CLIENT_PORT: u16 = 8400;
/// The default port of `bind_addr`.
pub const PEER_PORT: u16 = 8401;
/// The default port of `http_addr`.
pub const HTTP_PORT: u16 = 8402;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const STREAMS: Spec = number(Unit::Count, 1, 1 << 20);
const CALLS: Spec = number(Unit::Count, 1, 1 << 20);
/// The minimum allows one entry of the largest size.
const BYTES_IN_FLIGHT: Spec = number(Unit::Bytes, 9 * MIB, 64 * GIB);
const MEMORY: Spec = number(Unit::Bytes, 64 * MIB, 256 * GIB);
const WATERMARK: Spec = number(Unit::Bytes, MIB, TIB);

macro_rules! options {
    ($(
        $(#[$group_doc:meta])*
        $group:ident: $Group:ident => {
            $( $(#[doc = $about:literal])+ $name:ident as $path:literal: $type:ty = $spec:expr; )*
        }
    )*) => {
        $(
            $(#[$group_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Group {
                $( $(#[doc = $about])+ pub $name: $type, )*
            }

            impl Default for $Group {
                /// The values if none of these options is set.
                fn default() -> $Group {
                    Values::read(&ServeArgs::default(), &mut Problems::default()).$group
                }
            }
        )*

        /// The values of all options, by group, before rules that concern several options are checked.
        #[derive(Clone)]
        pub(super) struct Values {
            $( pub $group: $Group, )*
        }

        /// The options of `seriatim serve` as text, from flags and environment variables. `config` is the path of the
        /// TOML file from which the other options are read.
        #[derive(Clone, Debug, Default)]
        #[expect(missing_docs, reason = "the table of options describes them")]
        pub struct ServeArgs {
            pub config: Option<String>,
            $($( pub $name: Option<String>, )*)*
            pub origins: Origins,
        }

        static OPTIONS: LazyLock<Vec<OptionDef>> = LazyLock::new(|| {
            vec![$($( OptionDef::new(stringify!($name), $path, concat!($($about),+), $spec), )*)*]
        });

        impl ServeArgs {
            /// Returns every option with its text.
            pub(super) fn slots(&mut self) -> impl Iterator<Item = (&'static OptionDef, &mut Option<String>)> {
                options().iter().zip([$($( &mut self.$name, )*)*])
            }
        }

        impl Values {
            /// Parses every option. An invalid value adds an error to `problems`, and is replaced by a placeholder.
            pub(super) fn read(args: &ServeArgs, problems: &mut Problems) -> Values {
                let mut options = options().iter();
                Values {
                    $( $group: $Group { $( $name: read(options.next(), args.$name.as_deref(), problems), )* }, )*
                }
            }

            /// Returns every option with its value as a user would write it; `None` if it has none.
            pub(super) fn shown(&self) -> Vec<(&'static OptionDef, Option<String>)> {
                let mut options = options().iter();
                let shown = [$($( options.next().map(|option| (option, self.$group.$name.show(option))), )*)*];
                shown.into_iter().flatten().collect()
            }
        }
    };
}

/// Returns all options except `--config`.
pub fn options() -> &'static [OptionDef] {
    &OPTIONS
}

/// Returns the tables of the TOML file with their titles and options.
pub(super) fn tables()
-> impl Iterator<Item = (&'static str, &'static str, impl Iterator<Item = &'static OptionDef> + Clone)> {
    TABLES.iter().map(|(table, title)| (*table, *title, options().iter().filter(move |o| o.table() == *table)))
}

options! {
    /// A node's name, addresses and data directory.
    node: NodeOptions => {
        /// IP address and port on which the node listens for its peers. Other hosts only reach it if this is not a loopback
        /// address. With 0.0.0.0, which is every address of the host, all hosts can have the same file.
        bind_addr as "listen.peer.addr": SocketAddr = listen_addr().or("127.0.0.1:8401").set_in_example("0.0.0.0:8401");
        /// IP address and port on which the node listens for clients. Other hosts only reach it if this is not a loopback
        /// address. With 0.0.0.0, which is every address of the host, all hosts can have the same file.
        rpc_addr as "listen.client.addr": SocketAddr = listen_addr().or("127.0.0.1:8400").set_in_example("0.0.0.0:8400");
        /// Address at which peers reach the node, if it differs from bind_addr: a forwarded port, or a host name. A node that
        /// listens on 0.0.0.0 advertises the entry of join that is an address or the name of its host, with the port of
        /// bind_addr, or else the only address of its host.
        advertise_bind_addr as "listen.peer.advertise": Option<String> = dial_addr().or_derived("bind_addr", "node-1.example:8401");
        /// Address at which clients reach the node, if it differs from rpc_addr. The server certificate must contain its host.
        /// A node that listens on 0.0.0.0 chooses the host as for advertise_bind_addr.
        advertise_rpc_addr as "listen.client.advertise": Option<String> = dial_addr().or_derived("rpc_addr", "node-1.example:8400");
        /// Name of the node, unique in the cluster. It has 1 to 64 characters from a-z A-Z 0-9 . _ -, and starts with a letter
        /// or a digit.
        node_name as "node.name": NodeName = Spec::new(Form::NodeName).or_derived("the name of the host", "node-1");
        /// Directory for the data of this node alone, on a disk that honours fdatasync. The systemd unit sets it.
        data_dir as "node.data_dir": PathBuf = Spec::new(Form::Directory).or("/var/lib/seriatim");
    }

    /// The listener for monitoring.
    http: HttpOptions => {
        /// IP address and port for monitoring over HTTP: /metrics for Prometheus, /live, /ready, and a page that shows the
        /// cluster at /. `off` turns it off. It is read-only and shows no records, but it has no TLS and asks for no
        /// certificate: every client that reaches it sees names of logs, nodes and cursors. So it listens on this host alone by
        /// default.
        http_addr as "listen.http.addr": HttpAddr = Spec::new(Form::ListenAddrOrOff).or("127.0.0.1:8402");
        /// Host name in the URLs of browsers and monitoring systems, if it is neither an IP address, nor localhost, nor the name of
        /// the host, nor the host of an advertised address. Requests for other names are refused, so that no website can read
        /// the page by pointing its own name at this address.
        http_host as "listen.http.host": Option<String> = Spec::new(Form::HostName).optional("node-1.example");
    }

    /// The cluster of a node, and how it finds the other nodes.
    cluster: ClusterOptions => {
        /// Name of the cluster, 1 to 63 characters from a-z, 0-9 and -. A node ignores nodes of other clusters, and peer
        /// certificates are issued for one cluster. A member's data directory stores the name, and the member does not start
        /// with another one.
        cluster_name as "cluster.name": String = Spec::new(Form::ClusterName).or("seriatim");
        /// Peer addresses (bind_addr) of other nodes, separated by commas; the flag can be repeated. One address that answers
        /// is enough, and the list may contain the node's own. A node with a blank data directory asks them to admit it. A
        /// member does not need them, but uses them to detect another cluster of the same name.
        join as "cluster.join": Vec<String> = dial_addrs(PEER_PORT).set_in_example("192.0.2.1:8401,192.0.2.2:8401,192.0.2.3:8401");
        /// Look for peers on the local network by mDNS, and be found there.
        mdns as "cluster.mdns": Option<bool> = switch().or_derived("true, but false if bind_addr is a loopback address", "true");
        /// Found a new cluster if the data directory is blank and no cluster of this name answers. Only one node may do so, and
        /// only once: set it for that one start (`systemctl set-environment SERIATIM_BOOTSTRAP=true`, start the unit,
        /// `systemctl unset-environment SERIATIM_BOOTSTRAP`) rather than in the file.
        bootstrap as "cluster.bootstrap": bool = switch().or("false");
        /// Form the cluster without choosing a founder: a blank node waits until it has found this number of blank nodes,
        /// itself included, and one of them founds the cluster, which the others join. All nodes have the same number: the
        /// number of hosts, or at least more than half of them. It can stay in the file, because a node that finds a cluster of
        /// this name joins it. Not together with bootstrap.
        bootstrap_expect as "cluster.bootstrap_expect": Option<u64> = number(Unit::Count, 1, 64).optional("3");
    }

    /// Certificates and keys, PEM.
    tls: TlsOptions => {
        /// Certificate authority of the clients. A client is identified by the common name of its certificate. `seriatim certs`
        /// issues certificates.
        client_ca_file as "listen.client.ca_file": Option<PathBuf> = file("PEM").optional("/etc/seriatim/tls/ca.pem").needs_tls();
        /// Certificate that the node shows to clients.
        server_cert_file as "listen.client.cert_file": Option<PathBuf> = file("PEM").optional("/etc/seriatim/tls/server.pem").needs_tls();
        /// Private key of server_cert_file.
        server_key_file as "listen.client.key_file": Option<PathBuf> = file("PEM").optional("/etc/seriatim/tls/server-key.pem").needs_tls();
        /// Certificate authority of the peers.
        peer_ca_file as "listen.peer.ca_file": Option<PathBuf> = file("PEM").or_derived("client_ca_file", "/etc/seriatim/tls/peer-ca.pem").needs_tls();
        /// Certificate that the node shows to its peers. It must contain two names: <node_name>.peer.<cluster_name>.seriatim.internal
        /// (write _x for a capital X and __ for _ in node_name) and member.<cluster_name>.seriatim.internal.
        peer_cert_file as "listen.peer.cert_file": Option<PathBuf> = file("PEM").optional("/etc/seriatim/tls/peer.pem").needs_tls();
        /// Private key of peer_cert_file.
        peer_key_file as "listen.peer.key_file": Option<PathBuf> = file("PEM").optional("/etc/seriatim/tls/peer-key.pem").needs_tls();
        /// Run without TLS, on loopback addresses only and without certificates. The access policy still applies, and every
        /// client is "anonymous" in it: `p, anonymous, *, produce`. With several nodes the policy also needs
        /// `p, anonymous, *, replicate`.
        insecure as "listen.insecure": bool = switch().or("false");
    }

    /// Which peers are accepted, beyond a valid certificate.
    peer_rules: PeerRuleOptions => {
        /// Reject peers whose certificate does not name their node: nodes of an older cluster share one certificate
        /// (peer.<cluster_name>.seriatim.internal), and its key lets the holder act as any node. While this is false, such a
        /// certificate is accepted with a warning.
        require_named_peers as "listen.peer.require_named": bool = switch().or("false").needs_tls();
        /// File with the names of denied nodes, one per line: their peer certificates are rejected, for example after a host
        /// was stolen. Every node needs the file, and reads it again with the access policy. A replacement joins with a new
        /// data directory and another name.
        peer_deny_file as "listen.peer.deny_file": Option<PathBuf> = file("FILE").optional("/etc/seriatim/denied-peers").needs_tls();
    }

    /// The access policy.
    access: AccessOptions => {
        /// Access policy: lines like `p, root, *, produce`. What no line allows is denied. The file is read again once a minute if
        /// it has changed, and at SIGHUP. The systemd unit sets it.
        acl_policy_file as "access.policy_file": PathBuf = file("CSV").required(
            "without a policy every request is denied (with --insecure every client is \"anonymous\" in it)",
            "/etc/seriatim/policy.csv",
        );
        /// Casbin model that replaces the built-in one (acl/model.conf).
        acl_model_file as "access.model_file": Option<PathBuf> = file("CONF").optional("/etc/seriatim/model.conf");
    }

    /// How logs are stored, and how often they are checked.
    storage: StorageOptions => {
        /// Size at which a segment file is closed and the next one started. A value above a sixteenth of the file system is
        /// lowered to that.
        segment_bytes as "storage.segment_bytes": u64 = number(Unit::Bytes, 64 * KIB, GIB).or("64MiB");
        /// Speed at which synced files are read again and verified, to find damage while other nodes still have intact copies;
        /// 0 turns it off.
        scrub_bytes_per_second as "scrub.bytes_per_second": u64 = number(Unit::Bytes, 0, 64 * GIB).or("4MiB");
        /// Time from the start of one verification of all files to the start of the next. The first one starts ten minutes after
        /// the node.
        scrub_interval as "scrub.interval": Duration = duration(SECOND, YEAR).or("7d").was_in_seconds("scrub_interval_seconds");
        /// Time after which a disk that does not answer ends the process, so that other nodes take over.
        hang_max as "storage.hang_max": Duration = duration(SECOND, HOUR).or("30s").was_in_seconds("hang_seconds_max");
    }

    /// How the replicas of a log get its entries.
    replication: ReplicationOptions => {
        /// Speed at which this node sends entries to lagging followers, to all of them together; 0 is unlimited. Such
        /// entries have a connection of their own, and the entries that producers wait for never wait for them. A limit helps
        /// if both share a slow network or a slow disk.
        catch_up_bytes_per_second as "replication.catch_up_bytes_per_second": u64 = number(Unit::Bytes, 0, 64 * GIB).or("0");
    }

    /// Watermarks of the free space on the disk of the data directory. If one is `None`, it is a fraction of the file
    /// system's size (`storage/io/space.rs`).
    disk_space: DiskSpace => {
        /// Free space on the disk of data_dir below which the node warns, in its log and in `seriatim status`.
        disk_free_soft_bytes as "disk.free_soft_bytes": Option<u64> = WATERMARK.or_derived("2GiB, at most an eighth of the file system", "2GiB");
        /// Free space below which appends are refused with RESOURCE_EXHAUSTED (DISK_FULL), until there is room. Reads, trims and
        /// elections continue.
        disk_free_hard_bytes as "disk.free_hard_bytes": Option<u64> =
            WATERMARK.or_derived("256MiB, at most a sixteenth of the file system", "256MiB");
        /// Size of the file `reserve` in data_dir, which the node deletes when it needs the space for its own writes on a full
        /// disk; 0 creates no file.
        disk_reserve_bytes as "disk.reserve_bytes": Option<u64> =
            number(Unit::Bytes, 0, GIB).or_derived("32MiB, at most a 32nd of the file system", "32MiB");
    }

    /// Limits on what one principal, or all clients and peers, may use at the same time.
    limits: Limits => {
        /// Open streams and waiting Consume calls of one client, identified by the common name of its certificate. A request
        /// beyond this or another limit is refused with RESOURCE_EXHAUSTED.
        streams_per_principal_max as "limits.streams_per_principal_max": u64 = STREAMS.or("12288").reloadable();
        /// Open streams and waiting Consume calls of all clients.
        streams_max as "limits.streams_max": u64 = STREAMS.or("16384").reloadable();
        /// Unanswered calls of one client, not counting streams.
        calls_per_principal_max as "limits.calls_per_principal_max": u64 = CALLS.or("1024").reloadable();
        /// Unanswered calls of all clients, not counting streams.
        calls_max as "limits.calls_max": u64 = CALLS.or("4096").reloadable();
        /// Bytes of one client's unanswered requests; separately, the same number of bytes of responses that it has not read
        /// yet.
        bytes_per_principal_max as "limits.bytes_per_principal_max": u64 = BYTES_IN_FLIGHT.or("24MiB").reloadable();
        /// Bytes of all clients' unanswered requests and unread responses together.
        bytes_max as "limits.bytes_max": u64 = BYTES_IN_FLIGHT.or("64MiB").reloadable();
        /// Memory that gRPC may use for all clients.
        client_memory_bytes_max as "limits.client_memory_bytes_max": u64 = MEMORY.or("512MiB");
        /// Memory that gRPC may use for all peers.
        peer_memory_bytes_max as "limits.peer_memory_bytes_max": u64 = MEMORY.or("256MiB");
    }

    /// What a node logs on stderr.
    logging: LoggingOptions => {
        /// Least severe level that is logged.
        log_level as "logging.level": log::LevelFilter = Spec::new(Form::LogLevel).or("info").reloadable();
    }
}
