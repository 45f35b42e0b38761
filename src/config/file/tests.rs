//! Tests of the configuration file: its two forms, and the errors with their lines.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::super::*;

/// Node `n1` without TLS, in a file with tables.
const TABLED: &str = "\
config_version = 1

[node]
name = \"n1\"

[cluster]
join = [\"a:1\", \"b:2\"]
bootstrap = true

[listen]
insecure = true

[listen.client]
addr = \"127.0.0.1:1\"

[listen.peer]
addr = \"127.0.0.1:2\"

[access]
policy_file = \"p.csv\"

[storage]
segment_bytes = 1048576
hang_max = \"45s\"

[scrub]
interval = \"604800s\"
";

/// The same in the form of earlier versions.
const NAMES: &str = "\
# The node.
node_name = \"n1\"
rpc_addr = \"127.0.0.1:1\" # clients
bind_addr = \"127.0.0.1:2\"
scrub_interval_seconds = 604800
acl_policy_file = \"p.csv\"
hang_seconds_max = \"45\"
join = [\"a:1\", \"b:2\"]
insecure = true
bootstrap = true
segment_bytes = 1048576
";

struct Home {
    #[expect(dead_code, reason = "held")]
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        Home { file: dir.path().join("seriatim.toml"), dir }
    }

    fn args(&self, text: &str) -> ServeArgs {
        fs::write(&self.file, text).expect("written");
        ServeArgs { config: Some(self.file.display().to_string()), ..ServeArgs::default() }
    }

    /// The configuration of a file, which must be valid apart from files that do not exist.
    fn config(&self, text: &str) -> Config {
        Config::load(&self.args(text)).expect("a configuration")
    }

    /// The errors of a file, with the file's name instead of its path.
    fn problems(&self, text: &str) -> Vec<String> {
        let problems = Config::load(&self.args(text)).expect_err("errors").0;
        let folder = format!("{}/", self.file.parent().expect("a folder").display());
        problems.iter().map(|problem| problem.replace(&folder, "")).collect()
    }

    /// The errors of [`TABLED`] with one more line at the start of a table.
    fn problems_with(&self, table: &str, line: &str) -> Vec<String> {
        let header = format!("[{table}]\n");
        assert!(TABLED.contains(&header));
        self.problems(&TABLED.replace(&header, &format!("{header}{line}\n")))
    }
}

#[test]
fn a_file_with_tables_is_read() {
    let home = Home::new();
    let config = home.config(TABLED);
    assert_eq!((config.node.node_name.as_str(), config.cluster.bootstrap), ("n1", true));
    assert_eq!((config.node.bind_addr.port(), config.node.rpc_addr.port()), (2, 1));
    assert_eq!(config.cluster.join, ["a:1", "b:2"]);
    assert_eq!((config.storage.segment_bytes, config.storage.hang_max), (1 << 20, Duration::from_secs(45)));
    assert_eq!(config.storage.scrub_interval, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(LoadedConfig::read(&home.args(TABLED)).warnings, Vec::<String>::new());
    // Neither the version nor the lines of the tables are needed.
    let dotted = "node.name = \"n1\"\nlisten = { insecure = true }\naccess.policy_file = \"p.csv\"\n";
    assert_eq!(home.config(dotted).node.node_name.as_str(), "n1");
    assert_eq!(home.config(&format!("\u{feff}{TABLED}")), config, "a byte order mark");
}

#[test]
fn a_file_without_tables_is_read_with_a_warning_that_contains_its_new_form() {
    let home = Home::new();
    let config = home.config(NAMES);
    assert_eq!(config, home.config(TABLED));
    let warnings = LoadedConfig::read(&home.args(NAMES)).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    let (text, new_form) = warnings[0].split_once("\n\n").expect("the new form");
    assert!(text.ends_with("Replace its content by this (comments are left out):"), "{text}");
    assert_eq!(new_form, TABLED);
    assert_eq!(home.config(new_form), config);
    // Lists over several lines, and the name of a duration of today.
    let lists = NAMES.replace("[\"a:1\", \"b:2\"]", "[\n  \"a:1\", # the first\n  \"b:2\",\n]");
    let lists = lists.replace("hang_seconds_max = \"45\"", "hang_max = '45s'");
    let warning = LoadedConfig::read(&home.args(&lists)).warnings.remove(0);
    let (_, new_form) = warning.split_once("\n\n").expect("the new form");
    assert!(new_form.contains("\"a:1\", # the first\n") && new_form.contains("hang_max = '45s'"), "{new_form}");
    assert_eq!(home.config(new_form), config);
}

/// The new form lacked the setting whose name was unknown, so that a file with it lost the setting.
#[test]
fn a_file_without_tables_has_no_new_form_while_a_name_is_unknown() {
    let home = Home::new();
    let misspelt = NAMES.replace("hang_seconds_max", "hang_max_seconds");
    assert_ne!(misspelt, NAMES);
    let loaded = LoadedConfig::read(&home.args(&misspelt));
    assert!(loaded.warnings[0].ends_with("Its new form is printed once its errors are corrected"), "{loaded:?}");
}

#[test]
fn a_file_of_both_forms_is_refused() {
    let home = Home::new();
    assert_eq!(
        home.problems(&format!("bind_addr = \"127.0.0.1:3\"\ncluster_name = \"c\"\n{TABLED}")),
        [
            "seriatim.toml:1: bind_addr is set twice: here, and as listen.peer.addr in line 19; remove the one here",
            "seriatim.toml:2: cluster_name is the form of a file without tables, but this file has tables or \
             config_version; write it as name in [cluster]",
        ]
    );
    assert_eq!(
        home.problems(&format!("{NAMES}hang_max = \"9s\"\n")),
        ["seriatim.toml:12: hang_max sets the same option as line 7; remove one of them"]
    );
    let twice = home.problems_with("node", "name = \"n2\"");
    assert!(twice.len() == 1 && twice[0].starts_with("seriatim.toml:5: duplicate key"), "{twice:#?}");
}

#[test]
fn a_newer_version_of_the_form_is_refused() {
    let home = Home::new();
    let newer = home.problems(&TABLED.replace("config_version = 1", "# x\nconfig_version = 2\n[sharding]\nname = 1"));
    assert_eq!(newer.len(), 1, "{newer:#?}");
    assert!(newer[0].starts_with("seriatim.toml:2: config_version is 2, but this version of seriatim ("), "{newer:?}");
    assert!(newer[0].contains("reads up to 1; start a newer version"), "{newer:?}");
    for bad in ["0", "-1", "\"1\"", "1.0", "[1]"] {
        let problems = home.problems(&TABLED.replace("config_version = 1", &format!("config_version = {bad}")));
        assert_eq!(
            problems,
            ["seriatim.toml:1: config_version is not a whole number from 1 on; write config_version = 1"],
            "{bad}"
        );
    }
}

#[test]
fn an_unknown_key_or_table_is_an_error_with_a_suggestion() {
    let home = Home::new();
    for (table, line, expected) in [
        ("node", "nane = 1", "unknown option \"nane\" in [node]; did you mean name?"),
        ("node", "data-dir = 1", "unknown option \"data-dir\" in [node]; in a file it is written data_dir"),
        ("node", "cluster_name = 1", "unknown option \"cluster_name\" in [node]; write it as name in [cluster]"),
        ("node", "interval = 1", "unknown option \"interval\" in [node]; it belongs in [scrub]"),
        (
            "node",
            "addr = 1",
            "unknown option \"addr\" in [node]; it belongs in [listen.client] or [listen.peer] or [listen.http]",
        ),
        (
            "node",
            "segment_byte = 1",
            "unknown option \"segment_byte\" in [node]; did you mean segment_bytes in [storage]?",
        ),
        ("node", "colour = 1", "unknown option \"colour\" in [node]; the keys of [node] are name, data_dir"),
        (
            "storage",
            "hang_seconds_max = 1",
            "unknown option \"hang_seconds_max\" in [storage]; write it as hang_max in [storage]",
        ),
        ("listen.peer", "certfile = 1", "unknown option \"certfile\" in [listen.peer]; did you mean cert_file?"),
        ("listen", "clients.addr = 1", "unknown table \"listen.clients\"; did you mean [listen.client]?"),
        ("node", "\"a.b\" = 1", "unknown option \"a.b\" in [node]; the keys of [node] are name, data_dir"),
    ] {
        let problems = home.problems_with(table, line);
        let line = TABLED.lines().position(|l| l == format!("[{table}]")).expect("the table") + 2;
        assert_eq!(problems, [format!("seriatim.toml:{line}: {expected}")]);
    }
    let at_end = |text: &str| home.problems(&format!("{TABLED}{text}"));
    let tables = "[node], [cluster], [listen], [listen.client], [listen.peer], [listen.http], [access], [storage], [scrub], [replication], [disk], \
                  [limits], [logging]";
    assert_eq!(at_end("[limit]\na = 1\n"), ["seriatim.toml:28: unknown table \"limit\"; did you mean [limits]?"]);
    assert_eq!(at_end("[peer]\naddr = 1\n"), ["seriatim.toml:28: unknown table \"peer\"; did you mean [listen.peer]?"]);
    assert_eq!(
        at_end("[colours]\n"),
        [format!("seriatim.toml:28: unknown table \"colours\"; the tables are {tables}")]
    );
    assert_eq!(
        home.problems(&TABLED.replace("[node]\nname = \"n1\"\n", "[[node]]\nname = \"n1\"\n")),
        ["seriatim.toml:3: node is a table: begin it with the line [node]"]
    );
    assert_eq!(
        home.problems(&format!("{NAMES}bind_adr = 1\nunknown = 1\n")),
        [
            "seriatim.toml:12: unknown option \"bind_adr\"; did you mean bind_addr?",
            "seriatim.toml:13: unknown option \"unknown\""
        ]
    );
}

#[test]
fn an_error_names_the_line_and_the_key() {
    let home = Home::new();
    let with = |from: &str, to: &str| home.problems(&TABLED.replace(from, to));
    assert_eq!(
        with("hang_max = \"45s\"", "hang_max = 45"),
        ["seriatim.toml:24: storage.hang_max: 45 has no unit: 45 seconds are written 45s (units: ms, s, m, h, d)"]
    );
    assert_eq!(
        with("hang_max = \"45s\"", "hang_max = \"2h\""),
        ["seriatim.toml:24: storage.hang_max: 2h is not between 1s and 1h"]
    );
    assert_eq!(
        with("segment_bytes = 1048576", "segment_bytes = \"64MB\""),
        ["seriatim.toml:23: storage.segment_bytes: \"64MB\" is not a number of bytes, like 67108864 or 64MiB"]
    );
    for name in ["[1]", "5", "true"] {
        let found = with("name = \"n1\"", &format!("name = {name}"));
        assert_eq!(found, ["seriatim.toml:4: node.name is not a text in quotes"], "{name}");
    }
    assert_eq!(
        with("join = [\"a:1\", \"b:2\"]", "join = 1.5"),
        ["seriatim.toml:7: cluster.join is not a list of addresses"]
    );
    let same = with("addr = \"127.0.0.1:1\"", "addr = \"127.0.0.1:2\"");
    assert_eq!(same.len(), 1);
    assert!(same[0].starts_with("seriatim.toml:14: listen.client.addr: is 127.0.0.1:2, and so is "), "{same:?}");
    assert!(same[0].contains("seriatim.toml:17: listen.peer.addr; give clients and peers different ports"), "{same:?}");
    let names = home.problems(&NAMES.replace("127.0.0.1:2", "here"));
    assert!(names[0].starts_with("seriatim.toml:4: bind_addr (for peers): \"here\" is not an IP address"), "{names:?}");
    // All errors of the syntax, and none about options that could not be read.
    let syntax = home.problems("[node]\nname = \n[cluster]\nname = \"c\nbootstrap = true\n");
    assert_eq!(syntax.len(), 2, "{syntax:#?}");
    assert!(syntax[0].starts_with("seriatim.toml:2: ") && syntax[1].starts_with("seriatim.toml:4: "), "{syntax:#?}");
    fs::remove_file(&home.file).expect("removed");
    let args = ServeArgs { config: Some(home.file.display().to_string()), ..ServeArgs::default() };
    let missing = Config::load(&args).expect_err("no file").0;
    assert!(missing.len() == 1 && missing[0].starts_with("--config: "), "{missing:?}");
}
