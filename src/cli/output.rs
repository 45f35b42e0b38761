//! What a command says on stdout. A reader that has gone is no failure (`seriatim status | head -1`); an output that can't be
//! written is one, with an exit code of the table: `println!` would panic at both.

use std::io::{self, ErrorKind, Write as _};

use super::exit::{Exit, Failure};

/// Writes `text` to stdout.
///
/// # Errors
/// When it can't be written, but for a reader that has gone.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What a write to stdout, or a flush, came to.
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
