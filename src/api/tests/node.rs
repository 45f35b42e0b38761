//! A node for the tests of the API: a log on disk, a catalog, and a thread that answers instead of `consensus`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use grpcio::{Channel, ChannelCredentials, ServerCredentials};
use parking_lot::{Mutex, MutexGuard};

use crate::api::{Api, ApiOptions, Core, Forward, Me};
use crate::catalog::{Catalog, CatalogView, Command, LogMeta, Member};
use crate::config;
use crate::consensus::StreamSequences;
use crate::consensus::handle::{
    Appended, ConsensusHandle, ConsensusMsg, GroupStatus, INBOX_MESSAGES_MAX, Proposal, ProposeError, ReadIndexError,
};
use crate::consensus::status::Statuses;
use crate::doorbell::Doorbell;
use crate::grpc::{Env, client_channel};
use crate::inbox::{Inbox, inbox};
use crate::logs::{Logs, OpenLog};
use crate::pb::cluster_service_grpc::ClusterServiceClient;
use crate::pb::health_grpc::HealthClient;
use crate::pb::log_grpc::LogClient;
use crate::pb::log_service_grpc::LogServiceClient;
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::security::acl::Acl;
use crate::security::identity::Identities;
use crate::security::tls::Authorities;
use crate::storage::disk::Disk;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::{Genesis, GroupLog, LogOptions};
use crate::storage::payload::stamp_records;
use crate::storage::reader::Readers;
use crate::storage::scrub::ScrubHandle;
use crate::storage::space::Space;
use crate::thread::{Fatal, Joiner, fatal_channel, spawn};
use crate::types::{ClusterId, GroupId, LogId, LogIndex, LogName, NodeId, NodeName, Offset, Term};
use crate::waiting::WaitingFor;
use crate::watermark::{HighWatermark, Visible};

pub const GROUP: GroupId = GroupId(1);
pub const LOG_ID: LogId = LogId(0xabc);
pub const TIME_US: u64 = 1_000_000;
pub const ME: NodeId = NodeId(1);
pub const OTHER: NodeId = NodeId(2);

/// Grants everything to every client.
pub const OPEN_POLICY: &str = "p, anonymous, *, produce\np, anonymous, *, consume\np, anonymous, *, admin\n";

/// The outcome of a proposal, on this node or forwarded.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Committed, and visible immediately.
    Commit,
    /// Committed, but not visible here until [`Node::catch_up`].
    CommitElsewhere,
    /// Rejected with this error.
    Fail(ProposeError),
    /// Never answered, until the node is dropped.
    Silence,
}

/// The state of the group's leader.
struct FakeState {
    log: GroupLog,
    watermark: HighWatermark,
    last: LogIndex,
    visible: Visible,
    fates: VecDeque<Fate>,
    fate: Fate,
    silent: Vec<ReplySender<Result<Appended, ProposeError>>>,
    /// The principal of each forwarded proposal.
    forwarded: Vec<String>,
    /// The leader's state of produce streams.
    streams: StreamSequences,
    proposed: usize,
    /// Proposals that the leader rejected because an earlier one of their run was not appended.
    out_of_sequence: usize,
    read_index: Result<(), ReadIndexError>,
    /// First offsets to which the next read indexes trim the log.
    trims: VecDeque<Offset>,
}

#[derive(Clone)]
pub struct FakeConsensus(Arc<Mutex<FakeState>>);

impl FakeConsensus {
    fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock()
    }

    fn propose(&self, proposal: Proposal, reply: ReplySender<Result<Appended, ProposeError>>) {
        let mut state = self.lock();
        let fate = state.fates.pop_front().unwrap_or(state.fate);
        state.proposed += 1;
        if matches!(fate, Fate::Commit | Fate::CommitElsewhere)
            && let Some(place) = proposal.in_stream
        {
            if !state.streams.take(place, Term(1)) {
                state.out_of_sequence += 1;
                return reply.send(Err(ProposeError::Dropped));
            }
            state.streams.record_appended(place, Term(1));
        }
        match fate {
            Fate::Commit => {
                let appended = state.append(&proposal);
                let visible = state.visible;
                state.watermark.advance(visible);
                reply.send(appended);
            }
            Fate::CommitElsewhere => {
                let appended = state.append(&proposal);
                reply.send(appended);
            }
            Fate::Fail(error) => reply.send(Err(error)),
            Fate::Silence => state.silent.push(reply),
        }
    }
}

