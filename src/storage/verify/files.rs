//! Reads as much as possible of a group's manifest and of the headers of its segments.
//!
//! A start fails at the first file that it can't use. Here each such file becomes a finding, and the other files are
//! read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::{Finding, Severity};
use super::report::Report;
use crate::storage::error::{OtherFormat, StorageError};
use crate::storage::format::frame::Position;
use crate::storage::format::manifest::{MANIFEST, MANIFEST_BYTES_MAX, MANIFEST_FORMAT, Manifest};
use crate::storage::format::segment_header::{
    BadHeader, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, segment_number, segment_path,
};
use crate::storage::format::state::{Base, ConfState, StoredLogState};
use crate::storage::format::versioned::version_is_damaged;
use crate::storage::io::disk::{Access, Disk, DiskFile};
use crate::storage::io::group_files::{GroupFiles, Purpose};
use crate::types::{GroupId, LogIndex, Offset};

/// What can be read of a group.
pub(super) struct Readable {
    pub(super) files: GroupFiles,
    /// False if the manifest can't be used. Then `files.manifest` contains only what the segments' headers show.
    pub(super) has_manifest: bool,
    /// Why a segment's header can't be used, by the number in the file name.
    pub(super) flaws: BTreeMap<u64, Flaw>,
    /// Headers in a file whose name has another number, by the number in the header.
    pub(super) renamed: BTreeMap<u64, Renamed>,
}

/// Why a segment can't be used.
#[derive(Clone)]
pub(super) struct Flaw {
    pub(super) severity: Severity,
    pub(super) position: u64,
    pub(super) end: Option<u64>,
    pub(super) what: String,
    /// True if a start fails because of this flaw even if the segment is not part of the log.
    pub(super) stops_start: bool,
}

impl Flaw {
    pub(super) fn missing(what: &str) -> Flaw {
        Flaw { severity: Severity::Damage, position: 0, end: None, what: what.to_owned(), stops_start: false }
    }
}

/// A segment in a file with another number in its name.
pub(super) struct Renamed {
    pub(super) file: u64,
    pub(super) header: SegmentHeader,
}

/// Reads the files of one group.
pub(super) struct FileCheck<'a> {
    pub(super) disk: &'a Disk,
    pub(super) report: &'a mut Report,
    pub(super) group: GroupId,
}

