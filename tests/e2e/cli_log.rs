//! Command line options beyond plain lines: keys, headers, conditions, times, retention, addresses and the environment.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Cluster, eventually};

/// Runs the program. Returns its exit code, stdout and stderr.
fn run(cluster: &Cluster, args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn succeed(cluster: &Cluster, args: &[&str], input: &str) -> String {
    let (code, out, error) = run(cluster, args, input);
    assert_eq!(code, 0, "{args:?}: {error}");
    out
}

fn consumed(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let args = [&["consume", "--format", "json"], args].concat();
    succeed(cluster, &args, "").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn produce_sets_keys_headers_types_and_conditions() {
    let cluster = Cluster::start(1);
    let with_keys =
        ["produce", "--key-separator", "=>", "--header", "source=test", "--header", "source=again", "--type", "7"];
    succeed(&cluster, &with_keys, "k=>v\nnone\n=>empty\n");
    succeed(&cluster, &["produce", "--key", "all"], "x\n");
    let records = consumed(&cluster, &[]);
    let field = |name: &str| records.iter().map(|r| r[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("key"), [json!("k"), Value::Null, json!(""), json!("all")]);
    assert_eq!(field("value"), ["v", "none", "empty", "x"]);
    assert_eq!(field("type"), [json!(7), json!(7), json!(7), Value::Null]);
    let headers = json!([{"name": "source", "value": "test"}, {"name": "source", "value": "again"}]);
    assert_eq!(records[0]["headers"], headers);

    let made = succeed(&cluster, &["produce", "--expected-offset", "4", "-o", "json"], "a\nb\n");
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let wanted = json!({"log": "default", "records": 2, "first_offset": 4, "next_offset": 6, "unknown_records": 0});
    assert_eq!(made, wanted);
    let (code, _, error) = run(&cluster, &["produce", "--expected-offset", "4"], "c\n");
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("EXPECTED_OFFSET_MISMATCH") && error.contains("nothing appended"), "{error}");
    let info = succeed(&cluster, &["log", "info"], "");
    assert!(info.contains("offsets            0..6 (6 records)"), "{info}");
    let id = info.split(['(', ')']).nth(1).expect("an id");
    succeed(&cluster, &["produce", "--log-id", id], "d\n");
    for command in [&["produce", "--log-id", "00000000000000ff"][..], &["consume", "--log-id", "00000000000000ff"]] {
        let (code, _, error) = run(&cluster, command, "e\n");
        assert_eq!(code, 4, "{error}");
        assert!(error.contains("LOG_ID_MISMATCH"), "{error}");
    }

    // Times, as text and as a number.
    let records = consumed(&cluster, &["--until-end"]);
    let time = records[4]["append_time_us"].as_u64().expect("a time");
    assert_eq!(consumed(&cluster, &["--from", &format!("us:{time}")])[0]["offset"], 4);
    assert_eq!(consumed(&cluster, &["--from", "2001-01-01T00:00:00Z", "--max-records", "2"]).len(), 2);
    assert_eq!(consumed(&cluster, &["--from", "2901-01-01T00:00:00Z"]).len(), 0);
    let (code, _, error) = run(&cluster, &["consume", "--from", "yesterday"], "");
    assert_eq!(code, 2, "{error}");
}

#[test]
fn log_set_shows_and_changes_retention_and_limits() {
    let cluster = Cluster::start(1);
    succeed(&cluster, &["produce"], "a\nb\nc\n");
    let kept = succeed(&cluster, &["log", "set", "default"], "");
    assert!(kept.contains("kept by size       all\nkept by age        for ever\n"), "{kept}");
    let changed = succeed(
        &cluster,
        &["log", "set", "--log", "default", "--retention-bytes", "10GiB", "--retention-age", "30d"],
        "",
    );
    assert!(changed.contains("at least 10737418240 bytes") && changed.contains("2592000 s"), "{changed}");
    let status = succeed(&cluster, &["status", "--verbose"], "");
    assert!(status.contains("kept by size: 10737418240 bytes, by age: 2592000000 ms"), "{status}");
    let kept = succeed(&cluster, &["log", "configure", "--retention-bytes", "none"], "");
    assert!(kept.contains("kept by size       all\nkept by age        2592000 s\n"), "{kept}");

    succeed(&cluster, &["log", "set", "--record-bytes-max", "1KiB"], "");
    let (code, _, error) = run(&cluster, &["produce"], &format!("{}\n{}\n", "x".repeat(1024), "x".repeat(1025)));
    assert_eq!(code, 65, "{error}");
    assert!(error.contains("line 2 exceeds record_bytes_max") && error.contains("1 record appended"), "{error}");
    let (code, _, error) = run(&cluster, &["log", "set", "--request-bytes-max", "100"], "");
    assert_eq!(code, 65, "{error}");

    assert_eq!(succeed(&cluster, &["log", "trim", "--before", "2"], ""), "log default begins at offset 2\n");
    assert_eq!(consumed(&cluster, &[])[0]["offset"], 2);
    let (code, _, error) = run(&cluster, &["log", "trim", "--before", "99"], "");
    assert_eq!(code, 65, "{error}");
    assert_eq!(succeed(&cluster, &["log", "trim", "--before", "latest"], ""), "log default begins at offset 4\n");
    let status: Value = serde_json::from_str(&succeed(&cluster, &["status", "--json"], "")).expect("JSON");
    assert_eq!(status["nodes"][0]["log"]["first_offset"], 4);
    assert_eq!(status["nodes"][0]["metrics"]["seriatim_streams_now"], 0);
}

/// `produce` first asks for the log's limits. If there was no leader then, it failed, although it retries every later request.
#[test]
fn produce_waits_for_a_leader() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    eventually("the log has no leader", || match cluster.client(0).get_log("") {
        Ok(_) => Err("it has one".into()),
        Err(_) => Ok(()),
    });
    let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, &["produce", "--timeout", "60"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("stdin").write_all(b"patient\n").expect("written");
    cluster.nodes[1].start_again();
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(consumed(&cluster, &[])[0]["value"], "patient");
}

/// `seriatim status | true` panicked with exit code 101, and so did every command except `consume`. The same happened on a full
/// disk.
#[test]
fn an_unwritable_stdout_does_not_panic() {
    let cluster = Cluster::start(1);
    succeed(&cluster, &["produce"], "a\nb\n");
    let commands: [&[&str]; 7] = [
        &["status"],
        &["status", "-o", "json"],
        &["log", "info"],
        &["log", "configure"],
        &["log", "trim", "--before", "0"],
        &["consume"],
        &["consume", "--format", "json"],
    ];
    for args in commands {
        let command = |stdout: Stdio| {
            let output =
                cluster.site.cli(&cluster.nodes[0].rpc_addr, args).stdout(stdout).stderr(Stdio::piped()).output();
            let output = output.expect("it ran");
            (output.status.code(), String::from_utf8(output.stderr).expect("text"))
        };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(command(writer.into()), (Some(0), String::new()), "{args:?}: the reader has closed the pipe");
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let (code, stderr) = command(full.into());
        // A trim has taken effect, whether or not that can be printed.
        let wanted = if args.contains(&"trim") { 0 } else { 1 };
        assert_eq!(
            (code, stderr.contains("can't write to standard output")),
            (Some(wanted), true),
            "{args:?}: {stderr}"
        );
    }
}

/// The whole --timeout was spent on each address that refused connections before the next one was tried. `status` spent it on each
/// member that was down.
#[test]
fn an_unreachable_node_does_not_cost_a_timeout() {
    const TIMEOUT: &str = "120";
    let mut cluster = Cluster::start(3);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.nodes[2].start_again();
    let [up, down] = [0, 1].map(|n| cluster.nodes[n].rpc_addr.clone());
    eventually("a leader", || cluster.client(0).get_log("").map_err(|e| e.to_string()));
    let begin = Instant::now();
    let addrs = format!("{down},{up}");
    succeed(&cluster, &["produce", "--timeout", TIMEOUT, "--addr", &addrs], "a\n");
    assert_eq!(succeed(&cluster, &["consume", "--timeout", TIMEOUT, "--addr", &addrs], ""), "a\n");
    // The restarted node may not know the leaders of the log and of the catalog yet.
    eventually("status names the node that is down", || {
        let (code, table, error) = run(&cluster, &["status", "--timeout", TIMEOUT, "--addr", &addrs], "");
        let named = (code, error.contains("n2 does not answer")) == (0, true);
        named.then_some(()).ok_or(format!("{code} {table}{error}"))
    });
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());

    let (code, _, error) = run(&cluster, &["status", "--timeout", "1", "--addr", "127.0.0.1:1,127.0.0.1:2"], "");
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("127.0.0.1:1:") && error.contains("127.0.0.1:2:"), "each address with its error: {error}");
    // An address without a port was dialled at 443, and 99999 became 34463.
    for bad in ["", ",", "local host", "localhost:", "localhost:99999", ":8400", "http://localhost:8400", "localhost:0"]
    {
        let (code, _, error) = run(&cluster, &["status", "--addr", bad], "");
        assert_eq!((code, error.contains("a host and a port")), (2, true), "{bad:?}: {error}");
    }
}

