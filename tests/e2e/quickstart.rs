//! `seriatim quickstart`, as an ordinary user runs it: a node in the background, a first record, and no trace after --undo.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Outcome, SERIATIM, outcome};
use crate::tmpfs::{Tmpfs, fill};

/// A user's home. The node of a test that fails is stopped when this is dropped.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where quickstart puts everything by default.
    fn dir(&self) -> PathBuf {
        self.path().join(".local/share/seriatim/quickstart")
    }

    /// Returns a command that runs the program as that user, in a shell in which no option is set.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(SERIATIM);
        command.args(args).current_dir(self.path()).env("HOME", self.path());
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SERIATIM_")) {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        outcome(&self.command(args).output().expect("it ran"))
    }

    #[track_caller]
    fn succeed(&self, args: &[&str]) -> String {
        let (code, out, stderr) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        out
    }

    /// Runs a command that must fail, and returns its exit code and its message.
    #[track_caller]
    fn fail(&self, args: &[&str]) -> (Option<i32>, String) {
        let (code, out, stderr) = self.run(args);
        assert_ne!(code, Some(0), "{args:?}: {out}");
        (code, stderr)
    }

    /// Everything in the home, the logs of the node aside.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut dirs = vec![self.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("listed") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { dirs.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.command(&["quickstart", "--undo"]).output();
    }
}

