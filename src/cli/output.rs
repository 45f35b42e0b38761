//! Writes results to standard output, and messages to standard error. Subcommands must not use `println!` and
//! `eprintln!`, which panic if writing fails.
//!
//! A closed pipe is not a failure (`seriatim status | head -1`). Any other error on standard output is a failure.
//! Errors on standard error are ignored.

use std::io::{self, ErrorKind, Write as _};

use serde_json::Value;

use super::exit::{Exit, Failure};

/// How a command prints its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Text for humans; it may change between versions
    #[default]
    Table,
    /// One JSON object, for programs
    Json,
}

/// The option for the output format.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// Output format. In JSON, offsets, sizes and times are numbers, and ids are strings
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    output: OutputFormat,
    /// Same as --output json
    #[arg(long, hide = true)]
    json: bool,
}

impl OutputArgs {
    /// Returns whether the result is printed as JSON.
    pub fn is_json(self) -> bool {
        self.json || self.output == OutputFormat::Json
    }

    /// Formats a result as text, or as one line of JSON.
    pub fn format(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> String {
        if self.is_json() { format!("{}\n", json()) } else { text() }
    }

    /// Writes a result to standard output.
    ///
    /// # Errors
    /// If writing fails, unless the pipe is closed.
    pub fn say(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<(), Failure> {
        say(&self.format(text, json))
    }

    /// Confirms a change on standard output, as [`confirm`] does.
    pub fn confirm(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
        confirm(&self.format(text, json));
    }
}

/// Formats rows in columns. The first row is the heading. The last column may contain spaces and be of any width.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let last = N.saturating_sub(1);
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(i, (cell, width))| if i == last { cell.clone() } else { format!("{cell:width$}  ") });
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

/// Replaces control characters, with which a text of somebody else could change what a terminal shows.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

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
