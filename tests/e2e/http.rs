//! The HTTP listener of real nodes: metrics, health, and the JSON of the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Cluster, Node, NodeOptions, Site, eventually, print_uncaptured, record};

/// Returns the status and the body of a response. The host is the address.
fn get(addr: &str, path: &str) -> Result<(u16, String), String> {
    get_as(addr, path, addr, "*/*")
}

fn get_as(addr: &str, path: &str, host: &str, accept: &str) -> Result<(u16, String), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().map_err(|error| format!("{path}: {error}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(format!("no head: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(format!("no status: {head}"))?;
    Ok((status, body.to_owned()))
}

#[track_caller]
fn json(addr: &str, path: &str) -> Value {
    let (status, body) = get(addr, path).expect("an answer");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Returns the metrics of a text: the type by name, and the names of the labels.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, labels)) = line.split_once('{')
            && let Some((_, found)) = families.get_mut(name)
            && let Some((labels, _)) = labels.rsplit_once('}')
        {
            found.extend(labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned())));
        }
    }
    families
}

/// Runs promtool, if it is installed. Returns its output if it complains.
fn promtool(args: &[&str], input: &str) -> Option<String> {
    let spawned =
        Command::new("promtool").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        print_uncaptured(&format!(
            "SKIPPED: promtool {}: it is not installed (Debian: apt install prometheus)",
            args.join(" ")
        ));
        return None;
    };
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ended");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = text(&output.stdout) + text(&output.stderr).as_str();
    (!output.status.success()).then_some(text)
}

#[test]
fn a_node_serves_metrics_health_and_a_page() {
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].http_addr.as_str();
    let client = cluster.client(0);
    eventually("a record is appended", || client.produce("", vec![record("a")]).map(drop).map_err(|e| e.to_string()));
    assert_eq!(get(addr, "/live"), Ok((200, "live\n".to_owned())));
    assert_eq!(get(addr, "/ready"), Ok((200, "ready\n".to_owned())));
    let (status, text) = get(addr, "/metrics").expect("metrics");
    assert_eq!(status, 200);
    for line in [
        "seriatim_appended_records_total 1",
        "seriatim_ready 1.0",
        "seriatim_log_next_offset{log=\"default\"} 1.0",
        "seriatim_log_leader{log=\"default\"} 1.0",
        "seriatim_member_heard{node=\"n1\"} 1.0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is missing:\n{text}");
    }
    if let Some(complaints) = promtool(&["check", "metrics"], &text) {
        panic!("promtool check metrics: {complaints}");
    }
    let open = get_as(addr, "/metrics", addr, "application/openmetrics-text;version=1.0.0").expect("metrics").1;
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE seriatim_appended_records counter\n"), "{open}");
    let (status, page) = get(addr, "/").expect("a page");
    assert!(status == 200 && page.contains("<title>Seriatim</title>"), "{page}");
    let (status, text) = get(addr, "/nothing").expect("an answer");
    assert!(status == 404 && text.contains("/metrics"), "{text}");
    // The text is kept for half a second; then it is that of the moment.
    client.produce("", vec![record("b")]).expect("appended");
    eventually("the next scrape has the next record", || {
        let (_, text) = get(addr, "/metrics")?;
        text.contains("seriatim_appended_records_total 2\n").then_some(()).ok_or(text)
    });
}

