//! The implementation of `raft::Storage`: raft's view of the segmented log, in memory.
//!
//! The latest entries are kept in memory, up to a limit in bytes. Entries that are not applied yet are always kept,
//! so that raft's internal reads (committed ranges, terms, conf changes before an election) never access the disk.
//! For an older entry, which raft reads only where it can wait, the adapter returns `LogTemporarilyUnavailable`, and
//! a `reader` thread fetches it.
//!
//! Terms are stored as runs and are always read from memory. So damage on a disk never causes a panic inside raft.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use raft::eraftpb::{Entry as RaftEntry, HardState as RaftHardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::consensus::wire;
use crate::log_state::LogState;
use crate::storage::entry::Stamp;
use crate::storage::log::{Base, CatalogState, ConfState, HardState, LogSnapshot, Recovered};
use crate::types::{LogIndex, Offset, ReplicaId, Term};

/// Applied entries stay in memory up to this many bytes, for followers and tails that are nearly up to date. A node
/// with many busy groups keeps fewer of each, and of a quiet group only the last one.
pub const CACHE_BYTES_MAX: usize = 8 << 20;
/// The maximum size of the applied entries of all groups together.
const CACHES_BYTES_MAX: usize = 64 << 20;

/// Returns the maximum size of the applied entries of each group, if this many groups are not quiet.
pub fn cache_bytes_max(awake_groups: usize) -> usize {
    (CACHES_BYTES_MAX / awake_groups.max(1)).min(CACHE_BYTES_MAX)
}
/// A `reader` fetches this many bytes at once for a follower that lags behind the cache.
pub const FETCH_BYTES: u64 = 1 << 20;
/// The number of fetched ranges that are kept. A new one replaces the oldest.
const FETCHED_RANGES_MAX: usize = 4;

/// Where an entry ends: the offset after its last record, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryEnd {
    pub index: LogIndex,
    /// The offset of the next record.
    pub offset: Offset,
    /// Unix microseconds; never decreases.
    pub append_time_us: u64,
}

struct CachedEntry {
    entry: RaftEntry,
    end: EntryEnd,
    /// The bytes of all entries that were ever in this cache, up to this one.
    bytes_until: u64,
}

/// A range of old entries that raft waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRange {
    /// The first entry wanted.
    pub low: LogIndex,
    /// The entry after the last one.
    pub high: LogIndex,
}

#[derive(Default)]
struct Fetching {
    wanted: Vec<FetchRange>,
    waiting: HashMap<u64, Vec<GetEntriesContext>>,
    fetched: VecDeque<Vec<RaftEntry>>,
}

/// raft's storage. Written by the group, read by raft.
pub struct Adapter {
    hard_state: RaftHardState,
    base: Base,
    conf_state: ConfState,
    conf_index: LogIndex,
    log_state: LogState,
    log_state_index: LogIndex,
    /// The newest snapshot of the catalog, in the catalog's group.
    catalog: Option<CatalogState>,
    /// The runs of entries with the same term: first index and term, starting at the base.
    terms: Vec<(LogIndex, Term)>,
    last_index: LogIndex,
    /// The end of the last entry before those in `cache`.
    cache_start: EntryEnd,
    cache: VecDeque<CachedEntry>,
    cache_bytes: usize,
    /// `bytes_until` of the last entry before those in `cache`.
    bytes_before_cache: u64,
    sizes: EntrySizes,
    fetching: RefCell<Fetching>,
}

/// A histogram of the sizes of the entries in memory, each rounded up to a power of two.
#[derive(Default)]
struct EntrySizes([u32; 32]);

impl EntrySizes {
    fn class(entry: &RaftEntry) -> usize {
        (entry_bytes(entry).next_power_of_two().ilog2() as usize).min(31)
    }

    fn add(&mut self, entry: &RaftEntry) {
        self.0[EntrySizes::class(entry)] += 1;
    }

    fn remove(&mut self, entry: &RaftEntry) {
        self.0[EntrySizes::class(entry)] -= 1;
    }

    fn largest(&self) -> usize {
        self.0.iter().rposition(|count| *count > 0).map_or(0, |class| 1 << class)
    }
}

