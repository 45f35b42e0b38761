use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::storage::format::state::{CatalogState, LogState};
use crate::storage::io::disk::Disk;
use crate::storage::verify::{Finding, Severity, verify};
use crate::storage::write::log::tests::append;
use crate::types::{ClusterId, LogIndex, NodeId, NodeName, Offset};

struct Home {
    dir: tempfile::TempDir,
    data: Option<DataDir>,
    file: NodeFile,
}

impl Home {
    /// A node with the catalog, and with replica 12 of group 7.
    fn new() -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(&Disk::real(), dir.path()).expect("a data directory");
        let mut file = NodeFile::new(NodeId(5), NodeName::new("n1").expect("a name"));
        file.cluster_id = Some(ClusterId(9));
        let own = file.own_replica();
        let new = [
            (GroupId::CATALOG, own, Genesis::founder(own)),
            (GroupId(7), ReplicaId(12), Genesis::Voters(vec![ReplicaId(12), ReplicaId(13)], Offset(0))),
        ];
        take_up(&data, &mut file, new.into_iter(), &LogOptions::default()).expect("made");
        Home { dir, data: Some(data), file }
    }

    fn data(&self) -> &DataDir {
        self.data.as_ref().expect("open")
    }

    fn findings(&mut self) -> Vec<Finding> {
        self.data = None;
        let found = verify(&Disk::real(), self.dir.path()).expect("a report").findings;
        self.data = Some(DataDir::open(&Disk::real(), self.dir.path()).expect("opened"));
        found
    }
}

#[test]
fn names_of_retired_replicas() {
    let dir = Path::new("/groups");
    let name = retired_dir(dir, GroupId(7), ReplicaId(12));
    assert_eq!(name, dir.join("7.removed-12"));
    assert_eq!(retired_of("7.removed-12"), Some((GroupId(7), ReplicaId(12))));
    for other in ["7", "7.removed-", "7.removed-x", "07.removed-1", "7.removed-01", "7.removed-1.removed-2", ".new-7"] {
        assert_eq!(retired_of(other), None, "{other}");
    }
    let aside = aside_dir(dir, GroupId(7), ReplicaId(12));
    assert_eq!(aside, dir.join("7.damaged-12"));
    assert_eq!(aside_of("7.damaged-12"), Some((GroupId(7), ReplicaId(12))));
    assert_eq!((aside_of("7.removed-12"), retired_of("7.damaged-12")), (None, None));
}

/// Its files are kept until the new replica is whole, and a crash in between changes nothing.
#[test]
fn a_damaged_replica_that_was_given_up_is_kept_aside() {
    let mut home = Home::new();
    let mut file = home.file.clone();
    assert_eq!(give_up(home.data(), &mut file, GroupId(7), Files::KeepAside).expect("given up"), None);
    let aside = home.data().groups_dir().join("7.damaged-12");
    assert_eq!(aside_dirs(home.data()).expect("listed"), [((GroupId(7), ReplicaId(12)), aside.clone())].into());
    assert!(retired_dirs(home.data()).expect("listed").is_empty() && aside.join("manifest").exists());
    let found = home.findings();
    assert!(found.len() == 1 && found[0].severity == Severity::Note && found[0].file == aside, "{found:?}");
    // The process died after the rename.
    home.data().store(&home.file).expect("stored");
    assert!(home.findings().iter().all(|finding| finding.severity == Severity::Note));
    let mut again = home.file.clone();
    unlist_retired(home.data(), &mut again).expect("listed");
    assert_eq!(again, file);
}

/// The directory of a damaged replica may be missing.
#[test]
fn a_replica_without_a_directory_can_be_given_up() {
    for files in [Files::KeepAside, Files::Delete] {
        let home = Home::new();
        home.data().disk().remove_dir(&home.data().groups_dir().join("7")).expect("removed");
        let mut file = home.file.clone();
        assert_eq!(give_up(home.data(), &mut file, GroupId(7), files).expect("given up"), None);
        assert!(!file.groups.contains_key(&GroupId(7)) && !file.may_create(GroupId(7), ReplicaId(12)));
    }
}

