//! `node.toml`: the node's identity, and the replicas that it has and had.
//!
//! ```text
//! format = 1
//! node_id = "0123456789abcdef"
//! node_name = "a"
//! cluster_name = "seriatim"           absent: not admitted yet, or written by an older version
//! cluster_id = "fedcba9876543210"     zeros: not admitted yet
//! groups = [0, 1]                     replicas with the id of the node
//! replicas = [[7, 12], [9, 15]]       format 2: other replicas, each with its group and its id
//! next_replica = 16                   format 2: see below
//! dropped = [1]                       format 2: see below
//! crc32c = "89abcdef"                 of all earlier lines
//! ```
//!
//! Format 1 is written while it can express everything, so that an older version can read the file.
//!
//! **Tombstones.** The catalog is replayed at each start, and may then list a replica that this node has already given
//! up. A node creates its replicas in the order of their ids, so one number is enough: it never creates a replica with
//! an id below `next_replica`. Replicas with the id of the node are the exception, so those that it gave up are listed
//! (`dropped`).
//!
//! The file is always replaced as a whole. It is written before the first group is created, so a directory with groups
//! but without this file is damaged. A group is listed once its directory is complete, and sends its first message only
//! after that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::check_cluster_name;
use crate::storage::error::StorageError;
use crate::storage::faults::{Fault, broken};
use crate::types::{ClusterId, GroupId, NodeId, NodeName, ReplicaId};

/// The newest format of `node.toml` that this version reads, and the one that it writes.
pub const NODE_FORMAT: u32 = 2;
/// The format that older versions read.
const NODE_FORMAT_1: u32 = 1;

/// The contents of `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// The name of the cluster that it is a member of. Older files lack it.
    pub cluster_name: Option<String>,
    /// The cluster that it is a member of; `None` until it is admitted to one or founds one.
    pub cluster_id: Option<ClusterId>,
    /// The groups of which the node has replicas, with the ids of the replicas.
    pub groups: BTreeMap<GroupId, ReplicaId>,
    /// Every replica of this node with a lower id was created before. It is never created again.
    pub next_replica: ReplicaId,
    /// The groups whose replica with the id of the node was given up.
    pub dropped: BTreeSet<GroupId>,
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
    #[serde(default)]
    replicas: Vec<(u64, u64)>,
    #[serde(default)]
    next_replica: u64,
    #[serde(default)]
    dropped: Vec<u64>,
}

/// Returns the numbers as a list of TOML.
fn list(numbers: impl Iterator<Item = String>) -> String {
    format!("[{}]", numbers.collect::<Vec<_>>().join(", "))
}

impl NodeFile {
    /// Returns the file of a node that is not a member of a cluster.
    pub fn new(node_id: NodeId, node_name: NodeName) -> NodeFile {
        NodeFile {
            node_id,
            node_name,
            cluster_name: None,
            cluster_id: None,
            groups: BTreeMap::new(),
            next_replica: ReplicaId(0),
            dropped: BTreeSet::new(),
        }
    }

    /// Returns the file with a replica of the group whose id is the one of the node.
    #[cfg(test)]
    pub(crate) fn with_group(mut self, group: GroupId) -> NodeFile {
        let own = self.own_replica();
        self.add(group, own);
        self
    }

    /// Returns the replica of a group whose replicas have the ids of their nodes.
    pub fn own_replica(&self) -> ReplicaId {
        ReplicaId::of_node(self.node_id)
    }

    /// Returns false for a replica that this node had before.
    pub fn may_create(&self, group: GroupId, replica: ReplicaId) -> bool {
        if replica == self.own_replica() { !self.dropped.contains(&group) } else { replica >= self.next_replica }
    }

    /// Lists a new replica.
    pub fn add(&mut self, group: GroupId, replica: ReplicaId) {
        self.groups.insert(group, replica);
        if replica != self.own_replica() {
            self.next_replica = self.next_replica.max(ReplicaId(replica.0 + 1));
        }
    }

    /// Removes a replica from the list. It can't be created again.
    pub fn remove(&mut self, group: GroupId) {
        if self.groups.remove(&group) == Some(self.own_replica()) {
            self.dropped.insert(group);
        }
    }