impl Adapter {
    /// Creates the adapter from the recovered state. `tail` contains every entry after `recovered.applied`, and
    /// `start` is the end of the applied entry.
    ///
    /// # Errors
    /// If an entry of the tail has no valid stamp.
    pub fn new(
        recovered: &Recovered,
        start: EntryEnd,
        tail: Vec<RaftEntry>,
    ) -> Result<Adapter, crate::storage::entry::BadEntry> {
        let hard = &recovered.hard_state;
        let mut adapter = Adapter {
            hard_state: RaftHardState {
                term: hard.term.0,
                vote: hard.vote.map_or(0, |n| n.0),
                commit: hard.commit.0,
                ..Default::default()
            },
            base: recovered.base,
            conf_state: recovered.conf_state.clone(),
            conf_index: recovered.conf_index,
            log_state: recovered.log_state.clone(),
            log_state_index: recovered.log_state_index,
            catalog: None,
            terms: recovered.terms.clone(),
            last_index: start.index,
            cache_start: start,
            cache: VecDeque::new(),
            cache_bytes: 0,
            bytes_before_cache: 0,
            sizes: EntrySizes::default(),
            fetching: RefCell::default(),
        };
        if adapter.terms.is_empty() {
            adapter.terms.push((recovered.base.index, recovered.base.term));
        }
        let terms = adapter.terms.clone();
        for entry in tail {
            let end = adapter.end_of(&entry, adapter.last_end())?;
            adapter.push(entry, end);
        }
        adapter.terms = terms;
        Ok(adapter)
    }

    /// Returns the end of `entry`. `before` is the end of the entry before it.
    ///
    /// # Errors
    /// If the stamp of the entry is invalid.
    pub fn end_of(&self, entry: &RaftEntry, before: EntryEnd) -> Result<EntryEnd, crate::storage::entry::BadEntry> {
        let index = LogIndex(entry.index);
        if entry.data.is_empty() || !entry.context.is_empty() {
            return Ok(EntryEnd { index, ..before });
        }
        let stamp = Stamp::decode(&entry.data)?;
        Ok(EntryEnd {
            index,
            offset: Offset(stamp.base_offset.0 + u64::from(stamp.count)),
            append_time_us: stamp.append_time_us.max(before.append_time_us),
        })
    }

    /// Returns the end of the last entry.
    pub fn last_end(&self) -> EntryEnd {
        self.cache.back().map_or(self.cache_start, |c| c.end)
    }

    /// Returns the end of an entry in memory, or of the entry just before the first one in memory.
    pub fn end_at(&self, index: LogIndex) -> Option<EntryEnd> {
        if index == self.cache_start.index {
            return Some(self.cache_start);
        }
        let at = index.0.checked_sub(self.cache_start.index.0 + 1)?;
        self.cache.get(usize::try_from(at).ok()?).map(|c| c.end)
    }

    fn bytes_until_last(&self) -> u64 {
        self.cache.back().map_or(self.bytes_before_cache, |c| c.bytes_until)
    }

    /// Returns the bytes of the entries after `before`, up to `until`. `None` if the first of them is not in memory.
    pub fn bytes_between(&self, before: LogIndex, until: LogIndex) -> Option<u64> {
        let bytes_until = |index: LogIndex| match index.0.checked_sub(self.cache_start.index.0)? {
            0 => Some(self.bytes_before_cache),
            n => Some(self.cache.get(n as usize - 1).map_or(self.bytes_until_last(), |c| c.bytes_until)),
        };
        Some(bytes_until(until.max(before))? - bytes_until(before)?)
    }

    /// Appends an entry after the last one.
    pub fn push(&mut self, entry: RaftEntry, end: EntryEnd) {
        assert_eq!(entry.index, self.last_index.0 + 1, "entries follow each other");
        if self.terms.last().is_none_or(|(_, term)| term.0 != entry.term) {
            self.terms.push((LogIndex(entry.index), Term(entry.term)));
        }
        self.last_index = LogIndex(entry.index);
        let bytes_until = self.bytes_until_last() + entry_bytes(&entry) as u64;
        self.cache_bytes += entry_bytes(&entry);
        self.sizes.add(&entry);
        self.cache.push_back(CachedEntry { entry, end, bytes_until });
    }

