//! Repairs damaged files of running replicas.
//!
//! - The manifest, a state file, `node.toml` and the snapshot of the catalog are written again from memory.
//! - The newest segment is ended first, and then repaired like the others.
//! - The damaged entries of another segment are fetched from a peer (`storage/write/repair.rs`). Meanwhile the replica
//!   neither leads nor votes nor acknowledges anything. One segment of the node is repaired at a time.
//! - If each other voter has trimmed the entries, or has others than those that the running digest of this log demands,
//!   the replica can't be repaired. It is damaged, and is replaced like one that could not be opened, if the others have a
//!   majority without it. The first segment of a replica may contain trimmed entries, because segments begin elsewhere on
//!   each node.
//!
//! If no peer can send the entries, the replica takes part again, and the repair is tried again later. A peer may itself
//! be damaged there, and a group whose other replicas are damaged too must not stop.

pub(super) mod serving;

use std::collections::{BTreeMap, VecDeque};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::serving::Serving;
use super::quiet::QuietGroups;
use crate::consensus::error::HostError;
use crate::consensus::group::{Successor, repairing};
use crate::consensus::groups::Groups;
use crate::consensus::replica::Replica;
use crate::consensus::sinks::Sinks;
use crate::consensus::wire::stored_entries_from_pb;
use crate::events::{EventKind, Events, Severity};
use crate::metrics::Counter;
use crate::pb::peer::{RaftMessage, RepairRequest};
use crate::storage::entry::Entry;
use crate::storage::log::{Base, StorageError};
use crate::storage::repair::{self, DamagedFile, RepairError, SegmentRepair};
use crate::types::{GroupId, NodeId, ReplicaId};

/// Damage is looked for once in this many ticks.
const LOOK_TICKS: u64 = 20;
/// A peer that has not answered after this many ticks is not asked again.
const ANSWER_TICKS: u64 = 40;
/// A leader that could not hand over after this many ticks continues to lead.
const HAND_OVER_TICKS: u64 = 40;
/// A replica takes part again if its repair takes longer than this many ticks.
const EXCLUDED_TICKS: u64 = 400;
/// The ticks before the second attempt; this doubles with each further one.
const RETRY_TICKS: u64 = 1200;
const RETRIES_DOUBLED_MAX: u32 = 6;
/// The result of a job on a reader thread.
enum Done {
    Surveyed(Result<Option<SegmentRepair>, StorageError>),
    Written(Result<(), RepairError>),
}

enum Stage {
    /// Until the replica takes no part.
    Excluding,
    Surveying,
    Asking {
        peer: (NodeId, ReplicaId),
        since: u64,
    },
    Writing,
}

/// The repair of one segment.
struct Mend {
    group: GroupId,
    me: ReplicaId,
    number: u64,
    began: u64,
    stage: Stage,
    /// True if the replica should take no part until it is repaired.
    excludes: bool,
    is_excluded: bool,
    /// The peers that are not asked yet.
    peers: VecDeque<(NodeId, ReplicaId)>,
    repair: Option<SegmentRepair>,
    entries: Vec<Entry>,
    /// The end of the log after `entries`.
    end: Base,
    /// The replica that was asked last.
    asked: ReplicaId,
    /// Why some replicas can never send the entries.
    never: BTreeMap<ReplicaId, String>,
}

/// The damaged files that are repaired, and the repairs that failed.
pub struct Mending {
    current: Option<Mend>,
    done: (Sender<Done>, Receiver<Done>),
    /// When a segment is tried again, and how often it was tried.
    failed: BTreeMap<(GroupId, u64), (u64, u32)>,
    repaired: Counter,
    events: Events,
    /// The requests of other nodes.
    pub serving: Serving,
}

impl Mending {
    /// Counts the repaired files in `repaired`, and shows the repairs as events.
    pub fn new(repaired: Counter, events: Events) -> Mending {
        // One job runs at a time.
        let done = bounded(1);
        Mending { current: None, done, failed: BTreeMap::new(), repaired, events, serving: Serving::default() }
    }

    fn record(&self, severity: Severity, text: String) {
        self.events.record(EventKind::Damage, severity, text);
    }

