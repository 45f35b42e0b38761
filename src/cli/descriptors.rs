//! A standard stream that is closed is /dev/null.
//!
//! Rust sees to that before `main`; but gRPC's core makes an eventfd while it is loaded, which is earlier, and gets the lowest
//! number that is free. Then `seriatim produce <&-` reads from it, and what `seriatim consume >&-` writes goes to the core.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::exit::{Exit, Failure};

/// Starts the program again, in its own place, when the core has taken the number of a standard stream.
///
/// # Errors
/// When it can't be started again.
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
    Err(Failure::new(Exit::Failed, format!("a standard stream is closed, and /dev/null can't stand in: {error}"), ""))
}