    /// The contents of the file.
    pub fn encode(&self) -> String {
        if broken(Fault::TombstoneForgotten) {
            let next_replica = self.groups.values().map(|id| ReplicaId(id.0 + 1)).max().unwrap_or_default();
            return NodeFile { next_replica, dropped: BTreeSet::new(), ..self.clone() }.text();
        }
        self.text()
    }

    fn text(&self) -> String {
        let own = self.own_replica();
        let groups = list(self.groups.iter().filter(|(_, id)| **id == own).map(|(group, _)| group.to_string()));
        let others = self.groups.iter().filter(|(_, id)| **id != own);
        let replicas = list(others.map(|(group, replica)| format!("[{group}, {replica}]")));
        let dropped = list(self.dropped.iter().map(GroupId::to_string));
        let (format, new_lines) = match self.next_replica == ReplicaId(0) && self.dropped.is_empty() {
            true => (NODE_FORMAT_1, String::new()),
            false => {
                let next = self.next_replica;
                (NODE_FORMAT, format!("replicas = {replicas}\nnext_replica = {next}\ndropped = {dropped}\n"))
            }
        };
        let cluster_name =
            self.cluster_name.as_ref().map_or_else(String::new, |name| format!("cluster_name = \"{name}\"\n"));
        let text = format!(
            "format = {format}\nnode_id = \"{}\"\nnode_name = \"{}\"\n{cluster_name}cluster_id = \"{}\"\n\
             groups = {groups}\n{new_lines}",
            self.node_id,
            self.node_name,
            self.cluster_id.unwrap_or_default(),
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
            if let Some(known) = text.ok().and_then(|text| damaged_format(text, format)) {
                return Err(damaged(9, format!("format {format}, but the checksum is the one of format {known}")));
            }
            return Err(other_format(file, format));
        }
        let text = text.map_err(|e| damaged(e.valid_up_to(), "this is not UTF-8".to_owned()))?;
        let end = text.rfind("crc32c = ").ok_or_else(|| damaged(bytes.len(), "the last line is missing".to_owned()))?;
        let (lines, last) = text.split_at(end);
        if last != format!("crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes())) {
            return Err(damaged(end, "the checksum does not match; if it was edited, undo that".to_owned()));
        }
        if format < NODE_FORMAT_1 {
            return Err(other_format(file, format));
        }
        let lines: NodeLines = toml::from_str(lines).map_err(|e| damaged(0, e.to_string()))?;
        if format == NODE_FORMAT_1
            && (!lines.replicas.is_empty() || lines.next_replica > 0 || !lines.dropped.is_empty())
        {
            return Err(damaged(0, "format 1 has no such lines".to_owned()));
        }
        if let Some(Err(error)) = lines.cluster_name.as_deref().map(check_cluster_name) {
            return Err(damaged(0, error));
        }
        let id = |text: &str| text.parse::<NodeId>().map_err(|e| damaged(0, format!("{text} is not an id: {e}")));
        let node_id = id(&lines.node_id)?;
        let own = lines.groups.iter().map(|group| (*group, node_id.0));
        let mut groups = BTreeMap::new();
        for (group, replica) in own.chain(lines.replicas.iter().copied()) {
            let placed_later = replica != node_id.0 && replica >= lines.next_replica;
            if placed_later || groups.insert(GroupId(group), ReplicaId(replica)).is_some() {
                return Err(damaged(0, format!("group {group} is listed twice, or its replica is of the future")));
            }
        }
        Ok(NodeFile {
            node_id,
            node_name: NodeName::new(&lines.node_name).map_err(|e| damaged(0, e.to_string()))?,
            cluster_name: lines.cluster_name,
            cluster_id: Some(ClusterId(id(&lines.cluster_id)?.0)).filter(|id| id.0 != 0),
            groups,
            next_replica: ReplicaId(lines.next_replica),
            dropped: lines.dropped.into_iter().map(GroupId).collect(),
        })
    }

