//! A node's data directory: its lock, and `node.toml`, which contains the node's identity and its groups.
//!
//! ```text
//! format = 1
//! node_id = "0123456789abcdef"
//! node_name = "a"
//! cluster_name = "seriatim"           absent: not admitted yet, or written by an older version
//! cluster_id = "fedcba9876543210"     zeros: not admitted yet
//! groups = [0, 1]
//! crc32c = "89abcdef"                 of all earlier lines
//! ```
//!
//! The file is always replaced as a whole. It is written before the first group is created, so a directory with groups
//! but without this file is damaged. A group is listed once its directory is complete, and sends its first message only
//! after that.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::check_cluster_name;
use crate::storage::error::StorageError;
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::space::RESERVE_FILE;
use crate::types::{ClusterId, GroupId, NodeId, NodeName};

/// The newest format of `node.toml` that this version reads, and the one that it writes.
pub const NODE_FORMAT: u32 = 1;

pub(crate) const NODE_FILE: &str = "node.toml";
/// The maximum size of `node.toml`: five lines, and the groups.
pub(crate) const NODE_FILE_BYTES_MAX: usize = 16 << 20;
const LOCK_FILE: &str = "lock";
const GROUPS_DIR: &str = "groups";
/// Names that may be in a directory that is not a data directory yet: what a first start leaves if it is stopped early,
/// and what a new file system contains.
const HARMLESS: [&str; 5] = [LOCK_FILE, GROUPS_DIR, RESERVE_FILE, "node.tmp", "lost+found"];

/// The contents of `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// The name of the cluster that it is a member of. Older files lack it.
    pub cluster_name: Option<String>,
    /// The cluster that it is a member of; `None` until it is admitted to one or founds one.
    pub cluster_id: Option<ClusterId>,
    /// The groups that it has replicas of.
    pub groups: Vec<GroupId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeLines {
    format: u32,
    node_id: String,
    node_name: String,
    #[serde(default)]
    cluster_name: Option<String>,
    cluster_id: String,
    groups: Vec<u64>,
}

