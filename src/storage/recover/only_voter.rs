//! What `seriatim recover` finds in a replica's files, and the files with which the replica continues as the only voter
//! of its group.
//!
//! Nothing of the log is rewritten: it continues in a new, empty segment, whose header contains the new hard state, and a
//! new manifest contains the new conf state. Every entry of the log counts as committed. The catalog's log is the
//! exception: it begins anew after the snapshot that the caller writes.

use std::path::Path;

use super::chain::{Chain, Ended};
use super::recovery::{Survey, look_after};
use super::tables;
use crate::storage::error::StorageError;
use crate::storage::format::entry::{EntryKind, TERM_TOO_LARGE};
use crate::storage::format::frame::{FrameKind, Header, Position};
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::recovery_file::Change;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::format::state::{Base, ConfState, HardState, StoredLogState};
use crate::storage::io::disk::{Access, Disk};
pub(crate) use crate::storage::io::group_files::Purpose;
use crate::storage::io::group_files::{GroupFiles, group_dir};
use crate::storage::read::index_file::index_path;
use crate::storage::read::walk::{Walk, WalkError};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// A replica of a stopped node, as a start would recover it.
pub(crate) struct StoppedReplica {
    files: GroupFiles,
    chain: Chain,
    ended: Ended,
}

/// What is known about a stopped replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaFacts {
    /// The entry before the first stored one.
    pub(crate) base: Base,
    /// The last entry.
    pub(crate) last: Base,
    /// The first record that clients may read.
    pub(crate) first_offset: Offset,
    pub(crate) term: Term,
    /// The last entry that this replica knows to be committed.
    pub(crate) committed: LogIndex,
    /// A start reads every entry after this one.
    pub(crate) applied: LogIndex,
    pub(crate) conf_state: ConfState,
    /// The conf state includes the conf changes up to here.
    pub(crate) conf_index: LogIndex,
    /// This replica was found to differ from a leader's, at this entry or an earlier one.
    pub(crate) differing: Option<LogIndex>,
    /// Bytes that were never synced, and are cut off.
    pub(crate) torn_bytes: u64,
}

impl ReplicaFacts {
    /// True if the replica has not received anything yet.
    pub(crate) fn is_blank(&self) -> bool {
        self.last.index < Base::FIRST
    }
}

impl StoppedReplica {
    /// Reads the files of a group. Changes nothing. With [`Purpose::Recover`] everything that is read is synced.
    ///
    /// # Errors
    /// [`StorageError`], for everything that a start refuses.
    pub(crate) fn read(
        disk: &Disk,
        groups_dir: &Path,
        group: GroupId,
        purpose: Purpose,
    ) -> Result<StoppedReplica, StorageError> {
        let files = GroupFiles::read(disk, group_dir(groups_dir, group), group, purpose)?;
        let (chain, ended) = Survey::of(&files)?.choose(&files)?;
        tables::restore(disk, &files, &chain, &ended)?;
        Ok(StoppedReplica { files, chain, ended })
    }

    /// Returns what is known about the replica.
    ///
    /// # Errors
    /// If a segment can't be read.
    pub(crate) fn facts(&self) -> Result<ReplicaFacts, StorageError> {
        let (manifest, ended) = (&self.files.manifest, &self.ended);
        let (_, torn_bytes) = look_after(&self.files, &self.chain, ended.at)?;
        // Everything that was applied was committed, also if the newer commit index was not synced.
        let committed = ended.hard_state.commit.max(manifest.applied).max(manifest.base.index).min(ended.last.index);
        Ok(ReplicaFacts {
            base: manifest.base,
            last: ended.last,
            first_offset: manifest.log_state.first_offset,
            term: ended.hard_state.term.max(ended.last.term),
            committed,
            applied: manifest.applied.min(committed).max(manifest.base.index),
            conf_state: manifest.conf_state.clone(),
            // The manifest with an applied index includes all conf changes up to it.
            conf_index: manifest.conf_index.max(manifest.applied),
            differing: manifest.differing,
            torn_bytes,
        })
    }

