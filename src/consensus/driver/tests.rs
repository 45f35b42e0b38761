//! Tests of the driver without its thread: what it proposes by itself.

mod checks;
mod cluster;
mod commit_notices;
mod damage;
mod elections;
mod from_peers;
mod levels;
mod lost_nodes;
mod machines;
mod mending;
mod network;
mod on_callers;
mod quiet_groups;
mod simulation;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::catalog::policy::facts::Replicas;
use crate::catalog::{Command, LogSettings, NewLog};
use crate::consensus::driver::governor::SILENT_TICKS_MAX;
use crate::consensus::handle::{Appended, Proposal};
use crate::feature_level::FeatureRange;
use crate::pb::peer::RaftMessage;
use crate::reply::{ReplyReceiver, reply};
use crate::storage::entry::{EntryKind, Unstamped};
use crate::storage::log::{Genesis, GroupLog};
use crate::thread::fatal_channel;
use crate::types::{LogIndex, LogName, NodeId, NodeName, ReplicaId};

struct Nobody;

impl Outbound for Nobody {
    fn send(&self, _to: NodeId, _message: RaftMessage) {}

    fn propose(&self, _to: NodeId, _proposal: Proposal) {}

    fn read_index(&self, _to: NodeId, _group: GroupId) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        reply().1
    }

    fn levels_of(&self, _node: NodeId) -> Option<FeatureRange> {
        Some(FeatureRange::SUPPORTED)
    }
}

/// A single node that founds a cluster. Its log-writer and readers are real; the test supplies the ticks.
struct Founder {
    driver: Driver,
    view: CatalogView,
    handle: ConsensusHandle,
    _writer: crate::writer::Writer,
    _readers: crate::storage::reader::Readers,
}

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn member(id: NodeId, name: &str) -> Member {
    Member {
        id,
        name: NodeName::new(name).expect("a name"),
        bind_addr: format!("{name}:1"),
        rpc_addr: format!("{name}:2"),
    }
}

impl Founder {
    fn start(dir: &std::path::Path, name: &str) -> Founder {
        Founder::try_start(dir, name, CatalogView::default()).expect("recovered")
    }

    fn try_start(dir: &std::path::Path, name: &str, view: CatalogView) -> Result<Founder, HostError> {
        let (fatal, _) = fatal_channel();
        let disk = Disk::real();
        let data_dir = Arc::new(DataDir::open(&disk, dir).expect("a data directory"));
        let log_options = LogOptions::default();
        let node_file = data_dir.load().expect("read").unwrap_or_else(|| {
            let genesis = Genesis::founder(ReplicaId::of_node(ME));
            GroupLog::create(&disk, &data_dir.groups_dir(), GroupId::CATALOG, &log_options, genesis).expect("created");
            let node_file = NodeFile::new(ME, NodeName::new(name).expect("a name")).with_group(GroupId::CATALOG);
            NodeFile { cluster_id: Some(crate::types::ClusterId(7)), ..node_file }
        });
        data_dir.store(&node_file).expect("stored");
        let consensus = Consensus::default();
        let writer = crate::writer::Writer::start(
            &disk,
            consensus.report(),
            crate::writer::WriterMetrics::new(&crate::metrics::Registry::default()),
            &fatal,
        )
        .expect("a thread");
        let readers = crate::storage::reader::Readers::start(&fatal).expect("threads");
        let parts = ConsensusParts {
            metrics: crate::metrics::Registry::default(),
            me: member(ME, name),
            disk,
            data_dir,
            node_file,
            log_options,
            writer: writer.handle(),
            readers: readers.handle(),
            scrub: ScrubHandle::default(),
            outbound: Arc::new(Nobody),
            catalog: view.clone(),
            catalog_watermark: HighWatermark::default(),
            logs: Logs::default(),
        };
        let handle = consensus.handle();
        let driver = consensus.recover(parts)?;
        driver.waker.attach_current_thread();
        Ok(Founder { driver, view, handle, _writer: writer, _readers: readers })
    }

