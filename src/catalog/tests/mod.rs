//! Tests of the catalog and its policy: golden scripts, and the cases that scripts can't express.

mod cluster;
mod log;
mod script;
mod show;
mod span;

use super::*;
use crate::catalog::meta::Restore;
use crate::feature_level::{FeatureLevel, FeatureRange};
use crate::types::{GroupId, LogId, LogName, NodeId, Offset, ReplicaId};

#[test]
fn scripts() {
    crate::golden::run_scripts::<script::Script>("catalog/tests/scripts");
}

#[test]
fn refuses_bad_names() {
    for name in ["", " ", "-"] {
        let mut add = crate::pb::catalog::Command::new();
        add.mut_add_node().name = name.to_owned();
        let bytes = protobuf::Message::write_to_bytes(&add).expect("encoded");
        assert!(matches!(Command::decode(&bytes), Err(BadCommand::Malformed(_))), "{name:?}");
    }
}

fn label() -> (String, String) {
    ("team".to_owned(), "billing".to_owned())
}

/// Node 3 supports the levels 1 and 2, every other node 1 to 3.
fn levels(node: NodeId) -> FeatureRange {
    let max = FeatureLevel(if node == NodeId(3) { 2 } else { 3 });
    FeatureRange::new(FeatureLevel::FIRST, max).expect("a range")
}

/// Returns the backup with these offsets: the first one and the end, like `5-9`.
fn restore_of(offsets: &str) -> Result<Restore, Box<dyn std::error::Error>> {
    let (first, end) = offsets.split_once('-').ok_or("the first and the end offset")?;
    let (first_offset, end_offset) = (Offset(first.parse()?), Offset(end.parse()?));
    Ok(Restore { source_log_id: LogId(1), first_offset, end_offset, digest: [7; 32], is_complete: false })
}

/// One command of each kind, and of each form.
fn samples() -> Vec<Command> {
    let settings = LogSettings { retention_ms: Some(5000), labels: [label()].into(), ..LogSettings::default() };
    let log = |name, origin, settings| {
        Command::CreateLog(NewLog {
            name: LogName::new(name).expect("a name"),
            log_id: LogId(3),
            origin,
            settings,
            restore: None,
        })
    };
    let restored = NewLog {
        name: LogName::new("copy").expect("a name"),
        log_id: LogId(4),
        origin: Origin::Nodes(vec![NodeId(1)]),
        settings: LogSettings::default(),
        restore: restore_of("5-9").ok(),
    };
    let level_1 = LogSettings {
        record_bytes_max: Some(1024),
        request_bytes_max: Some(2048),
        retention_bytes: Some(0),
        retention_ms: Some(0),
        ..LogSettings::default()
    };
    let cluster = ClusterSettings {
        log_defaults: LogSettings { replicas: Some(5), ..LogSettings::default() },
        create_on_append: true,
        deleted_log_retention_ms: Some(0),
        auto_replace_wiped: true,
    };
    let plan = Plan { drained: true, leaves: Some(Destination::Node(NodeId(2))), may_be_replaced: true };
    vec![
        Command::AddNode(cluster::member(1, "a")),
        Command::RemoveNode(NodeId(1)),
        log("old", Origin::Founder(GroupId(1), NodeId(1)), level_1),
        log("new", Origin::Nodes(vec![NodeId(2), NodeId(1)]), settings.clone()),
        Command::Founded(GroupId(1)),
        Command::ConfigureLog(GroupId(1), LogSettings { retention_ms: Some(0), ..LogSettings::default() }),
        Command::RaiseFeatureLevel(FeatureLevel(2)),
        Command::UpdateLog(GroupId(1), settings, 4),
        Command::DeleteLog(GroupId(1), Some(0), None),
        Command::UndeleteLog(GroupId(1)),
        Command::PurgeLog(GroupId(1)),
        Command::PlaceReplica(GroupId(1), NodeId(2)),
        Command::RemoveReplica(GroupId(1), ReplicaId(2)),
        Command::ReplicaRemoved(GroupId(1), ReplicaId(2)),
        Command::UpdateCluster(cluster, 1),
        Command::PlanNode(NodeId(1), plan, Plan { leaves: Some(Destination::AnyNode), ..Plan::default() }),
        Command::ReplaceNode(NodeId(1), cluster::member(2, "a")),
        Command::MoveReplica(GroupId(1), ReplicaId(2), NodeId(3)),
        Command::SetBalancing(true),
        Command::CreateLog(restored),
        Command::FinishRestore(GroupId(2)),
    ]
}

