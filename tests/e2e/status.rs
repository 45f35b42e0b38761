//! `seriatim status`: live voters, exit codes, and nodes that are not ready yet.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Stdio};

use openssl::ssl::{AlpnError, SslAcceptor, SslFiletype, SslMethod, select_next_proto};
use serde_json::Value;
use seriatim::pb::v1::{LogConfig, UpdateLogRequest};

use crate::harness::{Cluster, Node, NodeOptions, Outcome, Site, eventually, outcome, record};

fn run(site: &Site, addr: &str, args: &[&str]) -> Outcome {
    outcome(&site.cli(addr, args).stdin(Stdio::null()).output().expect("it ran"))
}

/// Waits until `status --check` exits with that code. Returns what `status` prints then.
#[track_caller]
fn status(site: &Site, addr: &str, code: i32) -> Outcome {
    eventually("the exit code of the check", || {
        let before = run(site, addr, &["status", "--check"]);
        let state = ["OK: ", "WARNING: ", "CRITICAL: "][usize::try_from(code).expect("a code")];
        let one_line = before.1.starts_with(state) && before.1.matches('\n').count() == 1 && before.2.is_empty();
        let shown = run(site, addr, &["status"]);
        // The same state before and after, so that this is what `status` has seen.
        let after = run(site, addr, &["status", "--check"]);
        match before.0 == Some(code) && one_line && before == after && shown.0 == Some(0) {
            true => Ok(shown),
            false => Err(format!("{before:?} {shown:?}")),
        }
    })
}