#[test]
fn a_replica_that_was_given_up_leaves_only_a_tombstone() {
    let mut home = Home::new();
    assert!(home.findings().is_empty());
    let mut file = home.file.clone();
    let retired = give_up(home.data(), &mut file, GroupId(7), Files::Delete).expect("given up").expect("a directory");
    assert_eq!(retired_dirs(home.data()).expect("listed"), std::slice::from_ref(&retired));
    assert_eq!(home.data().load().expect("loaded"), Some(file.clone()));
    assert!(!file.groups.contains_key(&GroupId(7)));
    assert!(!file.may_create(GroupId(7), ReplicaId(12)) && file.may_create(GroupId(7), ReplicaId(13)));
    assert_eq!(give_up(home.data(), &mut file, GroupId(7), Files::Delete).expect("nothing"), None);
    let found = home.findings();
    assert_eq!((found.len(), found[0].severity, &found[0].file), (1, Severity::Note, &retired));
    assert!(found[0].what.contains("gave up"), "{found:?}");
}

/// The process died after the rename: `node.toml` still lists the replica.
#[test]
fn a_start_completes_what_a_crash_interrupted() {
    let mut home = Home::new();
    let groups_dir = home.data().groups_dir();
    let retired = retired_dir(&groups_dir, GroupId(7), ReplicaId(12));
    GroupLog::retire(&Disk::real(), &groups_dir, GroupId(7), &retired).expect("renamed");
    let found = home.findings();
    assert!(found.iter().all(|finding| finding.severity == Severity::Note), "{found:?}");
    assert!(found.iter().any(|finding| finding.what.contains("removes it from node.toml")), "{found:?}");
    let mut file = home.file.clone();
    unlist_retired(home.data(), &mut file).expect("listed");
    assert_eq!(file.groups.keys().copied().collect::<Vec<_>>(), [GroupId::CATALOG]);
    assert!(!file.may_create(GroupId(7), ReplicaId(12)));
    // A directory of another replica, or none at all, does not explain that the group is missing.
    let groups_dir = home.data().groups_dir();
    let disk = Disk::real();
    disk.rename(&groups_dir.join("7.removed-12"), &groups_dir.join("7.removed-11")).expect("renamed");
    let mut file = home.file.clone();
    unlist_retired(home.data(), &mut file).expect("listed");
    assert_eq!(file, home.file);
    assert!(home.findings().iter().any(|finding| finding.severity == Severity::Damage));
}

/// The catalog's log state never has a first offset, although its log is trimmed.
#[test]
fn the_catalogs_log_is_trimmed_up_to_its_snapshot() {
    let mut home = Home::new();
    let (disk, groups_dir, options) = (Disk::real(), home.data().groups_dir(), LogOptions { segment_bytes: 2000 });
    let (mut log, _) = GroupLog::open(&disk, &groups_dir, GroupId::CATALOG, &options).expect("opened");
    while log.active.position().file < 4 {
        append(&mut log, 1, &[&[1; 400]]);
    }
    let commit = log.bounds().last_index;
    let hard_state = crate::storage::format::state::HardState { term: crate::types::Term(1), vote: None, commit };
    log.append_hard_state(&hard_state).expect("appended");
    let catalog = |index| CatalogState { index, bytes: Bytes::from_static(b"catalog") };
    home.data().store_catalog(&catalog(commit)).expect("stored");
    log.set_log_state(LogState::default(), commit);
    let base = log.trim(Offset::MAX, commit).expect("trimmed");
    assert!(base.index.0 > 10 && base.offset.0 >= 10, "{base:?}");
    log.close().expect("closed");
    drop(log);
    assert_eq!(home.findings(), []);
    let (log, found) = GroupLog::open(&disk, &groups_dir, GroupId::CATALOG, &options).expect("opened");
    assert_eq!((found.base, found.log_state.first_offset), (base, Offset(0)));
    drop(log);
    home.data().store_catalog(&catalog(LogIndex(base.index.0 - 1))).expect("stored");
    let found = home.findings();
    assert_eq!((found.len(), found[0].severity), (1, Severity::Damage));
    assert!(found[0].file.ends_with("catalog") && found[0].what.contains("an older copy"), "{found:?}");
    std::fs::remove_file(home.data().catalog_path()).expect("removed");
    assert!(home.findings()[0].what.contains("the file is missing"));
    std::fs::write(home.data().catalog_path(), b"SRTM-CAT\x09\0\0\0").expect("written");
    let found = home.findings();
    assert_eq!((found.len(), found[0].severity), (1, Severity::Format), "{found:?}");
}
