//! Warnings about files of a node that other users of the host can read or change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::site::POLICY;
use crate::harness::{Node, NodeOptions, Site, eventually};

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
}

/// A key that all users could read, and a policy that all users could write, were accepted silently.
#[test]
fn warns_once_about_files_that_other_users_can_access() {
    let site = Site::new();
    let (key, config) = (site.certs().join("server-key.pem"), site.path().join("node.toml"));
    fs::write(&config, "mdns = false\n").expect("written");
    set(&key, 0o644);
    set(&site.policy(), 0o666);
    set(&config, 0o646);
    let options = NodeOptions {
        name: "n1".into(),
        bootstrap: true,
        more: vec![format!("--config={}", config.display())],
        ..NodeOptions::default()
    };
    let node = Node::start(&site, options);
    let warnings = |path: &Path, mode: &str| {
        let (path, mode) = (path.display().to_string(), format!("(mode {mode})"));
        node.log().lines().filter(|line| line.contains(&path) && line.contains(&mode)).count()
    };
    assert_eq!(
        [warnings(&key, "0644"), warnings(&site.policy(), "0666"), warnings(&config, "0646")],
        [1; 3],
        "{}",
        node.log()
    );
    assert!(node.log().contains(&format!("chmod 600 {}", key.display())), "{}", node.log());

    // A reload checks the modes before it loads the files.
    set(&key, 0o604);
    set(&site.policy(), 0o600);
    let reload = |more: &str, times: usize| {
        fs::write(site.policy(), format!("{POLICY}{more}")).expect("written");
        node.reload();
        eventually("the policy is loaded", || {
            let loaded = node.log().matches("access policy reloaded").count();
            (loaded == times).then_some(()).ok_or(node.log())
        });
    };
    reload("p, more, default, produce\n", 1);
    assert_eq!([warnings(&key, "0644"), warnings(&key, "0604")], [1, 1], "{}", node.log());
    reload("p, most, default, produce\n", 2);
    assert_eq!(
        [warnings(&key, "0604"), warnings(&site.policy(), "0666"), warnings(&config, "0646")],
        [1; 3],
        "{}",
        node.log()
    );
}

/// `seriatim certs` makes keys accessible to their owner only, whatever the umask is, and warns about existing keys.
#[test]
fn generated_keys_are_accessible_to_their_owner_only() {
    let site = Site::new();
    let out = site.path().join("made");
    let certs = |more: &[&str]| {
        let words = ["-c", "umask 000; exec \"$0\" \"$@\"", crate::harness::SERIATIM, "certs", "--out"];
        let mut command = std::process::Command::new("sh");
        let output = command.args(words).arg(&out).args(more).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    certs(&[]);
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let mut keys = 0;
    let list = |dir: &Path| fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (dirs, files): (Vec<_>, Vec<_>) = list(&out).partition(|path| path.is_dir());
    assert!(!dirs.is_empty(), "a node's directory");
    let in_dirs: Vec<_> = dirs.iter().flat_map(|dir| list(dir)).collect();
    for path in files.into_iter().chain(dirs).chain(in_dirs) {
        let key = path.to_string_lossy().ends_with("-key.pem");
        keys += usize::from(key);
        assert!(if key { mode(&path) == 0o600 } else { mode(&path) & 0o022 == 0 }, "{path:?} {:o}", mode(&path));
    }
    assert!(keys >= 4, "{keys} keys");
    let ca_key = out.join("ca-key.pem");
    set(&ca_key, 0o644);
    let stderr = certs(&["--use-ca", "--clients", "more"]);
    assert!(stderr.contains(&format!("private key {} (mode 0644)", ca_key.display())), "{stderr}");
}
