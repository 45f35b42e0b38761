//! A node's data directory: its lock, its `node.toml`, and the newest snapshot of the catalog.
//!
//! Both files are always replaced as a whole. `node.toml` is written before the first group is created, so a directory
//! with groups but without this file is damaged.

use std::any::Any;
use std::path::{Path, PathBuf};

use crate::forming::StoredPledge;
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::storage::format::catalog_file::{self, CATALOG_FILE, CATALOG_FILE_BYTES_MAX};
use crate::storage::format::recovery_file::RECOVERY_FILE;
use crate::storage::format::state::{Base, CatalogState};
use crate::storage::io::disk::{Access, Disk};
pub use crate::storage::io::node_file::NodeFile;
use crate::storage::io::pledge_file::{self, PLEDGE_FILE_BYTES_MAX};
use crate::storage::io::space::RESERVE_FILE;

pub(crate) const NODE_FILE: &str = "node.toml";
/// The maximum size of `node.toml`: some lines, and the groups.
pub(crate) const NODE_FILE_BYTES_MAX: usize = 16 << 20;
const PLEDGE_FILE: &str = "pledge.toml";
const LOCK_FILE: &str = "lock";
const GROUPS_DIR: &str = "groups";
/// Names that may be in a directory that is not a data directory yet: what a first start leaves if it is stopped early,
/// and what a new file system contains.
const HARMLESS: [&str; 5] = [LOCK_FILE, GROUPS_DIR, RESERVE_FILE, "node.tmp", "lost+found"];

/// A data directory, locked for this process until this is dropped.
pub struct DataDir {
    path: PathBuf,
    disk: Disk,
    _lock: Box<dyn Any + Send + Sync>,
}

impl DataDir {
    /// Creates the directory if necessary, and locks it.
    ///
    /// # Errors
    /// [`StorageError::InUse`]; [`StorageError::ForeignDirectory`] if it contains other files; damage if it contains
    /// groups but no `node.toml`; [`StorageError::RecoveryUnfinished`].
    pub fn open(disk: &Disk, path: &Path) -> Result<DataDir, StorageError> {
        make_dir(disk, path)?;
        if disk.is_there(&path.join(RECOVERY_FILE)) {
            return Err(StorageError::RecoveryUnfinished { path: path.to_owned() });
        }
        check_ours(disk, path)?;
        let lock = disk.lock(&path.join(LOCK_FILE))?;
        let lock = lock.ok_or_else(|| StorageError::InUse { path: path.to_owned() })?;
        disk.create_dir(&path.join(GROUPS_DIR))?;
        disk.sync_dir(path)?;
        Ok(DataDir { path: path.to_owned(), disk: disk.clone(), _lock: lock })
    }

    /// Locks an existing directory for a caller that changes nothing, and does not even create the lock file.
    ///
    /// # Errors
    /// [`StorageError::InUse`], or that the directory does not exist.
    pub fn look(disk: &Disk, path: &Path) -> Result<DataDir, StorageError> {
        if disk.list(path)?.is_none() {
            return Err(StorageError::io("list", path, rustix::io::Errno::NOENT.into()));
        }
        let lock = disk.lock_if_there(&path.join(LOCK_FILE))?;
        let lock = lock.ok_or_else(|| StorageError::InUse { path: path.to_owned() })?;
        Ok(DataDir { path: path.to_owned(), disk: disk.clone(), _lock: lock })
    }

    /// Checks, by the names in it, that it is a complete data directory.
    ///
    /// # Errors
    /// [`StorageError::ForeignDirectory`], or damage if `node.toml` is missing.
    pub fn check(&self) -> Result<(), StorageError> {
        check_ours(&self.disk, &self.path)
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the groups.
    pub fn groups_dir(&self) -> PathBuf {
        self.path.join(GROUPS_DIR)
    }

    /// Reads `node.toml`; `None` in a blank directory.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn load(&self) -> Result<Option<NodeFile>, StorageError> {
        let path = self.path.join(NODE_FILE);
        match self.disk.load(&path, NODE_FILE_BYTES_MAX, Access::Blocking, NodeFile::decode)? {
            Some(node) => node.check(&path).map(|()| Some(node)),
            // Something has this name, for example a dangling link, so the directory is not blank.
            None if self.disk.list(&self.path)?.unwrap_or_default().iter().any(|name| name == NODE_FILE) => {
                Err(leads_nowhere(&path))
            }
            None => Ok(None),
        }
    }