/// A host was wiped and started with a new name at the same address. The cluster had four voters, one of them gone
/// forever, and the next restart of a node stopped it. `status` showed four healthy nodes and exited with code 0.
#[test]
fn reports_a_dead_voter_whose_address_another_node_uses() {
    let mut cluster = Cluster::start(3);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let (_, healthy, _) = status(&cluster.site, &addr, 0);

    let mut wiped = cluster.nodes.pop().expect("n3");
    wiped.kill();
    let (_, table, stderr) = status(&cluster.site, &addr, 1);
    assert!(stderr.contains("one more failure stops log default: n3 does not answer\n"), "{stderr}");
    assert!(table.contains("the catalog: 2 of 3 voters are alive, none may fail\n"), "{table}");
    assert!(healthy.ends_with("log default: 3 of 3 voters are alive, 1 may fail\n"), "{healthy}");
    let new = NodeOptions {
        name: "n4".into(),
        join: vec![cluster.nodes[0].bind_addr.clone()],
        bind_addr: Some(wiped.bind_addr.clone()),
        rpc_addr: Some(wiped.rpc_addr.clone()),
        ..NodeOptions::default()
    };
    let _new = Node::start(&cluster.site, new);
    let client = cluster.client(0);
    let config = LogConfig { replicas: Some(4), ..LogConfig::default() };
    let on_four = UpdateLogRequest { config: Some(config).into(), ..UpdateLogRequest::default() };
    client.update_log(&on_four).expect("changed");
    eventually("n4 is a voter", || {
        let servers = client.get_servers("default").map_err(|e| e.to_string())?.servers;
        let voters = servers.iter().filter(|server| server.is_voter).count();
        let catalog = client
            .get_node()
            .map_err(|e| e.to_string())?
            .groups
            .iter()
            .map(|g| g.replicas.iter().filter(|r| r.is_voter).count())
            .min();
        (voters == 4 && catalog == Some(4)).then_some(()).ok_or(format!("{voters} {catalog:?}"))
    });
    let (_, table, stderr) = status(&cluster.site, &addr, 1);
    let why = "n3 does not answer: another node is at its address";
    assert!(stderr.contains(&format!("one more failure stops log default: {why}\n")), "{stderr}");
    assert!(stderr.contains(&format!("one more failure stops the catalog: {why}\n")), "{stderr}");
    assert!(table.contains("log default: 3 of 4 voters are alive, none may fail\n"), "{table}");
    let (code, json, _) = run(&cluster.site, &addr, &["status", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let log =
        json["groups"].as_array().expect("groups").iter().find(|group| group["log"] == "default").expect("the log");
    assert_eq!((code, &json["check"], &log["may_fail"]), (Some(0), &"warning".into(), &0.into()));
    assert_eq!(log["missing"][0]["name"], "n3");
    assert_eq!(json["findings"][0]["kind"], "voter_missing");

    cluster.nodes[1].kill();
    let (_, table, stderr) = status(&cluster.site, &addr, 2);
    assert!(stderr.contains("no majority for log default: n2 does not answer; n3 does not answer: "), "{stderr}");
    assert!(table.contains("log default: 2 of 4 voters are alive, no majority\n"), "{table}");
    let (code, json, _) = run(&cluster.site, &addr, &["status", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["findings"][0]["kind"]), (Some(0), &"no_majority".into()));
}

/// A running command; killed when dropped.
struct Running(Option<Child>);

impl Running {
    fn start(site: &Site, addr: &str, args: &[&str]) -> Running {
        let mut command = site.cli(addr, args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().expect("it starts")))
    }

    fn runs(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().expect("a status").is_none())
    }

    #[track_caller]
    fn finish(mut self) -> Outcome {
        eventually("the command exits", || if self.runs() { Err("still running".to_owned()) } else { Ok(()) });
        outcome(&self.0.take().expect("a process").wait_with_output().expect("its output"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Members were queried one after the other, each with the whole --timeout: two hosts that did not respond took 15.8 s.
#[test]
fn members_are_queried_concurrently_with_a_short_timeout() {
    let mut cluster = Cluster::start(3);
    let addr = cluster.nodes[0].rpc_addr.clone();
    // Accept connections but never respond, like a host whose node is suspended.
    let silent = [1, 2].map(|node| {
        let node: &mut Node = &mut cluster.nodes[node];
        node.kill();
        let listener = TcpListener::bind(&node.rpc_addr).expect("its port");
        listener.set_nonblocking(true).expect("a socket");
        listener
    });
    let accept = |listener: &TcpListener| {
        eventually("a connection arrives", || listener.accept().map(|(stream, _)| stream).map_err(|e| e.to_string()))
    };
    let timeouts = ["status", "--timeout", "600", "--node-timeout", "600"];
    let mut patient = Running::start(&cluster.site, &addr, &timeouts);
    let connected = [accept(&silent[0]), accept(&silent[1])];
    assert!(patient.runs(), "both are queried, and neither has responded");
    drop(connected);
    drop(patient);
    // With the default node timeout.
    let (code, table, stderr) = Running::start(&cluster.site, &addr, &["status", "--timeout", "600"]).finish();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("no majority for log default: n2 and n3 do not answer"), "{stderr}");
    assert_eq!(table.matches("no answer within 3 s").count(), 2, "{table}");
}

/// Starts a server that accepts connections over TLS and HTTP/2 and never responds to a call, until the process exits.
fn mute_server(site: &Site) -> String {
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).expect("an acceptor");
    acceptor.set_certificate_chain_file(site.certs().join("server.pem")).expect("a certificate");
    acceptor.set_private_key_file(site.certs().join("server-key.pem"), SslFiletype::PEM).expect("a key");
    acceptor.set_alpn_select_callback(|_, theirs| select_next_proto(b"\x02h2", theirs).ok_or(AlpnError::NOACK));
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let acceptor = acceptor.clone();
            std::thread::spawn(move || {
                let Ok(mut tls) = acceptor.accept(stream) else { return };
                // An empty SETTINGS frame completes the HTTP/2 connection.
                let _ = tls.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
                while tls.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
            });
        }
    });
    addr
}