/// gRPC's core reused the descriptor of a closed standard stream: `produce <&-` failed to read, and `consume >&-` wrote into gRPC's
/// descriptor.
#[test]
fn a_closed_standard_stream_is_treated_as_empty() {
    let cluster = Cluster::start(1);
    succeed(&cluster, &["produce"], "a\n");
    for (args, closed, out, error) in [
        (&["produce"], "<&-", "", "nothing appended"),
        (&["consume"], "<&- >&-", "", ""),
        (&["consume"], ">&-", "", ""),
        (&["consume"], "2>&-", "a\n", ""),
    ] {
        let cli = cluster.site.cli(&cluster.nodes[0].rpc_addr, args);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {closed}")).arg(cli.get_program()).args(cli.get_args());
        for (name, value) in cli.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let output = shell.output().expect("it ran");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(0), out.as_bytes()),
            "{args:?} {closed}: {stderr}"
        );
        assert!(stderr.contains(error), "{args:?} {closed}: {stderr}");
    }
}

/// `SERIATIM_INSECURE=0` together with `SERIATIM_CERTS` was refused like --insecure, and an empty `SERIATIM_LOG` was not a valid
/// name. Later, `SERIATIM_INSECURE` of a client was taken by a node that was started in the same shell, and `SERIATIM_LOG` was
/// mistaken for a log level: they are no longer variables of clients.
#[test]
fn false_and_empty_environment_variables_count_as_unset() {
    let cluster = Cluster::start(1);
    let with = |name: &str, value: &str| {
        let output =
            cluster.site.cli(&cluster.nodes[0].rpc_addr, &["status"]).env(name, value).output().expect("it ran");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    };
    for off in ["0", "false", ""] {
        assert_eq!(with("SERIATIM_CLIENT_INSECURE", off).0, Some(0), "{off:?}");
    }
    let (code, output) = with("SERIATIM_CLIENT_INSECURE", "1");
    assert_eq!((code, output.contains("does not go with certificates")), (Some(78), true), "{output}");
    assert_eq!(with("SERIATIM_INSECURE", "1").0, Some(0), "an option of serve alone");
    for empty in ["SERIATIM_LOG_NAME", "SERIATIM_LOG", "SERIATIM_CLIENT_TIMEOUT", "SERIATIM_CLIENT_CA_FILE"] {
        let (code, output) = with(empty, "");
        assert_eq!((code, output.contains("log default")), (Some(0), true), "{empty}: {output}");
    }
    assert_eq!(with("SERIATIM_LOG_NAME", "a b").0, Some(2));
    let (code, output) = with("SERIATIM_LOG", "debug");
    assert_eq!((code, output.contains("set SERIATIM_LOG_NAME instead")), (Some(78), true), "{output}");
    let named = |args: &[&str]| {
        let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, args);
        command.env("SERIATIM_LOG", "debug").output().expect("it ran").status.code()
    };
    assert_eq!(named(&["log", "info", "--log", "default"]), Some(0), "a log that is named");

    // Former names are still read.
    let mut command = cluster.site.command(&["log", "info"]);
    command.env("SERIATIM_ADDR", &cluster.nodes[0].rpc_addr).env("SERIATIM_CERTS", cluster.site.certs());
    assert_eq!(command.output().expect("it ran").status.code(), Some(0));
    let output = command.env("SERIATIM_CLIENT_ADDR", "127.0.0.1:1").env("SERIATIM_TIMEOUT", "1").output();
    assert_eq!(output.expect("it ran").status.code(), Some(69), "the new name takes precedence");
    let mut command = cluster.site.command(&["log", "info", "--addr", &cluster.nodes[0].rpc_addr]);
    let output = command.env("SERIATIM_INSECURE", "true").output().expect("it ran");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.contains("SERIATIM_CLIENT_INSECURE")), (Some(78), true), "{stderr}");
}