impl NodeFile {
    pub fn encode(&self) -> String {
        let lines = NodeLines {
            format: NODE_FORMAT,
            node_id: self.node_id.to_string(),
            node_name: self.node_name.to_string(),
            cluster_name: self.cluster_name.clone(),
            cluster_id: self.cluster_id.unwrap_or_default().to_string(),
            groups: self.groups.iter().map(|g| g.0).collect(),
        };
        let groups: Vec<String> = lines.groups.iter().map(u64::to_string).collect();
        let cluster_name = lines.cluster_name.map_or_else(String::new, |name| format!("cluster_name = \"{name}\"\n"));
        let text = format!(
            "format = {}\nnode_id = \"{}\"\nnode_name = \"{}\"\n{cluster_name}cluster_id = \"{}\"\ngroups = [{}]\n",
            lines.format,
            lines.node_id,
            lines.node_name,
            lines.cluster_id,
            groups.join(", ")
        );
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c = \"{crc:08x}\"\n")
    }

    /// Decodes what [`NodeFile::encode`] returned; `file` is its name, for the error.
    ///
    /// # Errors
    /// [`StorageError::OtherFormat`] or [`StorageError::Damaged`].
    pub fn decode(bytes: &[u8], file: &Path) -> Result<NodeFile, StorageError> {
        let damaged = |at: usize, what: String| StorageError::damaged(file, at as u64, what);
        let text = std::str::from_utf8(bytes);
        let format = format_of(bytes).ok_or_else(|| damaged(0, "the first line does not say the format".to_owned()))?;
        if format > NODE_FORMAT {
            if text.is_ok_and(|text| format_is_damaged(text, format)) {
                return Err(damaged(
                    9,
                    format!("format {format}, but the checksum is the one of format {NODE_FORMAT}"),
                ));
            }
            return Err(other_format(file, format));
        }
        let text = text.map_err(|e| damaged(e.valid_up_to(), "this is not UTF-8".to_owned()))?;
        let end = text.rfind("crc32c = ").ok_or_else(|| damaged(bytes.len(), "the last line is missing".to_owned()))?;
        let (lines, last) = text.split_at(end);
        if last != format!("crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes())) {
            return Err(damaged(end, "the checksum does not match; if it was edited, undo that".to_owned()));
        }
        if format < NODE_FORMAT {
            return Err(other_format(file, format));
        }
        let lines: NodeLines = toml::from_str(lines).map_err(|e| damaged(0, e.to_string()))?;
        let groups: BTreeSet<u64> = lines.groups.iter().copied().collect();
        if groups.len() != lines.groups.len() {
            return Err(damaged(0, "a group is listed twice".to_owned()));
        }
        if let Some(Err(error)) = lines.cluster_name.as_deref().map(check_cluster_name) {
            return Err(damaged(0, error));
        }
        let id = |text: &str| text.parse::<NodeId>().map_err(|e| damaged(0, format!("{text} is not an id: {e}")));
        Ok(NodeFile {
            node_id: id(&lines.node_id)?,
            node_name: NodeName::new(&lines.node_name).map_err(|e| damaged(0, e.to_string()))?,
            cluster_name: lines.cluster_name,
            cluster_id: Some(ClusterId(id(&lines.cluster_id)?.0)).filter(|id| id.0 != 0),
            groups: lines.groups.into_iter().map(GroupId).collect(),
        })
    }

    /// Checks that a member of a cluster lists the catalog. Both become part of the file at the same time.
    fn check(&self, file: &Path) -> Result<(), StorageError> {
        match self.cluster_id {
            Some(_) if !self.groups.contains(&GroupId::CATALOG) => {
                let what = "the node is a member of a cluster, but its groups do not contain the catalog (group 0)";
                Err(StorageError::damaged(file, 0, what))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn other_format(file: &Path, version: u32) -> StorageError {
    StorageError::OtherFormat { file: file.to_owned(), part: "", version, known: NODE_FORMAT }
}

/// The format in the first line. About a newer version's file, nothing else is known.
fn format_of(bytes: &[u8]) -> Option<u32> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line.strip_prefix(b"format = ")?).ok()?.trim_end().parse().ok()
}

/// True if only the format of these lines is damaged: with the known format their checksum matches.
fn format_is_damaged(text: &str, format: u32) -> bool {
    let known = text.replacen(&format!("format = {format}\n"), &format!("format = {NODE_FORMAT}\n"), 1);
    let (lines, last) = known.split_at(known.rfind("crc32c = ").unwrap_or(known.len()));
    last == format!("crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()))
}

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
    /// groups but no `node.toml`.
    pub fn open(disk: &Disk, path: &Path) -> Result<DataDir, StorageError> {
        make_dir(disk, path)?;
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

    /// Replaces `node.toml`. The new contents are durable when this returns.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn store(&self, node: &NodeFile) -> Result<(), StorageError> {
        self.disk.replace(&self.path.join(NODE_FILE), node.encode().as_bytes())
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
    use crate::golden::assert_golden;

    fn node() -> NodeFile {
        NodeFile {
            node_id: NodeId(0x0123_4567_89ab_cdef),
            node_name: NodeName::new("a").expect("a name"),
            cluster_name: None,
            cluster_id: None,
            groups: vec![GroupId(0), GroupId(1)],
        }
    }

    #[test]
    fn the_text_of_a_node_file_never_changes() {
        let text = node().encode();
        let golden = "format = 1\nnode_id = \"0123456789abcdef\"\nnode_name = \"a\"\ncluster_id = \"0000000000000000\"\n\
                      groups = [0, 1]\ncrc32c = \"571b7cc7\"\n";
        assert_eq!(text, golden);
        assert_eq!(NodeFile::decode(text.as_bytes(), Path::new("n")).expect("a node file"), node());
        let member = NodeFile { cluster_id: Some(ClusterId(5)), groups: Vec::new(), ..node() };
        assert_eq!(NodeFile::decode(member.encode().as_bytes(), Path::new("n")).expect("a node file"), member);
        // With the cluster's name, which older files lack.
        let named = NodeFile { cluster_name: Some("demo".to_owned()), ..node() };
        let text = named.encode();
        assert_golden("node-v1.toml", text.as_bytes());
        assert_eq!(NodeFile::decode(text.as_bytes(), Path::new("n")).expect("a node file"), named);
        let unsound = NodeFile { cluster_name: Some("Demo\"".to_owned()), ..node() };
        assert!(NodeFile::decode(unsound.encode().as_bytes(), Path::new("n")).expect_err("no name").is_damage());
    }

    #[test]
    fn refuses_other_text() {
        let good = node().encode();
        for at in 9..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(NodeFile::decode(&bytes, Path::new("n")).is_err(), "byte {at}");
            assert!(NodeFile::decode(&good.as_bytes()[..at], Path::new("n")).is_err(), "cut to {at}");
        }
        let twice = NodeFile { groups: vec![GroupId(1), GroupId(1)], ..node() };
        let error = NodeFile::decode(twice.encode().as_bytes(), Path::new("n")).expect_err("one log, opened twice");
        assert!(error.is_damage(), "{error}");
        let newer = good.replace("format = 1\n", "format = 2\nnew = 1\n");
        let error = NodeFile::decode(newer.as_bytes(), Path::new("n")).expect_err("newer");
        assert!(error.is_config() && error.to_string().contains("format 2, newer than"), "{error}");
        // Once, a flipped bit in the format was mistaken for a newer format (exit code 78).
        for bit in 0..8 {
            let mut bytes = good.clone().into_bytes();
            bytes["format = ".len()] ^= 1 << bit;
            let error = NodeFile::decode(&bytes, Path::new("n")).expect_err("damaged");
            assert!(error.is_damage(), "bit {bit}: {error}");
        }
        let older = good.replace("format = 1", "format = 0");
        let (lines, _) = older.split_at(older.rfind("crc32c").expect("the last line"));
        let sealed = format!("{lines}crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()));
        let error = NodeFile::decode(sealed.as_bytes(), Path::new("n")).expect_err("older");
        assert!(error.is_config() && error.to_string().contains("format 0, older than"), "{error}");
        assert!(NodeFile::decode(older.as_bytes(), Path::new("n")).expect_err("damaged").is_damage());
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