impl FakeState {
    fn append(&mut self, proposal: &Proposal) -> Result<Appended, ProposeError> {
        let base = self.visible.next_offset;
        if proposal.expected_offset.is_some_and(|expected| expected != base) {
            return Err(ProposeError::ExpectedOffset { next_offset: base });
        }
        let mut payload = proposal.payload.to_vec();
        if proposal.kind == EntryKind::Trim {
            let first = Offset(u64::from_le_bytes(payload[..].try_into().expect("eight bytes")));
            if first > base {
                return Err(ProposeError::PastEnd { next_offset: base });
            }
            self.visible.first_offset = self.visible.first_offset.max(first);
        } else {
            assert_eq!(stamp_records(&mut payload, base, Term(1), TIME_US), Ok(proposal.count));
        }
        self.last = self.last.next();
        let stamp = Stamp {
            kind: proposal.kind,
            count: proposal.count,
            base_offset: base,
            append_time_us: TIME_US,
            producer_id: 0,
            sequence: 0,
        };
        self.log.append(&[Entry::new(self.last, Term(1), stamp, &payload)]).expect("appended");
        self.visible.applied = self.last;
        self.visible.next_offset.0 += u64::from(proposal.count);
        self.visible.last_append_time_us = TIME_US;
        Ok(Appended { offset: base, count: proposal.count, term: Term(1), index: self.last, append_time_us: TIME_US })
    }
}

impl Forward for FakeConsensus {
    fn propose(
        &self,
        to: NodeId,
        principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        assert_eq!(to, OTHER);
        let (tx, rx) = reply();
        self.lock().forwarded.push(principal.to_owned());
        FakeConsensus::propose(self, proposal, tx);
        rx
    }

    fn read_index(
        &self,
        to: NodeId,
        _: GroupId,
        _: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        assert_eq!(to, OTHER);
        let (tx, rx) = reply();
        let state = self.lock();
        tx.send(state.read_index.map(|()| state.last));
        rx
    }
}

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
        GroupLog::create(&disk, &groups, GROUP, &options, Genesis::Founder(ME)).expect("a group");
        let (log, _) = GroupLog::open(&disk, &groups, GROUP, &options).expect("a log");
        let visible = Visible { applied: LogIndex(1), ..Visible::default() };
        let watermark = HighWatermark::new(visible);
        let name = LogName::new("").expect("a name");
        let logs = Logs::default();
        logs.insert(OpenLog {
            name: name.clone(),
            group: GROUP,
            log_id: LOG_ID,
            record_bytes_max: 1 << 20,
            request_bytes_max: 4 << 20,
            watermark: watermark.clone(),
            reader: log.reader(),
        });
        let mut catalog = Catalog::default();
        catalog.apply(member(ME, "one"));
        catalog.apply(member(OTHER, "two"));
        catalog.apply(Command::CreateLog(LogMeta {
            name,
            group: GROUP,
            log_id: LOG_ID,
            founder: ME,
            founded: false,
            record_bytes_max: 1 << 20,
            request_bytes_max: 4 << 20,
            retention_bytes: 0,
            retention_ms: 0,
        }));
        let view = CatalogView::default();
        view.publish(catalog);
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
            consensus: ConsensusHandle::new(inbox, Doorbell::default(), statuses.clone()),
            logs,
            catalog: view,
            catalog_watermark: HighWatermark::new(Visible { applied: LogIndex(5), ..Visible::default() }),
            forward: Arc::new(fake.clone()),
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

    pub fn serve(&self) {
        self.api().serve(self.core.clone());
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

fn answer(fake: &FakeConsensus, messages: &Inbox<ConsensusMsg>) {
    for message in messages.iter() {
        match message {
            ConsensusMsg::Propose(proposal, reply) => fake.propose(proposal, reply),
            ConsensusMsg::ReadIndex(group, _, reply) => {
                let mut state = fake.lock();
                let last = if group == GROUP { state.last } else { LogIndex(5) };
                if let Some(first_offset) = state.trims.pop_front() {
                    state.visible.first_offset = first_offset;
                    state.watermark.advance(state.visible);
                }
                reply.send(state.read_index.map(|()| last));
            }
            ConsensusMsg::Stop => return,
            other => panic!("the API sent {other:?}"),
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
