//! Tests the table, the JSON object and the exit code for given answers.

use std::time::SystemTime;

use super::answer::certificate;
use super::json::json;
use super::report::ClusterReport;
use super::table::{details, table};
use super::*;
use crate::metrics::CERTIFICATE_EXPIRES;
use crate::pb::v1::{
    CatchUp, DamagedRange, DeletedLog, DiskState, DiskStatus, GetNodeResponse, GroupStatus, LogConfig, LogInfo, Metric,
    Replica, Role, Server, metric,
};

/// Returns the report for these answers.
fn report(lines: Vec<Answer>) -> ClusterReport {
    ClusterReport::new("c0ffee", "default", lines, &[])
}

fn line(name: &str, role: Role, commit: u64) -> Answer {
    let group = GroupStatus {
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
    Answer::new(server, Ok(node))
}

fn voter(node_id: u64) -> Replica {
    Replica { node_id: node_id.to_string(), is_voter: true, ..Replica::default() }
}

fn counter(name: &str, value: u64) -> Metric {
    Metric { name: name.into(), value: Some(metric::Value::Counter(value)), ..Metric::default() }
}

/// Returns the answers of members `n1` to `n<count>`. `voters` are the voters of the catalog and the log, and `n1`
/// leads both.
fn cluster(count: u64, voters: &[u64]) -> Vec<Answer> {
    let status = |log: &str, node| GroupStatus {
        log: log.to_owned(),
        role: if node == 1 { Role::ROLE_LEADER } else { Role::ROLE_FOLLOWER }.into(),
        term: 2,
        commit_index: 12,
        replicas: voters.iter().map(|id| voter(*id)).collect(),
        ..GroupStatus::default()
    };
    let line = |node_id: u64| {
        let node = GetNodeResponse {
            node_id: node_id.to_string(),
            name: format!("n{node_id}"),
            groups: vec![status("", node_id), status("default", node_id)],
            ..GetNodeResponse::default()
        };
        let id = format!("n{node_id}");
        Answer::new(Server { node_id: node_id.to_string(), id, is_voter: true, ..Server::default() }, Ok(node))
    };
    (1..=count).map(line).collect()
}

/// Makes the members with these numbers not answer.
fn without(mut lines: Vec<Answer>, silent: &[usize]) -> Vec<Answer> {
    silent.iter().for_each(|n| lines[n - 1].node = Err("refused".into()));
    lines
}

/// Returns the exit code of a check, and all findings.
fn said(report: &ClusterReport) -> (u8, String) {
    let problems = report.problems().unwrap_or_default();
    let findings = problems.split("\n  next: ").next().unwrap_or_default().to_owned();
    (report.state().exit().map_or(0, |exit| exit as u8), findings)
}

#[test]
fn tells_when_every_node_supports_a_higher_feature_level() {
    let last_line = |levels: [(u32, u32); 3], silent: &[usize]| {
        let mut answers = cluster(3, &[1, 2, 3]);
        for (answer, (level, max)) in answers.iter_mut().zip(levels) {
            let node = answer.node.as_mut().expect("an answer");
            (node.feature_level, node.min_feature_level, node.max_feature_level) = (level, 1, max);
        }
        let report = report(without(answers, silent));
        let text = table(&report);
        assert_eq!(json(&report)["feature_level"]["raise_to"].is_null(), !text.contains("feature level"), "{text}");
        text.lines().last().map(str::to_owned)
    };
    let hint = "every node supports feature level 2, and the cluster is at 1: raise it with `seriatim cluster upgrade`";
    assert_eq!(last_line([(1, 2), (1, 3), (1, 2)], &[]).as_deref(), Some(hint));
    for (levels, silent) in [([(1, 2), (1, 1), (1, 2)], &[][..]), ([(1, 2); 3], &[3]), ([(2, 2), (1, 2), (2, 2)], &[])]
    {
        let line = last_line(levels, silent).expect("a line");
        assert!(!line.contains("feature level"), "{line}");
    }
}

/// Once, when another node ran at the address of a dead member, that member was shown as alive, with lag 0.
#[test]
fn ignores_the_answer_of_another_node() {
    let answer = || Ok(GetNodeResponse { node_id: "4".into(), name: "n4".into(), ..GetNodeResponse::default() });
    let server = |node_id: &str| Server {
        node_id: node_id.into(),
        id: "n3".into(),
        rpc_addr: "127.0.0.1:86".into(),
        ..Server::default()
    };
    let other = Answer::new(server("3"), answer());
    assert_eq!(other.node.as_ref().err().map(String::as_str), Some("another node answers there: n4 (4)"));
    let text = table(&report(vec![other]));
    assert!(
        text.lines()
            .any(|line| line.starts_with("n3 ") && line.ends_with("no answer: another node answers there: n4 (4)"))
    );
    assert!(Answer::new(server("4"), answer()).node.is_ok());
}

#[test]
fn notes_another_cluster_of_the_same_name() {
    let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
    lines[0].node.as_mut().expect("a node").another_cluster = "it answers at a:1".into();
    let report = report(lines);
    assert!(table(&report).contains("ANOTHER CLUSTER: it answers at a:1"));
    assert_eq!(json(&report)["nodes"][0]["another_cluster"], "it answers at a:1");
}

#[test]
fn shows_how_fast_a_replica_catches_up() {
    let shown = |bytes_per_second: u64, seconds_left: Option<u64>| {
        let mut lines = cluster(3, &[1, 2, 3]);
        let node = lines[0].node.as_mut().expect("an answer");
        let catch_up = CatchUp {
            entries_left: 70_000,
            bytes_left: 300 << 20,
            bytes_per_second,
            time_left: seconds_left.map(|seconds| Duration::from_secs(seconds).into()).into(),
            ..CatchUp::default()
        };
        node.groups[1].replicas[2].catch_up = Some(catch_up).into();
        let report = report(lines);
        let text = table(&report);
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).expect("a row").to_owned();
        assert!(!row("n2").contains("catching up"), "{text}");
        (row("n3"), json(&report)["nodes"][2]["log"]["catch_up"].clone())
    };
    let (row, object) = shown(20 << 20, Some(15));
    assert!(row.ends_with("catching up: 300.0 MiB behind, at 20.0 MiB/s, 15 s left"), "{row}");
    let expected = serde_json::json!(
        { "entries_left": 70_000, "bytes_left": 300 << 20, "bytes_per_second": 20 << 20, "seconds_left": 15.0 }
    );
    assert_eq!(object, expected);
    assert!(shown(20 << 20, None).0.ends_with("at 20.0 MiB/s, which is not faster than the producers"));
    let (row, object) = shown(0, None);
    assert!(row.ends_with("catching up: 300.0 MiB behind, and nothing was acknowledged in the last seconds"), "{row}");
    assert!(object["seconds_left"].is_null());
}