    /// Continues on a tick. Returns the name of a damaged file of the node that the caller writes again. `asks`: peers
    /// understand the requests.
    ///
    /// # Errors
    /// If a log can't be written.
    pub fn tick(
        &mut self,
        tick: u64,
        groups: &mut Groups,
        quiet: &mut QuietGroups,
        sinks: &Sinks,
        asks: bool,
    ) -> Result<Option<String>, HostError> {
        let Some(mut mend) = self.current.take() else {
            return if tick.is_multiple_of(LOOK_TICKS) { self.look(tick, groups, sinks, asks) } else { Ok(None) };
        };
        if let Ok(done) = self.done.1.try_recv() {
            let ended = match done {
                Done::Surveyed(surveyed) => self.surveyed(&mut mend, surveyed, tick, groups, sinks),
                Done::Written(written) => self.written(&mut mend, written, tick, groups, sinks),
            };
            if ended {
                end(&mend, groups, quiet);
                return Ok(None);
            }
        }
        match groups.get_mut(&mend.group).filter(|replica| replica.group.me() == mend.me) {
            // Its job still runs: the result is dropped.
            None => {}
            Some(replica) => {
                if mend.is_excluded && tick > mend.began + EXCLUDED_TICKS {
                    mend.is_excluded = false;
                    repairing::end(&mut replica.group);
                }
                if matches!(mend.stage, Stage::Excluding) && exclude(&mut mend, tick, replica) {
                    let (reader, number, done) = (replica.reader.clone(), mend.number, self.done.0.clone());
                    let survey = Box::new(move || drop(done.send(Done::Surveyed(repair::survey(&reader, number)))));
                    if sinks.readers.run_own(survey).is_ok() {
                        mend.stage = Stage::Surveying;
                    }
                }
            }
        }
        // Perhaps this node has another replica of the group by now.
        let is_there = groups.get(&mend.group).is_some_and(|replica| replica.group.me() == mend.me);
        if matches!(mend.stage, Stage::Excluding) && !is_there {
            return Ok(None);
        }
        if matches!(mend.stage, Stage::Asking { since, .. } if tick > since + ANSWER_TICKS)
            && self.ask_next(&mut mend, tick, groups, sinks)
        {
            end(&mend, groups, quiet);
            return Ok(None);
        }
        self.current = Some(mend);
        Ok(None)
    }

    /// Looks for a damaged file, and repairs it or starts its repair.
    fn look(&mut self, tick: u64, groups: &mut Groups, sinks: &Sinks, asks: bool) -> Result<Option<String>, HostError> {
        let waits = |group: GroupId, file: &DamagedFile| match file {
            DamagedFile::Sealed(number) => self.failed.get(&(group, *number)).is_some_and(|(until, _)| *until > tick),
            DamagedFile::Newest | DamagedFile::Small(_) | DamagedFile::OfNode(_) => false,
        };
        let found = groups.iter().find_map(|(group, replica)| {
            let file = repair::damaged_files(&replica.reader).into_iter().find(|file| !waits(*group, file))?;
            (!replica.group.differs()).then_some((*group, file))
        });
        let Some((group, file)) = found else { return Ok(None) };
        let Some(replica) = groups.get_mut(&group) else { return Ok(None) };
        match file {
            DamagedFile::Small(name) => {
                log::warn!("group {group}: writing {name} again, because it is damaged");
                self.record(Severity::Warning, format!("group {group}: file {name} was damaged and is written again"));
                repair::write_small_files(&mut replica.log());
                sinks.writer.sync(group, 0);
                repair::forget(&replica.reader, &name);
                self.repaired.inc();
            }
            DamagedFile::OfNode(name) => {
                log::warn!("writing {name} again, because it is damaged");
                self.record(Severity::Warning, format!("file {name} was damaged and is written again"));
                repair::forget(&replica.reader, &name);
                self.repaired.inc();
                return Ok(Some(name));
            }
            DamagedFile::Newest => {
                log::warn!("group {group}: ending the newest segment, because it is damaged");
                self.record(Severity::Error, format!("group {group}: the newest segment is damaged"));
                repair::seal(&mut replica.log())?;
                sinks.writer.sync(group, 0);
            }
            DamagedFile::Sealed(number) => self.start(group, number, tick, replica, asks),
        }
        Ok(None)
    }

    fn start(&mut self, group: GroupId, number: u64, tick: u64, replica: &Replica, asks: bool) {
        let tries = self.failed.get(&(group, number)).map_or(0, |(_, tries)| *tries);
        let leader = replica.group.leader();
        let mut peers: Vec<(NodeId, ReplicaId)> = Vec::new();
        if asks {
            let others = replica.group.other_voters();
            peers.extend(others.filter_map(|id| Some((replica.group.nodes().node_of(id)?, id))));
            peers.sort_by_key(|(_, id)| Some(*id) != leader);
        }
        self.current = Some(Mend {
            group,
            me: replica.group.me(),
            number,
            began: tick,
            stage: Stage::Excluding,
            excludes: tries == 0 && !peers.is_empty(),
            is_excluded: false,
            peers: peers.into(),
            repair: None,
            entries: Vec::new(),
            end: Base::default(),
            asked: ReplicaId::default(),
            never: BTreeMap::new(),
        });
    }