/// A website whose name points at this address could otherwise read everything with the browser of an operator.
#[test]
fn a_request_for_the_name_of_a_website_is_refused() {
    let cluster = Cluster::start_with(1, &["--http-host=monitor.example"]);
    let addr = cluster.nodes[0].http_addr.as_str();
    let status = |host: &str| get_as(addr, "/live", host, "*/*").expect("an answer").0;
    let port = addr.rsplit_once(':').expect("a port").1;
    let own = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    for host in [addr, &format!("localhost:{port}"), "monitor.example", own.trim()] {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in ["evil.example", &format!("evil.example:{port}"), "monitor.example.evil"] {
        assert_eq!(status(host), 421, "{host}");
    }
}

#[test]
fn a_node_says_why_it_is_not_ready() {
    let mut cluster = Cluster::start(3);
    let waiting = Node::start(
        &cluster.site,
        NodeOptions {
            name: "n9".into(),
            join: vec!["127.0.0.1:1".into()],
            joins_later: true,
            ..NodeOptions::default()
        },
    );
    let (status, why) = get(&waiting.http_addr, "/ready").expect("an answer");
    assert!(status == 503 && why.starts_with("not ready: "), "{why}");
    assert_eq!(get(&waiting.http_addr, "/live").expect("an answer").0, 200);
    drop(waiting);
    let addr = cluster.nodes[0].http_addr.clone();
    assert_eq!(get(&addr, "/ready"), Ok((200, "ready\n".to_owned())));
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    eventually("without a majority it is not ready", || {
        let (status, why) = get(&addr, "/ready")?;
        (status == 503 && why.starts_with("not ready: ")).then_some(()).ok_or(why)
    });
    assert_eq!(get(&addr, "/live"), Ok((200, "live\n".to_owned())), "restarting it would not help");
    let metrics = get(&addr, "/metrics").expect("metrics").1;
    assert!(metrics.contains("seriatim_member_heard{node=\"n2\"} 0.0\n"), "{metrics}");
}

#[test]
fn each_node_shows_the_whole_cluster() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client(0);
    eventually("a record is appended", || client.produce("", vec![record("a")]).map(drop).map_err(|e| e.to_string()));
    for node in &cluster.nodes {
        let shown = eventually("every node reports", || {
            let shown = json(&node.http_addr, "/api/cluster");
            let nodes = shown["nodes"].as_array().expect("nodes").clone();
            let all = nodes.len() == 3 && nodes.iter().all(|node| node["disk"]["total_bytes"].as_u64() > Some(0));
            all.then(|| shown.clone()).ok_or(shown.to_string())
        });
        assert_eq!(shown["me"], node.name());
        let leads: u64 =
            shown["nodes"].as_array().expect("nodes").iter().filter_map(|node| node["leads"].as_u64()).sum();
        assert_eq!(leads, 1, "{shown}");
        let logs = json(&node.http_addr, "/api/logs?filter=DEF");
        assert_eq!((&logs["logs"][0]["name"], &logs["logs"][0]["next_offset"]), (&"default".into(), &1.into()));
        assert_eq!(logs["logs"][0]["replicas"].as_array().map(Vec::len), Some(3), "{logs}");
        assert_eq!(json(&node.http_addr, "/api/logs?filter=x")["matching"], 0);
    }
    // The founder has seen how the log got its leader, and how the others joined.
    eventually("the events are shown", || {
        let events = json(&cluster.nodes[0].http_addr, "/api/cluster")["events"].to_string();
        let all = events.contains("log default is led by n1") && events.contains("node n3 is a member");
        if all { Ok(()) } else { Err(events) }
    });
    let name = cluster.nodes[2].name().to_owned();
    cluster.nodes[2].kill();
    eventually("the others show that it is not heard", || {
        let shown = json(&cluster.nodes[0].http_addr, "/api/cluster");
        let problems = shown["problems"].to_string();
        let events = shown["events"].to_string();
        let wanted = format!("node {name} is not heard");
        (problems.contains(&wanted) && events.contains(&wanted)).then_some(()).ok_or(shown.to_string())
    });
}

/// Slow and silent clients hold all connections that the listener has; Prometheus still gets its metrics.
#[test]
fn a_node_answers_while_hostile_clients_hold_connections() {
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].http_addr.as_str();
    let hold = |text: &str| {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        let _ = stream.write_all(text.as_bytes());
        stream
    };
    let held: Vec<TcpStream> =
        (0..300).map(|n| hold(if n % 2 == 0 { "" } else { "GET /metrics HTTP/1.1\r\nHost: localh" })).collect();
    let began = Instant::now();
    assert_eq!(get(addr, "/metrics").expect("metrics").0, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let threads = fs::read_dir(format!("/proc/{}/task", cluster.nodes[0].pid())).expect("threads").count();
    assert!(threads < 100, "{threads}");
    drop(held);
}

#[test]
fn the_listener_can_be_off() {
    let site = Site::new();
    let options = NodeOptions {
        name: "n1".into(),
        bootstrap: true,
        more: vec!["--http-addr=off".into()],
        ..NodeOptions::default()
    };
    let mut node = Node::start(&site, options);
    assert_eq!(node.http_addr, "off");
    let metrics = site.client(&node.rpc_addr, "root").get_node().expect("an answer").metrics;
    assert!(metrics.iter().any(|metric| metric.name == "seriatim_sync_seconds"));
    assert!(node.stop().success());
}

