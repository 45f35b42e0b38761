//! Data directories with an older `node.toml`, and with dangling links.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::storage::format::frame::set_kind;
use crate::storage::format::segment_header::SEGMENT_HEADER_BYTES;
use crate::storage::format::state::Genesis;
use crate::storage::io::node::{DataDir, NodeFile};
use crate::storage::verify::{Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::append;
use crate::storage::write::options::LogOptions;
use crate::types::{ClusterId, NodeId, NodeName, ReplicaId};

const CATALOG: GroupId = GroupId(0);
const USED: GroupId = GroupId(3);
const UNUSED: GroupId = GroupId(4);

struct Home(tempfile::TempDir, Disk);

impl Home {
    /// A member with a catalog, a group with a record, and a group that was never used.
    fn new() -> Home {
        let home = Home(tempfile::tempdir().expect("a directory"), Disk::real());
        let data = DataDir::open(&home.1, home.0.path()).expect("a data directory");
        for group in [CATALOG, USED, UNUSED] {
            let genesis = if group == UNUSED { Genesis::Blank } else { Genesis::founder(ReplicaId(5)) };
            GroupLog::create(&home.1, &data.groups_dir(), group, &LogOptions::default(), genesis).expect("made");
        }
        let mut log = home.open(USED).expect("opened");
        append(&mut log, 1, &[b"a"]);
        log.close().expect("closed");
        home.store(Some(ClusterId(7)), &[CATALOG, USED]);
        home
    }

    fn store(&self, cluster_id: Option<ClusterId>, groups: &[GroupId]) {
        let node_name = NodeName::new("n1").expect("a name");
        let node = groups.iter().copied().fold(NodeFile::new(NodeId(5), node_name), NodeFile::with_group);
        let node = NodeFile { cluster_id, ..node };
        fs::write(self.path("node.toml"), node.encode()).expect("stored");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, group: GroupId) -> Result<GroupLog, StorageError> {
        GroupLog::open(&self.1, &self.path("groups"), group, &LogOptions::default()).map(|(log, _)| log)
    }

    /// Does what a start does before it writes anything.
    fn start(&self) -> Result<Option<NodeFile>, StorageError> {
        let data = DataDir::open(&self.1, self.0.path())?;
        let node = data.load()?;
        check_groups(&data, node.as_ref())?;
        Ok(node)
    }

    fn worst(&self) -> Option<Severity> {
        verify(&self.1, self.0.path()).expect("a report").worst()
    }

    /// Replaces a file by a symbolic link to a missing file.
    fn unlink(&self, name: &str) {
        let path = self.path(name);
        fs::rename(&path, self.path("groups/moved")).or_else(|_| fs::rename(&path, self.path("moved"))).expect("moved");
        std::os::unix::fs::symlink("/nowhere/at/all", path).expect("a link");
    }
}

/// Once, a node with an older `node.toml` served nothing, forever, and did not report it. `data verify` called the
/// groups that it did not list unused, and exited with 0.
#[test]
fn an_older_list_of_groups_is_refused_and_reported() {
    let home = Home::new();
    assert!(home.start().expect("good").is_some());
    assert_eq!(home.worst(), Some(Severity::Note), "one group was never used");
    home.store(None, &[CATALOG, USED, UNUSED]);
    assert_eq!((home.start().map(drop).ok(), home.worst()), (Some(()), None));
    for (cluster_id, listed) in
        [(Some(ClusterId(7)), &[CATALOG][..]), (Some(ClusterId(7)), &[USED]), (Some(ClusterId(7)), &[]), (None, &[])]
    {
        let home = Home::new();
        home.store(cluster_id, listed);
        let error = home.start().expect_err("an older list");
        assert!(error.is_damage() && error.to_string().contains("node.toml"), "{listed:?}: {error}");
        assert_eq!(home.worst(), Some(Severity::Damage), "{listed:?}");
    }
    let report = |home: &Home| verify(&home.1, home.0.path()).expect("a report").findings;
    let home = Home::new();
    home.store(Some(ClusterId(7)), &[CATALOG]);
    let found = report(&home);
    assert!(found[0].file.ends_with("groups/3"), "{found:?}");
    let what = "does not list this group, but it contains entries up to 2 and records 0..1";
    assert!(found[0].what.contains(what), "{found:?}");
    // The contents of an unlisted group are checked as well.
    fs::remove_file(home.path("groups/3/manifest")).expect("removed");
    let found = report(&home);
    assert!(found.iter().any(|f| f.file.ends_with("manifest")), "{found:?}");
    assert!(home.start().expect_err("unusable").is_damage());
}

/// Once, an unlisted group of another version was called damaged (exit code 65).
#[test]
fn an_unlisted_group_of_a_newer_version_is_not_damage() {
    let segment = "groups/3/00000000000000000001.seg";
    let frame: fn(&mut Vec<u8>) = |bytes| set_kind(bytes, SEGMENT_HEADER_BYTES, 99);
    // The checksum of that format is elsewhere.
    let format: fn(&mut Vec<u8>) = |bytes| bytes[8..16].copy_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
    for (name, change) in [(segment, frame), (segment, format), ("groups/3/manifest", format)] {
        let home = Home::new();
        home.store(Some(ClusterId(7)), &[CATALOG]);
        let mut bytes = fs::read(home.path(name)).expect("a file");
        change(&mut bytes);
        fs::write(home.path(name), bytes).expect("written");
        let error = home.start().expect_err("refused");
        assert!(error.is_config() && !error.is_damage(), "{name}: {error}");
        assert_eq!(home.worst(), Some(Severity::Format), "{name}");
        // Damage to another group takes precedence.
        fs::write(home.path("groups/4/manifest"), b"").expect("damaged");
        assert!(home.start().expect_err("refused").is_damage(), "{name}");
        assert_eq!(home.worst(), Some(Severity::Damage), "{name}");
    }
}

/// Once, a node whose `node.toml` was a symbolic link to a missing file got a new identity over its old groups.
#[test]
fn a_name_that_leads_nowhere_is_never_a_blank_directory() {
    for name in ["node.toml", "groups"] {
        let home = Home::new();
        home.unlink(name);
        let error = home.start().expect_err("refused");
        assert!(error.is_damage() && error.to_string().contains("leads nowhere"), "{name}: {error}");
        assert_eq!(home.worst(), Some(Severity::Damage), "{name}");
        let home = Home(tempfile::tempdir().expect("a directory"), Disk::real());
        std::os::unix::fs::symlink("/nowhere/at/all", home.path(name)).expect("a link");
        assert!(home.start().expect_err("alone").is_damage(), "{name}");
        assert_eq!(home.worst(), Some(Severity::Damage), "{name} alone");
        assert!(fs::symlink_metadata(home.path(name)).expect("it is there").is_symlink(), "{name} is as it was");
    }
    for name in ["groups/3/manifest", "groups/3/00000000000000000001.seg", "groups/3"] {
        let home = Home::new();
        home.unlink(name);
        let error = home.open(USED).map(drop).expect_err("refused");
        assert!(error.is_damage(), "{name}: {error}");
        assert_eq!(home.worst(), Some(Severity::Damage), "{name}");
        home.store(Some(ClusterId(7)), &[CATALOG]);
        assert!(home.start().expect_err("unlisted").is_damage(), "{name}");
        assert_eq!(home.worst(), Some(Severity::Damage), "{name} of an unlisted group");
    }
}
