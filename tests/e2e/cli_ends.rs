//! Commands whose node restarts, whose output can't be written, or that receive a signal; and their exit codes.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Cluster, Node, NodeOptions, Outcome, Site, counter_of, eventually, outcome, read_all, record};

/// A running command, whose output is collected.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
}

impl Running {
    fn start(cluster: &Cluster, addrs: &[&str], args: &[&str]) -> Running {
        let mut command = cluster.site.cli(&addrs.join(","), args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take();
        Running { child, input }
    }

    fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("stdin is open");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("written");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// Closes its input and waits until it exits. Returns its exit code, stdout and stderr.
    fn finish(mut self) -> Outcome {
        drop(self.input.take());
        outcome(&self.child.wait_with_output().expect("it ends"))
    }
}

fn values(cluster: &Cluster, node: usize) -> Vec<String> {
    read_all(&cluster.client(node)).iter().map(|r| String::from_utf8_lossy(&r.value).into_owned()).collect()
}

/// Waits until the node has that many records.
fn wait_for(cluster: &Cluster, node: usize, records: u64) {
    eventually("the records are appended", || {
        let log = cluster.client(node).get_log("").map_err(|e| e.to_string())?;
        if log.position.next_offset >= records { Ok(()) } else { Err(format!("{} records", log.position.next_offset)) }
    });
}

/// The node refused the records with certainty (STOPPING), and the next attempt met a closed port. All records without a response
/// were reported as "may be appended or not" (exit code 3), although none was appended.
#[test]
fn produce_survives_a_restart_of_its_only_node() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let mut produce = Running::start(&cluster, &[&addr], &["produce", "--timeout", "60"]);
    produce.write("first\n");
    wait_for(&cluster, 0, 1);
    // Lines are sent all the time, so that the shutdown interrupts some.
    let (mut input, mut lines) = (produce.input.take().expect("stdin"), 0);
    std::thread::scope(|scope| {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let writer = scope.spawn(move || {
            let mut lines = 0;
            while stopped.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected) {
                writeln!(input, "line {lines}").expect("the command reads");
                lines += 1;
                std::thread::park_timeout(std::time::Duration::from_micros(200));
            }
            lines
        });
        wait_for(&cluster, 0, 100);
        assert!(cluster.nodes[0].stop().success());
        cluster.nodes[0].start_again();
        wait_for(&cluster, 0, 101);
        drop(stop);
        lines = writer.join().expect("the writer");
    });
    let (code, _, stderr) = produce.finish();
    assert_eq!(code, Some(0), "{stderr}");
    let wanted: Vec<String> =
        std::iter::once("first".to_owned()).chain((0..lines).map(|n| format!("line {n}"))).collect();
    assert!(values(&cluster, 0) == wanted, "each line once and in order: {stderr}");
}

/// A stream that broke while there was no input was noticed at the next line, whose outcome was then "unknown".
#[test]
fn produce_survives_a_restart_between_two_lines() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let mut produce = Running::start(&cluster, &[&addr], &["produce", "--timeout", "60"]);
    produce.write("a\n");
    wait_for(&cluster, 0, 1);
    cluster.nodes[0].kill();
    cluster.nodes[0].start_again();
    produce.write("b\n");
    wait_for(&cluster, 0, 2);
    let (code, _, stderr) = produce.finish();
    assert_eq!((code, values(&cluster, 0)), (Some(0), vec!["a".to_owned(), "b".to_owned()]), "{stderr}");
}

/// Only the first address was tried again.
#[test]
fn produce_continues_at_another_address() {
    let mut cluster = Cluster::start(3);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let mut produce = Running::start(&cluster, &addrs, &["produce", "--timeout", "60"]);
    produce.write("a\n");
    wait_for(&cluster, 1, 1);
    assert!(cluster.nodes[0].stop().success());
    produce.write("b\n");
    wait_for(&cluster, 1, 2);
    let (code, _, stderr) = produce.finish();
    assert_eq!((code, values(&cluster, 1)), (Some(0), vec!["a".to_owned(), "b".to_owned()]), "{stderr}");
}

/// When the node does not return, nothing was sent, so no outcome is unknown.
#[test]
fn a_refused_connection_leaves_no_unknown_outcome() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let mut produce = Running::start(&cluster, &[&addr], &["produce", "--timeout", "2"]);
    produce.write("a\n");
    wait_for(&cluster, 0, 1);
    assert!(cluster.nodes[0].stop().success());
    produce.write("b\n");
    let (code, _, stderr) = produce.finish();
    assert_eq!(code, Some(69), "{stderr}");
    assert!(
        stderr.contains("1 record appended") && stderr.contains("nothing else") && stderr.contains("tail -n +2"),
        "{stderr}"
    );
    cluster.nodes[0].start_again();
    assert_eq!(values(&cluster, 0), ["a"]);
}

