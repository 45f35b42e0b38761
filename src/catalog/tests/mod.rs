//! Tests of the catalog and its policy: golden scripts, and the cases that scripts can't express.

mod cluster;
mod log;
mod script;

use super::*;
use crate::feature_level::FeatureLevel;
use crate::types::{GroupId, NodeId};

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

/// One command of each kind.
fn samples() -> Vec<Command> {
    let log = LogMeta { retention_ms: 5000, ..LogMeta::first(NodeId(1)).expect("a log") };
    vec![
        Command::AddNode(cluster::member(1, "a")),
        Command::RemoveNode(NodeId(1)),
        Command::CreateLog(log),
        Command::Founded(GroupId(1)),
        Command::ConfigureLog(GroupId(1), LogChange { retention_ms: Some(0), ..LogChange::default() }),
        Command::RaiseFeatureLevel(FeatureLevel(2)),
    ]
}

#[test]
fn decodes_what_it_encodes() {
    let samples = samples();
    assert_eq!(samples.len(), Command::NAMES.len(), "a sample of each command");
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
        inside[1] += 3;
        let error = Command::decode(&inside).expect_err("unknown");
        assert!(matches!(error, BadCommand::UnknownField { number: 99, .. }), "{command:?}: {error}");
        let mut beside = command.encode();
        beside.extend([0x98, 0x06, 1]);
        assert_eq!(Command::decode(&beside), Err(BadCommand::UnknownCommand { number: 99 }), "{command:?}");
    }
}
