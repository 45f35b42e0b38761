//! Checks that a node which stopped in this process has released its threads, ports and files.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::harness::eventually;

/// Threads that gRPC's C core keeps as long as the process runs.
const OF_C_CORE: [&str; 6] =
    ["grpc_global_tim", "default-executo", "resolver-execut", "timer_manager", "event_engine", "grpc_shutdown"];

/// The threads of this process at one time, by name.
pub struct LeakCheck(BTreeMap<String, usize>);

impl LeakCheck {
    pub fn start() -> LeakCheck {
        LeakCheck(threads())
    }

    /// Asserts that no thread is new, these addresses are free, and `dir` is removed and not open.
    #[track_caller]
    pub fn assert_no_leaks(&self, addrs: &[SocketAddr], dir: &Path) {
        // A joined thread remains in /proc for a moment.
        eventually("no thread is leaked", || {
            let mut left = threads();
            left.retain(|name, count| *count > self.0.get(name).copied().unwrap_or(0));
            left.retain(|name, _| !OF_C_CORE.contains(&name.as_str()));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        for addr in addrs {
            TcpListener::bind(addr).unwrap_or_else(|e| panic!("{addr} is not free: {e}"));
        }
        let open: Vec<String> =
            open_files().into_iter().filter(|file| file.starts_with(&*dir.to_string_lossy())).collect();
        assert!(open.is_empty(), "still open: {open:?}");
        assert!(!dir.exists(), "{} still exists", dir.display());
    }
}

fn threads() -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc").flatten() {
        // The thread may have exited meanwhile.
        if let Ok(name) = fs::read_to_string(task.path().join("comm")) {
            *names.entry(name.trim_end().to_owned()).or_default() += 1;
        }
    }
    // The threads of waiting tests, which have the tests' names.
    names.retain(|name: &String, _| !name.contains("::"));
    names
}

/// Returns the paths of open and of mapped files.
fn open_files() -> Vec<String> {
    let fds = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let mut files: Vec<String> =
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned)).collect();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    files.extend(maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| format!("/{path}")));
    files
}
