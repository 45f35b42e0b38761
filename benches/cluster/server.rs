//! The processes of peers: programs on the PATH, ports, and directories.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A peer's node. Killed when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program, and writes its output to the file `NAME.log` of the directory.
    pub fn start(program: &str, name: &str, dir: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Server {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).expect("a log file");
        let child = Command::new(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log file"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| panic!("{program} does not start: {e}"));
        Server { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the last lines of {}", self.log.display());
            lines.iter().skip(lines.len().saturating_sub(20)).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Returns free ports of 127.0.0.1. The peers can't bind port 0, because each must be told the ports of the others.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Returns the first line of a program's `--version`, if it is on the PATH.
pub fn version(program: &str) -> Option<String> {
    let output = is_on_path(program).then(|| Command::new(program).arg("--version").output())?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default().trim();
    Some(if line.starts_with(program) { line.to_owned() } else { format!("{program}: {line}") })
}

/// Returns true if the files of a directory are in memory only.
pub fn is_in_memory(dir: &Path) -> bool {
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == TMPFS)
}
