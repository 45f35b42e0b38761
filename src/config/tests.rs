//! Tests which values the options accept, and the error messages.

use std::time::Duration;

use super::*;
use crate::golden::{assert_golden_part, assert_golden_text};

fn secure() -> ServeArgs {
    let file = |name: &str| Some(name.to_owned());
    ServeArgs {
        node_name: file("n1"),
        client_ca_file: file("ca.pem"),
        server_cert_file: file("server.pem"),
        server_key_file: file("server-key.pem"),
        peer_cert_file: file("peer.pem"),
        peer_key_file: file("peer-key.pem"),
        acl_policy_file: file("policy.csv"),
        ..ServeArgs::default()
    }
}

fn problems(args: &ServeArgs) -> Vec<String> {
    Config::load(args).map(|c| panic!("{c:?}")).map_err(|e| e.0).unwrap_or_else(|e| e)
}

/// Parses a command line of `serve`.
fn parse(line: &[&str]) -> Result<ServeArgs, clap::Error> {
    #[derive(clap::Parser)]
    struct Serve {
        #[command(flatten)]
        args: ServeArgs,
    }
    <Serve as clap::Parser>::try_parse_from([&["serve"], line].concat()).map(|s| s.args)
}

#[test]
fn every_option_has_its_default() {
    let config = Config::load(&secure()).expect("a configuration");
    assert_eq!(config.cluster.cluster_name, "seriatim");
    assert_eq!(config.node.data_dir, Path::new("/var/lib/seriatim"));
    assert_eq!(
        (config.node.bind_addr.to_string(), config.node.rpc_addr.to_string()),
        ("127.0.0.1:8401".into(), "127.0.0.1:8400".into())
    );
    assert_eq!((config.node.advertise_bind_addr.clone(), config.node.advertise_rpc_addr.clone()), (None, None));
    assert_eq!(config.cluster.join, Vec::<String>::new());
    assert_eq!((config.cluster.bootstrap, config.mdns()), (false, false));
    assert_eq!(config.storage.segment_bytes, 64 << 20);
    assert_eq!(config.logging.log_level, log::LevelFilter::Info);
    let tls = config.tls.expect("TLS");
    assert_eq!((tls.client_ca_file, tls.peer_ca_file), ("ca.pem".into(), "ca.pem".into()));
    let public = ServeArgs { bind_addr: Some("192.0.2.1:8401".into()), ..secure() };
    assert!(Config::load(&public).expect("a configuration").mdns());
    let for_test = Config::for_test(Path::new("/tmp/x"), "n7").expect("a configuration");
    assert_eq!((for_test.tls.clone(), for_test.mdns(), for_test.node.data_dir), (None, false, "/tmp/x/n7".into()));
}

#[test]
fn reports_all_errors_at_once() {
    let found = problems(&ServeArgs {
        node_name: Some("/".into()),
        cluster_name: Some("a.b".into()),
        advertise_bind_addr: Some("0.0.0.0:8401".into()),
        rpc_addr: Some("localhost:8400".into()),
        advertise_rpc_addr: Some("0.0.0.0:8400".into()),
        join: Some("b:8401,c d".into()),
        bootstrap: Some("perhaps".into()),
        segment_bytes: Some("64MB".into()),
        peer_memory_bytes_max: Some("1".into()),
        log_level: Some("loud".into()),
        acl_policy_file: None,
        peer_key_file: None,
        ..secure()
    });
    let options: Vec<&str> = found.iter().map(|p| p.split(':').next().unwrap_or_default()).collect();
    assert_eq!(
        options,
        [
            "--rpc-addr (for clients)",
            "--node-name",
            "--cluster-name",
            "--join",
            "--bootstrap",
            "--acl-policy-file (access.policy_file in the file)",
            "--segment-bytes",
            "--peer-memory-bytes-max",
            "--log-level",
            "--advertise-bind-addr (for peers)",
            "--advertise-rpc-addr (for clients)",
            "--peer-key-file (listen.peer.key_file in the file)"
        ],
        "{found:#?}"
    );
    let text = ConfigProblems(found).to_string();
    assert!(text.starts_with("invalid configuration, 12 errors:\n  --rpc-addr (for clients): "), "{text}");
}

#[test]
fn one_way_to_found_a_cluster_can_be_set() {
    let expecting = ServeArgs { bootstrap_expect: Some("3".into()), ..secure() };
    assert_eq!(Config::load(&expecting).expect("a configuration").cluster.bootstrap_expect, Some(3));
    assert_eq!(
        problems(&ServeArgs { bootstrap: Some("true".into()), ..expecting.clone() }),
        ["--bootstrap-expect: conflicts with --bootstrap; remove one of them"]
    );
    for bad in ["0", "65", "three"] {
        let found = problems(&ServeArgs { bootstrap_expect: Some(bad.into()), ..expecting.clone() });
        assert!(found.len() == 1 && found[0].starts_with("--bootstrap-expect: "), "{found:?}");
    }
}

