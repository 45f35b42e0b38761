//! The changes of `seriatim recover`: decided by one atomic step, and made again until all of them are made.
//!
//! ```text
//!  copies of what will be replaced ─▶ the file `recovery` ─▶ node.toml is removed ─▶ the changes ─▶ node.toml
//!  (synced)                           (synced: decided)                                            ─▶ `recovery` is removed
//! ```
//!
//! Before the file `recovery` exists, the directory is as it was, except for the copies. While it exists, no node starts
//! on the directory: `DataDir::open` refuses it, and an older version of the program misses `node.toml`.

use std::path::{Path, PathBuf};

use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::catalog_file::{self, CATALOG_FILE};
use crate::storage::format::recovery_file::{Change, RECOVERY_FILE, RECOVERY_FILE_BYTES_MAX, RecoveryFile};
use crate::storage::format::state::CatalogState;
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::node::{DataDir, NODE_FILE, NODE_FILE_BYTES_MAX, NodeFile};

/// Files are copied in parts of this size.
const COPY_BYTES: usize = 1 << 20;

/// Reads the changes that are decided and perhaps not all made; `None` if there are none.
///
/// # Errors
/// [`StorageError`].
pub(crate) fn decided(data_dir: &DataDir) -> Result<Option<RecoveryFile>, StorageError> {
    let path = data_dir.path().join(RECOVERY_FILE);
    data_dir.disk().load(&path, RECOVERY_FILE_BYTES_MAX, Access::Blocking, RecoveryFile::decode)
}

/// The names of the files in a directory, both as in a [`Change`].
///
/// # Errors
/// [`StorageError`].
pub(crate) fn files_in(data_dir: &DataDir, dir: &str) -> Result<Vec<String>, StorageError> {
    let names = data_dir.disk().list(&data_dir.path().join(dir))?.unwrap_or_default();
    Ok(names.into_iter().map(|name| format!("{dir}/{name}")).collect())
}

/// Copies files into the directory `kept`. Replaces the copies of an earlier attempt. Everything is durable when this
/// returns.
///
/// # Errors
/// [`StorageError`].
pub(crate) fn keep_copies(data_dir: &DataDir, kept: &str, files: &[String]) -> Result<(), StorageError> {
    let (disk, home) = (data_dir.disk(), data_dir.path());
    let kept = home.join(kept);
    disk.create_dir(&kept)?;
    let mut dirs = vec![kept.clone()];
    for name in files {
        copy(disk, &home.join(name), &kept, name, &mut dirs)?;
    }
    dirs.sort();
    dirs.dedup();
    dirs.iter().try_for_each(|dir| disk.sync_dir(dir))?;
    disk.sync_dir(home)
}

/// Copies one file, if it exists, and adds the directories of the copy to `dirs`.
fn copy(disk: &Disk, from: &Path, kept: &Path, name: &str, dirs: &mut Vec<PathBuf>) -> Result<(), StorageError> {
    let Some(source) = disk.open_to_read(from)? else { return Ok(()) };
    let to = kept.join(name);
    let mut parent = to.parent();
    while let Some(dir) = parent.filter(|dir| *dir != kept && dir.starts_with(kept)) {
        dirs.push(dir.to_owned());
        parent = dir.parent();
    }
    disk.create_dir(to.parent().unwrap_or(kept))?;
    disk.unlink(&to)?;
    let target = disk.create(&to)?;
    let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
    loop {
        let read = source.read_at(at, &mut buffer)?;
        if read == 0 {
            break;
        }
        target.write_at(at, &buffer[..read])?;
        at += read as u64;
    }
    target.sync()
}

/// The change that replaces the snapshot of the catalog.
pub(crate) fn store_catalog(catalog: &CatalogState) -> Change {
    Change::Write { name: CATALOG_FILE.to_owned(), bytes: catalog_file::encode(catalog) }
}

/// The change that writes `node.toml`. It is the last one.
pub(crate) fn store_node_file(node_file: &NodeFile) -> Change {
    Change::Write { name: NODE_FILE.to_owned(), bytes: node_file.encode().into_bytes() }
}

/// Decides the changes: from now on they are made, whatever happens.
///
/// # Errors
/// [`StorageError`]; whether they are decided is then known only after the next start of the program.
pub(crate) fn decide(data_dir: &DataDir, recovery: &RecoveryFile) -> Result<(), StorageError> {
    if broken(Fault::RecoveryNotDecided) {
        return Ok(());
    }
    data_dir.disk().replace(&data_dir.path().join(RECOVERY_FILE), &recovery.encode())
}

/// Makes the changes that are decided. Can be repeated after a crash.
///
/// # Errors
/// [`StorageError`].
pub(crate) fn roll_forward(data_dir: &DataDir, recovery: &RecoveryFile) -> Result<(), StorageError> {
    let (disk, home) = (data_dir.disk(), data_dir.path());
    let node_file = home.join(NODE_FILE);
    if !are_made(disk, &node_file, recovery)? {
        // An older version of the program does not know the file `recovery`.
        disk.unlink(&node_file)?;
        disk.sync_dir(home)?;
        for change in &recovery.changes {
            make(disk, home, change)?;
        }
    }
    disk.unlink(&home.join(RECOVERY_FILE))?;
    disk.sync_dir(home)
}

/// True if all changes are made: `node.toml`, which the last one writes, is of the new cluster. It may have changed
/// since then, if an older version of the program, which does not know the file `recovery`, ran on the directory.
fn are_made(disk: &Disk, path: &Path, recovery: &RecoveryFile) -> Result<bool, StorageError> {
    match disk.load(path, NODE_FILE_BYTES_MAX, Access::Blocking, NodeFile::decode) {
        Ok(node_file) => Ok(node_file.is_some_and(|node_file| node_file.cluster_id == Some(recovery.cluster_id))),
        Err(error) if error.is_damage() => Ok(false),
        Err(error) => Err(error),
    }
}

fn make(disk: &Disk, home: &Path, change: &Change) -> Result<(), StorageError> {
    match change {
        Change::Write { name, bytes } => disk.replace(&home.join(name), bytes),
        Change::Rename { name, to } => {
            let (from, to) = (home.join(name), home.join(to));
            if disk.list(&from)?.is_some() {
                disk.rename(&from, &to)?;
            }
            disk.sync_dir(from.parent().unwrap_or(home))
        }
        // The file is derived from others: it need not be synced that it is gone.
        Change::Remove { name } => disk.unlink(&home.join(name)),
    }
}
