//! `seriatim status`: every node: role, term, commit, lag.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::{output, units};
use crate::client::ClientError;
use crate::clock::AHEAD_MAX;
use crate::metrics::CERTIFICATE_EXPIRES;
use crate::pb::admin::{DamagedRange, DiskState, GetNodeResponse, GroupStatus, Role};
use crate::pb::log::Server;
use crate::security::tls::EXPIRES_SOON;

/// Show every node: role, term, commit, lag.
///
/// Any node names the members; each is then asked itself (which needs the action `admin`). COMMIT is the last entry that
/// the node knows as committed, LAG how many of the entries that any node knows as committed it has yet to apply.
///
/// NOTE names problems. DAMAGED: the replica takes no part. DAMAGED ON DISK: these records can't be read from this node.
/// ANOTHER CLUSTER: one of the same name answers at a join address, and this node refuses appends.
/// STALLED: the replica lacks an entry that the leader can't read from its disk, so that replication to it has stopped.
/// A certificate of the node that expires within 14 days is noted as well.
///
/// Exits with code 65 if data of a node is damaged, in any log, and with 69 if a member can't be reached or there is no leader.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The log
    #[arg(long, env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "NAME", default_value = "default")]
    pub log: String,
    /// Also show how the log is kept, what each node holds now, and what it has refused since its start
    #[arg(long, short)]
    pub verbose: bool,
    /// One JSON object with all of it, in place of the table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

struct Line {
    server: Server,
    node: Result<GetNodeResponse, String>,
}

impl Line {
    /// Another node may answer at the address of a member that is gone: its answer says nothing about that member.
    fn new(server: Server, answer: Result<GetNodeResponse, String>) -> Line {
        let node = answer.and_then(|node| match node.node_id == server.node_id {
            true => Ok(node),
            false => Err(format!("another node answers there: {}", node.name)),
        });
        Line { server, node }
    }
}

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = args.connect.connect()?;
    let servers = client.get_servers(&args.log).map_err(|e| Failure::of_call(client.addr(), &e))?;
    if servers.servers.is_empty() {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("{}: this node is no member of a cluster yet", client.addr()),
            "its own log says what it waits for: --bootstrap, or --join with another node's bind_addr",
        ));
    }
    let mut lines = Vec::new();
    let mut members = servers.servers;
    members.sort_by(|a, b| a.id.cmp(&b.id));
    for server in members {
        // A node that is down refuses the connection: that is its answer, and not waited for.
        let client = args.connect.dial(&server.rpc_addr)?;
        let answer = match client.get_node() {
            Err(error) if denied(&error) => return Err(Failure::of_call(client.addr(), &error)),
            answer => answer.map_err(|error| Failure::of_call(client.addr(), &error).message),
        };
        lines.push(Line::new(server, answer));
    }
    let mut text = if args.json {
        format!("{}\n", json(&servers.cluster_id, &args.log, &lines))
    } else {
        table(&servers.cluster_id, &args.log, &lines)
    };
    if args.verbose && !args.json {
        text += &details(&args.log, &lines);
    }
    // The exit code says what was found, also if the table can't be written.
    let said = output::say(&text);
    let damaged: Vec<&str> = lines.iter().filter(|l| is_damaged(l)).map(|l| l.server.id.as_str()).collect();
    if !damaged.is_empty() {
        let message = format!("data is damaged on {}", damaged.join(", "));
        let next = "the table names what is wrong. Check the disk; where other nodes have the log, stop the node, move its \
                    data directory away and let it join as a new node with another name";
        return Err(Failure::new(Exit::BadData, message, next));
    }
    let lost: Vec<&str> = lines.iter().filter(|l| l.node.is_err()).map(|l| l.server.id.as_str()).collect();
    if !lost.is_empty() {
        let message = format!("no answer from {}", lost.join(", "));
        return Err(Failure::new(Exit::Unavailable, message, "is it running? The table names its client address"));
    }
    if !lines.iter().any(|l| group(l, &args.log).is_some_and(|g| g.role.enum_value() == Ok(Role::ROLE_LEADER))) {
        let next = "an election takes a second or two: ask again";
        return Err(Failure::new(Exit::Unavailable, format!("no node leads log {}", args.log), next));
    }
    said
}

