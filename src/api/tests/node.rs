//! A node for the tests of the API: a log on disk, a catalog, and a thread that answers instead of `consensus`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use grpcio::{Channel, ChannelCredentials, ServerCredentials};
use parking_lot::Mutex;

pub use super::fake::{FakeConsensus, Fate, ME, OTHER, TIME_US};
use super::fake::{FakeState, answer};
use crate::api::leaders::LeaderHints;
use crate::api::{Api, ApiOptions, Core, Forward, Me};
use crate::catalog::{Catalog, CatalogView, Command, LogSettings, Member, NewLog, Origin};
use crate::config;
use crate::consensus::StreamSequences;
use crate::consensus::handle::{ConsensusHandle, GroupStatus, INBOX_MESSAGES_MAX, ProposeError, ReadIndexError};
use crate::consensus::status::Statuses;
use crate::consensus::wake::ConsensusWaker;
use crate::feature_level::Feature;
use crate::grpc::{Env, client_channel};
use crate::inbox::inbox;
use crate::logs::{Logs, OpenLog, Removal};
use crate::pb::cluster_service_grpc::ClusterServiceClient;
use crate::pb::health_grpc::HealthClient;
use crate::pb::log_grpc::LogClient;
use crate::pb::log_service_grpc::LogServiceClient;
use crate::security::acl::Acl;
use crate::security::identity::Identities;
use crate::security::tls::{Authorities, Signer};
use crate::storage::disk::Disk;
use crate::storage::log::{Genesis, GroupLog, LogOptions};
use crate::storage::reader::Readers;
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::Space;
use crate::thread::{Fatal, Joiner, fatal_channel, spawn};
use crate::types::{ClusterId, GroupId, LogId, LogIndex, LogName, NodeId, NodeName, Offset, ReplicaId, Term};
use crate::waiting::WaitingFor;
use crate::watermark::{HighWatermark, Visible};

pub const GROUP: GroupId = GroupId(1);
pub const LOG_ID: LogId = LogId(0xabc);

/// Grants everything to every client.
pub const OPEN_POLICY: &str =
    "p, anonymous, *, produce\np, anonymous, *, consume\np, anonymous, *, commit\np, anonymous, *, admin\n";

/// A node with its client listener, and clients of it.
pub struct Node {
    pub api: Option<Api>,
    pub fake: FakeConsensus,
    /// Of `log.v1`.
    pub client: LogClient,
    pub logs: LogServiceClient,
    pub cluster: ClusterServiceClient,
    pub health: HealthClient,
    pub channel: Channel,
    pub acl: Acl,
    pub policy_file: std::path::PathBuf,
    core: Core,
    statuses: Arc<Statuses>,
    pub waiting: WaitingFor,
    _client_env: Env,
    _env: Env,
    readers: Option<Readers>,
    thread: Option<Joiner>,
    failures: Receiver<Fatal>,
    dir: tempfile::TempDir,
}

/// Small limits, so that tests reach them.
pub fn limits() -> config::Limits {
    config::Limits {
        streams_per_principal_max: 4,
        calls_per_principal_max: 64,
        bytes_per_principal_max: 12 << 20,
        bytes_max: 48 << 20,
        ..config::Limits::default()
    }
}

fn member(id: NodeId, name: &str) -> Command {
    Command::AddNode(Member {
        id,
        name: NodeName::new(name).expect("a name"),
        bind_addr: format!("{name}:1"),
        rpc_addr: format!("{name}:2"),
    })
}

impl Node {
    /// Starts a node that is a member of a cluster, and leads the log `default`.
    pub fn serving() -> Node {
        let node = Node::joining(OPEN_POLICY);
        node.serve();
        node
    }

    /// The same, in a cluster that may have named logs.
    pub fn serving_named_logs() -> Node {
        let node = Node::serving();
        node.commit(Command::RaiseFeatureLevel(Feature::ManyLogs.level()));
        node
    }