#[test]
fn notes_a_stalled_replica() {
    let mut lines = vec![line("n1", Role::ROLE_FOLLOWER, 12)];
    lines[0].node.as_mut().expect("a node").groups[0].stalled = "entry 13 is missing here".into();
    let report = report(lines);
    assert!(table(&report).contains("  STALLED: entry 13 is missing here\n"));
    assert_eq!(json(&report)["nodes"][0]["log"]["stalled"], "entry 13 is missing here");
}

#[test]
fn details_and_json_contain_the_rest() {
    let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
    let node = lines[0].node.as_mut().expect("an answer");
    node.metrics = vec![counter("a_total", 3), counter("b_total", 0)];
    node.disk = Some(DiskStatus { state: DiskState::DISK_STATE_LOW.into(), ..DiskStatus::default() }).into();
    let damaged = DamagedRange { first_offset: 3, ..DamagedRange::default() };
    node.groups[0].damaged_ranges.push(damaged);
    (node.version, node.feature_level, node.min_feature_level, node.max_feature_level) = ("0.1.0".into(), 2, 1, 3);
    lines.push(Answer::new(Server { id: "n2".into(), ..Server::default() }, Err("refused".into())));
    let report = report(lines);
    assert_eq!(
        details(&report),
        "\nn1 (version 0.1.0, cluster at feature level 2, supports feature levels 1 to 3)\n  0 bytes stored; kept by size: all, by age: all\n  \
         a_total 3\n"
    );
    let json = json(&report);
    assert_eq!(json["nodes"][0]["feature_level"], serde_json::json!({"cluster": 2, "min": 1, "max": 3}));
    assert_eq!(json["nodes"][0]["log"]["role"], "leader");
    assert_eq!(json["nodes"][0]["metrics"]["b_total"], 0);
    assert_eq!(json["nodes"][0]["disk"]["state"], "low");
    assert_eq!(json["nodes"][0]["log"]["damaged_ranges"][0]["first_offset"], 3);
    assert_eq!(json["nodes"][1]["error"], "refused");
}

