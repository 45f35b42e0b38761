//! `seriatim config check` and `config show`, and a node with a configuration file.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use seriatim::security::certs::{Request, Usage};

use crate::harness::{Node, NodeOptions, Outcome, Site, outcome, wait_for_voters};

/// Writes a file with tables for node `n1`, whose certificates exist.
fn write_file(site: &Site, rpc_addr: &str) -> String {
    let files = site.node_files("n1");
    let file = |file: &Path| file.display().to_string();
    let text = format!(
        "config_version = 1\n\n[node]\nname = \"n1\"\ndata_dir = \"data\"\n\n[listen.client]\naddr = {rpc_addr:?}\n\
         ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\n[listen.peer]\naddr = \"127.0.0.1:18401\"\ncert_file = {:?}\n\
         key_file = {:?}\n\n[access]\npolicy_file = {:?}\n\n[storage]\nsegment_bytes = \"1MiB\"\nhang_max = \"20s\"\n",
        file(&files.client_ca_file),
        file(&files.server_cert_file),
        file(&files.server_key_file),
        file(&files.peer_cert_file),
        file(&files.peer_key_file),
        file(&site.policy()),
    );
    fs::write(site.path().join("seriatim.toml"), &text).expect("written");
    text
}

fn run(site: &Site, args: &[&str]) -> Outcome {
    outcome(&site.command(args).output().expect("runs"))
}

/// The names and contents of all files of the site.
fn snapshot(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![site.path().to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                open.push(entry.clone());
            }
            files.insert(entry.display().to_string(), fs::read(&entry).unwrap_or_default());
        }
    }
    files
}

#[test]
fn config_check_reports_three_mistakes_of_different_kinds_at_once() {
    let site = Site::new();
    // The address is in use: the check does not listen on it.
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let rpc_addr = busy.local_addr().expect("an address").to_string();
    let text = write_file(&site, &rpc_addr);
    let before = snapshot(&site);
    let (code, stdout, stderr) = run(&site, &["config", "check", "seriatim.toml"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let addresses = format!("bind_addr 127.0.0.1:18401 for peers, rpc_addr {rpc_addr} for clients");
    assert_eq!(stdout, format!("valid: node n1 of cluster seriatim, {addresses}\n"));

    // A wrong value, an expired certificate, and a policy with a wrong line.
    let expired = Request {
        common_names: vec!["server".to_owned()],
        hosts: vec!["localhost".to_owned()],
        usage: Usage::Server,
        lifetime_seconds: -60,
    };
    site.ca().issue_files(&expired, &site.certs(), "server").expect("a certificate");
    fs::write(site.policy(), "p, root, *, produce\np, root, *, write\n").expect("written");
    fs::write(site.path().join("seriatim.toml"), text.replace("\"20s\"", "20")).expect("written");
    for args in [&["config", "check", "seriatim.toml"][..], &["serve", "--check", "--config", "seriatim.toml"]] {
        let (code, stdout, stderr) = run(&site, args);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
        assert!(stderr.contains("invalid configuration, 3 errors:"), "{stderr}");
        assert!(stderr.contains("  seriatim.toml:23: storage.hang_max: 20 has no unit"), "{stderr}");
        assert!(stderr.contains("server.pem: expired on "), "{stderr}");
        assert!(stderr.contains("policy.csv:2: \"write\" is not an action"), "{stderr}");
        assert!(stderr.contains("next: "), "{stderr}");
    }
    let after = snapshot(&site);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "no file was created");
}

/// The check of a file alone named every certificate that the unit passes as missing, and the options of the unit could
/// not be given.
#[test]
fn config_check_and_show_accept_the_options_of_serve() {
    let site = Site::new();
    let text = write_file(&site, "127.0.0.1:18400");
    let without = text.lines().filter(|line| !line.starts_with("key_file")).collect::<Vec<_>>().join("\n");
    fs::write(site.path().join("seriatim.toml"), without).expect("written");
    let files = site.node_files("n1");
    let (code, _, stderr) = run(&site, &["config", "check", "seriatim.toml"]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("--peer-key-file (listen.peer.key_file in the file): is missing"), "{stderr}");
    let mut command = site.command(&["config", "check", "seriatim.toml", "--server-key-file"]);
    command.arg(&files.server_key_file).env("SERIATIM_PEER_KEY_FILE", &files.peer_key_file);
    assert_eq!(command.output().expect("runs").status.code(), Some(0));

    let mut command = site.command(&["config", "show", "seriatim.toml", "-o", "json", "--server-key-file"]);
    command.arg(&files.server_key_file).env("SERIATIM_PEER_KEY_FILE", &files.peer_key_file);
    let (code, stdout, stderr) = outcome(&command.output().expect("runs"));
    assert_eq!(code, Some(0), "{stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let options = json["options"].as_array().expect("options");
    let of = |path: &str| {
        let option = options.iter().find(|option| option["path"] == path).expect("the option");
        (option["value"].as_str().unwrap_or("-").to_owned(), option["from"].as_str().expect("text").to_owned())
    };
    assert_eq!(of("storage.hang_max"), ("20s".to_owned(), "seriatim.toml:21: storage.hang_max".to_owned()));
    assert_eq!(of("listen.client.key_file").1, "--server-key-file");
    assert_eq!(of("listen.peer.key_file").1, "SERIATIM_PEER_KEY_FILE");
    assert_eq!(of("scrub.interval"), ("7d".to_owned(), "default".to_owned()));
}

#[test]
fn a_file_without_tables_still_starts_a_node_and_prints_its_new_form() {
    let site = Site::new();
    let old = "# Written for an earlier version.\nsegment_bytes = \"1MiB\"\nhang_seconds_max = 20\nmdns = false\n\
               scrub_interval_seconds = 86400\n";
    let file = site.path().join("seriatim.toml");
    fs::write(&file, old).expect("written");
    let more = vec![format!("--config={}", file.display())];
    let options = NodeOptions { name: "n1".into(), bootstrap: true, more: more.clone(), ..NodeOptions::default() };
    let mut node = Node::start(&site, options);
    wait_for_voters(&[site.client(&node.rpc_addr, "root")]);
    let log = node.log();
    let (_, printed) = log.split_once("(comments are left out):\n").unwrap_or_else(|| panic!("no new form: {log}"));
    let new_form = "config_version = 1\n\n[cluster]\nmdns = false\n\n[storage]\nsegment_bytes = \"1MiB\"\nhang_max = \"20s\"\n\n\
                    [scrub]\ninterval = \"86400s\"\n";
    // The logger indents the lines of a text.
    let printed: String = printed.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    assert!(printed.starts_with(&format!("\n{new_form}")), "{printed}");
    assert!(node.stop().success());

    let lines = node.log().lines().count();
    fs::write(&file, new_form).expect("written");
    node.start_again();
    wait_for_voters(&[site.client(&node.rpc_addr, "root")]);
    let log: Vec<String> = node.log().lines().skip(lines).map(str::to_owned).collect();
    assert!(!log.iter().any(|line| line.contains("has no tables")), "{log:#?}");
}