    /// Reads the newest snapshot of the catalog; `None` if there is none yet.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn load_catalog(&self) -> Result<Option<CatalogState>, StorageError> {
        self.disk.load(&self.catalog_path(), CATALOG_FILE_BYTES_MAX, Access::Blocking, catalog_file::decode)
    }

    /// Replaces the snapshot of the catalog. It is durable when this returns, and only then may the catalog's log be
    /// trimmed up to its index.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store_catalog(&self, catalog: &CatalogState) -> Result<(), StorageError> {
        if broken(Fault::CatalogNotStored) {
            return Ok(());
        }
        self.disk.replace(&self.catalog_path(), &catalog_file::encode(catalog))
    }

    /// Checks that the catalog's log, which begins after `base`, continues its snapshot. The snapshot may be ahead of
    /// the log, because a node that receives one stores it first.
    ///
    /// # Errors
    /// Damage if entries are missing between the two.
    pub fn check_catalog(&self, catalog: Option<&CatalogState>, base: &Base) -> Result<(), StorageError> {
        let (path, begins) = (self.catalog_path(), base.index);
        match catalog {
            Some(catalog) if catalog.index < begins => {
                let includes = catalog.index;
                let what = format!(
                    "it includes the entries up to {includes}, but the catalog's log begins after {begins}: this is an older copy"
                );
                Err(StorageError::damaged(&path, 16, what))
            }
            None if begins > Base::FIRST => {
                let what = format!("the file is missing, but the catalog's log begins after entry {begins}");
                Err(StorageError::damaged(&path, 0, what))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn catalog_path(&self) -> PathBuf {
        self.path.join(CATALOG_FILE)
    }

    /// Replaces `node.toml`. The new contents are durable when this returns.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store(&self, node: &NodeFile) -> Result<(), StorageError> {
        self.disk.replace(&self.path.join(NODE_FILE), node.encode().as_bytes())
    }

    /// Reads `pledge.toml`; an empty pledge if it does not exist.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn load_pledge(&self) -> Result<StoredPledge, StorageError> {
        let (path, bytes_max) = (self.path.join(PLEDGE_FILE), PLEDGE_FILE_BYTES_MAX);
        Ok(self.disk.load(&path, bytes_max, Access::Blocking, pledge_file::decode)?.unwrap_or_default())
    }

    /// Replaces `pledge.toml`. The new contents are durable when this returns, and only then may the pledge be sent.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store_pledge(&self, pledge: &StoredPledge) -> Result<(), StorageError> {
        self.disk.replace(&self.path.join(PLEDGE_FILE), pledge_file::encode(pledge).as_bytes())
    }

    /// Removes `pledge.toml`, which a member does not need. It may come back after a crash.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn remove_pledge(&self) -> Result<(), StorageError> {
        self.disk.unlink(&self.path.join(PLEDGE_FILE))
    }
}

/// Creates a directory and its parents. The name of each is synced before the next one is created.
fn make_dir(disk: &Disk, path: &Path) -> Result<(), StorageError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if disk.list(path)?.is_some() {
        // An earlier start may have been stopped before it synced the name. An error is ignored, because this user may
        // not be allowed to.
        let _ = disk.sync_dir(parent);
        return Ok(());
    }
    if path.parent().is_some() {
        make_dir(disk, parent)?;
    }
    disk.create_dir(path)?;
    disk.sync_dir(parent)
}

fn leads_nowhere(path: &Path) -> StorageError {
    StorageError::damaged(path, 0, "the name is there, but leads nowhere, as a symbolic link to a missing file does")
}

