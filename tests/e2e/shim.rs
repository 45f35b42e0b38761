//! Fault injection into a node's process: `tests/shim/shim.c`, loaded by LD_PRELOAD. That file documents the faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, Site};

pub struct Shim {
    library: PathBuf,
}

/// A fault to inject into a process.
pub enum Fault<'a> {
    /// The power fails. The number is the seed that chooses which unsynced data is lost.
    Cut(u64),
    /// The next write to a file whose path contains this text fails with EIO after half of its bytes.
    WriteError(&'a str),
    /// Every read of this 4096-byte block of such a file fails with EIO.
    ReadError(&'a str, u64),
    /// Every write to such a file fails with ENOSPC.
    WriteFull(&'a str),
    /// The next sync of such a file fails with EIO, and the data that it covers is lost.
    SyncError(&'a str),
    /// The next sync of such a file does not return.
    SyncHang(&'a str),
    /// Every sync takes this many milliseconds longer.
    SyncSlow(u64),
    /// The wall clock is this many seconds ahead of the machine's.
    Clock(i64),
}

impl Shim {
    /// Compiles the shim with the C compiler that the build needs anyway.
    #[track_caller]
    pub fn compile(site: &Site) -> Shim {
        let library = site.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/shim.c");
        let output = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([library.as_path(), source.as_path()])
            .args(["-ldl", "-pthread"])
            .output()
            .expect("a C compiler, as the build needs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Shim { library }
    }

    /// Returns the environment of a process whose data is in `data_dir`. With `cut_ops` the power fails at that operation.
    pub fn env(&self, data_dir: &Path, cut_ops: Option<u64>, seed: u64) -> Vec<(String, String)> {
        let mut env = vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("SHIM_DIR".to_owned(), data_dir.display().to_string()),
            ("SHIM_SEED".to_owned(), seed.to_string()),
        ];
        env.extend(cut_ops.map(|ops| ("SHIM_CUT_OPS".to_owned(), ops.to_string())));
        env
    }

    /// Compiles the shim and starts a cluster whose nodes all run with it.
    #[track_caller]
    pub fn cluster(nodes: usize) -> (Shim, Cluster) {
        let site = Site::new();
        let shim = Shim::compile(&site);
        let root = site.path().to_owned();
        let cluster = Cluster::start_at(site, nodes, &[], |name| shim.env(&root.join(name), None, 1));
        (shim, cluster)
    }

    /// Removes a fault that the process may not have read before it exited.
    pub fn withdraw(&self, data_dir: &Path) {
        let _ = fs::remove_file(data_dir.with_extension("control"));
    }

    /// Injects a fault into a node of a cluster, now. Nodes count from 0.
    pub fn inject_node(&self, cluster: &Cluster, node: usize, fault: &Fault<'_>) {
        self.inject(&cluster.site.path().join(format!("n{}", node + 1)), fault);
    }

    /// Injects a fault into the process whose data is in `data_dir`, now.
    pub fn inject(&self, data_dir: &Path, fault: &Fault<'_>) {
        let text = match fault {
            Fault::Cut(seed) => format!("cut {seed}"),
            Fault::WriteError(name) => format!("write-error {name}"),
            Fault::ReadError(name, block) => format!("read-error {name}@{block}"),
            Fault::WriteFull(name) => format!("write-full {name}"),
            Fault::SyncError(name) => format!("sync-error {name}"),
            Fault::SyncHang(name) => format!("sync-hang {name}"),
            Fault::SyncSlow(millis) => format!("sync-slow {millis}"),
            Fault::Clock(seconds) => format!("clock {seconds}"),
        };
        let (new, control) = (data_dir.with_extension("new"), data_dir.with_extension("control"));
        fs::write(&new, text).expect("written");
        fs::rename(&new, &control).expect("renamed, so that the shim reads a complete file");
    }
}