/// `echo x | seriatim produce 2>/dev/full` appended the line and panicked (exit code 101).
#[test]
fn an_unwritable_stderr_does_not_change_the_exit_code() {
    let cluster = Cluster::start(1);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    std::fs::write(cluster.site.path().join("line"), "x\n").expect("a file");
    let closed = ["--addr", "127.0.0.1:1", "--timeout", "1"];
    let cases: [(&[&str], i32); 6] = [
        (&["produce", "line"], 0),
        (&["produce", "--expected-offset", "99", "line"], 4),
        (&["consume", "--from", "99"], 1),
        (&["consume", "--from", "yesterday"], 2),
        (&["data", "verify", "--data-dir", "n1"], 78),
        (&[&["status"], &closed[..]].concat(), 69),
    ];
    for (args, code) in cases {
        for stderr in [full(), gone()] {
            let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, args);
            let status = command.stdout(Stdio::null()).stderr(stderr).status().expect("it ran");
            assert_eq!(status.code(), Some(code), "{args:?}");
        }
    }
    assert_eq!(values(&cluster, 0), ["x", "x"]);
    // The exit code reports the result, even if the report can't be written.
    let damaged = cluster.site.path().join("damaged/groups/0");
    std::fs::create_dir_all(&damaged).expect("made");
    let verify = cluster.site.command(&["data", "verify", "--data-dir", "damaged"]).stdout(full()).status();
    assert_eq!(verify.expect("it ran").code(), Some(65));
    let certs = cluster.site.command(&["certs", "--out", "new"]).stdout(full()).status();
    assert_eq!(certs.expect("it ran").code(), Some(0), "the certificates are made");
}

/// SIGTERM killed `consume`, although every command is documented to exit with 130.
#[test]
fn every_command_exits_with_130_after_a_signal() {
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let values: Vec<String> = (0..1000).map(|n| format!("record {n}")).collect();
    cluster.client(0).produce("", values.iter().map(record).collect()).expect("produces");
    let wait_for_streams = |n: u64| {
        eventually("the command follows", || {
            let node = cluster.client(0).get_node().map_err(|e| e.to_string())?;
            let streams = counter_of(&node, "seriatim_streams_now");
            if streams == n { Ok(()) } else { Err("not yet".to_owned()) }
        });
    };
    for signal in [Signal::TERM, Signal::INT] {
        let consume = Running::start(&cluster, &[&addr], &["consume", "--follow"]);
        wait_for_streams(1);
        consume.signal(signal);
        let (code, out, stderr) = consume.finish();
        assert_eq!(code, Some(130), "{stderr}");
        let whole: String = values.iter().map(|value| format!("{value}\n")).collect();
        assert!(whole.starts_with(&out) && (out.is_empty() || out.ends_with('\n')), "only complete records");
        wait_for_streams(0);
    }
    for args in [&["produce"][..], &["produce", "--whole"]] {
        let mut produce = Running::start(&cluster, &[&addr], args);
        // More than the pipe holds: once it is written, the command reads its input and handles signals.
        produce.write(&"x".repeat(200_000));
        produce.signal(Signal::TERM);
        let input = produce.input.take();
        let (code, _, stderr) = produce.finish();
        assert_eq!(code, Some(130), "{args:?}: {stderr}");
        drop(input);
    }
    // A command that never receives a response.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_addr = silent.local_addr().expect("an address").to_string();
    let status = Running::start(&cluster, &[&silent_addr], &["status", "--timeout", "100"]);
    let _connected = silent.accept().expect("the command connects");
    status.signal(Signal::TERM);
    assert_eq!(status.finish().0, Some(130));
}

/// With a start time in the future, records from before it were printed, and after a reconnect, records from after it were
/// skipped.
#[test]
fn a_future_start_time_is_resolved_once() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let now_us = || SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_micros() as u64;
    let produce = |cluster: &Cluster, value: &str| {
        eventually("the record is appended", || {
            cluster.client(0).produce("", vec![record(value)]).map_err(|e| e.to_string())
        });
    };
    produce(&cluster, "before the command");
    let time = now_us() + 8_000_000;
    let from = format!("us:{time}");
    let args = ["consume", "--follow", "--from", &from, "--count", "2", "--timeout", "60"];
    let consume = Running::start(&cluster, &[&addr], &args);
    eventually("the command follows", || {
        let node = cluster.client(0).get_node().map_err(|e| e.to_string())?;
        let follows = counter_of(&node, "seriatim_streams_now") == 1;
        if follows { Ok(()) } else { Err("not yet".to_owned()) }
    });
    produce(&cluster, "too early");
    cluster.nodes[0].kill();
    eventually("the start time has passed", || if now_us() > time { Ok(()) } else { Err("not yet".to_owned()) });
    cluster.nodes[0].start_again();
    // The command may reconnect before or after these records are appended; the result is the same.
    produce(&cluster, "in time");
    produce(&cluster, "later");
    let (code, out, stderr) = consume.finish();
    assert_eq!((code, out.as_str()), (Some(0), "in time\nlater\n"), "{stderr}");
}