    /// Starts a node that is not a member yet.
    pub fn joining(policy: &str) -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let policy_file = dir.path().join("policy.csv");
        std::fs::write(&policy_file, policy).expect("written");
        let acl = Acl::load(None, &policy_file).expect("a policy");
        let (fatal, failures) = fatal_channel();
        let disk = Disk::real();
        let options = LogOptions::default();
        let groups = dir.path().join("groups");
        std::fs::create_dir(&groups).expect("made");
        GroupLog::create(&disk, &groups, GROUP, &options, Genesis::founder(ReplicaId::of_node(ME))).expect("a group");
        let (log, _) = GroupLog::open(&disk, &groups, GROUP, &options).expect("a log");
        let visible = Visible { applied: LogIndex(1), ..Visible::default() };
        let watermark = HighWatermark::new(visible);
        let name = LogName::new("").expect("a name");
        let logs = Logs::default();
        logs.insert(OpenLog {
            restoring_to: None,
            name: name.clone(),
            group: GROUP,
            log_id: LOG_ID,
            record_bytes_max: 1 << 20,
            request_bytes_max: 4 << 20,
            hash_chain: false,
            tables: crate::log_state::TablesView::default(),
            watermark: watermark.clone(),
            reader: log.reader(),
            removal: Removal::default(),
        });
        let mut catalog = Catalog::default();
        let first = NewLog {
            name,
            log_id: LOG_ID,
            origin: Origin::Founder(GROUP, ME),
            settings: LogSettings::default(),
            restore: None,
        };
        for command in [member(ME, "one"), member(OTHER, "two"), Command::CreateLog(first)] {
            catalog.apply(&command, TIME_US);
        }
        let view = CatalogView::default();
        view.publish(catalog);
        let last_command = LogIndex(5);
        let catalog_watermark = HighWatermark::new(Visible { applied: last_command, ..Visible::default() });
        let fake = FakeConsensus(Arc::new(Mutex::new(FakeState {
            log,
            watermark,
            last: LogIndex(1),
            visible,
            fates: VecDeque::new(),
            fate: Fate::Commit,
            silent: Vec::new(),
            forwarded: Vec::new(),
            streams: StreamSequences::default(),
            proposed: 0,
            out_of_sequence: 0,
            read_index: Ok(()),
            trims: VecDeque::new(),
            catalog: view.clone(),
            catalog_watermark: catalog_watermark.clone(),
            last_command,
            logs: logs.clone(),
        })));
        let (inbox, messages) = inbox(INBOX_MESSAGES_MAX);
        let statuses = Arc::new(Statuses::default());
        let runs = fake.clone();
        let thread = spawn("fake-consensus", &fatal, move || {
            answer(&runs, &messages);
            Ok::<(), Infallible>(())
        });
        let readers = Readers::start(&fatal).expect("threads");
        let me = Me { node_id: ME, node_name: NodeName::new("one").expect("a name"), cluster_name: "test".into() };
        let core = Core {
            me: me.clone(),
            cluster_id: ClusterId(7),
            consensus: ConsensusHandle::new(inbox, ConsensusWaker::default(), statuses.clone()),
            logs,
            catalog: view,
            catalog_watermark,
            forward: Arc::new(fake.clone()),
            leaders: LeaderHints::default(),
            readers: readers.handle(),
            scrub: ScrubHandle::default(),
            space: Space::default(),
        };
        let waiting = WaitingFor::default();
        let options = ApiOptions {
            listen_addr: ([127, 0, 0, 1], 0).into(),
            credentials: ServerCredentials::insecure(),
            identities: Identities::new("test", true),
            authorities: Authorities::default(),
            signer: Signer::default(),
            acl: acl.clone(),
            limits: limits(),
            metrics: Arc::default(),
            waiting: waiting.clone(),
            me,
        };
        let env = Env::start("test-api", 1, &fatal);
        let api = Api::start(options, &env, &fatal).expect("a listener");
        let client_env = Env::start("test-client", 1, &fatal);
        let addr = format!("127.0.0.1:{}", api.port());
        let channel = client_channel(client_env.get(), &addr, ChannelCredentials::insecure(), None);
        let node = Node {
            api: Some(api),
            fake,
            client: LogClient::new(channel.clone()),
            logs: LogServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            health: HealthClient::new(channel.clone()),
            channel,
            acl,
            policy_file,
            core,
            statuses,
            waiting,
            _client_env: client_env,
            _env: env,
            readers: Some(readers),
            thread: Some(thread.expect("a thread")),
            failures,
            dir,
        };
        node.leader_is(Some(ME));
        node
    }

    pub fn api(&self) -> &Api {
        self.api.as_ref().expect("not stopped")
    }

    /// Sets the other nodes. Only before [`Node::serve`].
    pub fn set_forward(&mut self, forward: Arc<dyn Forward>) {
        self.core.forward = forward;
    }

    pub fn serve(&self) {
        self.api().serve(self.core.clone());
    }

    /// Commits a command that no request has sent.
    #[track_caller]
    pub fn commit(&self, command: Command) {
        self.fake.lock().commit(command).expect("it fits");
    }

    /// Returns the group of a log.
    #[track_caller]
    pub fn group_of(&self, log: &str) -> GroupId {
        let name = LogName::new(log).expect("a name");
        self.core.catalog.get().log_named(&name).expect("a log").group
    }

    /// Sets the outcome of all further proposals.
    pub fn fate(&self, fate: Fate) {
        self.fake.lock().fate = fate;
    }

    /// Sets the outcomes of the next proposals. After them, that of [`Node::fate`] applies.
    pub fn fates(&self, fates: &[Fate]) {
        self.fake.lock().fates.extend(fates);
    }

    pub fn read_index(&self, result: Result<(), ReadIndexError>) {
        self.fake.lock().read_index = result;
    }

    /// Trims the log to that offset while the next read index is in flight.
    pub fn trim_at_read_index(&self, first_offset: u64) {
        self.fake.lock().trims.push_back(Offset(first_offset));
    }

    /// Sets the leader that this node knows.
    pub fn leader_is(&self, leader: Option<NodeId>) {
        self.statuses.publish(GroupStatus {
            group: GROUP,
            term: Term(1),
            leader,
            voters: vec![ME],
            learners: vec![OTHER],
            ..GroupStatus::default()
        });
    }

    /// Marks this node's replica as damaged.
    pub fn damaged(&self) {
        let damage = Some("a hole".to_owned());
        self.statuses.publish(GroupStatus { group: GROUP, damage, ..GroupStatus::default() });
    }

    /// Makes the records visible on this node that were only committed.
    pub fn catch_up(&self) {
        let state = self.fake.lock();
        state.watermark.advance(state.visible);
    }

    /// Answers all unanswered proposals with this error.
    pub fn answer_the_silent(&self, error: ProposeError) {
        let silent = std::mem::take(&mut self.fake.lock().silent);
        silent.into_iter().for_each(|reply| reply.send(Err(error)));
    }

    /// Answers the unanswered proposals with these errors, in their order.
    pub fn answer_each<const N: usize>(&self, errors: [ProposeError; N]) {
        let silent = std::mem::take(&mut self.fake.lock().silent);
        silent.into_iter().zip(errors).for_each(|(reply, error)| reply.send(Err(error)));
    }

    pub fn silent(&self) -> usize {
        self.fake.lock().silent.len()
    }

    /// Returns how many proposals have reached the leader.
    pub fn proposed(&self) -> usize {
        self.fake.lock().proposed
    }

    /// Returns how many proposals the leader rejected because an earlier one of their run was not appended.
    pub fn out_of_sequence(&self) -> usize {
        self.fake.lock().out_of_sequence
    }

    pub fn forwarded(&self) -> Vec<String> {
        self.fake.lock().forwarded.clone()
    }

    /// Returns the number of futures that wait for the log.
    pub fn waiters(&self) -> usize {
        self.fake.lock().watermark.waiters()
    }

    /// Waits until the condition holds, at most ten seconds.
    pub fn until(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < end, "waited in vain: {what}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(api) = self.api.take() {
            api.stop();
        }
        self.core.consensus.stop();
        self.thread.take();
        if let Some(readers) = self.readers.take() {
            readers.stop();
        }
        if !std::thread::panicking() {
            let failures: Vec<String> = self.failures.try_iter().map(|failure| failure.to_string()).collect();
            assert!(failures.is_empty(), "{failures:?}");
            assert!(self.dir.path().exists());
        }
    }
}
