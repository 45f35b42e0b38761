//! The JSON of small clusters.

use std::time::{Duration, SystemTime};

use protobuf::well_known_types::timestamp::Timestamp;

use super::*;
use crate::pb::v1::{DiskStatus, Node, Replica};

fn group(log: &str, role: Role, term: u64, next_offset: u64) -> GroupStatus {
    GroupStatus {
        log: log.into(),
        role: role.into(),
        term,
        leader: "n1".into(),
        commit_index: next_offset + 2,
        applied_index: next_offset + 2,
        next_offset,
        replicas: vec![Replica { name: "n1".into(), is_voter: true, ..Replica::default() }],
        ..GroupStatus::default()
    }
}

fn node(name: &str, groups: Vec<GroupStatus>) -> NodeAnswer {
    let member = Node { name: name.into(), node_id: format!("id-{name}"), is_heard: true, ..Node::default() };
    NodeAnswer { member, answer: Ok(GetNodeResponse { name: name.into(), groups, ..GetNodeResponse::default() }) }
}

/// Two nodes with the log `audit`, of which the second one still has the leader of an older term.
fn snapshot() -> Snapshot {
    let row = LogRow { name: "audit".into(), nodes: vec!["n1".into(), "n2".into()], replicas_wanted: 2 };
    Snapshot {
        taken: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567),
        cluster_name: "demo".into(),
        cluster_id: "c0ffee".into(),
        me: "n1".into(),
        balancing: false,
        nodes: vec![
            node("n1", vec![group("", Role::ROLE_LEADER, 2, 0), group("audit", Role::ROLE_LEADER, 3, 10)]),
            node("n2", vec![group("audit", Role::ROLE_LEADER, 2, 8)]),
        ],
        logs: vec![row],
        events: Vec::new(),
    }
}

fn answer(node: &mut NodeAnswer) -> &mut GetNodeResponse {
    node.answer.as_mut().expect("an answer")
}

fn json_of(response: Response) -> Value {
    assert_eq!((response.status, response.content_type), (Status::Ok, "application/json"));
    serde_json::from_slice(&response.body).expect("JSON")
}

fn query(query: &str) -> Request {
    Request { query: query.into(), ..Request::default() }
}

#[test]
fn a_log_is_shown_as_the_leader_of_the_newest_term_has_it() {
    let logs = json_of(logs(&snapshot(), &query("")));
    let audit = &logs["logs"][0];
    assert_eq!((&audit["next_offset"], &audit["term"], &audit["leader"]), (&10.into(), &3.into(), &"n1".into()));
    assert_eq!(audit["replicas"][1]["lag"], 2, "behind the newest commit index");
    assert_eq!((&logs["catalog"]["name"], &logs["catalog"]["term"]), (&Value::Null, &2.into()));
    assert_eq!(logs["time_ms"], 1_234_567);
}

#[test]
fn logs_are_filtered_and_paged() {
    let mut many = snapshot();
    let row = |n| LogRow { name: format!("Tenant-{n:03}"), nodes: Vec::new(), replicas_wanted: 3 };
    many.logs.extend((0..450).map(row));
    let page = |text: &str| {
        let page = json_of(logs(&many, &query(text)));
        let first = page["logs"][0]["name"].as_str().map(str::to_owned);
        (page["matching"].clone(), page["logs"].as_array().map_or(0, Vec::len), first)
    };
    assert_eq!(page(""), (451.into(), LOGS_MAX, Some("audit".to_owned())));
    assert_eq!(page("filter=tenant&from=400"), (450.into(), 50, Some("Tenant-400".to_owned())));
    assert_eq!(page("filter=-00"), (10.into(), 10, Some("Tenant-000".to_owned())));
    assert_eq!(page("filter=none"), (0.into(), 0, None));
    assert_eq!(page("from=9999999"), (451.into(), 0, None));
    // Without a replica that reports, nothing is known of the log.
    let unknown = json_of(logs(&many, &query("filter=000")));
    assert!(unknown["logs"][0]["next_offset"].is_null() && unknown["logs"][0]["leader"].is_null(), "{unknown}");
}

