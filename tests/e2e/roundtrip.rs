//! A text file is produced by the command line, every node is restarted, and each node returns identical bytes.
//!
//! `SERIATIM_TEST_TEXT_BYTES` sets the size of the file (default: 20 MB).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::harness::{Cluster, eventually, wait_for_voters};

#[test]
fn a_text_file_survives_a_restart_of_all_nodes() {
    let mut cluster = Cluster::start(3);
    let file = cluster.site.path().join("text");
    let bytes = std::env::var("SERIATIM_TEST_TEXT_BYTES").map_or(20_000_000, |bytes| bytes.parse().expect("a number"));
    fs::write(&file, text(bytes)).expect("a file");

    let produced = produce(&cluster, 1, &[&file.display().to_string()], b"");
    assert!(produced.status.success(), "{produced:?}");
    for node in &mut cluster.nodes {
        let status = node.stop();
        assert!(status.success(), "{status}");
    }
    for node in &mut cluster.nodes {
        node.start_again();
    }
    wait_for_voters(&cluster.clients());
    for node in 0..3 {
        assert_same(&file, &consume(&cluster, node, &[]).stdout);
    }
}

#[test]
fn produce_splits_lines_at_newlines_only() {
    let cluster = Cluster::start(1);
    // The input, and the output of `consume`, which ends the last line if the input did not.
    for (text, expected) in [
        ("", ""),
        ("\n", "\n"),
        ("one\n\ntwo\r\n\n", "one\n\ntwo\r\n\n"),
        ("one\nno newline at the end", "one\nno newline at the end\n"),
        ("nothing but this", "nothing but this\n"),
        ("ünïcödé\nand \u{0} zero\n", "ünïcödé\nand \u{0} zero\n"),
    ] {
        let from = cluster.client(0).get_log("").expect("a log").position.next_offset.to_string();
        let produced = produce(&cluster, 0, &[], text.as_bytes());
        assert!(produced.status.success(), "{text:?}: {produced:?}");
        let consumed = consume(&cluster, 0, &["--from", &from]);
        assert_eq!(String::from_utf8_lossy(&consumed.stdout), expected);
        assert!(consumed.status.success(), "{consumed:?}");
    }
}

#[test]
fn produce_stops_at_a_line_above_the_limit() {
    let cluster = Cluster::start(1);
    let config = cluster.client(0).get_log("").expect("a log").config.unwrap_or_default();
    let limit = config.max_record_bytes.expect("all settings are set") as usize;
    let fits = "y".repeat(limit);
    let text = format!("first\n{fits}\n{}\nafter\n", "x".repeat(limit + 1));
    let produced = produce(&cluster, 0, &[], text.as_bytes());
    let stderr = String::from_utf8_lossy(&produced.stderr).into_owned();
    assert_eq!(produced.status.code(), Some(65), "{stderr}");
    assert!(stderr.contains("line 3 ") && stderr.contains("offsets 0 to 1"), "{stderr}");
    let consumed = consume(&cluster, 0, &[]);
    assert!(consumed.stdout == format!("first\n{fits}\n").into_bytes(), "only the lines before it");

    let whole = produce(&cluster, 0, &["--whole"], "x".repeat(limit + 1).as_bytes());
    assert_eq!(whole.status.code(), Some(65), "{whole:?}");
    assert_eq!(cluster.client(0).get_log("").expect("a log").position.next_offset, 2, "nothing was appended");
}

#[test]
fn produce_whole_sends_a_file_as_one_record() {
    let cluster = Cluster::start(1);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let file = cluster.site.path().join("bytes");
    fs::write(&file, &bytes).expect("a file");
    let produced = produce(&cluster, 0, &["--whole", &file.display().to_string()], b"");
    assert!(produced.status.success(), "{produced:?}");
    assert_eq!(cluster.client(0).get_log("").expect("a log").position.next_offset, 1);
    assert!(consume(&cluster, 0, &["--format", "raw"]).stdout == bytes);
    let json = consume(&cluster, 0, &["--format", "json", "--count", "1"]).stdout;
    assert!(String::from_utf8(json).expect("text").starts_with(r#"{"append_time_us":"#));
}

#[test]
fn status_shows_every_node() {
    let mut cluster = Cluster::start(3);
    let status = |cluster: &Cluster, node: usize| {
        let output =
            cluster.site.cli(&cluster.nodes[node].rpc_addr, &["status", "--timeout", "2"]).output().expect("runs");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    let (table, code) = status(&cluster, 1);
    assert_eq!(code, Some(0), "{table}");
    assert_eq!(table.matches("follower").count(), 2, "{table}");
    assert_eq!(table.matches("leader").count(), 1, "{table}");
    cluster.nodes[2].kill();
    // If it was the leader, there is none until the others have elected one.
    eventually("status reports the missing voter", || match status(&cluster, 0) {
        (table, Some(0)) if table.contains("no answer") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn produce(cluster: &Cluster, node: usize, args: &[&str], input: &[u8]) -> Output {
    let args: Vec<&str> = std::iter::once(&"produce").chain(args).copied().collect();
    let mut command = cluster.site.cli(&cluster.nodes[node].rpc_addr, &args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    // The command may exit before it has read everything.
    let _ = child.stdin.take().expect("stdin").write_all(input);
    child.wait_with_output().expect("ends")
}

fn consume(cluster: &Cluster, node: usize, args: &[&str]) -> Output {
    let args: Vec<&str> = std::iter::once(&"consume").chain(args).copied().collect();
    cluster.site.cli(&cluster.nodes[node].rpc_addr, &args).output().expect("runs")
}

#[track_caller]
fn assert_same(file: &Path, bytes: &[u8]) {
    let expected = fs::read(file).expect("a file");
    let differs = expected.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!((expected.len(), None), (bytes.len(), differs), "byte-identical");
}

/// Returns lines of various lengths, some of them empty.
fn text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 1000);
    for line in 0.. {
        if text.len() >= bytes {
            break;
        }
        let words =
            if line % 7 == 0 { String::new() } else { format!("{line} {}", "wörter und mehr ".repeat(line % 23)) };
        let _ = writeln!(text, "{words}");
    }
    text
}
