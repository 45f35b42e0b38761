//! Where a test's nodes live: a folder with certificates, a policy and data.

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

/// The name of the tests' clusters.
pub const CLUSTER: &str = "seriatim";

/// Who may do what: `root` everything, `writer` and `reader` one thing with the log `default`, `nobody` nothing.
pub const POLICY: &str = "\
p, root, *, produce
p, root, *, consume
p, root, *, admin
p, peer, *, replicate
p, writer, default, produce
p, reader, default, consume
p, role:team, default, produce
g, member, role:team
";

const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

static ALONE: RwLock<()> = RwLock::new(());

enum Company {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// A folder with certificates, a policy and the nodes' data.
pub struct Site {
    dir: tempfile::TempDir,
    cluster: String,
    /// All nodes share one peer certificate, as before certificates named their node.
    shared_peers: bool,
    #[expect(dead_code, reason = "held")]
    company: Company,
}

impl Site {
    /// A new one; other tests may run meanwhile.
    pub fn new() -> Site {
        Site::make(CLUSTER, &LOOPBACK, Company::Shared(ALONE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A new one, for a cluster of that name, whose nodes are reached at these hosts.
    pub fn of_cluster(cluster: &str, hosts: &[&str]) -> Site {
        Site::make(cluster, hosts, Company::Shared(ALONE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A new one whose nodes share one peer certificate.
    pub fn with_shared_peers() -> Site {
        Site { shared_peers: true, ..Site::new() }
    }

    /// A new one in a test that counts threads: no other test runs meanwhile.
    pub fn alone() -> Site {
        Site::make(CLUSTER, &LOOPBACK, Company::Alone(ALONE.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn make(cluster: &str, hosts: &[&str], company: Company) -> Site {
        let dir = tempfile::tempdir().expect("a folder");
        let site = Site { dir, cluster: cluster.to_owned(), shared_peers: false, company };
        let plan = hosts.iter().fold(Plan::new(cluster), |plan, host| plan.host(host));
        let plan =
            ["root", "writer", "reader", "member", "nobody"].iter().fold(plan, |plan, client| plan.client(client));
        certs::make(&site.certs(), &plan).expect("certificates");
        fs::write(site.policy(), POLICY).expect("a policy");
        site
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of certificates.
    pub fn certs(&self) -> PathBuf {
        self.path().join("certs")
    }

    /// The policy.
    pub fn policy(&self) -> PathBuf {
        self.path().join("policy.csv")
    }

    /// The authority of all its certificates.
    pub fn ca(&self) -> Ca {
        Ca::load(&self.certs()).expect("the CA")
    }

    /// The files of the node with this name; its peer certificate is issued when it is missing.
    pub fn node_files(&self, name: &str) -> TlsFiles {
        let files = TlsFiles::in_dir(&self.certs(), name);
        if !files.peer_cert_file.exists() && self.shared_peers {
            self.share_peer(name);
        } else if !files.peer_cert_file.exists() {
            self.name_peer(name);
        }
        files
    }

    /// Issues a node's peer certificate; `NEW+OLD` names both.
    pub fn name_peer(&self, names: &str) {
        certs::renew(&self.certs(), &Plan::new(&self.cluster).peer(names)).expect("a certificate");
    }

    /// Gives a node the certificate that all share.
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

    /// What shows the certificate of that node as a peer.
    pub fn peer_credentials(&self, name: &str) -> ChannelCredentials {
        let files = self.node_files(name);
        client_credentials(&files.peer_ca_file, &files.peer_cert_file, &files.peer_key_file).expect("credentials")
    }

    /// The certificate of a client.
    pub fn client_files(&self, user: &str) -> ClientFiles {
        ClientFiles {
            ca_file: self.certs().join("ca.pem"),
            cert_file: self.certs().join(format!("client-{user}.pem")),
            key_file: self.certs().join(format!("client-{user}-key.pem")),
        }
    }

    /// A client with the certificate of `user`.
    pub fn client(&self, addr: impl ToString, user: &str) -> Client {
        client_with(addr, Some(self.client_files(user)))
    }

    /// A configuration for a node within this process.
    pub fn config(&self, name: &str) -> Config {
        let mut config = Config::for_test(self.path(), name).expect("a configuration");
        config.tls = Some(self.node_files(name));
        config
    }

    /// The program, with the environment of the tests: no variable of the caller's reaches it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(SERIATIM);
        command.args(args).current_dir(self.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SERIATIM_")) {
            command.env_remove(name);
        }
        command
    }

    /// The program as a client of the node at `addr`, as `root`.
    pub fn cli(&self, addr: &str, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("SERIATIM_ADDR", addr).env("SERIATIM_CERTS", self.certs());
        command
    }
}