    /// Ticks until the node leads, at least once. Afterwards everything is synced and applied.
    fn tick(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        self.driver.tick().expect("a tick");
        loop {
            self.driver.take_completions();
            self.driver.perform().expect("performed");
            if self
                .driver
                .groups
                .iter()
                .map(|(_, replica)| replica)
                .all(|replica| replica.group.leads() && replica.group.is_idle())
            {
                return;
            }
            assert!(Instant::now() < until, "not applied in time");
            if self.driver.groups.iter().map(|(_, replica)| replica).all(|replica| replica.group.leads()) {
                self.driver.waker.wait_until(until);
            } else {
                // While a conf change is applied again, the node can't campaign at once: an election timeout must pass.
                self.driver.waker.wait_until(Instant::now() + Duration::from_millis(1));
                self.driver.tick().expect("a tick");
            }
        }
    }

    /// Requests a change of the catalog, and waits for the answer.
    fn command(&mut self, command: Command) -> Result<Appended, ProposeError> {
        self.command_of(command, FeatureRange::SUPPORTED)
    }

    /// The same, for a node that supports these feature levels.
    fn command_of(&mut self, command: Command, supported: FeatureRange) -> Result<Appended, ProposeError> {
        let (tx, rx) = reply();
        self.driver.handle(ConsensusMsg::Command(command, supported, tx));
        self.tick();
        rx.wait().expect("an answer")
    }

    fn propose(&mut self, proposal: Proposal) -> Result<Appended, ProposeError> {
        let (tx, rx) = reply();
        self.driver.handle(ConsensusMsg::Propose(proposal, tx));
        self.tick();
        rx.wait().expect("an answer")
    }

    fn last_index(&self) -> LogIndex {
        self.driver.groups[&GroupId::CATALOG].group.status().last_index
    }

    /// Ticks until nothing more is proposed, at most a hundred times.
    fn settle(&mut self) {
        for _ in 0..100 {
            let before = self.last_index();
            self.tick();
            self.tick();
            if self.last_index() == before {
                return;
            }
        }
        panic!("an entry on every tick, the last one is {}", self.last_index());
    }
}

/// A member was restarted with the name of another member. While it led the catalog, it proposed that name on every
/// tick, and every node ignored the command: twenty entries per second, synced on every node and kept forever.
#[test]
fn a_name_that_another_member_has_is_not_proposed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    assert_eq!(founder.driver.governor.catalog().member(ME), Some(&member(ME, "n1")));
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    founder.settle();
    drop(founder);

    let mut founder = Founder::start(dir.path(), "n2");
    founder.settle();
    let before = founder.last_index();
    (0..100).for_each(|_| founder.tick());
    assert_eq!(founder.last_index(), before);
    assert_eq!(founder.driver.governor.catalog().member(ME), Some(&member(ME, "n1")));
    drop(founder);

    let mut founder = Founder::start(dir.path(), "n3");
    founder.settle();
    assert_eq!(founder.driver.governor.catalog().member(ME), Some(&member(ME, "n3")), "a free name is accepted");
}

#[test]
fn a_command_that_changes_nothing_is_not_appended() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let log = founder.driver.governor.catalog().logs().next().expect("the first log").clone();
    assert!(log.name == LogName::new("").expect("a name"));
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    founder.command(Command::RemoveNode(OTHER)).expect("removed");
    founder.settle();
    let before = founder.last_index();
    for command in [
        Command::AddNode(member(ME, "n1")),
        Command::AddNode(member(NodeId(3), "n1")),
        Command::AddNode(member(OTHER, "n2")),
        Command::RemoveNode(OTHER),
        Command::CreateLog(NewLog::of_level_1(ME, LogSettings::default())),
        Command::Founded(log.group),
    ] {
        assert_eq!(founder.command(command.clone()), Err(ProposeError::Dropped), "{command:?}");
    }
    assert_eq!(founder.last_index(), before);
    assert!(founder.command(Command::AddNode(member(NodeId(3), "n2"))).is_ok());
}

