//! Writes results to standard output, and messages to standard error. Subcommands must not use `println!` and
//! `eprintln!`, which panic if writing fails.
//!
//! A closed pipe is not a failure (`seriatim status | head -1`). Any other error on standard output is a failure.
//! Errors on standard error are ignored.

use std::io::{self, ErrorKind, Write as _};

use super::exit::{Exit, Failure};

/// Writes a result to standard output.
///
/// # Errors
/// If writing fails, unless the pipe is closed.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Confirms a change on standard output. If writing fails, the subcommand does not fail, because the change is done;
/// it only prints the reason on standard error.
pub(super) fn confirm(text: &str) {
    if let Err(failure) = say(text) {
        tell(&format!("seriatim: done, but {failure}"));
    }
}

/// Writes a line to standard error. Errors are ignored.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Converts the result of writing to, or flushing, standard output.
///
/// # Errors
/// As [`say`].
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("can't write to standard output: {error}"), ""))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