/// Once a leader's clock was wrong by a year, and nothing reported it.
#[test]
fn notes_timestamps_ahead_of_the_clock() {
    let note = |ms| {
        let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
        lines[0].node.as_mut().expect("a node").groups[0].append_time_ahead =
            Some(Duration::from_millis(ms).into()).into();
        table(&report(lines)).lines().nth(2).expect("a line").to_owned()
    };
    let year = 365 * 24 * 3600 * 1000;
    assert!(note(year + 3).ends_with("newest timestamp is 365 days ahead of the clock"), "{}", note(year));
    assert!(note(61_000).ends_with("newest timestamp is 61 s ahead of the clock"));
    assert!(note(60_000).ends_with("0..11"), "clocks differ");
}

#[test]
fn prints_a_table() {
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
    let server = Server { node_id: "3".into(), id: "n3".into(), rpc_addr: "127.0.0.1:85".into(), ..Server::default() };
    lines.push(Answer::new(server, Err("refused".into())));
    lines
        .iter_mut()
        .filter_map(|line| line.node.as_mut().ok())
        .for_each(|node| node.groups[0].replicas = vec![Replica { is_voter: true, ..Replica::default() }]);
    assert_eq!(
        table(&report(lines)),
        "cluster demo (c0ffee), log default\n\
         NODE    ADDRESS       ROLE      TERM  COMMIT  LAG  RECORDS  NOTE\n\
         n1      127.0.0.1:84  leader    2     12      0    0..11\n\
         node-2  127.0.0.1:84  follower  2     10      2    0..9     DAMAGED ON DISK: 1.seg byte 128, records 3 to 4; catalog \
         node.toml byte 9, no records\n\
         n3      127.0.0.1:85  -         -     -       -    -        no answer: refused\n\
         log default: 1 of 1 voter is alive, none may fail\n"
    );
}

/// Once an expired certificate was only noticed when all connections failed.
#[test]
fn notes_a_certificate_that_expires_soon() {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let noted = |left: u64| {
        let metrics = vec![counter(CERTIFICATE_EXPIRES, now + left)];
        certificate(&GetNodeResponse { metrics, ..GetNodeResponse::default() })
    };
    assert_eq!(noted(9 * 86_400 + 60), "a certificate expires in 9 days");
    assert_eq!((noted(20 * 86_400), certificate(&GetNodeResponse::default())), (String::new(), String::new()));
}

/// A member was wiped and started under a new name at its address: four voters, one of them gone, so that the next
/// restart would have stopped the cluster. The exit code was 0.
#[test]
fn finds_a_missing_voter_whose_address_another_node_has() {
    let mut lines = cluster(4, &[1, 2, 3, 4]);
    assert_eq!(said(&report(cluster(4, &[1, 2, 3, 4]))), (0, String::new()));
    let answer = lines[3].node.clone();
    lines[2] = Answer::new(lines[2].server.clone(), answer);
    let report = report(lines);
    let why = "n3 does not answer: another node is at its address";
    let message = format!("one more failure stops the catalog: {why}\none more failure stops log default: {why}");
    assert_eq!(said(&report), (1, message));
    assert!(table(&report).ends_with(
        "the catalog: 3 of 4 voters are alive, none may fail\nlog default: 3 of 4 voters are alive, none may fail\n"
    ));
}