    /// Drops the entry at `from` and all later ones.
    pub fn truncate_suffix(&mut self, from: LogIndex) {
        assert!(from > self.cache_start.index, "only what is not applied is ever truncated");
        while self.cache.back().is_some_and(|c| c.end.index >= from) {
            if let Some(dropped) = self.cache.pop_back() {
                self.cache_bytes -= entry_bytes(&dropped.entry);
                self.sizes.remove(&dropped.entry);
            }
        }
        self.terms.retain(|(first, _)| *first < from);
        self.last_index = self.last_end().index;
        self.fetching.get_mut().fetched.clear();
    }

    /// Returns the last entry whose term is lower than `term`.
    pub fn last_before_term(&self, term: Term) -> LogIndex {
        let first_of_term = self.terms.iter().rev().take_while(|(_, of)| *of >= term).last();
        first_of_term.map_or(self.last_index, |(first, _)| LogIndex(first.0.saturating_sub(1)))
    }

    /// Evicts applied entries until the cache has at most `bytes_max`. The last applied entry stays, so that its end is
    /// known.
    pub fn evict(&mut self, applied: LogIndex, bytes_max: usize) {
        while self.cache_bytes > bytes_max && self.cache.front().is_some_and(|c| c.end.index < applied) {
            if let Some(dropped) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&dropped.entry);
                self.sizes.remove(&dropped.entry);
                self.cache_start = dropped.end;
                self.bytes_before_cache = dropped.bytes_until;
            }
        }
    }

    /// Resets to the empty log after a snapshot.
    pub fn install(&mut self, snapshot: &LogSnapshot) {
        self.base = snapshot.base;
        self.conf_state = snapshot.conf_state.clone();
        self.conf_index = snapshot.conf_index;
        self.log_state = snapshot.log_state.clone();
        self.log_state_index = snapshot.log_state_index;
        self.catalog = snapshot.catalog.clone();
        self.terms = vec![(snapshot.base.index, snapshot.base.term)];
        self.last_index = snapshot.base.index;
        let append_time_us = snapshot.log_state.last_append_time_us;
        self.cache_start = EntryEnd { index: snapshot.base.index, offset: snapshot.base.offset, append_time_us };
        self.cache.clear();
        self.cache_bytes = 0;
        self.bytes_before_cache = 0;
        self.sizes = EntrySizes::default();
        *self.fetching.get_mut() = Fetching::default();
    }

    /// Records that the front of the log was dropped: the log now begins after `base`.
    pub fn set_base(&mut self, base: Base) {
        assert!(
            base.index >= self.base.index && base.index <= self.last_index,
            "a base only moves forward, within the log"
        );
        self.base = base;
        let keep = self.terms.partition_point(|(first, _)| *first <= base.index).saturating_sub(1);
        self.terms.drain(..keep);
        if let Some(first) = self.terms.first_mut() {
            *first = (base.index, base.term);
        }
        while self.cache.front().is_some_and(|c| c.end.index <= base.index) {
            if let Some(dropped) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&dropped.entry);
                self.sizes.remove(&dropped.entry);
                self.cache_start = dropped.end;
                self.bytes_before_cache = dropped.bytes_until;
            }
        }
    }

    /// Remembers raft's hard state.
    pub fn set_hard_state(&mut self, hard_state: RaftHardState) {
        self.hard_state = hard_state;
    }

    /// Returns raft's hard state in its stored form.
    pub fn hard_state(&self) -> HardState {
        HardState {
            term: Term(self.hard_state.term),
            vote: Some(ReplicaId(self.hard_state.vote)).filter(|n| n.0 != 0),
            commit: LogIndex(self.hard_state.commit),
        }
    }

    /// Remembers the conf state after the conf change at `index`.
    pub fn set_conf(&mut self, conf_state: ConfState, index: LogIndex) {
        self.conf_state = conf_state;
        self.conf_index = index;
    }

    /// Remembers the log state after the entry at `index`.
    pub fn set_log_state(&mut self, log_state: LogState, index: LogIndex) {
        self.log_state = log_state;
        self.log_state_index = index;
    }

    /// Returns the conf state, and the index of the entry that produced it.
    pub fn conf(&self) -> (&ConfState, LogIndex) {
        (&self.conf_state, self.conf_index)
    }

    /// Returns the log state, and the index of the last entry that it includes.
    pub fn log_state(&self) -> (&LogState, LogIndex) {
        (&self.log_state, self.log_state_index)
    }

    /// Remembers the newest snapshot of the catalog, for followers that lack entries before the base.
    pub fn set_catalog(&mut self, catalog: CatalogState) {
        self.catalog = Some(catalog);
    }

    /// Where the log begins.
    pub fn base(&self) -> Base {
        self.base
    }

    /// Returns the ranges that raft has requested since the last call.
    pub fn take_fetches(&mut self) -> Vec<FetchRange> {
        std::mem::take(&mut self.fetching.get_mut().wanted)
    }

    /// Stores the entries that a `reader` fetched for the range that starts at `low`. `entries` is empty if the read
    /// failed; raft then asks again. Returns the contexts with which raft requested the range.
    pub fn fetched(&mut self, low: LogIndex, entries: Vec<RaftEntry>) -> Vec<GetEntriesContext> {
        let fetching = self.fetching.get_mut();
        if !entries.is_empty() {
            if fetching.fetched.len() == FETCHED_RANGES_MAX {
                fetching.fetched.pop_front();
            }
            fetching.fetched.push_back(entries);
        }
        fetching.waiting.remove(&low.0).unwrap_or_default()
    }

    /// Returns an upper bound of the size of an entry that may be sent next: at least the size of the largest entry
    /// in memory (including fetched ones), and at most twice that size.
    pub fn largest_bytes(&self) -> usize {
        let fetching = self.fetching.borrow();
        fetching.fetched.iter().flatten().map(entry_bytes).fold(self.sizes.largest(), usize::max)
    }

    /// Returns the total size of the cached entries.
    pub fn cached_bytes(&self) -> usize {
        self.cache_bytes
    }

    fn first_cached(&self) -> u64 {
        self.cache_start.index.0 + 1
    }
}