/// The same file serves all hosts if no address of a host is in it.
#[test]
fn a_node_may_listen_on_all_addresses_without_naming_one() {
    let everywhere = ServeArgs { bind_addr: Some("0.0.0.0:1".into()), rpc_addr: Some("[::]:2".into()), ..secure() };
    let config = Config::load(&everywhere).expect("a configuration");
    assert!(config.mdns() && config.node.advertise_bind_addr.is_none());
    let shown = LoadedConfig::read(&everywhere).settings;
    let advertised = shown.iter().find(|setting| setting.option.name == "advertise_bind_addr").expect("an option");
    assert_eq!(advertised.value.as_deref(), Some(ONLY_ADDRESS));
}

#[test]
fn reports_every_missing_option() {
    let found = problems(&ServeArgs { node_name: Some("n".into()), ..ServeArgs::default() });
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(
        found[1].starts_with("--client-ca-file (listen.client.ca_file in the file): is missing; `seriatim certs`"),
        "{}",
        found[1]
    );
}

#[test]
fn insecure_requires_loopback_and_excludes_certificates() {
    let insecure = |bind: &str, rpc: &str| ServeArgs {
        node_name: Some("n".into()),
        bind_addr: Some(bind.into()),
        rpc_addr: Some(rpc.into()),
        acl_policy_file: Some("policy.csv".into()),
        insecure: Some("true".into()),
        ..ServeArgs::default()
    };
    assert_eq!(Config::load(&insecure("127.0.0.1:1", "[::1]:2")).expect("a configuration").tls, None);
    assert_eq!(problems(&insecure("192.0.2.1:1", "127.0.0.1:2")).len(), 1);
    let everywhere = ServeArgs { advertise_rpc_addr: Some("a:2".into()), ..insecure("127.0.0.1:1", "0.0.0.0:2") };
    assert_eq!(
        problems(&everywhere),
        ["--insecure: only allowed on loopback addresses, and --rpc-addr (for clients) is 0.0.0.0:2"]
    );
    let both = ServeArgs { insecure: Some("true".into()), ..secure() };
    assert_eq!(problems(&both).len(), 5);
}

#[test]
fn checks_advertised_and_join_addresses() {
    for good in ["a:1", "node-1.example.:8401", "192.0.2.1:1", "[2001:db8::1]:65535"] {
        assert_eq!(host_port(good, 9), Ok(good.to_owned()), "{good}");
    }
    for (without, with) in [("a", "a:9"), ("192.0.2.1", "192.0.2.1:9"), ("[2001:db8::1]", "[2001:db8::1]:9")] {
        assert_eq!(host_port(without, 9).as_deref(), Ok(with));
    }
    for bad in [
        "",
        "a b",
        "a/b",
        "2001:db8::1",
        "[::]",
        "0.0.0.0",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a b:1",
        "a..b:1",
        "2001:db8::1:1",
        "[::]:1",
        "0.0.0.0:1",
        "a/b:1",
    ] {
        assert!(host_port(bad, 9).is_err(), "{bad}");
    }
    assert!(host_port("a:b", 8400).expect_err("no port").ends_with("like node-1.example:8400"));
    let same = ServeArgs { bind_addr: Some("127.0.0.1:7".into()), rpc_addr: Some("127.0.0.1:7".into()), ..secure() };
    assert_eq!(problems(&same).len(), 1);
    let free = ServeArgs { bind_addr: Some("127.0.0.1:0".into()), rpc_addr: Some("127.0.0.1:0".into()), ..secure() };
    assert!(Config::load(&free).is_ok());
}

/// A file that can't be read led to six lines of options that were missing, although the file had them.
#[test]
fn an_option_that_could_not_be_read_is_not_reported_as_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("seriatim.toml");
    let config = Some(file.display().to_string());
    let given = || ServeArgs { config: config.clone(), bind_addr: Some("0.0.0.0:1".into()), ..ServeArgs::default() };
    assert_eq!(problems(&given()).len(), 1, "{:#?}", problems(&given()));
    let with = |text: &str| {
        fs::write(&file, text).expect("written");
        problems(&given())
    };
    assert_eq!(with("bind_addr = ").len(), 1);
    let insecure = "node_name = \"n\"\nadvertise_bind_addr = \"a:1\"\nacl_policy_file = \"p\"\ninsecure = [true]\n";
    assert_eq!(with(insecure), [format!("{}:4: insecure is not true or false", file.display())]);
    let hyphen = "node_name = \"n\"\nadvertise-bind-addr = \"a:1\"\nacl-policy-file = \"p\"\ninsecure = \"yes\"\n";
    let found = with(hyphen);
    assert!(found.len() == 3 && found.iter().all(|problem| !problem.contains("missing")), "{found:#?}");
    let wrong = ServeArgs { segment_bytes: Some("many".into()), ..given() };
    fs::remove_file(&file).expect("removed");
    assert_eq!(problems(&wrong).len(), 2, "a wrong option is reported anyway");
}