#[test]
fn the_state_depends_on_the_voters_that_are_left() {
    for (nodes, silent, code, message) in [
        (3, &[][..], 0, ""),
        // All voters are alive.
        (2, &[], 0, ""),
        (1, &[], 0, ""),
        (3, &[3], 1, "one more failure stops log default: n3 does not answer"),
        (5, &[5], 1, "log default lacks a voter: n5 does not answer; 4 of 5 voters are alive, 1 may fail"),
        (3, &[2, 3], 2, "no majority for log default: n2 and n3 do not answer"),
        (5, &[1, 2, 3], 2, "no majority for log default: n1, n2 and n3 do not answer"),
        (2, &[2], 2, "no majority for log default: n2 does not answer"),
        // Before an election.
        (3, &[1], 2, "no node leads log default"),
        (3, &[1, 2, 3], 2, "no majority for log default: n1, n2 and n3 do not answer"),
    ] {
        let voters: Vec<u64> = (1..=nodes).collect();
        let report = report(without(cluster(nodes, &voters), silent));
        let (found, said) = said(&report);
        assert_eq!((found, said.lines().any(|line| line == message)), (code, !message.is_empty()), "{said}");
        assert_eq!(json(&report)["check"], ["ok", "warning", "critical"][usize::from(code)]);
        let line = report.line();
        assert!(line.starts_with(["OK: log default: ", "WARNING: ", "CRITICAL: "][usize::from(code)]), "{line}");
        assert!(line.contains(message) && line.matches('\n').count() == 1, "{line}");
    }
}

#[test]
fn a_damaged_stalled_or_missing_replica_is_not_alive() {
    let mut lines = cluster(5, &[1, 2, 3, 4, 5]);
    let groups = |line: &mut Answer| line.node.as_mut().expect("a node").groups.clone();
    let mut put = |n: usize, groups: Vec<GroupStatus>| lines[n].node.as_mut().expect("a node").groups = groups;
    let all = cluster(5, &[1, 2, 3, 4, 5]).iter_mut().map(groups).collect::<Vec<_>>();
    put(1, all[1].iter().cloned().map(|group| GroupStatus { damage: "a hole".into(), ..group }).collect());
    put(2, all[2].iter().cloned().map(|group| GroupStatus { stalled: "it waits".into(), ..group }).collect());
    put(3, vec![all[3][0].clone()]);
    let report = report(lines);
    let (code, said) = said(&report);
    assert_eq!(code, 2, "damage is the most serious: {said}");
    let no_majority = "no majority for log default: n4 has no replica; n2 is damaged; n3 is stalled";
    assert!(said.starts_with("data is damaged on n2\n") && said.lines().any(|line| line == no_majority), "{said}");
    let json = json(&report);
    let kinds: Vec<_> = json["findings"].as_array().expect("a list").iter().map(|f| f["kind"].clone()).collect();
    assert_eq!(kinds, ["damage", "no_majority", "voter_missing"]);
    let log = &json["groups"][1];
    assert_eq!(
        (&log["log"], &log["majority"], &log["may_fail"]),
        (&"default".into(), &3.into(), &serde_json::Value::Null)
    );
    assert_eq!((&log["leader"], log["alive"].as_array().map(Vec::len)), (&"n1".into(), Some(2)));
    assert_eq!(log["missing"][0], serde_json::json!({ "name": "n2", "why": "is damaged" }));
    assert!(json["groups"][0]["log"].is_null());
}

