//! Reads and checks the files of a backup. A backup is one file, or several of which each continues the one before.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use openssl::sha::Sha256;

use super::format::{BackupReader, BadBackup};
use crate::cli::exit::{Exit, Failure};
use crate::pb::backup::{BackupHeader, BackupTrailer};

/// The size of the buffer through which a file is read.
const BUFFER_BYTES: usize = 1 << 20;

/// A file of a backup.
pub type FileReader = BackupReader<BufReader<File>>;

/// A file of a backup that was read and is whole.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its header.
    pub header: BackupHeader,
    /// Its trailer.
    pub trailer: BackupTrailer,
    /// Its size.
    pub bytes: u64,
}

/// The files of a backup, in their order: each one continues the one before.
#[derive(Clone, Debug)]
pub struct Backup {
    /// At least one.
    pub files: Vec<CheckedFile>,
}

impl Backup {
    /// Reads and checks all files.
    ///
    /// # Errors
    /// If a file is not a whole backup, or does not continue the one before.
    pub fn check(paths: &[PathBuf], bar: &ProgressBar) -> Result<Backup, Failure> {
        let mut files: Vec<CheckedFile> = Vec::new();
        for path in paths {
            let file = check(path, bar)?;
            if let Some(before) = files.last() {
                check_continues(before, &file)?;
            }
            files.push(file);
        }
        if let Some(first) = files.first().filter(|first| !first.header.previous_sha256.is_empty()) {
            return Err(Failure::new(
                Exit::BadData,
                format!(
                    "{} continues another file, and contains only the records from offset {} on",
                    first.path.display(),
                    first.header.first_offset
                ),
                "give all files of the backup, in their order",
            ));
        }
        Ok(Backup { files })
    }

    /// Returns the header of the first file.
    pub fn first(&self) -> &BackupHeader {
        &self.files[0].header
    }

    /// Returns the header of the last file.
    pub fn last(&self) -> &BackupHeader {
        &self.files[self.files.len() - 1].header
    }

    /// Identifies the backup: SHA-256 of the checksums of its files.
    pub fn digest(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        self.files.iter().for_each(|file| hash.update(&file.trailer.sha256));
        hash.finish().to_vec()
    }

    /// The number of records.
    pub fn records(&self) -> u64 {
        self.files.iter().map(|file| file.trailer.records).sum()
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Returns the size of files, for a progress bar. Files that can't be read count as empty.
pub fn size(paths: &[PathBuf]) -> u64 {
    paths.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Opens a file and reads its header.
///
/// # Errors
/// If it can't be read, or does not begin as a backup.
pub fn open(path: &Path) -> Result<FileReader, Failure> {
    let file = File::open(path).map_err(|error| failure(path, &BadBackup::Io(error)))?;
    BackupReader::open(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(|bad| failure(path, &bad))
}

/// Reads a whole file and checks it.
///
/// # Errors
/// If it is not a whole backup.
pub fn check(path: &Path, bar: &ProgressBar) -> Result<CheckedFile, Failure> {
    let mut reader = open(path)?;
    let begin = bar.position();
    while reader.next_records().map_err(|bad| failure(path, &bad))?.is_some() {
        bar.set_position(begin + reader.position());
    }
    Ok(CheckedFile {
        path: path.to_owned(),
        header: reader.header().clone(),
        trailer: reader.trailer().cloned().unwrap_or_default(),
        bytes: reader.position(),
    })
}

fn check_continues(before: &CheckedFile, file: &CheckedFile) -> Result<(), Failure> {
    if file.header.previous_sha256 == before.trailer.sha256 && file.header.first_offset == before.header.end_offset {
        return Ok(());
    }
    Err(Failure::new(
        Exit::BadData,
        format!("{} does not continue {}", file.path.display(), before.path.display()),
        "`seriatim backup info` prints what a file contains and which one it continues",
    ))
}

/// The failure of a file.
pub fn failure(path: &Path, bad: &BadBackup) -> Failure {
    let (exit, next) = match bad {
        BadBackup::NotABackup | BadBackup::Truncated { .. } | BadBackup::Damaged { .. } => {
            (Exit::BadData, "use another copy of the file")
        }
        BadBackup::NewerVersion(_) | BadBackup::NewerBlock { .. } => (Exit::BadConfig, ""),
        BadBackup::Io(_) => (Exit::Failed, ""),
    };
    Failure::new(exit, format!("{}: {bad}", path.display()), next)
}