/// A wrong path was only reported at the start after the one that corrected the options, one path at each start.
#[test]
fn reports_files_that_cannot_be_read_with_the_wrong_options() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| Some(dir.path().join(name).display().to_string());
    fs::write(dir.path().join("ca.pem"), "").expect("written");
    let args = ServeArgs {
        client_ca_file: path("ca.pem"),
        server_cert_file: path("none.pem"),
        server_key_file: path(""),
        peer_deny_file: path("none"),
        segment_bytes: Some("many".into()),
        ..secure()
    };
    let found = LoadedConfig::read(&args).problems;
    let options: Vec<&str> = found.iter().map(|problem| problem.split(':').next().unwrap_or_default()).collect();
    let expected = [
        "--segment-bytes",
        "--server-cert-file (for clients)",
        "--server-key-file (for clients)",
        "--peer-cert-file",
        "--peer-key-file",
        "--peer-deny-file",
        "--acl-policy-file",
    ];
    assert_eq!(options, expected, "{found:#?}");
    assert!(found[1].contains("none.pem: No such file") && found[2].contains("is a directory"), "{found:#?}");
}

#[test]
fn a_switch_without_a_value_is_true() {
    // Regression test: `--mdns false` was rejected.
    let apart = parse(&["--mdns", "false", "--bootstrap", "true", "--insecure"]).expect("arguments");
    assert_eq!((apart.mdns.as_deref(), apart.bootstrap.as_deref()), (Some("false"), Some("true")));
    assert_eq!(apart.insecure.as_deref(), Some("true"));
    let args = parse(&["--insecure", "--bootstrap", "--mdns=false"]).expect("arguments");
    assert_eq!(
        (args.insecure.as_deref(), args.bootstrap.as_deref(), args.mdns.as_deref()),
        (Some("true"), Some("true"), Some("false"))
    );
    assert!(parse(&["--no-such-option"]).is_err());
    assert!(check_cluster_name("a-1").is_ok());
    for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
        assert!(check_cluster_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn checks_the_watermarks_of_free_space() {
    let load = |more: &[&str]| {
        let given = parse(more).expect("arguments");
        Config::load(&ServeArgs {
            disk_free_soft_bytes: given.disk_free_soft_bytes,
            disk_free_hard_bytes: given.disk_free_hard_bytes,
            disk_reserve_bytes: given.disk_reserve_bytes,
            hang_max: given.hang_max,
            ..secure()
        })
    };
    let plain = load(&[]).expect("a configuration");
    assert_eq!((plain.disk_space, plain.storage.hang_max), (DiskSpace::default(), Duration::from_secs(30)));
    let given = ["--disk-free-soft-bytes=2GiB", "--disk-free-hard-bytes=1GiB", "--disk-reserve-bytes=0"];
    let space = load(&given).expect("a configuration").disk_space;
    assert_eq!(
        space,
        DiskSpace {
            disk_free_soft_bytes: Some(2 << 30),
            disk_free_hard_bytes: Some(1 << 30),
            disk_reserve_bytes: Some(0)
        }
    );
    let bad = ["--disk-free-soft-bytes=2MiB", "--disk-free-hard-bytes=3MiB", "--hang-max=0s"];
    let problems = load(&bad).expect_err("bad").0;
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[1].contains("2MiB is below 3MiB, --disk-free-hard-bytes"), "{problems:#?}");
}

/// After adding an option to the table, run `make update-golden`.
#[test]
fn golden_example_file_and_settings_table_show_every_option() {
    assert_golden_text("dist/seriatim.toml", &document::example_file());
    assert_golden_part("docs/OPERATIONS.md", "settings", &document::settings_table());
}

#[test]
fn every_default_is_accepted_and_every_option_is_described() {
    let mut args = ServeArgs::default();
    for (option, slot) in args.slots() {
        assert!(option.about.ends_with('.'), "{}: {}", option.name, option.about);
        assert!(!option.spec.is_set_in_example || option.spec.example.is_some(), "{}", option.name);
        assert!(option.spec.example.is_some() || option.default_text().is_some(), "{}", option.name);
        *slot = option.spec.example.or(option.default_text()).map(str::to_owned);
    }
    args.insecure = None;
    Config::load(&args).expect("a configuration");
}

#[test]
fn flags_take_precedence_over_the_file_and_the_file_over_defaults() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("seriatim.toml");
    let text = "[node]\nname = \"from-file\"\n[cluster]\nname = \"c\"\njoin = [\"a:1\"]\nbootstrap = true\n\
                [listen]\ninsecure = true\n[access]\npolicy_file = \"p.csv\"\n[storage]\nhang_max = \"20s\"\n";
    fs::write(&file, text).expect("written");
    let path = file.display().to_string();
    let from_file = Config::load(&parse(&["--config", &path]).expect("arguments")).expect("a configuration");
    assert_eq!((from_file.node.node_name.as_str(), from_file.cluster.cluster_name.as_str()), ("from-file", "c"));
    assert_eq!((from_file.cluster.join, from_file.cluster.bootstrap), (vec!["a:1".into()], true));
    let flags =
        ["--config", &path, "--node-name=flag", "--join", "c:3,d:4", "--bootstrap=false", "--segment-bytes", "2MiB"];
    let args = parse(&flags).expect("arguments");
    let from_flags = Config::load(&args).expect("a configuration");
    assert_eq!((from_flags.node.node_name.as_str(), from_flags.cluster.cluster_name.as_str()), ("flag", "c"));
    assert_eq!(
        (from_flags.cluster.join, from_flags.cluster.bootstrap, from_flags.storage.segment_bytes),
        (vec!["c:3".into(), "d:4".into()], false, 2 << 20)
    );
    let settings = LoadedConfig::read(&args).settings;
    let shown = |name: &str| {
        let setting = settings.iter().find(|setting| setting.option.name == name).expect("an option");
        let origin = setting.origin.to_string().replace(&path, "FILE");
        format!("{} from {origin}", setting.value.as_deref().unwrap_or("nothing"))
    };
    for (name, expected) in [
        ("node_name", "flag from --node-name"),
        ("join", "c:3,d:4 from --join"),
        ("cluster_name", "c from FILE:4: cluster.name"),
        ("hang_max", "20s from FILE:12: storage.hang_max"),
        ("scrub_interval", "7d from default"),
        ("segment_bytes", "2MiB from --segment-bytes"),
        ("mdns", "false from default"),
        ("advertise_bind_addr", "127.0.0.1:8401 from default"),
        ("peer_ca_file", "nothing from default"),
        ("disk_reserve_bytes", "32MiB, at most a 32nd of the file system from default"),
        ("log_level", "info from default"),
    ] {
        assert_eq!(shown(name), expected, "{name}");
    }
    assert_eq!(settings.len(), options().len());
}