    /// Returns true if the repair has ended.
    fn surveyed(
        &mut self,
        mend: &mut Mend,
        surveyed: Result<Option<SegmentRepair>, StorageError>,
        tick: u64,
        groups: &mut Groups,
        sinks: &Sinks,
    ) -> bool {
        let Some(replica) = groups.get_mut(&mend.group).filter(|replica| replica.group.me() == mend.me) else {
            return true;
        };
        match surveyed {
            Ok(Some(repair)) if repair.high > replica.group.commit_index().next() => {
                self.fails(mend, tick, "it is not committed")
            }
            Ok(Some(repair)) => {
                (mend.end, mend.repair) = (repair.before, Some(repair));
                self.ask_next(mend, tick, groups, sinks)
            }
            Ok(None) => {
                // It could be read this time, or it was trimmed.
                repair::reopen(&replica.log(), mend.number);
                true
            }
            Err(error) => self.fails(mend, tick, &error.to_string()),
        }
    }

    /// Asks the next peer for all entries. Returns true if the repair has ended.
    fn ask_next(&mut self, mend: &mut Mend, tick: u64, groups: &mut Groups, sinks: &Sinks) -> bool {
        let Some(repair) = mend.repair.clone() else { return self.fails(mend, tick, "it was not read") };
        mend.entries.clear();
        mend.end = repair.before;
        if repair.low >= repair.high {
            return self.write(mend, tick, sinks);
        }
        let Some(peer) = mend.peers.pop_front() else {
            if let Some(replica) = groups.get_mut(&mend.group).filter(|replica| replica.group.me() == mend.me)
                && let Some(why) = why_never(mend, replica)
            {
                if replica.group.leads() {
                    replica.group.hand_over(Successor::Any);
                    return self.fails(mend, tick, &format!("{why}; handing over leadership first"));
                }
                let what = format!("segment {} is damaged, and can't be repaired: {why}", mend.number);
                replica.group.set_damaged(what);
                // Not taken back.
                mend.is_excluded = false;
            }
            return self.fails(mend, tick, "no other replica could send its entries");
        };
        request(mend, &repair, peer, tick, sinks);
        false
    }

    /// Returns true if the repair has ended.
    fn write(&mut self, mend: &mut Mend, tick: u64, sinks: &Sinks) -> bool {
        let Some(repair) = mend.repair.clone() else { return self.fails(mend, tick, "it was not read") };
        let (entries, done) = (std::mem::take(&mut mend.entries), self.done.0.clone());
        let write = Box::new(move || drop(done.send(Done::Written(repair.write(&entries)))));
        if sinks.readers.run_own(write).is_err() {
            return self.fails(mend, tick, "the reader threads are busy");
        }
        mend.stage = Stage::Writing;
        false
    }

    /// Returns true if the repair has ended.
    fn written(
        &mut self,
        mend: &mut Mend,
        written: Result<(), RepairError>,
        tick: u64,
        groups: &mut Groups,
        sinks: &Sinks,
    ) -> bool {
        match written {
            Ok(()) => {
                if let Some(replica) = groups.get_mut(&mend.group).filter(|replica| replica.group.me() == mend.me) {
                    repair::reopen(&replica.log(), mend.number);
                    log::warn!("group {}: segment {} is repaired", mend.group, mend.number);
                    self.record(Severity::Info, format!("group {}: segment {} is repaired", mend.group, mend.number));
                    self.repaired.inc();
                }
                self.failed.remove(&(mend.group, mend.number));
                true
            }
            Err(RepairError::Removed) => true,
            Err(error @ RepairError::OtherEntries(_)) => {
                log::error!("group {}: segment {} is not repaired: {error}", mend.group, mend.number);
                mend.never.insert(mend.asked, error.to_string());
                self.ask_next(mend, tick, groups, sinks)
            }
            Err(RepairError::Storage(error)) => self.fails(mend, tick, &error.to_string()),
        }
    }

    fn fails(&mut self, mend: &Mend, tick: u64, why: &str) -> bool {
        let tries = self.failed.get(&(mend.group, mend.number)).map_or(0, |(_, tries)| *tries) + 1;
        log::warn!("group {}: segment {} is not repaired yet: {why}", mend.group, mend.number);
        let text = format!("group {}: segment {} is damaged and not repaired yet: {why}", mend.group, mend.number);
        self.record(Severity::Error, text);
        let wait = RETRY_TICKS << (tries - 1).min(RETRIES_DOUBLED_MAX);
        self.failed.insert((mend.group, mend.number), (tick + wait, tries));
        true
    }