/// Two frequent mistakes: certificates of another CA, and a host that the certificate does not name. Both were reported as if the
/// node were down, and the first printed one of gRPC's own log lines for each attempt.
#[test]
fn tls_failures_name_their_cause() {
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].rpc_addr.clone();
    let other = cluster.site.path().join("other").display().to_string();
    assert_eq!(run(&cluster, &["certs", "--out", &other], "").0, 0);
    let (code, _, error) = run(&cluster, &["status", "--certs", &other, "--timeout", "1"], "");
    assert_eq!((code, error.contains("of another CA than yours")), (69, true), "{error}");
    assert!(!error.contains("ssl_transport_security"), "{error}");

    let here = cluster.site.certs().display().to_string();
    assert_eq!(run(&cluster, &["certs", "--out", &here, "--use-ca", "--hosts", "elsewhere.example"], "").0, 0);
    let mut cluster = cluster;
    assert!(cluster.nodes[0].stop().success());
    cluster.nodes[0].start_again();
    let (code, _, error) = run(&cluster, &["status", "--addr", &addr, "--timeout", "1"], "");
    assert_eq!((code, error.contains("does not name the host that you dial")), (69, true), "{error}");
    assert!(
        cluster.nodes[0].log().contains("does not name 127.0.0.1"),
        "the node logs a warning: {}",
        cluster.nodes[0].log()
    );
}
