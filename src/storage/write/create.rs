//! How a group's directory comes into being: whole, or not at all.

use std::path::{Path, PathBuf};

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Position;
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::state::{Base, ConfState, Genesis, HardState, LogState};
use crate::storage::io::disk::Disk;
use crate::storage::read::index;
use crate::storage::read::segment::SegmentHeader;
use crate::storage::write::active::Active;
use crate::storage::write::log::LogOptions;
use crate::types::{GroupId, LogIndex, Term};

/// Where a group lives.
pub(in crate::storage) fn group_dir(groups_dir: &Path, group: GroupId) -> PathBuf {
    groups_dir.join(group.to_string())
}

/// A group is made under this name and then renamed: a directory of the group's own name is always complete.
pub(in crate::storage) fn unfinished_dir(groups_dir: &Path, group: GroupId) -> PathBuf {
    groups_dir.join(format!(".new-{group}"))
}

/// What a new group begins with.
struct Beginning {
    base: Base,
    hard_state: HardState,
    conf_state: ConfState,
}

impl Beginning {
    fn of(genesis: Genesis) -> Beginning {
        match genesis {
            Genesis::Blank => {
                Beginning { base: Base::default(), hard_state: HardState::default(), conf_state: ConfState::default() }
            }
            Genesis::Founder(founder) => Beginning {
                base: Base { index: LogIndex(1), term: Term(1), ..Base::default() },
                hard_state: HardState { term: Term(1), vote: None, commit: LogIndex(1) },
                conf_state: ConfState { voters: vec![founder], learners: Vec::new() },
            },
        }
    }
}

pub(in crate::storage) fn create(
    disk: &Disk,
    groups_dir: &Path,
    group: GroupId,
    options: &LogOptions,
    genesis: Genesis,
) -> Result<(), StorageError> {
    let beginning = Beginning::of(genesis);
    let dir = group_dir(groups_dir, group);
    let unfinished = unfinished_dir(groups_dir, group);
    disk.create_dir(groups_dir)?;
    disk.sync_dir(groups_dir.parent().unwrap_or(Path::new("/")))?;
    if disk.list(&unfinished)?.is_some() {
        disk.remove_dir(&unfinished)?;
    }
    if disk.list(&dir)?.is_some() {
        if check_blank(disk, groups_dir, group, options, &beginning)? {
            // Its name may not be on the disk yet.
            return disk.sync_dir(groups_dir);
        }
        disk.rename(&dir, &unfinished)?;
        disk.remove_dir(&unfinished)?;
    }
    disk.create_dir(&unfinished)?;
    let header = SegmentHeader {
        group,
        number: 1,
        salt: disk.random()?,
        predecessor: Position::default(),
        base: beginning.base,
        time_before_us: 0,
        hard_state: beginning.hard_state,
        // Nothing is before it.
        begun_us: 0,
    };
    let active = Active::create(disk, &unfinished, &header, index::capacity(options.segment_bytes))?;
    if !broken(Fault::GroupNotSynced) {
        active.file.sync()?;
    }
    let manifest = Manifest {
        group,
        base: beginning.base,
        first_segment: 1,
        next_segment: 2,
        durable: active.position(),
        durable_end: (beginning.base.index, beginning.base.offset),
        applied: beginning.base.index,
        conf_state: beginning.conf_state,
        conf_index: beginning.base.index,
        log_state: LogState::default(),
        log_state_index: beginning.base.index,
        terms: vec![(beginning.base.index, beginning.base.term)],
        checkpoints: Vec::new(),
        differing: None,
    };
    disk.replace(&unfinished.join(MANIFEST), &manifest.encode())?;
    disk.rename(&unfinished, &dir)?;
    if broken(Fault::GroupNameNotSynced) {
        return Ok(());
    }
    disk.sync_dir(groups_dir)
}

/// A group that was made before a crash and never listed has nothing in it but how it began. `false`: it began otherwise
/// than it should now, and nobody has heard of it.
fn check_blank(
    disk: &Disk,
    groups_dir: &Path,
    group: GroupId,
    options: &LogOptions,
    beginning: &Beginning,
) -> Result<bool, StorageError> {
    let (_, found) = crate::storage::recover::recovery::open(disk, groups_dir, group, options)?;
    let began = |beginning: &Beginning| {
        found.base == beginning.base
            && found.last_index == beginning.base.index
            && found.hard_state == beginning.hard_state
            && found.torn_bytes == 0
    };
    let founder = found.conf_state.voters.first().map(|founder| Beginning::of(Genesis::Founder(*founder)));
    if !founder.is_some_and(|founder| began(&founder)) && !began(&Beginning::of(Genesis::Blank)) {
        return Err(StorageError::NotBlank { path: group_dir(groups_dir, group) });
    }
    Ok(began(beginning) && found.conf_state == beginning.conf_state)
}

/// True if a group with this manifest and this end holds only what [`create`] wrote.
pub(in crate::storage) fn is_beginning(manifest: &Manifest, last: LogIndex, hard_state: HardState) -> bool {
    let founder = manifest.conf_state.voters.first().copied().unwrap_or_default();
    [Genesis::Blank, Genesis::Founder(founder)].into_iter().any(|genesis| {
        let beginning = Beginning::of(genesis);
        manifest.base == beginning.base && last == beginning.base.index && hard_state == beginning.hard_state
    })
}