    /// Passes every entry after `after` to `visit`, in their order.
    ///
    /// # Errors
    /// [`StorageError`], or an error of `visit`.
    pub(crate) fn visit<E: From<StorageError>>(
        &self,
        disk: &Disk,
        after: LogIndex,
        mut visit: impl FnMut(EntryKind, &Header, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let stretches: Vec<(SegmentHeader, u64)> = self.chain.stretches(self.ended.at).collect();
        for (i, (header, limit)) in stretches.iter().enumerate() {
            if stretches.get(i + 1).is_some_and(|(next, _)| next.base.index <= after) {
                continue;
            }
            let path = segment_path(&self.files.dir, header.number);
            let missing = || StorageError::damaged(&path, 0, "the segment is missing");
            let file = disk.open_to_read(&path)?.ok_or_else(missing)?;
            let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, *limit, Access::Blocking);
            loop {
                let frame = match walk.next() {
                    Ok(Some((_, frame))) => frame,
                    Ok(None) => break,
                    Err(WalkError::Disk(error)) => return Err(error.into()),
                    Err(WalkError::Newer(newer)) => return Err(StorageError::from(newer).into()),
                    Err(WalkError::Bad { position, what }) => {
                        return Err(StorageError::damaged(&path, position, what).into());
                    }
                    Err(WalkError::NotCached) => {
                        return Err(StorageError::damaged(&path, walk.position(), "it can't be read").into());
                    }
                };
                if let FrameKind::Entry(kind) = frame.header.kind
                    && frame.header.index > after
                {
                    visit(kind, &frame.header, frame.payload)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the offset after an entry of the log.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) fn offset_after(&self, disk: &Disk, index: LogIndex) -> Result<Offset, StorageError> {
        let base = self.files.manifest.base;
        if index >= self.ended.last.index {
            return Ok(self.ended.last.offset);
        }
        if index <= base.index {
            return Ok(base.offset);
        }
        let mut offset = base.offset;
        self.visit::<StorageError>(disk, LogIndex(index.0 - 1), |_, header, _| {
            if header.index == index {
                offset = Offset(header.base_offset.0.saturating_add(u64::from(header.count)));
            }
            Ok(())
        })?;
        Ok(offset)
    }

    /// Returns the changes after which `replica` is the only voter, in a new term, and every entry is committed.
    ///
    /// # Errors
    /// If the term can't be raised, or the system has no random numbers.
    pub(crate) fn continued(&self, disk: &Disk, replica: ReplicaId) -> Result<Vec<Change>, StorageError> {
        let (manifest, ended) = (&self.files.manifest, &self.ended);
        let predecessor = Position { file: self.chain.newest(), at: ended.at };
        let header = self.new_header(disk, predecessor, ended.last)?;
        let manifest = Manifest {
            next_segment: header.number + 1,
            durable: Position { file: header.number, at: SEGMENT_HEADER_BYTES },
            durable_end: (ended.last.index, ended.last.offset),
            conf_state: ConfState { voters: vec![replica], learners: Vec::new() },
            conf_index: ended.last.index,
            terms: ended.terms.clone(),
            checkpoints: ended.checkpoints.all().to_vec(),
            // What differed from it is lost.
            differing: None,
            ..manifest.clone()
        };
        // An index file of a segment that was cut off may contain frames after its new end.
        let stale = Change::Remove { name: self.name_of(&index_path(&self.files.dir, self.chain.newest())) };
        Ok(vec![stale, self.segment(&header), self.manifest(&manifest)])
    }

    /// Returns the changes after which the log is empty, begins after the entry `index`, and has `replica` as its only
    /// voter, in a new term. `index` is at least the last entry.
    ///
    /// # Errors
    /// As [`StoppedReplica::continued`].
    pub(crate) fn begun_anew(
        &self,
        disk: &Disk,
        replica: ReplicaId,
        index: LogIndex,
    ) -> Result<Vec<Change>, StorageError> {
        let (manifest, ended) = (&self.files.manifest, &self.ended);
        let base = Base { index: index.max(ended.last.index), ..ended.last };
        let header = self.new_header(disk, Position::default(), base)?;
        let first_offset = manifest.log_state.first_offset;
        let manifest = Manifest {
            group: manifest.group,
            base,
            first_segment: header.number,
            next_segment: header.number + 1,
            durable: Position { file: header.number, at: SEGMENT_HEADER_BYTES },
            durable_end: (base.index, base.offset),
            applied: base.index,
            differing: None,
            conf_state: ConfState { voters: vec![replica], learners: Vec::new() },
            conf_index: base.index,
            log_state: StoredLogState { first_offset, last_append_time_us: ended.time_us, tables: None },
            log_state_index: base.index,
            terms: vec![(base.index, base.term)],
            checkpoints: Vec::new(),
        };
        Ok(vec![self.segment(&header), self.manifest(&manifest)])
    }

    fn new_header(&self, disk: &Disk, predecessor: Position, base: Base) -> Result<SegmentHeader, StorageError> {
        let (manifest, ended) = (&self.files.manifest, &self.ended);
        let term = Term(ended.hard_state.term.max(ended.last.term).0 + 1);
        if term > Term::MAX {
            return Err(TERM_TOO_LARGE.into());
        }
        Ok(SegmentHeader {
            group: manifest.group,
            number: self.files.numbers.last().map_or(0, |number| number + 1).max(manifest.next_segment),
            salt: disk.random()?,
            predecessor,
            base,
            time_before_us: ended.time_us,
            hard_state: HardState { term, vote: None, commit: base.index },
            begun_us: self.chain.newest_header().begun_us,
        })
    }

    fn segment(&self, header: &SegmentHeader) -> Change {
        let name = self.name_of(&segment_path(&self.files.dir, header.number));
        Change::Write { name, bytes: header.encode().to_vec() }
    }

    fn manifest(&self, manifest: &Manifest) -> Change {
        Change::Write { name: self.name_of(Path::new(MANIFEST)), bytes: manifest.encode() }
    }

    /// The name of a file of the group in the data directory.
    fn name_of(&self, path: &Path) -> String {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        format!("groups/{}/{file}", self.files.manifest.group)
    }
}
