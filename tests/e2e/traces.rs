//! What a node within this process must not leave behind: threads, ports, files.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::harness::eventually;

/// Threads that gRPC's C core keeps for the process, whoever used it.
const OF_C_CORE: [&str; 6] =
    ["grpc_global_tim", "default-executo", "resolver-execut", "timer_manager", "event_engine", "grpc_shutdown"];

/// The threads of this process, by name.
pub struct Traces(BTreeMap<String, usize>);

impl Traces {
    /// What is there now.
    pub fn take() -> Traces {
        Traces(threads())
    }

    /// Nothing more is there than before: no thread, nobody listens at these addresses, the folder was not left open.
    #[track_caller]
    pub fn assert_nothing_left(&self, addrs: &[SocketAddr], dir: &Path) {
        // A joined thread stays in /proc for a moment.
        eventually("no thread is left", || {
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
        assert!(!dir.exists(), "{} is still there", dir.display());
    }
}

fn threads() -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc").flatten() {
        // The thread may have ended meanwhile.
        if let Ok(name) = fs::read_to_string(task.path().join("comm")) {
            *names.entry(name.trim_end().to_owned()).or_default() += 1;
        }
    }
    // Tests that wait for their turn: their threads are named like the tests.
    names.retain(|name: &String, _| !name.contains("::"));
    names
}

/// Open files and mapped ones.
fn open_files() -> Vec<String> {
    let fds = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let mut files: Vec<String> =
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned)).collect();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    files.extend(maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| format!("/{path}")));
    files
}
