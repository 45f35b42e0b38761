//! Opens /dev/null for each standard stream that is closed.
//!
//! Rust's runtime does this before `main`. But gRPC's core creates an eventfd even earlier, when it is loaded, and
//! this gets the lowest free descriptor. So `seriatim produce <&-` would read from the eventfd, and `seriatim consume
//! >&-` would write to it.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::exit::{Exit, Failure};

/// Executes the program again, with /dev/null, if gRPC's core has taken the descriptor of a standard stream.
///
/// # Errors
/// If the program can't be executed again.
pub(super) fn keep_standard_streams() -> Result<(), Failure> {
    let taken = ["0", "1", "2"].map(|number| {
        let what = fs::read_link(Path::new("/proc/self/fd").join(number));
        what.is_ok_and(|what| what == Path::new("anon_inode:[eventfd]"))
    });
    if taken == [false; 3] {
        return Ok(());
    }
    let mut again = Command::new("/proc/self/exe");
    let mut args = env::args_os();
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    again.args(args);
    if taken[0] {
        again.stdin(Stdio::null());
    }
    if taken[1] {
        again.stdout(Stdio::null());
    }
    if taken[2] {
        again.stderr(Stdio::null());
    }
    let error = again.exec();
    Err(Failure::new(
        Exit::Failed,
        format!("a standard stream is closed, and can't be replaced by /dev/null: {error}"),
        "",
    ))
}
