//! How a group's directory is created: completely, or not at all.

use std::path::Path;

use super::active::Active;
use super::options::LogOptions;
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Position;
use crate::storage::format::index;
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::segment_header::SegmentHeader;
use crate::storage::format::state::{Base, ConfState, Genesis, HardState, StoredLogState};
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::{group_dir, unfinished_dir};
use crate::types::{GroupId, LogIndex, Term};

/// The initial state of a group.
#[derive(Clone)]
pub(crate) struct GroupStart {
    pub(crate) base: Base,
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
}

impl GroupStart {
    pub(crate) fn of(genesis: &Genesis) -> GroupStart {
        match genesis {
            Genesis::Blank => {
                GroupStart { base: Base::default(), hard_state: HardState::default(), conf_state: ConfState::default() }
            }
            Genesis::Voters(voters, offset) => GroupStart {
                base: Base { index: Base::FIRST, term: Term(1), offset: *offset, ..Base::default() },
                hard_state: HardState { term: Term(1), vote: None, commit: LogIndex(1) },
                conf_state: ConfState { voters: voters.clone(), learners: Vec::new() },
            },
        }
    }
}

/// Creates a group: its directory, first segment and manifest are complete and synced, and so is the parent directory.
pub(crate) fn make_group(
    disk: &Disk,
    groups_dir: &Path,
    group: GroupId,
    options: &LogOptions,
    start: GroupStart,
) -> Result<(), StorageError> {
    let dir = group_dir(groups_dir, group);
    let unfinished = unfinished_dir(groups_dir, group);
    disk.create_dir(&unfinished)?;
    let header = SegmentHeader {
        group,
        number: 1,
        salt: disk.random()?,
        predecessor: Position::default(),
        base: start.base,
        time_before_us: 0,
        hard_state: start.hard_state,
        begun_us: 0,
    };
    let active = Active::create(disk, &unfinished, &header, index::capacity(options.segment_bytes))?;
    let manifest = Manifest {
        group,
        base: start.base,
        first_segment: 1,
        next_segment: 2,
        durable: active.position(),
        durable_end: (start.base.index, start.base.offset),
        applied: start.base.index,
        conf_state: start.conf_state,
        conf_index: start.base.index,
        log_state: StoredLogState { first_offset: start.base.offset, ..StoredLogState::default() },
        log_state_index: start.base.index,
        terms: vec![(start.base.index, start.base.term)],
        checkpoints: Vec::new(),
        differing: None,
    };
    // The directory has another name until it is complete, so the manifest need not replace anything.
    let manifest_file = disk.create(&unfinished.join(MANIFEST))?;
    manifest_file.write_at(0, &manifest.encode())?;
    match broken(Fault::GroupNotSynced) {
        true => disk.sync_new(&unfinished, &[&manifest_file])?,
        false => disk.sync_new(&unfinished, &[&active.file, &manifest_file])?,
    }
    disk.rename(&unfinished, &dir)?;
    if broken(Fault::GroupNameNotSynced) {
        return Ok(());
    }
    disk.sync_dir(groups_dir)
}

/// True if a group with this manifest and this end of its log contains only what [`make_group`] wrote.
pub(crate) fn is_start(manifest: &Manifest, last: LogIndex, hard_state: HardState) -> bool {
    let voters = manifest.conf_state.voters.clone();
    [Genesis::Blank, Genesis::Voters(voters, manifest.base.offset)].iter().any(|genesis| {
        let start = GroupStart::of(genesis);
        manifest.base == start.base && last == start.base.index && hard_state == start.hard_state
    })
}