/// Existing units and scripts run on.
#[test]
fn the_earlier_names_of_durations_take_seconds() {
    let hang_max = |line: &[&str]| {
        let args = ServeArgs { origins: Origins::default(), ..parse(line).expect("arguments") };
        let duration = Config::load(&ServeArgs { hang_max: args.hang_max, ..secure() }).map(|c| c.storage.hang_max);
        duration.map(|duration| duration.as_secs()).map_err(|e| e.0)
    };
    assert_eq!(hang_max(&["--hang-seconds-max=5"]), Ok(5));
    assert_eq!(hang_max(&["--hang-seconds-max=5m"]), Ok(300));
    assert_eq!(hang_max(&["--hang-max=5m"]), Ok(300));
    assert!(hang_max(&["--hang-max=5"]).expect_err("no unit")[0].contains("5 seconds are written 5s"));
    let wrong = problems(&ServeArgs {
        node_name: Some("n".into()),
        ..parse(&["--hang-seconds-max=x", "--insecure", "--acl-policy-file=p"]).expect("arguments")
    });
    assert!(wrong.len() == 1 && wrong[0].starts_with("--hang-seconds-max: \"x\" is not a duration"), "{wrong:?}");
    let both = ["--hang-seconds-max=5", "--hang-max=5s", "--insecure", "--acl-policy-file=p", "--node-name=n"];
    let both = problems(&parse(&both).expect("arguments"));
    assert_eq!(both, ["--hang-max: the same option is set by --hang-seconds-max; remove one of them"]);
    let hidden = <ServeArgs as clap::Args>::augment_args(clap::Command::new("serve")).render_long_help().to_string();
    assert!(!hidden.contains("seconds-max") && hidden.contains("--hang-max <DURATION>"), "{hidden}");
}

#[test]
fn every_option_has_a_place_in_the_file_of_its_own() {
    let paths: BTreeSet<&str> = options().iter().map(|option| option.path).collect();
    assert_eq!(paths.len(), options().len());
    let in_tables: usize = tables().map(|(_, _, options)| options.count()).sum();
    assert_eq!(in_tables, options().len(), "each table is listed");
}