fn entry_bytes(entry: &RaftEntry) -> usize {
    entry.data.len() + entry.context.len() + size_of::<CachedEntry>()
}

/// Returns the first entries that fit into `max_bytes` together, but at least one.
fn take_bytes<'a>(entries: impl Iterator<Item = &'a RaftEntry>, max_bytes: Option<u64>) -> Vec<RaftEntry> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for entry in entries {
        bytes += entry_bytes(entry) as u64;
        if !taken.is_empty() && max_bytes.is_some_and(|max| bytes > max) {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

impl Storage for Adapter {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), wire::conf_to_raft(&self.conf_state)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        let max_size = max_size.into();
        if low <= self.base.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last_index.0 + 1, "raft asked for entries up to {high}, the last is {}", self.last_index);
        if low >= self.first_cached() {
            let at = (low - self.first_cached()) as usize;
            let until = (high - self.first_cached()) as usize;
            return Ok(take_bytes(self.cache.range(at..until).map(|c| &c.entry), max_size));
        }
        assert!(context.can_async(), "entry {low} is not applied and not in memory");
        let mut fetching = self.fetching.borrow_mut();
        let range = fetching.fetched.iter().find(|range| {
            range.first().is_some_and(|e| e.index <= low) && range.last().is_some_and(|e| e.index >= low)
        });
        if let Some(range) = range {
            let wanted = range.iter().filter(|e| e.index >= low && e.index < high);
            return Ok(take_bytes(wanted, max_size));
        }
        let waiting = fetching.waiting.entry(low).or_default();
        waiting.push(context);
        if waiting.len() == 1 {
            let high = high.min(self.first_cached());
            fetching.wanted.push(FetchRange { low: LogIndex(low), high: LogIndex(high) });
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.base.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last_index.0 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let run = self.terms.partition_point(|(first, _)| first.0 <= index);
        Ok(self.terms[run - 1].1.0)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index.0)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let to = ReplicaId(to);
        let known = self.conf_state.voters.contains(&to) || self.conf_state.learners.contains(&to);
        if !known || self.base.index.0 < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(wire::snapshot_to_raft(&LogSnapshot {
            base: self.base,
            conf_state: self.conf_state.clone(),
            conf_index: self.conf_index,
            log_state: self.log_state.clone(),
            log_state_index: self.log_state_index,
            catalog: self.catalog.clone(),
        }))
    }
}