#[test]
fn a_silent_learner_and_refused_appends_are_findings() {
    let lines = || without(cluster(4, &[1, 2, 3]), &[4]);
    assert_eq!(said(&report(lines())), (1, "no answer from n4".to_owned()));
    let mut lines = lines();
    lines[0].node.as_mut().expect("a node").another_cluster = "it answers at a:1".into();
    let (code, message) = said(&report(lines));
    assert_eq!((code, message.lines().count()), (2, 2), "{message}");
    assert!(message.starts_with("appends are refused, as another cluster of this name answers, by n1\n"), "{message}");
    let mut lines = cluster(3, &[1, 2, 3]);
    let full = Some(DiskStatus { state: DiskState::DISK_STATE_FULL.into(), ..DiskStatus::default() });
    lines[1].node.as_mut().expect("a node").disk = full.clone().into();
    assert_eq!(said(&report(vec![])), (2, "log default is not created yet".to_owned()));
    assert!(table(&report(vec![])).ends_with("log default: is not created yet\n"));
    assert_eq!(ClusterReport::new("c", "default", cluster(3, &[1, 2, 3]), &[]).state(), CheckState::Ok);
    lines[0].node.as_mut().expect("a node").disk = full.into();
    let text = "appends are refused: the disk is full on the leader n1\nthe disk fills on n2";
    assert_eq!(said(&report(lines)), (2, text.to_owned()));
}

/// Neither was a finding: a log whose only replica was on a dead host was in no line, and a monitor said OK while a new
/// replica was still being copied.
#[test]
fn a_log_without_its_replicas_is_a_finding() {
    let log = |name: &str, replicas| {
        let config = LogConfig { replicas: Some(replicas), ..LogConfig::default() };
        LogInfo { name: name.to_owned(), config: Some(config).into(), ..LogInfo::default() }
    };
    let report = |lines, logs: &[LogInfo]| ClusterReport::new("c", "default", lines, logs);
    let silent = report(cluster(3, &[1, 2, 3]), &[log("default", 3), log("audit", 1)]);
    assert_eq!(said(&silent), (2, "none of the replicas of log audit answers".to_owned()));
    assert!(table(&silent).ends_with("log audit: none of its replicas answers\n"), "{}", table(&silent));
    let few = report(cluster(3, &[1, 2]), &[log("default", 3)]);
    assert_eq!(said(&few), (1, "log default has 2 of 3 voters".to_owned()));
    let small = report(cluster(2, &[1, 2]), &[log("default", 3)]);
    assert_eq!(said(&small), (0, String::new()), "a small cluster has fewer replicas");
}

/// A full disk counted only if its node led the log of --log.
#[test]
fn a_full_disk_of_the_leader_of_another_log_is_a_finding() {
    let mut lines = cluster(3, &[1, 2, 3]);
    let node = lines[1].node.as_mut().expect("a node");
    node.disk = Some(DiskStatus { state: DiskState::DISK_STATE_FULL.into(), ..DiskStatus::default() }).into();
    node.groups.push(GroupStatus { log: "other".into(), role: Role::ROLE_LEADER.into(), ..GroupStatus::default() });
    let (code, message) = said(&report(lines));
    assert_eq!(code, 2);
    let text = "appends to other logs are refused: the disk is full on their leader n2";
    assert!(message.lines().any(|line| line == text), "{message}");
}

/// A monitor that only counted voters noticed neither before the cluster stopped.
#[test]
fn a_disk_that_fills_and_a_certificate_that_expires_are_warnings() {
    let mut lines = cluster(3, &[1, 2, 3]);
    let node = lines[1].node.as_mut().expect("a node");
    node.disk = Some(DiskStatus { state: DiskState::DISK_STATE_LOW.into(), ..DiskStatus::default() }).into();
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    lines[2].node.as_mut().expect("a node").metrics.push(counter(CERTIFICATE_EXPIRES, now + 86_400));
    let report = report(lines);
    assert_eq!(said(&report), (1, "the disk fills on n2\na certificate expires soon on n3".to_owned()));
    assert_eq!(report.line(), "WARNING: the disk fills on n2; a certificate expires soon on n3\n");
    assert_eq!(json(&report)["findings"][1]["kind"], "certificate_expires");
}

#[test]
fn reports_a_voter_that_recovers() {
    let mut lines = cluster(3, &[1, 2, 3]);
    let node = lines[2].node.as_mut().expect("a node");
    (node.groups, node.waiting_for) = (Vec::new(), "it recovers its logs".into());
    let report = report(lines);
    let (code, message) = said(&report);
    assert!(message.ends_with("one more failure stops log default: n3 is not ready yet"), "{message}");
    assert_eq!(code, 1);
    assert!(table(&report).contains("  is not ready yet: it recovers its logs\n"));
}