/// The output of `consume --format json` copies a log completely: binary values, keys and headers too.
#[test]
fn a_log_can_be_copied_as_json() {
    let from = Cluster::start(1);
    let bytes: Vec<u8> = (0..=255).collect();
    let header = |name: &str, value: &[u8]| seriatim::pb::v1::Header {
        name: name.into(),
        value: value.to_vec().into(),
        ..Default::default()
    };
    let mut all = vec![record("plain"), record(""), record(&bytes), record("last")];
    all[2].key = Some(bytes.clone().into());
    all[2].headers = vec![header("text", b"t"), header("bytes", &bytes), header("", b"")];
    all[3].type_ = u32::MAX;
    all[3].key = Some("".into());
    from.client(0).produce("", all.clone()).expect("produces");
    let consume = from.site.cli(&from.nodes[0].rpc_addr, &["consume", "--format", "json"]).output().expect("it ran");
    assert!(consume.status.success());
    // The same program reads it back, from a file with an invalid line at the end.
    let file = from.site.path().join("log.json");
    std::fs::write(&file, [&consume.stdout[..], b"{\"value\":1}\n"].concat()).expect("written");
    let args = ["produce", "--format", "json", "log.json"];
    let (code, _, stderr) = outcome(&from.site.cli(&from.nodes[0].rpc_addr, &args).output().expect("it ran"));
    assert_eq!(code, Some(65), "{stderr}");
    assert!(stderr.contains("line 5 is not a valid record: value is not a string; 4 records appended"), "{stderr}");
    let plain = |mut record: seriatim::pb::v1::Record| {
        (record.offset, record.term, record.append_time_us) = (0, 0, 0);
        record
    };
    let records: Vec<_> = read_all(&from.client(0)).into_iter().map(plain).collect();
    assert_eq!(records, [all.clone(), all].concat());
    // `data dump` prints the same from an intact data directory of a stopped node.
    let mut from = from;
    let dump = |cluster: &Cluster, more: &[&str]| {
        let args = [&["data", "dump", "--data-dir", "n1"], more].concat();
        outcome(&cluster.site.command(&args).output().expect("it ran"))
    };
    assert_eq!(dump(&from, &[]).0, Some(78), "the directory is in use");
    let online = from.site.cli(&from.nodes[0].rpc_addr, &["consume", "--format", "json"]).output().expect("it ran");
    for with in [&["--whole"][..], &["--key", "k"], &["--header", "a=b"], &["--type", "1"]] {
        let args = [&["produce", "--format", "json", "log.json"], with].concat();
        let status = from.site.cli(&from.nodes[0].rpc_addr, &args).stderr(Stdio::null()).status().expect("it ran");
        assert_eq!(status.code(), Some(78), "{with:?}");
    }
    assert!(from.nodes[0].stop().success());
    let (code, offline, stderr) = dump(&from, &["-o", "json"]);
    assert_eq!((code, offline.into_bytes()), (Some(0), online.stdout), "{stderr}");
    assert_eq!(dump(&from, &["--group", "7"]).0, Some(1), "there is no such group");
    let segment = from.site.path().join("n1/groups/1/00000000000000000001.seg");
    let mut damaged = std::fs::read(&segment).expect("a segment");
    let at = damaged.windows(5).position(|window| window == b"plain").expect("the first record");
    damaged[at] ^= 1;
    std::fs::write(&segment, damaged).expect("written");
    let (code, _, stderr) = dump(&from, &[]);
    assert_eq!((code, stderr.contains("is damaged at byte")), (Some(65), true), "{stderr}");
}