/// The published catalog lacked the last commands, which a stop had applied and acknowledged.
#[test]
fn a_stop_publishes_the_commands_that_it_applies() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let (view, watermark) = (founder.view.clone(), founder.driver.host.catalog_watermark.clone());
    let before = watermark.get().applied;
    let (tx, _nobody_waits) = reply();
    founder.driver.handle(ConsensusMsg::Command(Command::AddNode(member(OTHER, "n2")), FeatureRange::SUPPORTED, tx));
    founder.driver.perform().expect("appended");
    let until = Instant::now() + Duration::from_secs(20);
    while founder.driver.sinks.completions.is_empty() {
        assert!(Instant::now() < until, "not synced in time");
        founder.driver.waker.wait_until(until);
    }
    // It is committed now, and the node stops before it is applied.
    founder.driver.take_completions();
    let Founder { driver, _writer, _readers, .. } = founder;
    driver.stop().expect("stopped");
    assert!(watermark.get().applied > before, "the stop applied it");
    assert_eq!(view.get().member(OTHER), Some(&member(OTHER, "n2")));
}

/// Hundreds of nodes that did not exist were added as learners within seconds.
#[test]
fn one_node_joins_at_a_time_also_after_a_change_of_leader() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    // The second node asks while the entry of the first one is not applied yet.
    let replies: Vec<_> = (2..100)
        .map(|id| {
            let (tx, rx) = reply();
            founder.driver.handle(ConsensusMsg::Command(
                Command::AddNode(member(NodeId(id), &format!("n{id}"))),
                FeatureRange::SUPPORTED,
                tx,
            ));
            rx
        })
        .collect();
    founder.settle();
    let taken: Vec<bool> = replies.into_iter().map(|rx| rx.wait().expect("an answer").is_ok()).collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    assert_eq!(founder.driver.governor.catalog().members().map(|m| m.id).collect::<Vec<_>>(), [ME, OTHER]);
    drop(founder);

    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let third = Command::AddNode(member(NodeId(3), "n3"));
    assert_eq!(founder.command(third.clone()), Err(ProposeError::Dropped));
    let moved = Command::AddNode(Member { bind_addr: "elsewhere:1".to_owned(), ..member(OTHER, "n2") });
    assert!(founder.command(moved).is_ok(), "the joining node may move meanwhile");
    assert_eq!(founder.command(third), Err(ProposeError::Dropped));
}

#[test]
fn an_abandoned_join_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    founder.settle();
    // The same host with an empty data directory: the name is the same, the id is new.
    let again = Command::AddNode(member(NodeId(3), "n2"));
    assert_eq!(founder.command(again.clone()), Err(ProposeError::Dropped));
    let mut facts: Replicas = founder.driver.groups.iter().map(|(id, replica)| (*id, replica.facts(false))).collect();
    let replicas = facts.values_mut().flat_map(|facts| &mut facts.progress);
    replicas.filter(|replica| replica.replica == ReplicaId::of_node(OTHER)).for_each(|replica| replica.active = false);
    let due = facts.keys().copied().collect();
    let (policy, catalog) = founder.driver.governor.policy();
    for tick in 0..u64::from(SILENT_TICKS_MAX) {
        policy.tick(catalog, &facts, &due, Now { tick, at: Instant::now(), wall_us: 0 });
    }
    assert_eq!(founder.command(again.clone()), Err(ProposeError::Dropped), "its removal comes first");
    founder.settle();
    assert!(founder.driver.governor.catalog().is_removed(OTHER));
    assert!(founder.command(again).is_ok());
}

