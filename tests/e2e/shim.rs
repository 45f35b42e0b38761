//! A process with a disk that fails: `tests/shim/shim.c`, put before libc by LD_PRELOAD. That file says what it can do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, Site};

/// The compiled shim.
pub struct Shim {
    library: PathBuf,
}

/// What is to happen to a process.
pub enum Order<'a> {
    /// The power goes; the number chooses what of the unsynced is lost.
    Cut(u64),
    /// The next write to a file of such a name fails with EIO, half done.
    WriteError(&'a str),
    /// Every read of this block of 4096 bytes of a file of such a name fails with EIO.
    ReadError(&'a str, u64),
    /// Every write to a file of such a name fails with ENOSPC.
    WriteFull(&'a str),
    /// The next sync of a file of such a name fails with EIO, and what it should have written is lost.
    SyncError(&'a str),
    /// The next sync of a file of such a name does not come back.
    SyncHang(&'a str),
    /// Every sync takes this many milliseconds longer.
    SyncSlow(u64),
    /// The wall clock is so many seconds ahead of the machine's.
    Clock(i64),
}

impl Shim {
    /// Compiles it, with the compiler that the build needs anyway.
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

    /// The environment of a process whose data is in `data_dir`. With `cut_ops` the power goes at that operation.
    pub fn env(&self, data_dir: &Path, cut_ops: Option<u64>, seed: u64) -> Vec<(String, String)> {
        let mut env = vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("SHIM_DIR".to_owned(), data_dir.display().to_string()),
            ("SHIM_SEED".to_owned(), seed.to_string()),
        ];
        env.extend(cut_ops.map(|ops| ("SHIM_CUT_OPS".to_owned(), ops.to_string())));
        env
    }

    /// Compiles it and starts a cluster whose nodes all run with it.
    #[track_caller]
    pub fn cluster(nodes: usize) -> (Shim, Cluster) {
        let site = Site::new();
        let shim = Shim::compile(&site);
        let root = site.path().to_owned();
        let cluster = Cluster::start_at(site, nodes, &[], |name| shim.env(&root.join(name), None, 1));
        (shim, cluster)
    }

    /// Takes an order back that a process which is gone may not have taken.
    pub fn withdraw(&self, data_dir: &Path) {
        let _ = fs::remove_file(data_dir.with_extension("control"));
    }

    /// Orders something to happen to a node of a cluster, now; nodes count from 0.
    pub fn order_node(&self, cluster: &Cluster, node: usize, order: &Order<'_>) {
        self.order(&cluster.site.path().join(format!("n{}", node + 1)), order);
    }

    /// Orders something to happen to the process whose data is in `data_dir`, now.
    pub fn order(&self, data_dir: &Path, order: &Order<'_>) {
        let text = match order {
            Order::Cut(seed) => format!("cut {seed}"),
            Order::WriteError(name) => format!("write-error {name}"),
            Order::ReadError(name, block) => format!("read-error {name}@{block}"),
            Order::WriteFull(name) => format!("write-full {name}"),
            Order::SyncError(name) => format!("sync-error {name}"),
            Order::SyncHang(name) => format!("sync-hang {name}"),
            Order::SyncSlow(millis) => format!("sync-slow {millis}"),
            Order::Clock(seconds) => format!("clock {seconds}"),
        };
        let (new, control) = (data_dir.with_extension("new"), data_dir.with_extension("control"));
        fs::write(&new, text).expect("written");
        fs::rename(&new, &control).expect("renamed: the shim sees the whole of it");
    }
}
