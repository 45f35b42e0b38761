//! A small file system in memory, as the disk of a node. Needs root to mount; otherwise the tests are skipped with a message.
//! `SERIATIM_TEST_TMPFS=required` (CI) makes that a failure.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::harness::print_uncaptured;

/// Uses all free space.
pub fn fill(path: &Path) {
    let mut file = File::options().create(true).append(true).open(path).expect("a file");
    let bytes = vec![1; 1 << 16];
    let mut step = bytes.len();
    while step > 0 {
        if file.write(&bytes[..step]).is_err() {
            step /= 2;
        }
    }
}

/// A tmpfs with a symbolic link to it; unmounted when dropped.
pub struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// Mounts a tmpfs of so many MiB. Returns `None` if this process may not, and prints that `what` is skipped.
    pub fn mount(what: &str, link: &Path, mib: u32) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(dir.path(), link).expect("a link");
        let size = format!("size={mib}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "seriatim-test"]).arg(dir.path()).output();
        let why = match output {
            Ok(output) if output.status.success() => return Some(Tmpfs(dir)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let required = std::env::var("SERIATIM_TEST_TMPFS").is_ok_and(|v| v == "required");
        assert!(!required, "a tmpfs can't be mounted: {why}");
        print_uncaptured(&format!("SKIPPED: {what}, which needs root to mount a tmpfs: {why}"));
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, since the node's process may not have exited yet.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