/// `status` listed the nodes in the order of their random ids.
#[test]
fn cli_defaults_and_short_forms_work() {
    let cluster = Cluster::start(3);
    let addr = cluster.nodes[0].rpc_addr.as_str();
    let run = |args: &[&str]| outcome(&cluster.site.cli(addr, args).output().expect("it ran"));
    let (_, table, stderr) = run(&["status"]);
    let names: Vec<&str> = table.lines().skip(2).take(3).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["n1", "n2", "n3"], "{stderr}");

    cluster.client(0).produce("", (0..20).map(|n| record(n.to_string())).collect()).expect("produces");
    assert_eq!(run(&["consume", "--from", "-3"]).1, "17\n18\n19\n");
    assert_eq!(run(&["consume", "--from", "-100", "--count", "1"]).1, "0\n");
    assert_eq!(run(&["consume", "--from", "10m", "--count", "1"]).1, "0\n");
    assert_eq!(run(&["consume", "--from", "3", "--to", "6"]).1, "3\n4\n5\n");
    assert_eq!(run(&["consume", "--follow", "--from", "-2", "--to", "19"]).1, "18\n");
    assert_eq!(run(&["consume", "--to", "10m"]).1, "", "nothing is that old");
    assert_eq!(run(&["consume", "--from", "6", "--to", "3"]).0, Some(78));
    // Former spellings.
    assert!(run(&["consume", "--from", "-1", "--format", "json"]).1.contains(r#""value":"19""#));
    assert_eq!(run(&["log", "configure", "default"]).0, Some(0));
    let (code, out, stderr) = run(&["log", "info", "-o", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let info: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&info["log"], &info["first_offset"], &info["next_offset"]), (&"default".into(), &0.into(), &20.into()));
    assert_eq!(info["max_record_bytes"], 1 << 20);
    // The default port is tried, whether or not a node listens there.
    let (code, _, stderr) = run(&["status", "--addr", "127.0.0.2", "--timeout", "1"]);
    assert_eq!((code, stderr.contains("127.0.0.2:8400: ")), (Some(69), true), "{stderr}");

    // A record of exactly the limit, which includes neither the separator nor the overhead of the format.
    let (whole, site) = (1 << 20, &cluster.site);
    std::fs::write(site.path().join("line"), format!("{}=>{}\n", "k".repeat(10), "v".repeat(whole - 10)))
        .expect("written");
    std::fs::write(site.path().join("long"), format!("a\n{}\n", "v".repeat(whole + 1))).expect("written");
    let (code, _, stderr) = run(&["produce", "--key-separator", "=>", "line"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = run(&["produce", "--key-separator", "=>", "long"]);
    assert_eq!(
        (code, stderr.contains("line 2 exceeds record_bytes_max (1048576 bytes)")),
        (Some(65), true),
        "{stderr}"
    );
    let tls: Site = Site::new();
    let output =
        Command::new(crate::harness::SERIATIM).arg("status").arg("--certs").arg(tls.certs()).arg("--addr=a b").output();
    assert!(String::from_utf8_lossy(&output.expect("it ran").stderr).contains("like node-1.example:8400"));
}

/// Lines in the systemd journal had two timestamps and always the same priority.
#[test]
fn journal_lines_have_a_priority_and_no_second_timestamp() {
    use std::os::unix::fs::MetadataExt as _;
    let site = Site::new();
    let log = site.path().join("n1.log");
    let file = File::create(&log).and_then(|file| file.metadata()).expect("a log");
    let mut options = NodeOptions { name: "n1".into(), bootstrap: true, ..NodeOptions::default() };
    options.env = vec![("JOURNAL_STREAM".into(), format!("{}:{}", file.dev(), file.ino()))];
    let mut node = Node::start(&site, options.clone());
    assert!(node.stop().success());
    assert!(node.log().contains("<6>seriatim::agent::enter: founding cluster"), "{}", node.log());
    assert!(node.log().lines().all(|line| line.starts_with('<') && line.as_bytes()[2] == b'>'), "{}", node.log());
    std::fs::remove_file(site.path().join("n1/node.toml")).expect("removed");
    assert_eq!(node.try_start_again().expect_err("damaged").code(), Some(65));
    assert!(node.log().contains("<3>seriatim: ") && node.log().lines().all(|l| l.starts_with('<')), "{}", node.log());
    // Without the journal, a line has a timestamp.
    node.set_env(vec![("JOURNAL_STREAM".into(), "1:1".into())]);
    assert_eq!(node.try_start_again().expect_err("damaged").code(), Some(65));
    assert!(node.log().lines().any(|line| line.starts_with("seriatim: ")), "{}", node.log());
}

/// A join address that is a client address was reported with an empty reason.
#[test]
fn names_a_join_address_that_is_a_client_address() {
    let cluster = Cluster::start(1);
    let join = vec![cluster.nodes[0].rpc_addr.clone()];
    let node = Node::start(
        &cluster.site,
        NodeOptions { name: "n2".into(), join, joins_later: true, ..NodeOptions::default() },
    );
    eventually("the reason is logged", || match node.log() {
        log if log.contains("is it a client address (rpc_addr)?") => Ok(()),
        log => Err(log),
    });
    let (code, _, stderr) = {
        let args = ["status", "--timeout", "1"];
        outcome(&cluster.site.cli(&cluster.nodes[0].bind_addr, &args).output().expect("it ran"))
    };
    assert_eq!((code, stderr.contains("and not the one for peers")), (Some(69), true), "{stderr}");
}