fn is_running(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A process that has ended and was not waited for is a zombie.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn starts_a_node_that_commands_find_without_options_and_removes_it_again() {
    let home = Home::new();
    let made: Value = serde_json::from_str(&home.succeed(&["quickstart", "--port", "0", "-o", "json"])).expect("JSON");
    assert_eq!((&made["offset"], &made["service"]), (&0.into(), &false.into()), "{made}");
    let pid = made["pid"].as_u64().expect("a process");
    assert!(is_running(pid));
    fs::write(home.path().join("line"), "second\n").expect("written");
    home.succeed(&["produce", "line"]);
    let records = home.succeed(&["consume", "--from", "earliest"]);
    assert_eq!(records, "hello from seriatim quickstart\nsecond\n");
    assert!(home.succeed(&["status"]).contains("n1"), "{}", home.succeed(&["status"]));
    let config = home.dir().join("seriatim.toml");
    let (code, _, stderr) = home.run(&["config", "check", &config.display().to_string()]);
    assert_eq!((code, stderr.contains("warning")), (Some(0), false), "{stderr}");

    let (code, stderr) = home.fail(&["quickstart", "--port", "0"]);
    assert_eq!(code, Some(4), "{stderr}");
    for part in ["from an earlier quickstart", "nothing was changed", "`seriatim quickstart --undo`"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert!(is_running(pid), "the refused command has not touched it");

    let out = home.succeed(&["quickstart", "--undo"]);
    assert!(out.starts_with("The node is stopped. Removed: "), "{out}");
    assert!(!is_running(pid));
    assert_eq!(home.files(), [home.path().join("line")]);
    let (code, stderr) = home.fail(&["quickstart", "--undo"]);
    assert_eq!((code, stderr.contains("there is no quickstart here")), (Some(5), true), "{stderr}");
}

/// The report is what a newcomer types next.
#[test]
fn the_commands_that_it_prints_work() {
    let home = Home::new();
    let dir = home.path().join("demo");
    home.succeed(&["profile", "set", "prod", "--addr", "127.0.0.1:1"]);
    let report = home.succeed(&["quickstart", "--port", "0", "--dir", "demo"]);
    for line in [
        "  seriatim consume --profile quickstart --from earliest",
        "  seriatim status --profile quickstart",
        &format!("  seriatim serve --config {} &", dir.join("seriatim.toml").display()),
        &format!("  seriatim quickstart --undo --dir {}", dir.display()),
    ] {
        assert!(report.lines().any(|found| found == line), "{line}: {report}");
    }
    assert!(home.succeed(&["profile", "list"]).contains("* prod"), "the current profile stays");
    home.succeed(&["consume", "--profile", "quickstart", "--from", "earliest"]);

    // Stopped and started again as it says, it has its record; --undo does not remove the data of a running node.
    let stop = report.lines().find_map(|line| line.strip_prefix("  kill ")).expect("a process");
    let pid: u64 = stop.parse().expect("a number");
    let status = Command::new("sh").args(["-c", &format!("kill {pid}")]).status().expect("it ran");
    assert!(status.success());
    let begin = std::time::Instant::now();
    while is_running(pid) {
        assert!(begin.elapsed() < crate::harness::TIMEOUT, "it does not stop");
        std::thread::yield_now();
    }
    let config = dir.join("seriatim.toml").display().to_string();
    let mut again =
        home.command(&["serve", "--config", &config]).stdout(std::process::Stdio::piped()).spawn().expect("runs");
    let mut line = String::new();
    let stdout = again.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert!(line.starts_with("ready node=n1 "), "{line}");
    let out = home.succeed(&["consume", "--profile", "quickstart", "--from", "earliest"]);
    assert_eq!(out, "hello from seriatim quickstart\n");
    let undo = ["quickstart", "--undo", "--dir", "demo"];
    let (code, stderr) = home.fail(&undo);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("a node still uses ") && stderr.contains("nothing was removed"), "{stderr}");
    again.kill().expect("killed");
    again.wait().expect("ends");
    fs::write(dir.join("note"), "of the user").expect("written");
    assert!(home.succeed(&undo).contains("Other files are left in the directory."));
    assert_eq!(fs::read_dir(&dir).expect("listed").count(), 1);
    assert_eq!(home.succeed(&["profile", "list"]).lines().count(), 1);
}

#[test]
fn refuses_what_it_would_overwrite_and_leaves_nothing_after_a_failure() {
    let home = Home::new();
    // A port that is taken.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, stderr) = home.fail(&["quickstart", "--port", &port]);
    assert_eq!(code, Some(1), "{stderr}");
    for part in [&format!("127.0.0.1:{port} can't be used: another process listens there"), "--port", "ss -ltnp"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert_eq!(home.files(), [] as [PathBuf; 0]);

    // A directory with something in it.
    fs::create_dir_all(home.path().join("full")).expect("a directory");
    fs::write(home.path().join("full/file"), "").expect("a file");
    let (code, stderr) = home.fail(&["quickstart", "--port", "0", "--dir", "full"]);
    assert_eq!((code, stderr.contains("full is not empty; nothing was changed")), (Some(4), true), "{stderr}");

    // A place that can't be written to: root ignores permissions, but not the kernel.
    let (code, stderr) = home.fail(&["quickstart", "--port", "0", "--dir", "/proc/none"]);
    assert_eq!((code, stderr.contains("/proc/none: ")), (Some(1), true), "{stderr}");
    let (code, stderr) = home.fail(&["quickstart", "--port", "0", "--dir", "full/file/dir"]);
    assert_eq!((code, stderr.contains("--dir")), (Some(1), true), "{stderr}");

    // A profile of that name.
    home.succeed(&["profile", "set", "quickstart", "--addr", "n1"]);
    let (code, stderr) = home.fail(&["quickstart", "--port", "0"]);
    assert_eq!((code, stderr.contains("a profile \"quickstart\" exists already")), (Some(4), true), "{stderr}");
    assert!(!home.dir().exists());

    // Without a home.
    let mut homeless = home.command(&["quickstart", "--port", "0"]);
    let (code, _, stderr) = outcome(&homeless.env_remove("HOME").output().expect("it ran"));
    assert_eq!((code, stderr.contains("HOME")), (Some(78), true), "{stderr}");
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left_on_it() {
    let home = Home::new();
    let dir = home.path().join("disk");
    let Some(_tmpfs) = Tmpfs::mount("quickstart on a full disk", &dir, 16) else { return };
    fill(&dir.join("foreign"));
    let place = dir.join("quickstart").display().to_string();
    let (code, stderr) = home.fail(&["quickstart", "--port", "0", "--dir", &place]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(stderr.contains("All files of this attempt are removed."), "{stderr}");
    assert!(!dir.join("quickstart").exists());

    // Room for the files, and not for records: the node refuses them before the disk is full.
    fs::remove_file(dir.join("foreign")).expect("removed");
    fs::write(dir.join("foreign"), vec![1; (16 << 20) - (700 << 10)]).expect("most of the disk");
    let (_, stderr) = home.fail(&["quickstart", "--port", "0", "--dir", &place]);
    assert!(stderr.contains("All files of this attempt are removed."), "{stderr}");
    assert!(stderr.contains("is full") || stderr.contains("No space left"), "{stderr}");
    assert!(!dir.join("quickstart").exists());
}