    /// Checks that a member of a cluster lists the catalog. Both become part of the file at the same time.
    pub(super) fn check(&self, file: &Path) -> Result<(), StorageError> {
        match self.cluster_id {
            Some(_) if !self.groups.contains_key(&GroupId::CATALOG) => {
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

/// The format in the first line. Of a newer version's file, nothing else is read.
fn format_of(bytes: &[u8]) -> Option<u32> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line.strip_prefix(b"format = ")?).ok()?.trim_end().parse().ok()
}

/// Returns the known format with which the checksum of these lines matches: only their format is damaged.
fn damaged_format(text: &str, format: u32) -> Option<u32> {
    (NODE_FORMAT_1..=NODE_FORMAT).find(|known_format| {
        let known = text.replacen(&format!("format = {format}\n"), &format!("format = {known_format}\n"), 1);
        let (lines, last) = known.split_at(known.rfind("crc32c = ").unwrap_or(known.len()));
        last == format!("crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()))
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
            groups: [0, 1].map(|group| (GroupId(group), ReplicaId(0x0123_4567_89ab_cdef))).into(),
            next_replica: ReplicaId(0),
            dropped: BTreeSet::new(),
        }
    }

    #[test]
    fn the_text_of_a_node_file_never_changes() {
        let text = node().encode();
        let golden = "format = 1\nnode_id = \"0123456789abcdef\"\nnode_name = \"a\"\ncluster_id = \"0000000000000000\"\n\
                      groups = [0, 1]\ncrc32c = \"571b7cc7\"\n";
        assert_eq!(text, golden);
        assert_eq!(NodeFile::decode(text.as_bytes(), Path::new("n")).expect("a node file"), node());
        let member = NodeFile { cluster_id: Some(ClusterId(5)), groups: BTreeMap::new(), ..node() };
        assert_eq!(NodeFile::decode(member.encode().as_bytes(), Path::new("n")).expect("a node file"), member);
        // With the cluster's name, which older files lack.
        let named = NodeFile { cluster_name: Some("demo".to_owned()), ..node() };
        let text = named.encode();
        assert_golden("node-v1.toml", text.as_bytes());
        assert_eq!(NodeFile::decode(text.as_bytes(), Path::new("n")).expect("a node file"), named);
        let mut placed = NodeFile { cluster_name: Some("demo".to_owned()), ..node() };
        placed.add(GroupId(7), ReplicaId(12));
        placed.add(GroupId(9), ReplicaId(15));
        placed.remove(GroupId(1));
        placed.remove(GroupId(7));
        let text = placed.encode();
        assert_golden("node-v2.toml", text.as_bytes());
        assert_eq!(NodeFile::decode(text.as_bytes(), Path::new("n")).expect("a node file"), placed);
        assert!(!placed.may_create(GroupId(7), ReplicaId(12)) && placed.may_create(GroupId(7), ReplicaId(16)));
        assert!(
            !placed.may_create(GroupId(1), placed.own_replica()) && placed.may_create(GroupId(2), placed.own_replica())
        );
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
        let reseal = |text: &str| {
            let (lines, _) = text.split_at(text.rfind("crc32c").expect("the last line"));
            format!("{lines}crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()))
        };
        let placed = NodeFile { next_replica: ReplicaId(9), ..node() };
        for bad in [
            reseal(&good.replace("[0, 1]", "[1, 1]")),
            reseal(&placed.encode().replace("replicas = []", "replicas = [[1, 3]]")),
            reseal(&placed.encode().replace("replicas = []", "replicas = [[2, 9]]")),
            reseal(&placed.encode().replace("format = 2", "format = 1")),
        ] {
            let error = NodeFile::decode(bad.as_bytes(), Path::new("n")).expect_err("a group twice, or of the future");
            assert!(error.is_damage(), "{error}");
        }
        let newer = good.replace("format = 1\n", "format = 3\nnew = 1\n");
        let error = NodeFile::decode(newer.as_bytes(), Path::new("n")).expect_err("newer");
        assert!(error.is_config() && error.to_string().contains("format 3, newer than"), "{error}");
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
}
