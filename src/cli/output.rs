//! What a command writes to stdout and stderr. The macros `println!` and `eprintln!` panic if the stream can't be written,
//! so no command uses them.
//!
//! A reader that has gone is no failure (`seriatim status | head -1`). A result that can't be written is one, with an exit
//! code of the table. Messages on stderr never change the outcome.

use std::io::{self, ErrorKind, Write as _};

use super::exit::{Exit, Failure};

/// Writes a result to stdout.
///
/// # Errors
/// If it can't be written, except if the reader has gone.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes the confirmation of a change to stdout. The change is done: if the confirmation can't be written, that is said on
/// stderr and does not make the command fail.
pub(super) fn confirm(text: &str) {
    if let Err(failure) = say(text) {
        tell(&format!("seriatim: done, but {failure}"));
    }
}

/// Writes a line to stderr. Errors are ignored: there is no other place to report them.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Converts the result of a write to stdout, or of a flush.
///
/// # Errors
/// As [`say`].
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("standard output can't be written: {error}"), ""))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