fn denied(error: &ClientError) -> bool {
    use grpcio::RpcStatusCode as Code;
    error.status().is_some_and(|s| s.code == Code::PERMISSION_DENIED || s.code == Code::UNAUTHENTICATED)
}

fn group<'a>(line: &'a Line, log: &str) -> Option<&'a GroupStatus> {
    line.node.as_ref().ok()?.groups.iter().find(|group| group.group != 0 && group.log == log)
}

fn table(cluster_id: &str, log: &str, lines: &[Line]) -> String {
    let name = lines.iter().find_map(|l| l.node.as_ref().ok()).map_or("?", |node| node.cluster_name.as_str());
    let commit = lines.iter().filter_map(|l| group(l, log)).map(|g| g.commit_index).max().unwrap_or(0);
    let mut rows = vec![["NODE", "ADDRESS", "ROLE", "TERM", "COMMIT", "LAG", "RECORDS", "NOTE"].map(str::to_owned)];
    for line in lines {
        let mut row = std::array::from_fn(|_| "-".to_owned());
        row[0].clone_from(&line.server.id);
        row[1].clone_from(&line.server.rpc_addr);
        row[7] = String::new();
        match (&line.node, group(line, log)) {
            (Err(error), _) => row[7] = format!("no answer: {error}"),
            (Ok(_), None) => row[7] = format!("does not carry log {log} yet"),
            (Ok(node), Some(group)) => {
                row[2] = role(group).to_owned();
                row[3] = group.term.to_string();
                row[4] = group.commit_index.to_string();
                row[5] = commit.saturating_sub(group.applied_index).to_string();
                row[6] = format!("{}..{}", group.first_offset, group.next_offset);
                row[7] = note(node, group);
            }
        }
        rows.push(row);
    }
    let mut text = format!("cluster {name} ({cluster_id}), log {log}\n");
    let widths: [usize; 7] = std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        line.push_str(&row[7]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Every problem of a node: of its replica of this log, and of the catalog, which it needs as well.
fn note(node: &GetNodeResponse, group: &GroupStatus) -> String {
    let catalog = node.groups.iter().find(|other| other.group == 0);
    let damage = [(Some(group), ""), (catalog, "catalog ")].into_iter().filter_map(|(group, of)| {
        let damage = group.map(|group| &group.damage).filter(|damage| !damage.is_empty())?;
        Some(format!("DAMAGED: {of}{damage}"))
    });
    let ranges = group.damaged_ranges.iter().map(range);
    let ranges: Vec<_> = ranges.chain(catalog_ranges(node).map(|of| format!("catalog {}", range(of)))).collect();
    let ranges = Some(ranges.join("; ")).filter(|ranges| !ranges.is_empty());
    let stalled = Some(&group.stalled).filter(|stalled| !stalled.is_empty());
    let other = Some(&node.another_cluster).filter(|other| !other.is_empty());
    let notes = other
        .map(|other| format!("ANOTHER CLUSTER: {other}"))
        .into_iter()
        .chain(damage)
        .chain(ranges.map(|ranges| format!("DAMAGED ON DISK: {ranges}")))
        .chain(stalled.map(|stalled| format!("STALLED: {stalled}")))
        .chain([disk(node), stamps(group), certificate(node)].into_iter().filter(|note| !note.is_empty()));
    notes.collect::<Vec<_>>().join("; ")
}

fn catalog_ranges(node: &GetNodeResponse) -> impl Iterator<Item = &DamagedRange> {
    node.groups.iter().filter(|group| group.group == 0).flat_map(|group| &group.damaged_ranges)
}

fn is_damaged(line: &Line) -> bool {
    let groups = line.node.iter().flat_map(|node| &node.groups);
    groups.into_iter().any(|group| !group.damage.is_empty() || !group.damaged_ranges.is_empty())
}

/// Where, and which records.
fn range(range: &DamagedRange) -> String {
    let records = match range.next_offset {
        Some(next) if next <= range.first_offset => "no records".to_owned(),
        Some(next) => format!("records {}..{next}", range.first_offset),
        None => format!("records from {} on", range.first_offset),
    };
    format!("{} byte {}, {records}", range.file, range.position)
}

fn disk(node: &GetNodeResponse) -> String {
    let disk = node.disk.get_or_default();
    let (free, hard) = (disk.free_bytes >> 20, disk.hard_bytes >> 20);
    match disk.state.enum_value_or_default() {
        DiskState::DISK_STATE_ENOUGH => String::new(),
        DiskState::DISK_STATE_LOW => format!("disk low: {free} MiB free"),
        DiskState::DISK_STATE_FULL => format!("DISK FULL: {free} MiB free; appends are refused below {hard} MiB"),
    }
}

/// A note if the newest timestamp is ahead of the node's clock by more than clocks may differ.
fn stamps(group: &GroupStatus) -> String {
    let ahead = Duration::from_millis(group.stamp_ahead_ms);
    if ahead <= AHEAD_MAX {
        return String::new();
    }
    format!("newest timestamp is {} ahead of the clock", units::rough(ahead))
}

/// A note if the first of the node's certificates expires soon, by this machine's clock.
fn certificate(node: &GetNodeResponse) -> String {
    let expires = node.counters.iter().find(|counter| counter.name == CERTIFICATE_EXPIRES);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    match expires.map(|expires| Duration::from_secs(expires.value).saturating_sub(now)) {
        Some(left) if left < EXPIRES_SOON => format!("a certificate expires in {}", units::rough(left)),
        Some(_) | None => String::new(),
    }
}

/// What the table has no room for. Counters at 0 are left out.
fn details(log: &str, lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let Ok(node) = &line.node else { continue };
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{} (version {})", line.server.id, node.version);
        if let Some(group) = group(line, log) {
            let settings = group.settings.clone().unwrap_or_default();
            let or_all = |n: u64, unit: &str| if n == 0 { "all".to_owned() } else { format!("{n} {unit}") };
            let (bytes, age) = (or_all(settings.retention_bytes, "bytes"), or_all(settings.retention_ms, "ms"));
            let _ = writeln!(text, "  {} bytes stored; kept by size: {bytes}, by age: {age}", group.stored_bytes);
            if group.unprotected_bytes > 0 {
                let _ = writeln!(text, "  {} synced bytes not covered by the manifest yet", group.unprotected_bytes);
            }
        }
        for counter in node.counters.iter().filter(|counter| counter.value > 0) {
            let _ = writeln!(text, "  {} {}", counter.name, counter.value);
        }
    }
    text
}

fn json(cluster_id: &str, log: &str, lines: &[Line]) -> serde_json::Value {
    let nodes = lines.iter().map(|line| {
        let mut object = json!({ "name": line.server.id, "rpc_addr": line.server.rpc_addr });
        match &line.node {
            Err(error) => object["error"] = json!(error),
            Ok(node) => {
                object["version"] = json!(node.version);
                object["another_cluster"] = json!(node.another_cluster);
                object["disk"] = disk_json(node);
                let counters = node.counters.iter().map(|c| (c.name.clone(), json!(c.value)));
                object["counters"] = serde_json::Value::Object(counters.collect());
                object["catalog_damaged_ranges"] = catalog_ranges(node).map(range_json).collect();
            }
        }
        if let Some(group) = group(line, log) {
            let settings = group.settings.clone().unwrap_or_default();
            object["log"] = json!({
                "role": role(group),
                "term": group.term,
                "commit_index": group.commit_index,
                "applied_index": group.applied_index,
                "first_offset": group.first_offset,
                "next_offset": group.next_offset,
                "stored_bytes": group.stored_bytes,
                "unprotected_bytes": group.unprotected_bytes,
                "last_append_time_us": group.last_append_time_us,
                "stamp_ahead_ms": group.stamp_ahead_ms,
                "retention_bytes": settings.retention_bytes,
                "retention_ms": settings.retention_ms,
                "damage": group.damage,
                "stalled": group.stalled,
                "damaged_ranges": group.damaged_ranges.iter().map(range_json).collect::<Vec<_>>(),
            });
        }
        object
    });
    json!({ "cluster_id": cluster_id, "log": log, "nodes": nodes.collect::<Vec<_>>() })
}

/// As in the API, sizes in bytes.
fn disk_json(node: &GetNodeResponse) -> serde_json::Value {
    let disk = node.disk.get_or_default();
    let state = match disk.state.enum_value_or_default() {
        DiskState::DISK_STATE_ENOUGH => "enough",
        DiskState::DISK_STATE_LOW => "low",
        DiskState::DISK_STATE_FULL => "full",
    };
    json!({
        "state": state,
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
        "soft_bytes": disk.soft_bytes,
        "hard_bytes": disk.hard_bytes,
        "refused": disk.refused,
        "reserve": disk.reserve,
    })
}

fn range_json(range: &DamagedRange) -> serde_json::Value {
    json!({
        "file": range.file,
        "position": range.position,
        "bytes": range.bytes,
        "first_offset": range.first_offset,
        "next_offset": range.next_offset,
        "what": range.what,
    })
}

fn role(group: &GroupStatus) -> &'static str {
    match group.role.enum_value_or_default() {
        Role::ROLE_UNKNOWN => "unknown",
        Role::ROLE_FOLLOWER => "follower",
        Role::ROLE_CANDIDATE => "candidate",
        Role::ROLE_LEADER => "leader",
        Role::ROLE_LEARNER => "learner",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::admin::{Counter, DiskStatus};

    fn line(name: &str, role: Role, commit: u64) -> Line {
        let group = GroupStatus {
            group: 1,
            log: "default".into(),
            role: role.into(),
            term: 2,
            commit_index: commit,
            applied_index: commit,
            next_offset: commit - 1,
            ..GroupStatus::default()
        };
        let node = GetNodeResponse { cluster_name: "demo".into(), groups: vec![group], ..GetNodeResponse::default() };
        let server = Server { id: name.into(), rpc_addr: "127.0.0.1:84".into(), ..Server::default() };
        Line { server, node: Ok(node) }
    }

    /// A node at the address of a dead member was shown as that member: alive, with lag 0.
    #[test]
    fn the_answer_of_another_node_is_not_the_members() {
        let answer = || Ok(GetNodeResponse { node_id: 4, name: "n4".into(), ..GetNodeResponse::default() });
        let server =
            |node_id| Server { node_id, id: "n3".into(), rpc_addr: "127.0.0.1:86".into(), ..Server::default() };
        let other = Line::new(server(3), answer());
        assert_eq!(other.node.as_ref().err().map(String::as_str), Some("another node answers there: n4"));
        let text = table("c0ffee", "default", &[other]);
        assert!(
            text.lines()
                .any(|line| line.starts_with("n3 ") && line.ends_with("no answer: another node answers there: n4"))
        );
        assert!(Line::new(server(4), answer()).node.is_ok());
    }

    #[test]
    fn another_cluster_of_the_same_name_is_noted() {
        let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
        lines[0].node.as_mut().expect("a node").another_cluster = "it answers at a:1".into();
        assert!(table("c", "default", &lines).contains("ANOTHER CLUSTER: it answers at a:1"));
        assert_eq!(json("c", "default", &lines)["nodes"][0]["another_cluster"], "it answers at a:1");
    }

    #[test]
    fn a_stalled_replica_is_noted() {
        let mut lines = vec![line("n1", Role::ROLE_FOLLOWER, 12)];
        lines[0].node.as_mut().expect("a node").groups[0].stalled = "entry 13 is missing here".into();
        assert!(table("c", "default", &lines).ends_with("  STALLED: entry 13 is missing here\n"));
        assert_eq!(json("c", "default", &lines)["nodes"][0]["log"]["stalled"], "entry 13 is missing here");
    }

    #[test]
    fn details_and_json_say_the_rest() {
        let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
        let node = lines[0].node.as_mut().expect("an answer");
        let counter = |name: &str, value| Counter { name: name.into(), value, ..Counter::default() };
        node.counters = vec![counter("a_total", 3), counter("b_total", 0)];
        node.disk = Some(DiskStatus { state: DiskState::DISK_STATE_LOW.into(), ..DiskStatus::default() }).into();
        let damaged = DamagedRange { first_offset: 3, ..DamagedRange::default() };
        node.groups[0].damaged_ranges.push(damaged);
        assert_eq!(
            details("default", &lines),
            "\nn1 (version )\n  0 bytes stored; kept by size: all, by age: all\n  a_total 3\n"
        );
        lines.push(Line { server: Server { id: "n2".into(), ..Server::default() }, node: Err("refused".into()) });
        let json = json("c0ffee", "default", &lines);
        assert_eq!(json["nodes"][0]["log"]["role"], "leader");
        assert_eq!(json["nodes"][0]["counters"]["b_total"], 0);
        assert_eq!(json["nodes"][0]["disk"]["state"], "low");
        assert_eq!(json["nodes"][0]["log"]["damaged_ranges"][0]["first_offset"], 3);
        assert_eq!(json["nodes"][1]["error"], "refused");
    }

    /// A leader's clock was wrong by a year, and nothing reported it.
    #[test]
    fn stamps_ahead_of_the_clock_are_noted() {
        let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
        let mut note = |ms| {
            lines[0].node.as_mut().expect("a node").groups[0].stamp_ahead_ms = ms;
            table("c", "default", &lines).lines().nth(2).expect("a line").to_owned()
        };
        let year = 365 * 24 * 3600 * 1000;
        assert!(note(year + 3).ends_with("newest timestamp is 365 days ahead of the clock"), "{}", note(year));
        assert!(note(61_000).ends_with("newest timestamp is 61 s ahead of the clock"));
        assert!(note(60_000).ends_with("0..11"), "clocks differ");
    }

    #[test]
    fn a_table() {
        let mut lines = vec![line("n1", Role::ROLE_LEADER, 12), line("node-2", Role::ROLE_FOLLOWER, 10)];
        let damaged = DamagedRange {
            file: "1.seg".into(),
            position: 128,
            first_offset: 3,
            next_offset: Some(5),
            ..DamagedRange::default()
        };
        lines[1].node.as_mut().expect("a node").groups[0].damaged_ranges.push(damaged);
        let node_file =
            DamagedRange { file: "node.toml".into(), position: 9, next_offset: Some(0), ..DamagedRange::default() };
        let catalog = GroupStatus { damaged_ranges: vec![node_file], ..GroupStatus::default() };
        lines[1].node.as_mut().expect("a node").groups.push(catalog);
        let server = Server { id: "n3".into(), rpc_addr: "127.0.0.1:85".into(), ..Server::default() };
        lines.push(Line { server, node: Err("refused".into()) });
        assert_eq!(
            table("c0ffee", "default", &lines),
            "cluster demo (c0ffee), log default\n\
             NODE    ADDRESS       ROLE      TERM  COMMIT  LAG  RECORDS  NOTE\n\
             n1      127.0.0.1:84  leader    2     12      0    0..11\n\
             node-2  127.0.0.1:84  follower  2     10      2    0..9     DAMAGED ON DISK: 1.seg byte 128, records 3..5; catalog \
             node.toml byte 9, no records\n\
             n3      127.0.0.1:85  -         -     -       -    -        no answer: refused\n"
        );
    }

    /// The first notice of an expired certificate was that nobody could connect.
    #[test]
    fn a_certificate_that_expires_soon_is_noted() {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let noted = |left: u64| {
            let counter = Counter { name: CERTIFICATE_EXPIRES.into(), value: now + left, ..Counter::default() };
            certificate(&GetNodeResponse { counters: vec![counter], ..GetNodeResponse::default() })
        };
        assert_eq!(noted(9 * 86_400 + 60), "a certificate expires in 9 days");
        assert_eq!((noted(20 * 86_400), certificate(&GetNodeResponse::default())), (String::new(), String::new()));
    }
}
