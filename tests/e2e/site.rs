//! The directory of a test's cluster: certificates, the policy and the nodes' data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use grpcio::ChannelCredentials;
use seriatim::client::{Client, ClientFiles};
use seriatim::config::{Config, TlsFiles};
use seriatim::security::certs::{self, Ca, Plan, Request, Usage};
use seriatim::security::peer_names::peer_san;
use seriatim::security::tls::client_credentials;

use super::{SERIATIM, client_with};

pub const CLUSTER: &str = "seriatim";

/// `root` may do everything, `writer` and `reader` one thing with the log `default`, `nobody` nothing.
pub const POLICY: &str = "\
p, root, *, produce
p, root, *, consume
p, root, *, commit
p, root, *, admin
p, peer, *, replicate
p, writer, default, produce
p, reader, default, consume
p, role:team, default, produce
g, member, role:team
";

/// Without TLS every client and every peer is `anonymous`.
const INSECURE_POLICY: &str = "\
p, anonymous, *, produce
p, anonymous, *, consume
p, anonymous, *, commit
p, anonymous, *, admin
p, anonymous, *, replicate
";

const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

static EXCLUSIVE: RwLock<()> = RwLock::new(());

enum Isolation {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Exclusive(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

pub struct Site {
    dir: tempfile::TempDir,
    cluster: String,
    /// All nodes share one peer certificate, as clusters did before certificates named their node.
    shared_peers: bool,
    /// Nodes and clients use no TLS.
    insecure: bool,
    #[expect(dead_code, reason = "held")]
    isolation: Isolation,
}

impl Site {
    /// Creates a site; other tests may run at the same time.
    pub fn new() -> Site {
        Site::make(CLUSTER, &LOOPBACK, Isolation::Shared(EXCLUSIVE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Creates a site for a cluster of that name, whose nodes are reached at these hosts.
    pub fn of_cluster(cluster: &str, hosts: &[&str]) -> Site {
        Site::make(cluster, hosts, Isolation::Shared(EXCLUSIVE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Creates a site whose nodes share one peer certificate.
    pub fn with_shared_peers() -> Site {
        Site { shared_peers: true, ..Site::new() }
    }

    /// Creates a site without TLS, in which every client may do everything.
    pub fn insecure() -> Site {
        let site = Site { insecure: true, ..Site::new() };
        fs::write(site.policy(), INSECURE_POLICY).expect("a policy");
        site
    }

    /// Creates a site for a test that counts threads: no other test runs at the same time.
    pub fn exclusive() -> Site {
        Site::make(CLUSTER, &LOOPBACK, Isolation::Exclusive(EXCLUSIVE.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn make(cluster: &str, hosts: &[&str], isolation: Isolation) -> Site {
        let dir = tempfile::tempdir().expect("a folder");
        let site = Site { dir, cluster: cluster.to_owned(), shared_peers: false, insecure: false, isolation };
        let plan = hosts.iter().fold(Plan::new(cluster), |plan, host| plan.host(host));
        let plan =
            ["root", "writer", "reader", "member", "nobody"].iter().fold(plan, |plan, client| plan.client(client));
        certs::make(&site.certs(), &plan).expect("certificates");
        fs::write(site.policy(), POLICY).expect("a policy");
        site
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn certs(&self) -> PathBuf {
        self.path().join("certs")
    }

    pub fn policy(&self) -> PathBuf {
        self.path().join("policy.csv")
    }

    /// The CA of all certificates.
    pub fn ca(&self) -> Ca {
        Ca::load(&self.certs()).expect("the CA")
    }

    /// Whether nodes and clients use no TLS.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// Returns the TLS files of a node. Issues its peer certificate if it is missing.
    pub fn node_files(&self, name: &str) -> TlsFiles {
        let files = TlsFiles::in_dir(&self.certs(), name);
        if !files.peer_cert_file.exists() && self.shared_peers {
            self.share_peer(name);
        } else if !files.peer_cert_file.exists() {
            self.name_peer(name);
        }
        files
    }

    /// Issues a node's peer certificate. `NEW+OLD` puts both names into it.
    pub fn name_peer(&self, names: &str) {
        certs::renew(&self.certs(), &Plan::new(&self.cluster).peer(names)).expect("a certificate");
    }

    /// Issues a node a peer certificate of the shared kind.
    pub fn share_peer(&self, name: &str) {
        let request = Request {
            common_names: vec!["peer".to_owned()],
            hosts: vec![peer_san(&self.cluster)],
            usage: Usage::Peer,
            lifetime_seconds: 3600,
        };
        let dir = self.certs().join(name);
        fs::create_dir_all(&dir).expect("a folder");
        self.ca().issue_files(&request, &dir, "peer").expect("a certificate");
    }

    /// Returns the credentials of that node as a peer.
    pub fn peer_credentials(&self, name: &str) -> ChannelCredentials {
        let files = self.node_files(name);
        client_credentials(&files.peer_ca_file, &files.peer_cert_file, &files.peer_key_file).expect("credentials")
    }

    /// Returns the TLS files of a client.
    pub fn client_files(&self, user: &str) -> ClientFiles {
        ClientFiles {
            ca_file: self.certs().join("ca.pem"),
            cert_file: self.certs().join(format!("client-{user}.pem")),
            key_file: self.certs().join(format!("client-{user}-key.pem")),
        }
    }

    /// Returns a client with the certificate of `user`, or without TLS in a site without.
    pub fn client(&self, addr: impl ToString, user: &str) -> Client {
        client_with(addr, (!self.insecure).then(|| self.client_files(user)))
    }

    /// Returns the configuration of a node that runs in this process.
    pub fn config(&self, name: &str) -> Config {
        let mut config = Config::for_test(self.path(), name).expect("a configuration");
        config.tls = Some(self.node_files(name));
        config
    }

    /// Returns a command that runs the program, without the `SERIATIM_*` variables of this process.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(SERIATIM);
        // The profiles of the user who runs the tests have no effect.
        command.args(args).current_dir(self.path()).env("XDG_CONFIG_HOME", self.path().join("config"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SERIATIM_")) {
            command.env_remove(name);
        }
        command
    }

    /// Returns a command that runs the program as a client of the node at `addr`, as `root`, or without TLS in a site
    /// without.
    pub fn cli(&self, addr: &str, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("SERIATIM_CLIENT_ADDR", addr);
        match self.insecure {
            true => command.env("SERIATIM_CLIENT_INSECURE", "true"),
            false => command.env("SERIATIM_CLIENT_CERTS", self.certs()),
        };
        command
    }
}
