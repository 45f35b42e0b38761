//! Tests with several nodes in one process, over real connections on loopback. The test reads the inbox of each
//! node's consensus.

mod forwards;
mod joins;
mod levels;
mod refusals;
mod relays;
mod replicates;
mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::catalog::{Catalog, CatalogView, Command, Member};
use crate::config::TlsFiles;
use crate::consensus::PeerInbox;
use crate::consensus::handle::{ConsensusHandle, ConsensusMsg, INBOX_MESSAGES_MAX};
use crate::consensus::status::Statuses;
use crate::consensus::wake::ConsensusWaker;
use crate::feature_level::{ClusterLevel, FeatureRange};
use crate::grpc::Env;
use crate::inbox::{Inbox, inbox};
use crate::logs::Logs;
use crate::metrics::{Metrics, Registry};
use crate::pb::peer::{Entry, LogSnapshot, RaftMessage};
use crate::replication::Late;
use crate::replication::bulk_rate::BulkRate;
use crate::replication::dial::Dialer;
use crate::replication::guard::PeerGuard;
use crate::replication::hello::PeerIdentity;
use crate::replication::listener::{PeerListener, PeerListenerOptions};
use crate::replication::peers::{Peers, PeersHandle};
use crate::security::acl::Acl;
use crate::security::certs::{Ca, Plan, Request, Usage, make};
use crate::security::identity::Identities;
use crate::security::peer_names::{Dialled, peer_san};
use crate::security::peer_rules::PeerRules;
use crate::security::tls::Tls;
use crate::thread::{FatalSender, fatal_channel};
use crate::types::{ClusterId, NodeId, NodeName};
use crate::watermark::HighWatermark;

pub(crate) const CLUSTER: &str = "test";
pub(crate) const CLUSTER_ID: ClusterId = ClusterId(77);
/// The timeout of waits. Only a failing test waits this long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// One node: all parts of replication, and the inbox of its consensus.
pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) addr: String,
    pub(crate) catalog: CatalogView,
    pub(crate) inbox: Inbox<ConsensusMsg>,
    pub(crate) statuses: Arc<Statuses>,
    pub(crate) logs: Logs,
    pub(crate) from_peers: Arc<PeerInbox>,
    pub(crate) dialer: Dialer,
    pub(crate) fatal: FatalSender,
    pub(crate) late: Late<PeersHandle>,
    pub(crate) listener: PeerListener,
    pub(crate) peers: Peers,
    pub(crate) metrics: Arc<Metrics>,
    cluster_name: String,
    guard: PeerGuard,
    tls: Tls,
    // Dropped last, because its threads end only after everything that uses them is dropped.
    env: Env,
}

/// The settings of a test's node.
pub(crate) struct Setup<'a> {
    pub(crate) id: u64,
    pub(crate) cluster_name: &'a str,
    pub(crate) cluster_id: ClusterId,
    pub(crate) tls: Option<&'a TlsFiles>,
    pub(crate) policy: &'a str,
    /// True if only certificates that name their node are accepted.
    pub(crate) require_named: bool,
    /// The feature levels of its binary.
    pub(crate) levels: FeatureRange,
    /// False for a node that waits to be admitted.
    pub(crate) is_member: bool,
}

impl Setup<'_> {
    pub(crate) fn node(id: u64) -> Setup<'static> {
        Setup {
            id,
            cluster_name: CLUSTER,
            cluster_id: CLUSTER_ID,
            tls: None,
            policy: "p, anonymous, *, replicate\np, peer, *, replicate",
            require_named: false,
            levels: FeatureRange::SUPPORTED,
            is_member: true,
        }
    }

    pub(crate) fn start(self) -> TestNode {
        let (fatal, _) = fatal_channel();
        let env = Env::start(&format!("grpc-peer-{}", self.id), 1, &fatal);
        let tls = Tls::load(self.tls, self.cluster_name).expect("certificates");
        let identities = Identities::new(self.cluster_name, tls.is_insecure());
        let rules = match self.tls {
            None => PeerRules::without_tls(self.cluster_name),
            Some(_) => PeerRules::load(self.cluster_name, self.require_named, None).expect("rules"),
        };
        let metrics = Arc::<Metrics>::default();
        let acl = Acl::from_text(self.policy).expect("a policy");
        let guard = PeerGuard::new(identities, tls.peer_authorities(), acl, rules.clone(), metrics.clone());
        let late = Late::default();
        let listener = listen(&env, self.cluster_name, &tls, &guard, &late, &fatal, "127.0.0.1:0");
        let addr = format!("127.0.0.1:{}", listener.port());
        let dialer = Dialer::for_cluster(env.get(), tls.clone(), rules);
        let catalog = CatalogView::default();
        let (tx, inbox) = inbox(INBOX_MESSAGES_MAX);
        let consensus = Late::default();
        let statuses = Arc::new(Statuses::default());
        let handle = ConsensusHandle::new(tx, ConsensusWaker::default(), statuses.clone());
        let from_peers = handle.peer_inbox();
        assert!(consensus.set(handle).is_ok());
        let me = PeerIdentity {
            cluster_name: self.cluster_name.to_owned(),
            cluster_id: self.cluster_id,
            node_id: NodeId(self.id),
            bind_addr: addr.clone(),
            levels: ClusterLevel::new(self.levels),
        };
        let logs = Logs::default();
        let peers = Peers::start(
            me,
            dialer.clone(),
            (catalog.clone(), HighWatermark::default()),
            consensus,
            logs.clone(),
            BulkRate::new(0, &Registry::default()),
            fatal.clone(),
        );
        if self.is_member {
            assert!(late.set(peers.handle()).is_ok());
        }
        TestNode {
            id: NodeId(self.id),
            addr,
            catalog,
            inbox,
            statuses,
            logs,
            from_peers,
            dialer,
            fatal,
            late,
            listener,
            peers,
            metrics,
            cluster_name: self.cluster_name.to_owned(),
            guard,
            tls,
            env,
        }
    }
}