impl FileCheck<'_> {
    /// Reads the files; `None` if nothing can be read.
    pub(super) fn read(&mut self, dir: PathBuf) -> Result<Option<Readable>, StorageError> {
        let (files, has_manifest) = match GroupFiles::read(self.disk, dir.clone(), self.group, Purpose::Look) {
            Ok(files) => (files, true),
            // The error concerns the directory, its manifest, or the format of a segment.
            Err(error) => match self.read_without(&dir, error)? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let mut read = Readable { files, has_manifest, flaws: BTreeMap::new(), renamed: BTreeMap::new() };
        let newest = read.files.numbers.last().copied();
        let first = read.files.manifest.first_segment;
        for number in read.files.numbers.clone().into_iter().filter(|number| *number >= first) {
            if matches!(read.files.headers.get(&number), Some(Some(_))) {
                continue;
            }
            let path = segment_path(&read.files.dir, number);
            let file = self.header(&mut read, number, &path);
            read.files.headers.entry(number).or_insert(None);
            // Without a manifest the durable position is unknown, and there may be too many segments to open all of
            // them at once.
            let is_read_by_recovery =
                if has_manifest { number >= read.files.manifest.durable.file } else { Some(number) == newest };
            if let Some(file) = file.filter(|_| is_read_by_recovery) {
                read.files.open.entry(number).or_insert(Arc::new(file));
            }
        }
        // `flaws` contains the reasons.
        read.files.unreadable.clear();
        if !read.has_manifest {
            let manifest = &mut read.files.manifest;
            if let Some(first) = read.files.headers.values().flatten().next() {
                (manifest.first_segment, manifest.base) = (first.number, first.base);
            }
        }
        Ok(Some(read))
    }

    /// Reads what is readable after recovery's own read has failed: the file names, and the manifest if it can be used.
    fn read_without(&mut self, dir: &Path, error: StorageError) -> Result<Option<(GroupFiles, bool)>, StorageError> {
        let Ok(Some(names)) = self.disk.list(dir) else {
            self.report.add_error(error)?;
            return Ok(None);
        };
        let manifest = self.manifest(&dir.join(MANIFEST))?;
        let has_manifest = manifest.is_some();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let files = GroupFiles {
            dir: dir.to_owned(),
            manifest: manifest.unwrap_or_else(|| self.blank()),
            headers: BTreeMap::new(),
            open: BTreeMap::new(),
            numbers,
            names,
            unreadable: Vec::new(),
        };
        Ok(Some((files, has_manifest)))
    }

    /// The manifest; `None` after a finding that says why it can't be used.
    fn manifest(&mut self, path: &Path) -> Result<Option<Manifest>, StorageError> {
        let report = &mut *self.report;
        let loaded = self.disk.load(path, MANIFEST_BYTES_MAX, Access::Blocking, |bytes, path| {
            if bytes.is_empty() {
                return Err(StorageError::damaged(path, 0, "the file is empty"));
            }
            if !version_is_damaged(bytes, MANIFEST_FORMAT) {
                return Manifest::decode(bytes, path);
            }
            report.add(Finding::new(Severity::Damage, path, 8, version_damage(MANIFEST_FORMAT)).up_to(12));
            let mut bytes = bytes.to_vec();
            bytes[8..12].copy_from_slice(&MANIFEST_FORMAT.to_le_bytes());
            Manifest::decode(&bytes, path)
        });
        let missing = || StorageError::damaged(path, 0, "the file is missing");
        let decoded = loaded.and_then(|manifest| manifest.ok_or_else(missing));
        match decoded {
            Ok(manifest) if manifest.group == self.group => Ok(Some(manifest)),
            Ok(manifest) => {
                let what = format!("this is the manifest of group {}, not of group {}", manifest.group, self.group);
                self.report.add(Finding::new(Severity::Damage, path, 16, what).up_to(24));
                Ok(None)
            }
            Err(error) => self.report.add_error(error).map(|()| None),
        }
    }

    /// The substitute for a manifest that can't be used.
    fn blank(&self) -> Manifest {
        Manifest {
            group: self.group,
            base: Base::default(),
            first_segment: 0,
            next_segment: 0,
            durable: Position::default(),
            durable_end: (LogIndex(0), Offset(0)),
            differing: None,
            applied: LogIndex(0),
            conf_state: ConfState::default(),
            conf_index: LogIndex(0),
            log_state: StoredLogState::default(),
            log_state_index: LogIndex(0),
            terms: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    /// Reads the header of a segment, or notes why it can't be used.
    fn header(&mut self, read: &mut Readable, number: u64, path: &Path) -> Option<DiskFile> {
        let flaw = |position, end, what| Flaw { position, end, ..Flaw::missing(what) };
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let opened = self.disk.open_to_read(path).and_then(|file| {
            let Some(file) = file else { return Err(StorageError::damaged(path, 0, "the segment is missing")) };
            let length = file.read_at(0, &mut bytes)?;
            Ok((file, length))
        });
        let (file, bytes) = match opened {
            Ok((file, length)) => {
                let bytes = &mut bytes[..length];
                if version_is_damaged(bytes, SEGMENT_FORMAT) {
                    // The other fields are used as they are.
                    bytes[8..12].copy_from_slice(&SEGMENT_FORMAT.to_le_bytes());
                    let what = version_damage(SEGMENT_FORMAT);
                    self.report.add(Finding::new(Severity::Damage, path, 8, what).up_to(12));
                }
                (file, &*bytes)
            }
            Err(error) => {
                let (position, what) = match error {
                    StorageError::Damaged { position, what, .. } => (position, what),
                    StorageError::Io { action, error, .. } => (0, format!("cannot {action} it: {error}")),
                    error => (0, error.to_string()),
                };
                read.flaws.insert(number, Flaw { stops_start: true, ..flaw(position, None, &what) });
                return None;
            }
        };
        let flaw = match SegmentHeader::decode(bytes) {
            Ok(header) if header.group != self.group => {
                let what = format!("the header is one of group {}, not of group {}", header.group, self.group);
                flaw(16, Some(24), &what)
            }
            Ok(header) if header.number != number => {
                read.renamed.insert(header.number, Renamed { file: number, header });
                let what = format!("the number in the header is {}, not the one in the file's name", header.number);
                flaw(24, Some(32), &what)
            }
            Ok(header) => {
                read.files.headers.insert(number, Some(header));
                return Some(file);
            }
            Err(BadHeader::OtherFormat(version)) => {
                let what = format!("{}. Its frames were not checked", OtherFormat { version, known: SEGMENT_FORMAT });
                let format = Flaw { severity: Severity::Format, stops_start: true, ..flaw(8, Some(12), &what) };
                read.flaws.insert(number, format);
                return None;
            }
            Err(BadHeader::Torn) if bytes.is_empty() => flaw(0, None, "the file is empty"),
            Err(BadHeader::Torn) if bytes.len() < SEGMENT_HEADER_BYTES as usize => {
                flaw(bytes.len() as u64, Some(SEGMENT_HEADER_BYTES), "the file ends within the header")
            }
            Err(BadHeader::Torn) => flaw(0, Some(SEGMENT_HEADER_BYTES), "the header is damaged"),
        };
        read.flaws.insert(number, flaw);
        Some(file)
    }
}

fn version_damage(known: u32) -> String {
    format!("the version is damaged: the checksum is the one of format {known}")
}
