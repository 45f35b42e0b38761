//! The installed configuration file and systemd unit match the options of the program, and the packages match them.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args as _;
use seriatim::cli::command::cli;
use seriatim::cli::exit::Exit;
use seriatim::config::{Config, ServeArgs, options};

use crate::harness::Site;

const TOML: &str = include_str!("../../dist/seriatim.toml");
const UNIT: &str = include_str!("../../dist/seriatim.service");

/// Loads a configuration from that file and from the options that the unit passes.
#[track_caller]
fn load(site: &Site, toml: &str) -> Config {
    let file = site.path().join("seriatim.toml");
    fs::write(&file, toml).expect("a file");
    let given = |text: &str| Some(text.to_owned());
    let args = ServeArgs {
        config: given(&file.to_string_lossy()),
        node_name: given("n1"),
        client_ca_file: given("ca.pem"),
        peer_ca_file: given("ca.pem"),
        server_cert_file: given("server.pem"),
        server_key_file: given("server-key.pem"),
        peer_cert_file: given("peer.pem"),
        peer_key_file: given("peer-key.pem"),
        acl_policy_file: given("policy.csv"),
        ..ServeArgs::default()
    };
    Config::load(&args).expect("a valid configuration")
}

/// Returns the key that a line sets, or would set without its `#`.
fn key(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then_some(name)
}

/// Returns the keys of the file with their tables, in its order: `listen.peer.addr`.
fn paths(toml: &str) -> Vec<String> {
    let mut table = String::new();
    let mut paths = Vec::new();
    for line in toml.lines() {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => table = format!("{name}."),
            None => paths.extend(key(line).map(|key| format!("{table}{key}"))),
        }
    }
    paths
}

#[test]
fn the_configuration_file_names_every_option_with_its_default() {
    let site = Site::new();
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut flags: Vec<&str> = shown.map(|a| a.get_id().as_str()).filter(|id| *id != "config").collect();
    let mut names: Vec<&str> = options().iter().map(|option| option.name).collect();
    flags.sort_unstable();
    names.sort_unstable();
    assert_eq!(flags, names);
    let mut named = paths(TOML);
    let mut expected: Vec<String> = options().iter().map(|option| option.path.to_owned()).collect();
    expected.push("config_version".to_owned());
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);

    let as_it_is = load(&site, TOML);
    let all: Vec<&str> = TOML.lines().map(|l| if key(l).is_some() { l.trim_start_matches('#') } else { l }).collect();
    let mut all = load(&site, &all.join("\n"));
    // These have no default: their values in the file are examples.
    assert!(all.node.advertise_bind_addr.take().is_some());
    assert!(all.node.advertise_rpc_addr.take().is_some());
    assert!(all.http.http_host.take().is_some());
    assert!(all.access.acl_model_file.take().is_some());
    assert!(all.peer_rules.peer_deny_file.take().is_some());
    assert_eq!(all.cluster.bootstrap_expect.take(), Some(3));
    // The defaults of these are fractions of the file system: their values in the file are the maximum.
    let space = std::mem::take(&mut all.disk_space);
    assert!(space.disk_free_soft_bytes.is_some() && space.disk_free_hard_bytes.is_some());
    assert!(space.disk_reserve_bytes.is_some());
    // The default depends on the address.
    assert_eq!(all.cluster.mdns.take(), Some(as_it_is.mdns()));
    assert_eq!(all, as_it_is);
}

#[test]
fn the_unit_passes_options_that_exist() {
    let unit = UNIT.replace("\\\n", " ");
    let line = unit.lines().find_map(|l| l.strip_prefix("ExecStart=")).expect("a command");
    let words: Vec<&str> = line.split_whitespace().collect();
    cli().try_get_matches_from(&words).expect("a valid command line");
    for file in words.iter().filter_map(|w| w.strip_prefix("${CREDENTIALS_DIRECTORY}/")) {
        assert!(unit.contains(&format!("\nLoadCredential={file}:")), "no credential {file}");
    }
}

#[test]
fn the_unit_is_not_restarted_after_permanent_failures() {
    let never = UNIT.lines().find_map(|l| l.strip_prefix("RestartPreventExitStatus=")).expect("exit codes");
    let never: Vec<u8> = never.split_whitespace().map(|code| code.parse().expect("an exit code")).collect();
    assert!(never.contains(&(Exit::BadConfig as u8)));
    assert!(never.contains(&(Exit::BadData as u8)));
    assert!(!never.contains(&(Exit::Failed as u8)));
}

/// The unit has failed to start with "Failed to determine user credentials" where a package did not create its user.
#[test]
fn the_packages_create_the_user_of_the_unit() {
    let user = UNIT.lines().find_map(|line| line.strip_prefix("User=")).expect("a user");
    for (file, part) in [
        ("dist/seriatim.sysusers", format!("\nu {user} - ")),
        ("dist/deb/postinst", format!(" --no-create-home {user}\n")),
        ("dist/rpm/pre.sh", format!(" --comment Seriatim {user}\n")),
    ] {
        let text = fs::read_to_string(file).expect("a file");
        assert!(text.contains(&part), "{file} does not contain {part:?}");
    }
}

#[test]
fn the_sources_of_the_packages_exist() {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
    let metadata = &manifest["package"]["metadata"];
    let (deb, rpm) = (metadata["deb"]["assets"].as_array(), metadata["generate-rpm"]["assets"].as_array());
    let deb = deb.expect("files").iter().map(|asset| (&asset[0], &asset[1]));
    let rpm = rpm.expect("files").iter().map(|asset| (&asset["source"], &asset["dest"]));
    let script = fs::read_to_string("dist/package.sh").expect("the script");
    for (source, dest) in deb.chain(rpm) {
        let source = source.as_str().expect("a path");
        // Made by the script.
        match source.strip_prefix("target/release/package/") {
            Some(made) => {
                let name = made.trim_end_matches("/*").trim_end_matches(".gz").split('/').next().unwrap_or_default();
                assert!(script.contains(name), "dist/package.sh does not make {source} for {dest}");
            }
            None => assert!(Path::new(source).exists(), "{source} for {dest} does not exist"),
        }
    }
    // Only what an operator may change is a configuration file, and all of it is.
    let conffiles: Vec<&str> =
        metadata["deb"]["conf-files"].as_array().expect("files").iter().filter_map(|file| file.as_str()).collect();
    let in_rpm = metadata["generate-rpm"]["assets"].as_array().expect("files");
    let in_rpm =
        in_rpm.iter().filter(|asset| asset.get("config").is_some_and(|kept| kept.as_str() == Some("noreplace")));
    assert_eq!(conffiles, in_rpm.filter_map(|asset| asset["dest"].as_str()).collect::<Vec<_>>());
}

#[test]
fn the_scripts_are_valid_for_their_shells() {
    let scripts = ["dist", "dist/deb", "dist/rpm"].iter().flat_map(|dir| fs::read_dir(dir).expect("a folder"));
    let mut checked = 0;
    for script in scripts {
        let file = script.expect("an entry").path();
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let shell = if text.starts_with("#!/usr/bin/env bash") { "bash" } else { "sh" };
        if !text.starts_with("#!") && file.extension().is_none_or(|extension| extension != "sh") {
            continue;
        }
        let output = Command::new(shell).arg("-n").arg(&file).output().expect("a shell");
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        checked += 1;
    }
    assert!(checked > 10, "{checked} scripts");
}