#[test]
fn decodes_what_it_encodes() {
    let samples = samples();
    assert_eq!(samples.len(), Command::NAMES.len() + 2, "a sample of each command, and three forms of CreateLog");
    for command in samples {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
}

/// A command and a field of a newer version are refused, never skipped: this node would have another catalog than the
/// others.
#[test]
fn refuses_unknown_fields_in_every_command() {
    for command in samples() {
        let mut inside = command.encode();
        // The command is a field of one length-delimited message: add the field 99, a varint, to that message.
        inside.extend([0x98, 0x06, 1]);
        // The tag of a field above 15 has two bytes.
        let length = if inside[0] & 0x80 == 0 { 1 } else { 2 };
        inside[length] += 3;
        let error = Command::decode(&inside).expect_err("unknown");
        assert!(matches!(error, BadCommand::UnknownField { number: 99, .. }), "{command:?}: {error}");
        let mut beside = command.encode();
        beside.extend([0x98, 0x06, 1]);
        assert_eq!(Command::decode(&beside), Err(BadCommand::UnknownCommand { number: 99 }), "{command:?}");
    }
}

/// A setting of a newer version within a command is refused, too.
#[test]
fn refuses_unknown_settings() {
    let mut command = crate::pb::catalog::Command::new();
    let settings = command.mut_update_log().settings.mut_or_insert_default();
    settings.special_fields.mut_unknown_fields().add_varint(99, 1);
    let bytes = protobuf::Message::write_to_bytes(&command).expect("encoded");
    assert!(matches!(Command::decode(&bytes), Err(BadCommand::UnknownField { number: 99, .. })));
}

/// A catalog with every kind of content.
fn full_catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let mut apply = |command: Command| match catalog.apply(&command, 1_000_000) {
        Applied::Changed(_) => {}
        other => panic!("{command:?}: {other:?}"),
    };
    for id in 1..=4 {
        apply(Command::AddNode(cluster::member(id, &format!("n{id}"))));
    }
    apply(Command::RaiseFeatureLevel(FeatureLevel(2)));
    apply(Command::RemoveNode(NodeId(4)));
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let origin = Origin::Nodes(vec![NodeId(1), NodeId(2)]);
        let (name, log_id) = (LogName::new(name).expect("a name"), LogId(7 + i as u64));
        apply(Command::CreateLog(NewLog { name, log_id, origin, settings: LogSettings::default(), restore: None }));
    }
    let settings = LogSettings { labels: [label()].into(), replicas: Some(2), ..LogSettings::default() };
    apply(Command::UpdateLog(GroupId(1), settings, 1));
    apply(Command::PlaceReplica(GroupId(1), NodeId(3)));
    apply(Command::RemoveReplica(GroupId(1), ReplicaId(6)));
    apply(Command::DeleteLog(GroupId(2), None, None));
    apply(Command::DeleteLog(GroupId(3), Some(0), Some(1)));
    apply(Command::PurgeLog(GroupId(3)));
    let log_defaults = LogSettings { retention_ms: Some(60_000), ..LogSettings::default() };
    apply(Command::UpdateCluster(ClusterSettings { log_defaults, create_on_append: true, ..Default::default() }, 1));
    catalog
}

#[test]
fn a_snapshot_contains_the_whole_catalog() {
    let catalog = full_catalog();
    let bytes = catalog.encode();
    crate::golden::assert_golden("catalog-state-v1.bin", &bytes);
    let decoded = Catalog::decode(&bytes).expect("its own bytes");
    assert_eq!(decoded, catalog);
    assert!(decoded.is_purged(LogId(9)) && decoded.is_purged_group(GroupId(3)) && !decoded.is_purged_group(GroupId(4)));
    assert_eq!(decoded.load_of(NodeId(1)), catalog.load_of(NodeId(1)));
    let mut newer = bytes.clone();
    newer.extend([0x98, 0x06, 1]);
    assert!(matches!(Catalog::decode(&newer), Err(BadCommand::UnknownField { number: 99, .. })));
}

/// A restored log that was open again after a snapshot would take records that are not in its backup.
#[test]
fn a_snapshot_contains_what_is_being_restored() {
    let mut catalog = Catalog::default();
    let changed = |catalog: &mut Catalog, command| matches!(catalog.apply(&command, 5), Applied::Changed(_));
    assert!(changed(&mut catalog, Command::AddNode(cluster::member(1, "n1"))));
    assert!(changed(&mut catalog, Command::RaiseFeatureLevel(FeatureLevel(5))));
    let create = samples().into_iter().rfind(|command| matches!(command, Command::CreateLog(_))).expect("a sample");
    assert!(changed(&mut catalog, create));
    let log = |catalog: &Catalog| catalog.log(GroupId(1)).cloned().expect("a log");
    assert!(log(&catalog).is_restoring());
    assert_eq!(log(&catalog).begins_at(), Offset(5));
    assert_eq!(Catalog::decode(&catalog.encode()).as_ref(), Ok(&catalog));
    assert!(changed(&mut catalog, Command::FinishRestore(GroupId(1))));
    assert_eq!(catalog.apply(&Command::FinishRestore(GroupId(1)), 6), Applied::Unchanged);
    assert!(!log(&catalog).is_restoring());
    assert_eq!((log(&catalog).begins_at(), log(&catalog).revision), (Offset(5), 2));
    assert_eq!(Catalog::decode(&catalog.encode()).as_ref(), Ok(&catalog));
}

/// Commands continue a decoded snapshot as they continue the original.
#[test]
fn a_snapshot_is_continued_as_its_original() {
    let mut catalog = full_catalog();
    let mut decoded = Catalog::decode(&catalog.encode()).expect("its own bytes");
    for command in samples() {
        assert_eq!(catalog.apply(&command, 5), decoded.apply(&command, 5), "{command:?}");
    }
    assert_eq!(catalog, decoded);
    assert_eq!(catalog.encode(), decoded.encode());
}
