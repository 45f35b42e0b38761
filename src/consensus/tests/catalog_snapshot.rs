//! The snapshot of the catalog after a crash: it may be ahead of its log.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::consensus::Outbound;
use crate::consensus::completions::Completions;
use crate::consensus::group::{GroupConfig, Rules};
use crate::consensus::handle::{Proposal, ReadIndexError};
use crate::consensus::replica::{Replica, ReplicaOrigin};
use crate::consensus::sinks::Sinks;
use crate::feature_level::FeatureRange;
use crate::pb::peer::RaftMessage;
use crate::reply::{ReplyReceiver, reply};
use crate::storage::disk::sim::Sim;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::{CatalogState, Genesis, GroupLog, HardState, LogOptions};
use crate::storage::reader::ReadersByHand;
use crate::types::{GroupId, LogIndex, NodeId, Offset, ReplicaId, Term};
use crate::watermark::HighWatermark;
use crate::writer::{Report, WriterByHand};

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

/// Starts the catalog's replica with entries up to 10, this commit index, and a snapshot up to this entry. Returns the
/// entry up to which the log counts as applied.
fn applied(commit: u64, snapshot: u64) -> LogIndex {
    let (sim, groups, options) = (Sim::default(), Path::new("/n/groups"), LogOptions { segment_bytes: 4096 });
    let disk = sim.disk();
    let me = ReplicaId(1);
    let genesis = Genesis::Voters(vec![me, ReplicaId(2)], Offset(0));
    GroupLog::create(&disk, groups, GroupId::CATALOG, &options, genesis).expect("made");
    let (mut log, _) = GroupLog::open(&disk, groups, GroupId::CATALOG, &options).expect("opened");
    let stamp = Stamp {
        kind: EntryKind::Noop,
        count: 0,
        base_offset: Offset(0),
        append_time_us: 1,
        producer_id: 0,
        sequence: 0,
    };
    let entries: Vec<Entry> = (2..=10).map(|index| Entry::new(LogIndex(index), Term(2), stamp, &[])).collect();
    let hard_state = HardState { term: Term(2), vote: None, commit: LogIndex(commit) };
    log.append_ready(&entries, Some(&hard_state)).expect("written");
    drop(log);
    let (log, recovered) = GroupLog::open(&disk, groups, GroupId::CATALOG, &options).expect("opened again");
    assert_eq!((recovered.last_index, recovered.hard_state.commit), (LogIndex(10), LogIndex(commit)));
    let completions = Completions::default();
    let writer = WriterByHand::new(&disk, Report::new(|_, _| {}, |_, _| {}));
    let readers = ReadersByHand::new(2);
    let sinks = Sinks { writer: writer.handle(), readers: readers.handle(), outbound: Arc::new(Nobody), completions };
    let config =
        GroupConfig { id: GroupId::CATALOG, me, leads_at_first: false, election_ticks: None, rules: Rules::default() };
    let catalog = CatalogState { index: LogIndex(snapshot), bytes: Bytes::new() };
    let origin = ReplicaOrigin { catalog: Some(catalog), ..ReplicaOrigin::default() };
    let replica = Replica::start(config, log, recovered, HighWatermark::default(), &sinks, origin).expect("started");
    replica.group.visible().applied
}

/// Once, the entries up to the snapshot counted as applied, even if the commit index on disk was lower: raft panicked
/// at each start. The snapshot is synced at once, the commit index with the next entries; and a snapshot of the leader
/// is stored before the log restarts after it.
#[test]
fn a_snapshot_ahead_of_the_commit_index_does_not_prevent_a_start() {
    assert_eq!(applied(6, 4), LogIndex(4));
    assert_eq!(applied(6, 6), LogIndex(6));
    assert_eq!(applied(6, 8), LogIndex(6), "the commit index was lost");
    assert_eq!(applied(6, 500), LogIndex(6), "the leader's snapshot, whose log was not installed");
    assert_eq!(applied(10, 500), LogIndex(10));
}
