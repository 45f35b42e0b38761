//! Writes results to standard output, and messages to standard error. Subcommands do not use `println!` and `eprintln!`, which panic if
//! the stream can't be written.
//!
//! A closed pipe is not a failure (`seriatim status | head -1`). Any other error on standard output is a failure with an exit code.
//! Errors on standard error are ignored.

use std::io::{self, ErrorKind, Write as _};

use super::exit::{Exit, Failure};

/// Writes a result to standard output.
///
/// # Errors
/// If it can't be written, unless the pipe is closed.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Confirms a change on standard output. The change is done: if the confirmation can't be written, the subcommand does not fail, and
/// prints the reason on standard error.
pub(super) fn confirm(text: &str) {
    if let Err(failure) = say(text) {
        tell(&format!("seriatim: done, but {failure}"));
    }
}

/// Writes a line to standard error. Errors are ignored.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Converts the result of a write to standard output, or of a flush.
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