fn listen(
    env: &Env,
    cluster_name: &str,
    tls: &Tls,
    guard: &PeerGuard,
    late: &Late<PeersHandle>,
    fatal: &FatalSender,
    addr: &str,
) -> PeerListener {
    let options = PeerListenerOptions {
        bind_addr: addr.to_owned(),
        cluster_name: cluster_name.to_owned(),
        memory_bytes_max: 256 << 20,
        forming: Late::default(),
    };
    let creds = tls.peer_listener();
    PeerListener::start(env, &options, creds, guard.clone(), late.clone(), fatal.clone()).expect("a listener")
}

impl TestNode {
    pub(crate) fn member(&self) -> Member {
        Member {
            id: self.id,
            name: NodeName::new(&format!("n{}", self.id.0)).expect("a name"),
            bind_addr: self.addr.clone(),
            rpc_addr: format!("127.0.0.1:{}", 9000 + self.id.0),
        }
    }

    /// Connects to this node like a peer.
    pub(crate) fn dial(&self, from: &TestNode) -> crate::pb::peer_grpc::PeerClient {
        crate::pb::peer_grpc::PeerClient::new(from.dialer.channel(&self.addr, &Dialled::Member).expect("not stopping"))
    }

    pub(crate) fn stop_listening(&mut self) {
        self.listener.stop();
    }

    /// Starts the listener again, at the same address or at `addr`.
    pub(crate) fn listen_again(&mut self, addr: &str) {
        self.listener.stop();
        self.listener = listen(&self.env, &self.cluster_name, &self.tls, &self.guard, &self.late, &self.fatal, addr);
        self.addr = format!("127.0.0.1:{}", self.listener.port());
    }

    pub(crate) fn next(&self) -> ConsensusMsg {
        self.inbox.recv_timeout(LONG).expect("a message for consensus")
    }

    /// Returns messages of peers, once `count` have arrived.
    pub(crate) fn messages(&self, count: usize) -> Vec<RaftMessage> {
        let until = Instant::now() + LONG;
        let mut messages = Vec::new();
        while messages.len() < count {
            assert!(Instant::now() < until, "{} of {count} messages", messages.len());
            messages.extend(self.from_peers.take(usize::MAX).into_iter().map(|(_, message)| message));
            std::thread::yield_now();
        }
        messages
    }

    /// Returns true if no message arrives for a while.
    pub(crate) fn is_quiet(&self) -> bool {
        let nothing = matches!(self.inbox.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
        nothing && self.from_peers.is_empty()
    }

    pub(crate) fn knows(&self, members: &[Member]) {
        let mut catalog = Catalog::clone(&self.catalog.get());
        for member in members {
            catalog.apply(&Command::AddNode(member.clone()), 1);
        }
        self.catalog.publish(catalog);
    }

    pub(crate) fn removes(&self, node: NodeId) {
        let mut catalog = Catalog::clone(&self.catalog.get());
        catalog.apply(&Command::RemoveNode(node), 1);
        self.catalog.publish(catalog);
    }
}

/// Returns two members that know each other.
pub(crate) fn pair() -> (TestNode, TestNode) {
    let (a, b) = (Setup::node(1).start(), Setup::node(2).start());
    let members = [a.member(), b.member()];
    a.knows(&members);
    b.knows(&members);
    (a, b)
}

pub(crate) fn message(from: NodeId, to: NodeId, index: u64, bytes: usize) -> RaftMessage {
    let entry = Entry { index, data: vec![7; bytes].into(), ..Entry::default() };
    RaftMessage { group: 1, from: from.0, to: to.0, index, entries: vec![entry], ..RaftMessage::default() }
}

pub(crate) fn snapshot(from: NodeId, to: NodeId, group: u64) -> RaftMessage {
    RaftMessage {
        group,
        from: from.0,
        to: to.0,
        snapshot: Some(LogSnapshot::default()).into(),
        ..RaftMessage::default()
    }
}

/// Creates the certificates of a cluster in a directory, for the nodes `n1` to `n5`.
pub(crate) fn certs(dir: &Path, cluster_name: &str) {
    let plan = Plan::new(cluster_name).host("127.0.0.1").client("root");
    let plan = (1..=5).fold(plan, |plan, id| plan.peer(&format!("n{id}")));
    make(dir, &plan).expect("certificates");
}

/// Returns the files of the node `n<id>`.
pub(crate) fn files_of(dir: &Path, id: u64) -> TlsFiles {
    TlsFiles::in_dir(dir, &format!("n{id}"))
}

/// Creates a shared certificate, which does not name a node, for the node `n<id>`.
pub(crate) fn share(dir: &Path, cluster_name: &str, id: u64) {
    let request = Request {
        common_names: vec!["peer".to_owned()],
        hosts: vec![peer_san(cluster_name)],
        usage: Usage::Peer,
        lifetime_seconds: 3600,
    };
    let ca = Ca::load(dir).expect("the CA");
    ca.issue_files(&request, &dir.join(format!("n{id}")), "peer").expect("a certificate");
}