    /// Handles the entries of a peer.
    pub fn answer(
        &mut self,
        from: NodeId,
        message: RaftMessage,
        tick: u64,
        groups: &mut Groups,
        quiet: &mut QuietGroups,
        sinks: &Sinks,
    ) {
        let Some(mut mend) = self.current.take() else { return };
        let is_awaited = matches!(mend.stage, Stage::Asking { peer, .. } if peer == (from, ReplicaId(message.from)))
            && (message.group, message.to, message.index) == (mend.group.0, mend.me.0, mend.end.index.next().0);
        let ended = is_awaited && self.answered(&mut mend, message, tick, groups, sinks);
        match ended {
            true => end(&mend, groups, quiet),
            false => self.current = Some(mend),
        }
    }

    fn answered(
        &mut self,
        mend: &mut Mend,
        message: RaftMessage,
        tick: u64,
        groups: &mut Groups,
        sinks: &Sinks,
    ) -> bool {
        let Some(repair) = mend.repair.clone() else { return self.fails(mend, tick, "it was not read") };
        match stored_entries_from_pb(message.entries, mend.end) {
            Ok((entries, end)) if !entries.is_empty() && end.index < repair.high => {
                mend.entries.extend(entries);
                mend.end = end;
                if end.index.next() == repair.high {
                    return self.write(mend, tick, sinks);
                }
                request(mend, &repair, (self.sender(mend), ReplicaId(message.from)), tick, sinks);
                false
            }
            Ok(_) => {
                if message.repair_answer.trimmed {
                    mend.never.insert(mend.asked, "it has trimmed them".to_owned());
                }
                self.ask_next(mend, tick, groups, sinks)
            }
            Err(what) => {
                mend.never.insert(mend.asked, what);
                self.ask_next(mend, tick, groups, sinks)
            }
        }
    }

    fn sender(&self, mend: &Mend) -> NodeId {
        match mend.stage {
            Stage::Asking { peer: (node, _), .. } => node,
            Stage::Excluding | Stage::Surveying | Stage::Writing => NodeId(0),
        }
    }

    /// True while a segment is repaired.
    #[cfg(test)]
    pub fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Forgets groups that this node no longer has replicas of.
    pub fn forget(&mut self, dropped: &[GroupId]) {
        self.failed.retain(|(group, _), _| !dropped.contains(group));
    }
}

/// Returns why the replica is to be given up, if no other voter can ever send the entries. Not if that would stop the
/// group: the others must have a majority without it, and replicas of the catalog are not replaced.
fn why_never(mend: &Mend, replica: &Replica) -> Option<String> {
    let others: Vec<ReplicaId> = replica.group.other_voters().collect();
    let has_majority = others.len() > others.len().div_ceil(2);
    // Perhaps it was trimmed meanwhile.
    let is_there = repair::damaged_files(&replica.reader).contains(&DamagedFile::Sealed(mend.number));
    let is_never = others.iter().all(|other| mend.never.contains_key(other));
    let gives_up = has_majority && is_there && is_never && mend.group != GroupId::CATALOG;
    let reasons = mend.never.iter().map(|(replica, why)| format!("replica {replica}: {why}"));
    gives_up.then(|| format!("no other voter has its entries: {}", reasons.collect::<Vec<_>>().join("; ")))
}

/// Asks a peer for the next entries.
fn request(mend: &mut Mend, repair: &SegmentRepair, peer: (NodeId, ReplicaId), tick: u64, sinks: &Sinks) {
    let (low, high) = (mend.end.index.next().0, repair.high.0);
    mend.stage = Stage::Asking { peer, since: tick };
    mend.asked = peer.1;
    let message = RaftMessage {
        group: mend.group.0,
        from: mend.me.0,
        to: peer.1.0,
        repair_request: Some(RepairRequest { low, high, ..RepairRequest::default() }).into(),
        ..RaftMessage::default()
    };
    sinks.outbound.send(peer.0, message);
}

/// Hands over leadership, and then lets the replica take no part. Returns true if the repair can begin.
fn exclude(mend: &mut Mend, tick: u64, replica: &mut Replica) -> bool {
    if !mend.excludes || replica.group.is_damaged() {
        return true;
    }
    if replica.group.leads() {
        replica.group.hand_over(Successor::Any);
        return tick > mend.began + HAND_OVER_TICKS;
    }
    repairing::begin(&mut replica.group, format!("segment {} is damaged, and is being repaired", mend.number));
    mend.is_excluded = true;
    true
}

/// Wakes the group: a quiet group whose leader takes no part any more needs another one.
fn end(mend: &Mend, groups: &mut Groups, quiet: &mut QuietGroups) {
    let replica = quiet.wake(mend.group, groups).filter(|replica| replica.group.me() == mend.me);
    if let Some(replica) = replica.filter(|_| mend.is_excluded) {
        repairing::end(&mut replica.group);
    }
}
