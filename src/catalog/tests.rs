//! The catalog as a pure function of its commands.

use super::*;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName};

fn member(id: u64, name: &str) -> Member {
    Member {
        id: NodeId(id),
        name: NodeName::new(name).expect("a name"),
        bind_addr: format!("{name}:1"),
        rpc_addr: format!("{name}:2"),
    }
}

fn log(group: u64, name: &str) -> LogMeta {
    LogMeta {
        name: LogName::new(name).expect("a name"),
        group: GroupId(group),
        log_id: LogId(9),
        founder: NodeId(1),
        founded: false,
        record_bytes_max: 1 << 20,
        request_bytes_max: 4 << 20,
        retention_bytes: 0,
        retention_ms: 0,
    }
}

#[test]
fn commands_read_what_they_write() {
    let commands = [
        Command::AddNode(member(1, "a")),
        Command::RemoveNode(NodeId(1)),
        Command::CreateLog(log(1, "default")),
        Command::Founded(GroupId(1)),
        Command::ConfigureLog(GroupId(1), LogChange { retention_ms: Some(0), ..LogChange::default() }),
    ];
    for command in commands {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
    assert!(Command::decode(b"").is_err());
    assert!(Command::decode(b"\xff\xff").is_err());
}

#[test]
fn a_removed_id_and_a_taken_name_stay_out() {
    let mut catalog = Catalog::default();
    catalog.apply(Command::AddNode(member(1, "a")));
    catalog.apply(Command::AddNode(member(2, "a")));
    assert_eq!(catalog.member(NodeId(2)), None);
    catalog.apply(Command::RemoveNode(NodeId(1)));
    catalog.apply(Command::AddNode(member(1, "b")));
    assert!(catalog.is_removed(NodeId(1)) && catalog.members().count() == 0);
    catalog.apply(Command::AddNode(member(2, "a")));
    assert_eq!(catalog.member_named(&NodeName::new("a").expect("a name")).map(|m| m.id), Some(NodeId(2)));
}

/// Proposing and applying use the same function, so a command changes the catalog if and only if `would_change` predicted it.
#[test]
fn what_is_said_to_change_nothing_changes_nothing() {
    let limits = |record, request| LogChange {
        record_bytes_max: Some(record),
        request_bytes_max: Some(request),
        ..LogChange::default()
    };
    let commands = [
        (Command::AddNode(member(1, "a")), Ok(true)),
        (Command::AddNode(member(1, "a")), Ok(false)),
        (Command::AddNode(member(2, "a")), Err(Conflict::NameTaken(member(1, "a")))),
        (Command::AddNode(member(2, "b")), Ok(true)),
        (Command::AddNode(member(2, "a")), Err(Conflict::NameTaken(member(1, "a")))),
        (Command::AddNode(member(2, "c")), Ok(true)),
        (Command::RemoveNode(NodeId(3)), Err(Conflict::NoSuchNode(NodeId(3)))),
        (Command::RemoveNode(NodeId(2)), Ok(true)),
        (Command::RemoveNode(NodeId(2)), Ok(false)),
        (Command::AddNode(member(2, "c")), Err(Conflict::NodeRemoved(NodeId(2)))),
        (Command::AddNode(member(0, "d")), Err(Conflict::Impossible)),
        (Command::AddNode(Member { bind_addr: "d\n:1".into(), ..member(4, "d") }), Err(Conflict::Impossible)),
        (
            Command::AddNode(Member { rpc_addr: "d".repeat(1 << 20) + ":1", ..member(4, "d") }),
            Err(Conflict::Impossible),
        ),
        (Command::AddNode(Member { rpc_addr: "d".into(), ..member(4, "d") }), Err(Conflict::Impossible)),
        (Command::CreateLog(log(u64::MAX, "default")), Err(Conflict::Impossible)),
        (
            Command::CreateLog(LogMeta { record_bytes_max: 0, ..log(1, "default") }),
            Err(Conflict::BadLimits(GroupId(1))),
        ),
        (Command::Founded(GroupId(1)), Err(Conflict::NoSuchLog(GroupId(1)))),
        (Command::CreateLog(log(0, "default")), Err(Conflict::LogTaken)),
        (Command::CreateLog(log(1, "default")), Ok(true)),
        (Command::CreateLog(log(1, "other")), Err(Conflict::LogTaken)),
        (Command::CreateLog(log(2, "default")), Err(Conflict::LogTaken)),
        (Command::Founded(GroupId(1)), Ok(true)),
        (Command::Founded(GroupId(1)), Ok(false)),
        (Command::ConfigureLog(GroupId(2), LogChange::default()), Err(Conflict::NoSuchLog(GroupId(2)))),
        (Command::ConfigureLog(GroupId(1), LogChange::default()), Ok(false)),
        (Command::ConfigureLog(GroupId(1), limits(2048, 4096)), Ok(true)),
        (Command::ConfigureLog(GroupId(1), limits(2048, 4096)), Ok(false)),
        (Command::ConfigureLog(GroupId(1), limits(4096, 2048)), Err(Conflict::BadLimits(GroupId(1)))),
    ];
    let mut catalog = Catalog::default();
    for (command, said) in commands {
        assert_eq!(catalog.would_change(&command), said, "{command:?}");
        let before = catalog.clone();
        catalog.apply(command.clone());
        assert_eq!(catalog != before, said == Ok(true), "{command:?}");
    }
}

/// Hundreds of nodes that nobody has were members within seconds.
#[test]
fn a_cluster_takes_only_so_many_members() {
    let mut catalog = Catalog::default();
    for id in 1..=Catalog::MEMBERS_MAX as u64 {
        catalog.apply(Command::AddNode(member(id, &format!("n{id}"))));
    }
    let one_more = Command::AddNode(member(1000, "one-more"));
    assert_eq!(catalog.would_change(&one_more), Err(Conflict::TooManyMembers));
    let moved = Command::AddNode(Member { bind_addr: "elsewhere:1".into(), ..member(1, "n1") });
    assert_eq!(catalog.would_change(&moved), Ok(true));
    catalog.apply(Command::RemoveNode(NodeId(1)));
    assert_eq!(catalog.would_change(&one_more), Ok(true));
}

#[test]
fn a_log_takes_clients_once_founded() {
    let mut catalog = Catalog::default();
    catalog.apply(Command::CreateLog(log(1, "default")));
    catalog.apply(Command::CreateLog(log(2, "default")));
    assert_eq!(catalog.logs().count(), 1);
    assert!(!catalog.log(GroupId(1)).expect("a log").founded);
    catalog.apply(Command::Founded(GroupId(1)));
    assert!(catalog.log(GroupId(1)).expect("a log").founded);
}

#[test]
fn a_change_keeps_what_it_does_not_name_and_limits_that_hold() {
    let mut catalog = Catalog::default();
    catalog.apply(Command::CreateLog(log(1, "default")));
    let mut change = |change| {
        catalog.apply(Command::ConfigureLog(GroupId(1), change));
        catalog.log(GroupId(1)).cloned().expect("a log")
    };
    let kept = change(LogChange { retention_bytes: Some(7), ..LogChange::default() });
    assert_eq!((kept.retention_bytes, kept.retention_ms, kept.record_bytes_max), (7, 0, 1 << 20));
    let smaller =
        change(LogChange { retention_ms: Some(9000), request_bytes_max: Some(2 << 20), ..LogChange::default() });
    assert_eq!((smaller.retention_bytes, smaller.retention_ms, smaller.request_bytes_max), (7, 9000, 2 << 20));
    for (record, request) in [(None, Some(1000)), (Some(3 << 20), None), (Some(100), None), (None, Some(u32::MAX))] {
        let bad = LogChange { record_bytes_max: record, request_bytes_max: request, ..LogChange::default() };
        assert_eq!(change(bad), smaller, "{bad:?}");
    }
    assert_eq!(change(LogChange { retention_bytes: Some(0), ..LogChange::default() }).retention_bytes, 0);
}