/// A table with a free space of 6 MiB said that appends are refused below 6 MiB. And the next step after damaged
/// records was that for a replica that differs.
#[test]
fn says_what_to_do() {
    let next = |lines| {
        let problems = report(lines).problems().unwrap_or_default();
        problems.split_once("\n  next: ").map(|(_, next)| next.to_owned()).unwrap_or_default()
    };
    let silent = |nodes: &[usize]| next(without(cluster(3, &[1, 2, 3]), nodes));
    let one = "start n2 again with its data directory; if that is lost, `seriatim node replace n2` helps";
    assert_eq!(silent(&[2]), one);
    assert!(silent(&[2, 3]).starts_with("start n2 and n3 again with their data directories; "), "{}", silent(&[2, 3]));
    assert_eq!(next(without(cluster(4, &[1, 3, 4]), &[2])), one, "a learner");
    let mut lines = without(cluster(5, &[1, 2, 3, 4, 5]), &[2]);
    lines[2].node.as_mut().expect("a node").groups.clear();
    assert_eq!(next(lines), format!("{one}; the table says what is wrong with the others"));

    let damaged = |change: &dyn Fn(&mut GroupStatus)| {
        let mut lines = cluster(3, &[1, 2, 3]);
        change(&mut lines[1].node.as_mut().expect("a node").groups[1]);
        next(lines)
    };
    let range = DamagedRange { first_offset: 3, ..DamagedRange::default() };
    let on_disk = damaged(&|group| group.damaged_ranges.push(range.clone()));
    assert!(on_disk.contains("from another node") && !on_disk.contains("restart"), "{on_disk}");
    assert!(damaged(&|group| group.damage = "it differs".into()).contains("restart its node"));

    let (free_bytes, hard_bytes, state) = (6 << 20, 6 << 20, DiskState::DISK_STATE_FULL.into());
    let mut lines = vec![line("n1", Role::ROLE_LEADER, 12)];
    let disk = DiskStatus { state, free_bytes, hard_bytes, ..DiskStatus::default() };
    lines[0].node.as_mut().expect("a node").disk = Some(disk).into();
    let table = table(&report(lines));
    assert!(table.contains("DISK FULL: 6.0 MiB free; appends are refused until 7.5 MiB are free\n"), "{table}");
}

/// The newest conf state is that of the node with the highest commit index.
#[test]
fn uses_the_newest_conf_state() {
    let mut lines = cluster(4, &[1, 2, 3, 4]);
    let stale = &mut lines[1].node.as_mut().expect("a node").groups[1];
    (stale.commit_index, stale.term, stale.replicas) = (3, 9, vec![voter(1)]);
    let report = report(without(lines, &[4]));
    assert_eq!(said(&report).0, 1);
    assert_eq!(report.groups[1].voters.len(), 4);
}

#[test]
fn names_the_space_that_deleted_logs_hold() {
    let mut answers = cluster(2, &[1, 2]);
    assert!(!table(&report(cluster(2, &[1, 2]))).contains("deleted logs"));
    let deleted = |log: &str, stored_bytes| DeletedLog { log: log.into(), stored_bytes, ..DeletedLog::default() };
    let node = answers[1].node.as_mut().expect("an answer");
    node.deleted_bytes = 6 << 20;
    node.deleted_logs =
        ["a", "b", "c", "d"].iter().zip([3, 1, 1, 1]).map(|(log, mib)| deleted(log, mib << 20)).collect();
    let report = report(answers);
    let line = "deleted logs hold 6.0 MiB on n2: a (3.0 MiB), b (1.0 MiB), c (1.0 MiB), others; `seriatim log delete --purge` frees it\n";
    let text = table(&report);
    assert!(text.contains(line), "{text}");
    assert_eq!(json(&report)["nodes"][1]["deleted_logs"][0]["stored_bytes"], 3 << 20);
}
