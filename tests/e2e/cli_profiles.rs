//! Profiles, shell completion, and commands that need no node.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Cluster, Outcome, SERIATIM, Site, outcome};

fn run(site: &Site, args: &[&str]) -> Outcome {
    outcome(&site.command(args).output().expect("it ran"))
}

#[track_caller]
fn succeed(site: &Site, args: &[&str]) -> String {
    let (code, out, stderr) = run(site, args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    out
}

/// A flag or a variable takes precedence over the profile, and the profile over the default.
#[test]
fn a_profile_has_the_options_of_a_connection() {
    let cluster = Cluster::start(1);
    let (site, addr) = (&cluster.site, cluster.nodes[0].rpc_addr.as_str());
    // Relative paths are those of the directory in which the profile is made.
    succeed(site, &["profile", "set", "here", "--addr", addr, "--certs", "certs", "--log", "default"]);
    succeed(site, &["profile", "set", "nowhere", "--addr", "127.0.0.1:1", "--timeout", "1s"]);
    let elsewhere = site.path().join("config");
    let info = |args: &[&str]| {
        let mut command = site.command(&[&["log", "info"], args].concat());
        outcome(&command.current_dir(&elsewhere).output().expect("it ran"))
    };
    assert_eq!(info(&[]).0, Some(0), "the first profile is the current one");
    assert_eq!(info(&["--profile", "nowhere", "--certs", "../certs"]).0, Some(69));
    assert_eq!(info(&["--profile", "nowhere", "--certs", "../certs", "--addr", addr]).0, Some(0), "a flag comes first");
    let (code, _, stderr) = info(&["--profile", "other"]);
    assert_eq!(
        (code, stderr.contains("there is no profile \"other\"; it has here, nowhere")),
        (Some(5), true),
        "{stderr}"
    );
    succeed(site, &["profile", "use", "nowhere"]);
    assert_eq!(info(&[]).0, Some(78), "no certificates");
    let by_variable = site.command(&["log", "info"]).env("SERIATIM_PROFILE", "here").output().expect("it ran");
    assert_eq!(by_variable.status.code(), Some(0));

    assert!(succeed(site, &["profile", "list"]).contains("* nowhere"), "{}", succeed(site, &["profile", "list"]));
    let shown: Value = serde_json::from_str(&succeed(site, &["profile", "show", "here", "-o", "json"])).expect("JSON");
    assert_eq!((&shown["addr"][0], &shown["certs"]), (&addr.into(), &site.certs().display().to_string().into()));
    assert_eq!(run(site, &["profile", "use", "other"]).0, Some(5));
    assert_eq!(run(site, &["profile", "set", "here", "--insecure"]).0, Some(78), "it has certificates");
    succeed(site, &["profile", "set", "here", "--insecure", "--unset", "certs,log"]);
    let shown = succeed(site, &["profile", "show", "here"]);
    assert!(shown.ends_with("insecure = true\n") && !shown.contains("certs"), "{shown}");
    succeed(site, &["profile", "use", "--none"]);
    assert_eq!(succeed(site, &["profile", "show"]), "");

    std::fs::write(elsewhere.join("seriatim/profiles.toml"), "[profiles.here]\nadress = \"n1\"\n").expect("written");
    let (code, _, stderr) = info(&[]);
    assert_eq!(code, Some(78), "{stderr}");
    for part in ["config/seriatim/profiles.toml", "profile \"here\"", "adress: unknown key"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

/// Runs the script of `seriatim completion bash` in bash, and returns the candidates for the last word.
fn completed(site: &Site, words: &[&str]) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source completion.bash\n\
         COMP_WORDS=({words}); COMP_CWORD={last}; COMP_TYPE=9\n\
         _clap_complete_seriatim seriatim \"${{COMP_WORDS[COMP_CWORD]}}\" ''\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words = quoted.join(" "),
        last = words.len() - 1,
    );
    let dir = std::path::Path::new(SERIATIM).parent().expect("a directory");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    let environment = site.command(&[]);
    let variables = environment.get_envs().filter_map(|(name, value)| Some((name, value?)));
    bash.args(["--norc", "-c", &script]).current_dir(site.path()).envs(variables).env("PATH", path);
    let (code, out, stderr) = outcome(&bash.output().expect("bash"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{words:?}");
    out.split(['\n', '\u{b}']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_names() {
    let site = Site::new();
    std::fs::write(site.path().join("completion.bash"), succeed(&site, &["completion", "bash"])).expect("written");
    for shell in ["zsh", "fish"] {
        assert!(succeed(&site, &["completion", shell]).contains("_SERIATIM_COMPLETE"), "{shell}");
    }
    let commands = completed(&site, &["seriatim", ""]);
    for command in ["serve", "produce", "consume", "status", "log", "cluster", "data", "profile", "completion"] {
        assert!(commands.iter().any(|found| found == command), "{command}: {commands:?}");
    }
    let of_log = completed(&site, &["seriatim", "log", ""]);
    assert!(of_log.contains(&"set".to_owned()) && !of_log.contains(&"verify".to_owned()), "{of_log:?}");
    assert_eq!(completed(&site, &["seriatim", "consume", "--fol"]), ["--follow"]);
    assert_eq!(completed(&site, &["seriatim", "status", "-o", "js"]), ["json"]);
    succeed(&site, &["profile", "set", "prod", "--addr", "n1"]);
    succeed(&site, &["profile", "set", "test", "--addr", "n1"]);
    assert_eq!(completed(&site, &["seriatim", "status", "--profile", "p"]), ["prod"]);
    assert_eq!(completed(&site, &["seriatim", "profile", "use", "t"]), ["test"]);
    // Bash splits words at `:` and `=`.
    let with_port = ["seriatim", "consume", "--addr", "n1", ":", "8400", "--profile", "p"];
    assert_eq!(completed(&site, &with_port), ["prod"]);
    assert_eq!(completed(&site, &["seriatim", "consume", "--profile", "=", "t"]), ["test"]);
}

#[test]
fn nodes_are_listed_and_describe_themselves() {
    let cluster = Cluster::start(3);
    let addr = cluster.nodes[0].rpc_addr.as_str();
    let run = |args: &[&str]| outcome(&cluster.site.cli(addr, args).output().expect("it ran"));
    let json = |args: &[&str]| -> Value { serde_json::from_str(&run(args).1).expect("JSON") };
    let listed = json(&["node", "list", "-o", "json"]);
    let names: Vec<&str> =
        listed["nodes"].as_array().expect("a list").iter().filter_map(|n| n["name"].as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(listed["nodes"][1]["rpc_addr"], cluster.nodes[1].rpc_addr);
    assert_eq!(run(&["node", "list"]).1.lines().count(), 4);
    let (code, of_name, stderr) = run(&["node", "info", "n2"]);
    assert_eq!((code, of_name.starts_with("node n2 (")), (Some(0), true), "{of_name}{stderr}");
    let of_id = json(&["node", "info", listed["nodes"][1]["node_id"].as_str().expect("an id"), "-o", "json"]);
    assert_eq!((&of_id["name"], &of_id["replicas"][1]["log"]), (&"n2".into(), &"default".into()));
    assert_eq!(json(&["node", "info", "-o", "json"])["name"], "n1", "the node that answers");
    let (code, _, stderr) = run(&["node", "info", "n9"]);
    assert_eq!((code, stderr.contains("its nodes are n1, n2, n3")), (Some(5), true), "{stderr}");
    let of_cluster = json(&["cluster", "info", "-o", "json"]);
    assert_eq!(of_cluster["name"], "seriatim");
    for (short, long) in
        of_cluster["nodes"].as_array().expect("nodes").iter().zip(listed["nodes"].as_array().expect(""))
    {
        for field in ["name", "node_id", "rpc_addr"] {
            assert_eq!(short[field], long[field]);
        }
        assert_eq!(long["state"], "active");
    }
    assert_eq!(of_cluster["cluster_id"], of_id["cluster_id"]);
}

#[test]
fn logs_and_rights_are_listed() {
    let cluster = Cluster::start(1);
    let site = &cluster.site;
    let addr = cluster.nodes[0].rpc_addr.as_str();
    let run = |args: &[&str]| outcome(&site.cli(addr, args).output().expect("it ran"));
    let json = |args: &[&str]| -> Value { serde_json::from_str(&run(args).1).expect("JSON") };
    let info = json(&["log", "info", "-o", "json"]);
    let listed = json(&["log", "list", "-o", "json"]);
    assert_eq!((&listed["logs"][0]["log"], &listed["logs"][0]["log_id"]), (&"default".into(), &info["log_id"]));
    assert_eq!(run(&["log", "list", "def"]).1.lines().count(), 2);
    assert_eq!(run(&["log", "list", "x"]).1.lines().count(), 1);
    assert_eq!(run(&["log", "list", "--user", "nobody"]).1.lines().count(), 1);

    let identity = json(&["auth", "whoami", "--user", "reader", "-o", "json"]);
    let permission = json!([{ "action": "consume", "log": "default" }]);
    assert_eq!((&identity["principal"], &identity["permissions"]), (&"reader".into(), &permission));
    assert!(run(&["auth", "whoami"]).1.starts_with("root\nACTION"), "{:?}", run(&["auth", "whoami"]));
    let can = |user: &str, action: &str, log: &str| run(&["auth", "can-i", "--user", user, action, log]);
    assert_eq!(
        (can("reader", "consume", "default").0, can("reader", "consume", "default").1),
        (Some(0), "yes\n".into())
    );
    assert_eq!(can("reader", "produce", "default"), (Some(77), "no\n".into(), String::new()));
    assert_eq!((can("root", "admin", "*").0, can("reader", "consume", "*").0), (Some(0), Some(77)));

    // Names of logs are completed by asking the node; quietly not at all if none answers.
    std::fs::write(site.path().join("completion.bash"), succeed(site, &["completion", "bash"])).expect("written");
    let certs = site.certs().display().to_string();
    let (host, port) = addr.split_once(':').expect("a port");
    let completed_at = |port: &str| {
        let words = ["seriatim", "consume", "--certs", &certs, "--addr", host, ":", port, "--log", "d"];
        completed(site, &words)
    };
    assert_eq!(completed_at(port), ["default"]);
    assert_eq!(completed_at("1"), Vec::<String>::new());
    succeed(site, &["profile", "set", "here", "--addr", addr, "--certs", "certs"]);
    assert_eq!(completed(site, &["seriatim", "log", "info", "def"]), ["default"]);
}

#[test]
fn commands_that_need_no_node() {
    let site = Site::new();
    let version: Value = serde_json::from_str(&succeed(&site, &["version", "-o", "json"])).expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(succeed(&site, &["version"]).starts_with(&format!("seriatim {}", env!("CARGO_PKG_VERSION"))));
    let files: Value = serde_json::from_str(&succeed(&site, &["certs", "--out", "new", "-o", "json"])).expect("JSON");
    assert!(files["files"].as_array().is_some_and(|files| files.contains(&"new/ca.pem".into())), "{files}");

    assert_eq!(succeed(&site, &["auth", "check-policy", "policy.csv"]), "policy.csv: valid\n");
    let of_reader = ["auth", "check-policy", "policy.csv", "--principal", "reader", "--log", "default", "-o", "json"];
    let of_reader: Value = serde_json::from_str(&succeed(&site, &of_reader)).expect("JSON");
    assert_eq!((&of_reader["allowed"]["consume"], &of_reader["allowed"]["produce"]), (&true.into(), &false.into()));
    std::fs::write(site.policy(), "p, root, *, admin\np, root, *, read\n").expect("written");
    let (code, _, stderr) = run(&site, &["auth", "check-policy", "policy.csv"]);
    assert_eq!((code, stderr.contains("policy.csv:2: \"read\" is not an action")), (Some(78), true), "{stderr}");
}
