//! Deletes the directory of a dropped replica in small steps, so that its thread can do more urgent work between them.

use std::path::PathBuf;

use crate::storage::error::StorageError;
use crate::storage::io::disk::Disk;

/// A directory to delete. Nothing is synced: files that a power cut restores are deleted after the next start.
pub struct Removal {
    dir: PathBuf,
    /// The files that remain; `None` before the first step.
    names: Option<Vec<String>>,
}

impl Removal {
    /// The deletion of this directory, if it exists.
    pub fn new(dir: PathBuf) -> Removal {
        Removal { dir, names: None }
    }

    /// Deletes one file, and at last the directory. Returns true once nothing is left.
    ///
    /// # Errors
    /// [`StorageError`]; the rest of the directory remains.
    pub fn step(&mut self, disk: &Disk) -> Result<bool, StorageError> {
        let names = match &mut self.names {
            Some(names) => names,
            None => match disk.list(&self.dir)? {
                Some(names) => self.names.insert(names),
                None => return Ok(true),
            },
        };
        match names.pop() {
            Some(name) => disk.unlink(&self.dir.join(name)).map(|()| false),
            None => disk.remove_dir(&self.dir).map(|()| true),
        }
    }
}
