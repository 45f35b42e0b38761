//! The files of one group: the names, the manifest and the headers of the segments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Access, Disk, DiskFile};
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::Position;
use crate::storage::format::manifest::{MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::storage::format::segment_header::{
    BadHeader, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, segment_number, segment_path,
};
use crate::types::{GroupId, ReplicaId};

/// The directory of a group.
pub(crate) fn group_dir(groups_dir: &Path, group: GroupId) -> PathBuf {
    groups_dir.join(group.to_string())
}

/// The directory in which a group is created before it is renamed. So a directory with the group's own name is always
/// complete.
pub(crate) fn unfinished_dir(groups_dir: &Path, group: GroupId) -> PathBuf {
    groups_dir.join(format!(".new-{group}"))
}

/// The directory of a replica that this node gave up, until it is deleted.
pub(crate) fn retired_dir(groups_dir: &Path, group: GroupId, replica: ReplicaId) -> PathBuf {
    groups_dir.join(format!("{group}.removed-{replica}"))
}

/// The replica whose [`retired_dir`] has this name; `None` if the name is another one.
pub(crate) fn retired_of(name: &str) -> Option<(GroupId, ReplicaId)> {
    replica_of(name, "removed")
}

/// The directory of a damaged replica that this node gave up, until a new replica of the group is whole.
pub(crate) fn aside_dir(groups_dir: &Path, group: GroupId, replica: ReplicaId) -> PathBuf {
    groups_dir.join(format!("{group}.damaged-{replica}"))
}

/// The replica whose [`aside_dir`] has this name; `None` if the name is another one.
pub(crate) fn aside_of(name: &str) -> Option<(GroupId, ReplicaId)> {
    replica_of(name, "damaged")
}

fn replica_of(name: &str, what: &str) -> Option<(GroupId, ReplicaId)> {
    let (group, rest) = name.split_once('.')?;
    let replica = ReplicaId(rest.strip_prefix(what)?.strip_prefix('-')?.parse().ok()?);
    let group = group_of(group)?;
    (name == format!("{group}.{what}-{replica}")).then_some((group, replica))
}

/// The group whose directory has this name; `None` if the name is not that of a group.
pub(crate) fn group_of(name: &str) -> Option<GroupId> {
    name.parse().ok().map(GroupId).filter(|group| group.to_string() == name)
}

/// Why the files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To continue the log.
    Recover,
    /// To determine what a recovery would do. Nothing is changed or synced.
    Look,
}

/// The files of a group: names, manifest and headers.
pub(crate) struct GroupFiles {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
    /// The segments from the manifest's first one on, by number; `None` for a segment without a valid header.
    pub(crate) headers: BTreeMap<u64, Option<SegmentHeader>>,
    /// The segments from the manifest's durable position on.
    pub(crate) open: BTreeMap<u64, Arc<DiskFile>>,
    /// The number of every segment, including dead ones.
    pub(crate) numbers: Vec<u64>,
    pub(crate) names: Vec<String>,
    /// Segments that could not be read at all, for `seriatim data verify`.
    pub(crate) unreadable: Vec<StorageError>,
}

impl GroupFiles {
    /// Reads the names, the manifest and the headers: step 1 of recovery.
    pub(crate) fn read(
        disk: &Disk,
        dir: PathBuf,
        group: GroupId,
        purpose: Purpose,
    ) -> Result<GroupFiles, StorageError> {
        let missing = || StorageError::damaged(&dir, 0, "the directory of a group of this node is missing");
        let names = disk.list(&dir)?.ok_or_else(missing)?;
        if purpose == Purpose::Recover && !broken(Fault::StartNamesNotSynced) {
            disk.sync_dir(&dir)?;
        }
        let path = dir.join(MANIFEST);
        let manifest = disk
            .load(&path, MANIFEST_BYTES_MAX, Access::Blocking, Manifest::decode)?
            .ok_or_else(|| StorageError::damaged(&path, 0, "the file is missing"))?;
        if manifest.group != group {
            return Err(StorageError::damaged(
                &path,
                16,
                format!("this is the manifest of group {}, not of group {group}", manifest.group),
            ));
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let (headers, open, unreadable) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut files = GroupFiles { dir, manifest, headers, open, numbers, names, unreadable };
        for number in files.numbers.iter().copied().filter(|n| *n >= files.manifest.first_segment) {
            match files.segment(disk, number, purpose) {
                Ok((header, file)) => {
                    files.headers.insert(number, header);
                    if number >= files.manifest.durable.file {
                        files.open.insert(number, Arc::new(file));
                    }
                }
                // The other segments can still be checked.
                Err(error @ (StorageError::Io { .. } | StorageError::Damaged { .. })) if purpose == Purpose::Look => {
                    files.headers.insert(number, None);
                    files.unreadable.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        if broken(Fault::UnfinishedSnapshotTaken)
            && let Some((number, Some(header))) = files.headers.last_key_value()
            && header.predecessor == Position::default()
        {
            files.manifest.first_segment = *number;
            files.manifest.base = header.base;
            files.manifest.terms = vec![(header.base.index, header.base.term)];
        }
        Ok(files)
    }

    /// A segment's file, and its header if it is valid.
    fn segment(
        &self,
        disk: &Disk,
        number: u64,
        purpose: Purpose,
    ) -> Result<(Option<SegmentHeader>, DiskFile), StorageError> {
        let path = segment_path(&self.dir, number);
        let missing = || StorageError::damaged(&path, 0, "the name is there, but leads to no file");
        let file = match purpose {
            Purpose::Recover => {
                disk.open(&path).map_err(|error| if error.is_not_found() { missing() } else { error })?
            }
            Purpose::Look => disk.open_to_read(&path)?.ok_or_else(missing)?,
        };
        if number >= self.manifest.durable.file {
            if purpose == Purpose::Recover && !broken(Fault::StartNotSynced) {
                file.sync()?;
            }
            file.drop_cache()?;
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let read = file.read_at(0, &mut bytes)?;
        match SegmentHeader::decode(&bytes[..read]) {
            Ok(header) => {
                let ours = header.number == number && header.group == self.manifest.group;
                Ok((Some(header).filter(|_| ours), file))
            }
            Err(BadHeader::Torn) => Ok((None, file)),
            Err(BadHeader::OtherFormat(version)) => {
                Err(StorageError::OtherFormat { file: path, part: "", version, known: SEGMENT_FORMAT })
            }
        }
    }
}

/// The number of bytes from `from` to the last one that is not zero.
pub(crate) fn written_after(file: &DiskFile, from: u64) -> Result<u64, StorageError> {
    let mut buffer = vec![0; 1 << 20];
    let (mut at, mut written) = (from, 0);
    // A hole reads as zeros and is skipped.
    while let Some(data) = file.next_data(at)? {
        at = at.max(data);
        let read = file.read_at(at, &mut buffer)?;
        if let Some(last) = buffer[..read].iter().rposition(|b| *b != 0) {
            written = at + last as u64 + 1 - from;
        }
        at += read as u64;
        if read < buffer.len() {
            break;
        }
    }
    Ok(written)
}