/// `docs/METRICS.md` has a row for each metric: `` | `name` | type | labels | meaning | what to do | ``.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = fs::read_to_string("docs/METRICS.md").expect("a document");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let parsed = rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let kind = cells.next()?.to_owned();
        let labels = cells.next()?.split(", ").filter_map(|label| label.strip_prefix('`')?.strip_suffix('`'));
        Some((name, (kind, labels.map(str::to_owned).collect())))
    });
    parsed.collect()
}

#[test]
fn the_documented_metrics_are_those_of_a_node() {
    let cluster = Cluster::start(3);
    let client = cluster.client(0);
    eventually("a record is appended", || client.produce("", vec![record("a")]).map(drop).map_err(|e| e.to_string()));
    let mut exposed: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for node in &cluster.nodes {
        for (name, (kind, labels)) in families(&get(&node.http_addr, "/metrics").expect("metrics").1) {
            exposed.entry(name).or_insert((kind, BTreeSet::new())).1.extend(labels);
        }
    }
    let documented = documented();
    let names = |all: &BTreeMap<String, _>| all.keys().cloned().collect::<BTreeSet<_>>();
    let missing: Vec<_> = names(&exposed).difference(&names(&documented)).cloned().collect();
    assert!(missing.is_empty(), "docs/METRICS.md lacks {missing:?}");
    let gone: Vec<_> = names(&documented).difference(&names(&exposed)).cloned().collect();
    assert!(gone.is_empty(), "docs/METRICS.md has metrics that no node has: {gone:?}");
    for (name, (kind, labels)) in &exposed {
        let (documented_kind, documented_labels) = &documented[name];
        assert_eq!(kind, documented_kind, "the type of {name}");
        // A family without a value has no labels yet.
        assert!(labels.is_empty() || labels == documented_labels, "the labels of {name}: {labels:?}");
    }
    let used = used_metrics();
    let unknown: Vec<_> = used.iter().filter(|name| !is_known(name, &exposed)).collect();
    assert!(unknown.is_empty(), "the dashboard or an alert uses metrics that no node has: {unknown:?}");
}

/// Returns every name in the dashboard and the alerts that looks like a metric of a node.
fn used_metrics() -> BTreeSet<String> {
    let files = ["dist/grafana/seriatim.json", "dist/prometheus/alerts.yml", "dist/prometheus/alerts_test.yml"];
    let texts = files.map(|file| fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}")));
    let words = texts.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let used: BTreeSet<String> =
        words.filter(|word| word.starts_with("seriatim_") || word.starts_with("process_")).map(str::to_owned).collect();
    assert!(used.len() > 20, "{used:?}");
    used
}

fn is_known(name: &str, exposed: &BTreeMap<String, (String, BTreeSet<String>)>) -> bool {
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    exposed.contains_key(name)
        || histogram.and_then(|name| exposed.get(name)).is_some_and(|(kind, _)| kind == "histogram")
}

#[test]
fn alerts_are_valid_and_their_runbooks_exist() {
    let operations = fs::read_to_string("docs/OPERATIONS.md").expect("a document");
    let slugs: BTreeSet<String> = operations
        .lines()
        .filter_map(|line| line.strip_prefix('#').map(|line| line.trim_start_matches('#').trim()))
        .map(|heading| {
            let kept = heading.to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect();
    let alerts = fs::read_to_string("dist/prometheus/alerts.yml").expect("rules");
    let count = |what: &str| alerts.lines().filter(|line| line.trim_start().starts_with(what)).count();
    assert!(count("- alert:") > 10);
    assert_eq!((count("runbook_url:"), count("summary:")), (count("- alert:"), count("- alert:")));
    for line in alerts.lines().filter(|line| line.contains("runbook_url:")) {
        let (_, anchor) = line.rsplit_once("docs/OPERATIONS.md#").unwrap_or_else(|| panic!("{line}"));
        assert!(slugs.contains(anchor.trim_end_matches('"')), "{line}: no such heading");
    }
    if let Some(complaints) = promtool(&["check", "rules", "dist/prometheus/alerts.yml"], "") {
        panic!("promtool check rules: {complaints}");
    }
    if let Some(failures) = promtool(&["test", "rules", "dist/prometheus/alerts_test.yml"], "") {
        panic!("promtool test rules: {failures}");
    }
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string("dist/grafana/seriatim.json").expect("a dashboard")).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}