/// When the first node was connected but did not respond, or could not serve, no other address was tried.
#[test]
fn every_command_tries_the_next_address_when_the_first_does_not_answer() {
    let cluster = Cluster::start(1);
    let site = &cluster.site;
    std::fs::write(site.path().join("lines"), "a\nb\n").expect("a file");
    let waits = NodeOptions { name: "n2".into(), joins_later: true, ..NodeOptions::default() };
    let waits = Node::start(site, waits);
    let commands: [&[&str]; 7] = [
        &["produce", "lines"],
        &["consume"],
        &["status"],
        &["log", "info"],
        &["log", "set", "--retention-bytes", "10GiB"],
        &["log", "trim", "--before", "latest"],
        &["consume"],
    ];
    for first in [mute_server(site), waits.rpc_addr.clone()] {
        for command in commands {
            let addrs = format!("{first},{}", cluster.nodes[0].rpc_addr);
            let args = [command, &["--timeout", "600"]].concat();
            let (code, out, stderr) = Running::start(site, &addrs, &args).finish();
            assert_eq!(code, Some(0), "{command:?} with {first}: {out}{stderr}");
        }
    }
}

/// A refusal said that the node had "not caught up", and `status` referred to the node's log for the reason.
#[test]
fn a_joining_node_reports_what_it_waits_for() {
    let site = Site::new();
    let waiting = |name: &str, join: &[&str]| {
        let join = join.iter().map(|addr| (*addr).to_owned()).collect();
        Node::start(&site, NodeOptions { name: name.into(), join, joins_later: true, ..NodeOptions::default() })
    };
    let assert_reports = |node: &Node, parts: &[&str]| {
        eventually("the reason is reported", || {
            let (code, _, stderr) = run(&site, &node.rpc_addr, &["status"]);
            let all = code == Some(69) && stderr.contains("JOINING") && parts.iter().all(|part| stderr.contains(part));
            all.then_some(stderr.clone()).ok_or(format!("{code:?} {stderr}"))
        })
    };
    let alone = waiting("alone", &[]);
    let stderr = assert_reports(
        &alone,
        &["not admitted to cluster \"seriatim\" yet", "no join address is configured, and mDNS is off"],
    );
    assert!(stderr.contains("--bootstrap") && !stderr.contains("seriatim status"), "{stderr}");

    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").to_string();
    let mut late = waiting("n2", &[&free, &alone.bind_addr]);
    assert_reports(&late, &[&free, "onnection refused", &alone.bind_addr, "not a member of a cluster yet"]);
    // Every refusal contains the reason.
    let refused = site.client(&late.rpc_addr, "root").produce("", vec![record("x")]).expect_err("not a member");
    let refused = refused.status().expect("a status").clone();
    assert!(refused.reason == "JOINING" && refused.message.contains(&free), "{refused}");
    assert!(refused.metadata["waiting_for"].contains(&free), "{refused}");
    let (code, _, stderr) = run(&site, &late.rpc_addr, &["log", "info"]);
    assert!(code == Some(69) && stderr.contains(&free), "{stderr}");
    let (code, line, stderr) = run(&site, &late.rpc_addr, &["status", "--check"]);
    assert!(code == Some(2) && line.starts_with("CRITICAL: ") && line.contains(&free) && stderr.is_empty(), "{line}");
    let (code, json, _) = run(&site, &late.rpc_addr, &["status", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["findings"][0]["kind"]), (Some(69), &"joining".into()));
    assert!(json["waiting_for"].as_str().expect("a reason").contains(&free), "{json}");

    // A node with --bootstrap that waits for its own join address before it founds the cluster.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_addr = silent.local_addr().expect("an address").to_string();
    let founder = NodeOptions {
        name: "n1".into(),
        bootstrap: true,
        join: vec![silent_addr.clone()],
        bind_addr: Some(free.clone()),
        joins_later: true,
        ..NodeOptions::default()
    };
    let mut founder = Node::start(&site, founder);
    assert_reports(&founder, &["not founding cluster \"seriatim\" yet", &silent_addr]);
    assert_reports(&late, &[&free, &alone.bind_addr]);
    drop(silent);
    eventually("both serve", || {
        let servers = site.client(&late.rpc_addr, "root").get_servers("default").map_err(|e| e.to_string())?.servers;
        (servers.iter().filter(|s| s.is_voter).count() == 2).then_some(()).ok_or(format!("{servers:?}"))
    });

    // A member that can't admit another node, since it has no majority.
    assert!(late.stop().success());
    let third = waiting("n3", &[&founder.bind_addr]);
    assert_reports(&third, &[&founder.bind_addr, "has not admitted it"]);
    assert!(founder.stop().success());
}