fn check_ours(disk: &Disk, path: &Path) -> Result<(), StorageError> {
    let names = disk.list(path)?.unwrap_or_default();
    let groups = disk.list(&path.join(GROUPS_DIR))?;
    if groups.is_none() && names.iter().any(|name| name == GROUPS_DIR) {
        return Err(leads_nowhere(&path.join(GROUPS_DIR)));
    }
    let groups = groups.unwrap_or_default();
    if names.iter().any(|name| name == NODE_FILE) {
        return Ok(());
    }
    let other = names.iter().find(|name| !HARMLESS.contains(&name.as_str()));
    // Groups prove that it is a data directory, whatever else it contains, for example a renamed `node.toml`.
    let ours = names.iter().any(|name| name == LOCK_FILE) || other.is_none();
    if let Some(group) = groups.iter().find(|name| ours && name.parse::<u64>().is_ok()) {
        let renamed = other.map_or_else(String::new, |name| format!(", and {name:?}: was {NODE_FILE} renamed?"));
        let what = format!("the file is missing, but the directory contains group {group}{renamed}");
        return Err(StorageError::damaged(&path.join(NODE_FILE), 0, what));
    }
    other.map_or(Ok(()), |other| {
        let found = format!("it has no {NODE_FILE} but contains {other:?}");
        Err(StorageError::ForeignDirectory { path: path.to_owned(), found })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogIndex, NodeId, NodeName};

    fn node() -> NodeFile {
        NodeFile::new(NodeId(7), NodeName::new("a").expect("a name"))
    }

    #[test]
    fn the_snapshot_of_the_catalog_must_reach_the_beginning_of_its_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(&Disk::real(), dir.path()).expect("a data directory");
        let check = |base| {
            let catalog = data.load_catalog().expect("loaded");
            data.check_catalog(catalog.as_ref(), &Base { index: LogIndex(base), ..Base::default() })
        };
        check(0).expect("a blank replica");
        check(1).expect("a founder");
        let missing = check(2).expect_err("trimmed");
        assert!(missing.is_damage() && missing.to_string().contains("begins after entry 2"), "{missing}");
        data.store_catalog(&CatalogState { index: LogIndex(300), ..CatalogState::default() }).expect("stored");
        check(1).expect("ahead");
        check(300).expect("continues");
        let old = check(301).expect_err("a gap");
        assert!(old.is_damage() && old.to_string().contains("an older copy"), "{old}");
    }

    #[test]
    fn a_directory_is_ours_and_one_process_has_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        let path = dir.path().join("deep/down/data");
        let data = DataDir::open(&disk, &path).expect("made");
        assert_eq!(data.load().expect("read"), None);
        let in_use = DataDir::open(&disk, &path).err().expect("in use");
        assert!(in_use.is_config() && in_use.to_string().contains("in use"), "{in_use}");
        drop(data);
        let data = DataDir::open(&disk, &path).expect("still blank");
        data.store(&node()).expect("stored");
        data.store(&node()).expect("stored again");
        disk.create_dir(&data.groups_dir().join("0")).expect("a group");
        drop(data);
        assert_eq!(DataDir::open(&disk, &path).expect("ours").load().expect("read"), Some(node()));
        for (bytes, what) in [(&b""[..], "empty"), (&[0; 4096], "zeros")] {
            std::fs::write(path.join(NODE_FILE), bytes).expect("damaged");
            let error = DataDir::open(&disk, &path).expect("locked").load().expect_err("no new identity is made");
            assert!(error.is_damage() && error.to_string().contains(NODE_FILE), "{what}: {error}");
        }
        // Once, a renamed file was reported as a foreign directory (exit code 78, with the advice to choose an empty
        // one).
        disk.rename(&path.join(NODE_FILE), &path.join("node.toml.old")).expect("renamed");
        let renamed = DataDir::open(&disk, &path).err().expect("lost");
        assert!(
            renamed.is_damage() && renamed.to_string().contains("\"node.toml.old\": was node.toml renamed?"),
            "{renamed}"
        );
        disk.unlink(&path.join("node.toml.old")).expect("lost");
        assert!(DataDir::open(&disk, &path).err().expect("lost").is_damage());
    }

    #[test]
    fn a_foreign_directory_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        disk.create(&dir.path().join("thesis.odt")).expect("a file");
        let error = DataDir::open(&disk, dir.path()).err().expect("foreign");
        assert!(error.is_config() && error.to_string().contains("thesis.odt"), "{error}");
        assert_eq!(disk.list(dir.path()).expect("listed").map(|names| names.len()), Some(1));
    }
}