#[test]
fn problems_are_named_and_the_most_serious_comes_first() {
    let texts = |snapshot: &Snapshot| {
        let shown = json_of(cluster(snapshot));
        let all = shown["problems"].as_array().expect("a list").iter();
        all.map(|p| format!("{} {}", p["severity"].as_str().unwrap_or("?"), p["text"].as_str().unwrap_or("?")))
            .collect::<Vec<_>>()
    };
    let mut ill = snapshot();
    assert!(texts(&ill).is_empty(), "{:?}", texts(&ill));
    answer(&mut ill.nodes[0]).groups[1].damage = "a hole".into();
    let full = DiskStatus { state: DiskState::DISK_STATE_FULL.into(), ..DiskStatus::default() };
    answer(&mut ill.nodes[0]).disk = Some(full).into();
    ill.nodes[1].answer = Err("no answer within 2 s".into());
    ill.logs.push(LogRow { name: "lost".into(), nodes: Vec::new(), replicas_wanted: 3 });
    ill.logs.push(LogRow { name: "lost-too".into(), nodes: Vec::new(), replicas_wanted: 3 });
    assert_eq!(
        texts(&ill),
        [
            "error data of audit is damaged on node n1",
            "error no leader is known for log lost and 1 more logs",
            "error the disk of node n1 is full: its appends are refused",
            "warning node n2 does not report its state: no answer within 2 s",
        ]
    );
    ill.nodes[1].member.is_heard = false;
    assert!(texts(&ill).contains(&"warning node n2 is not heard".to_owned()));
}

#[test]
fn cursors_with_the_largest_lag_come_first() {
    let mut with_cursors = snapshot();
    for (cursor, lag) in [("audit/a", 5), ("audit/b", 50), ("audit/c", 5)] {
        let mut metric = Metric { name: "seriatim_cursor_lag_records".into(), ..Metric::default() };
        metric.labels.insert("cursor".into(), cursor.into());
        metric.set_gauge(lag);
        answer(&mut with_cursors.nodes[0]).metrics.push(metric);
    }
    let shown = json_of(logs(&with_cursors, &query("")));
    let names: Vec<&Value> = shown["cursors"].as_array().expect("a list").iter().map(|c| &c["cursor"]).collect();
    assert_eq!(names, ["audit/b", "audit/a", "audit/c"]);
    assert_eq!((&shown["cursors_total"], &shown["cursors"][0]["node"]), (&3.into(), &"n1".into()));
}

/// Once, one answer of a compromised peer ended every node whose page was open.
#[test]
fn numbers_of_a_hostile_node_overflow_nothing() {
    let mut hostile = snapshot();
    let largest = |log: &str| GroupStatus {
        log: log.into(),
        term: u64::MAX,
        commit_index: u64::MAX,
        next_offset: u64::MAX,
        stored_bytes: u64::MAX,
        last_append_time: Some(Timestamp { seconds: i64::MAX, ..Timestamp::default() }).into(),
        ..GroupStatus::default()
    };
    let of_peer = answer(&mut hostile.nodes[1]);
    of_peer.groups = vec![largest("audit"), largest("other"), largest("audit")];
    for label in ["a", "b"] {
        let mut metric = Metric { name: COUNTERS[0].1.into(), ..Metric::default() };
        metric.labels.insert("label".into(), label.into());
        metric.set_counter(u64::MAX);
        of_peer.metrics.push(metric);
    }
    let shown = json_of(cluster(&hostile));
    assert_eq!(shown["nodes"][1]["lag"], u64::MAX);
    assert_eq!(shown["nodes"][1]["counters"]["appended_records"], u64::MAX);
    let audit = &json_of(logs(&hostile, &query("")))["logs"][0];
    assert_eq!(audit["last_append_ms"], i64::MAX);
    assert_eq!(audit["replicas"].as_array().map(Vec::len), Some(2), "each node has one replica");
}