/// A waker that reads the log when it is woken, while the watermark advances.
struct ReadOnWake {
    watermark: HighWatermark,
    reader: crate::storage::reader::GroupReader,
    seen: parking_lot::Mutex<Vec<(crate::types::Offset, bool)>>,
}

impl std::task::Wake for ReadOnWake {
    fn wake(self: Arc<Self>) {
        let (from, until) = (crate::types::Offset(0), crate::types::Offset(1));
        let read = self.reader.records(from, until, 1, 1 << 20, crate::storage::reader::Access::Blocking);
        self.seen.lock().push((self.watermark.get().first_offset, read.is_ok()));
    }
}

/// The files were removed first, so for a moment responses contained a first offset whose record no longer existed.
#[test]
fn a_trim_is_visible_before_its_files_are_removed() {
    use std::future::Future as _;

    use crate::storage::payload::{RecordFields, encode_record};
    use crate::watermark::Until;

    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    // Large enough that the trim ends the newest segment.
    let value = vec![b'x'; 512 << 10];
    let mut payload = Unstamped::room(value.len() + 64);
    encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
    let records = Proposal::new(GroupId(1), EntryKind::Records, 1, Unstamped::new(payload));
    let mut first_offset = Unstamped::room(8);
    first_offset.extend_from_slice(&1u64.to_le_bytes());
    let trim = Proposal::new(GroupId(1), EntryKind::Trim, 0, Unstamped::new(first_offset));
    let appended = founder.propose(records).expect("appended");

    let replica = &founder.driver.groups[&GroupId(1)];
    let (watermark, reader) = (replica.watermark.clone(), replica.reader.clone());
    let read = Arc::new(ReadOnWake { watermark: watermark.clone(), reader, seen: parking_lot::Mutex::default() });
    let (fatal, _) = fatal_channel();
    let timers = crate::timers::Timers::start(&fatal).expect("a thread");
    let mut wait = Box::pin(watermark.wait(Until::Applied(appended.index.next()), &timers.handle()));
    let waker = std::task::Waker::from(read.clone());
    assert!(wait.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    founder.propose(trim).expect("appended");
    assert_eq!(*read.seen.lock(), [(crate::types::Offset(1), true)], "visible, and the record can still be read");
    std::task::Wake::wake_by_ref(&read);
    assert_eq!(read.seen.lock().last(), Some(&(crate::types::Offset(1), false)), "now it is removed");
}

/// A wait at a damaged replica would never end, so an undeleted log must not start waits again.
#[test]
fn a_damaged_replica_of_an_undeleted_log_ends_waits() {
    use std::future::Future as _;

    use crate::consensus::group::CommittedCommand;
    use crate::consensus::replica::CatalogInput;
    use crate::watermark::Until;

    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let (fatal, _) = fatal_channel();
    let timers = crate::timers::Timers::start(&fatal).expect("a thread");
    let group = GroupId(1);
    let watermark = founder.driver.groups[&group].watermark.clone();
    let mut index = LogIndex(1000);
    for is_damaged in [false, true] {
        let commands = [(Command::DeleteLog(group, None, None), true), (Command::UndeleteLog(group), is_damaged)];
        for (command, ends) in commands {
            index = index.next();
            let bytes = command.encode().into();
            let input = CatalogInput::Command(CommittedCommand { index, append_time_us: 1, bytes });
            let Driver { governor, groups, host, sinks, .. } = &mut founder.driver;
            governor.apply(vec![input], groups, host, sinks).expect("applied");
            founder.driver.perform().expect("performed");
            let mut wait = Box::pin(watermark.wait(Until::Applied(LogIndex(1 << 40)), &timers.handle()));
            let polled = wait.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
            assert_eq!(polled.is_ready(), ends, "{command:?}, damaged: {is_damaged}");
        }
        founder.driver.groups.get_mut(&group).expect("a replica").group.set_damaged("a test".to_owned());
        founder.driver.perform().expect("performed");
    }
}
