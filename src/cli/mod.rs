//! The command line: one file per subcommand.
//!
//! ```text
//!   seriatim serve     runs a node
//!   seriatim produce   lines (or one whole file) into a log
//!   seriatim consume   records out of a log
//!   seriatim status    every node: role, term, commit, lag
//!   seriatim log       what is there of a log; how it is kept; trim; verify or dump a stopped node's directory
//!   seriatim certs     a development CA and certificates
//! ```
//!
//! An option is given by a flag, else by the environment (`SERIATIM_...`), and for `serve` else by a TOML file. Records
//! go to stdout, everything said to people goes to stderr. The exit code says what became of it: `exit.rs` has the table.

pub mod command;
pub mod connect;
mod descriptors;
pub mod exit;
mod interrupt;
mod journal;

pub mod certs;
pub mod consume;
pub mod dump;
pub mod log_admin;
pub mod produce;
pub mod serve;
pub mod status;
pub mod verify;

mod encode;
mod lines;
mod output;
mod pipeline;
mod progress;
pub mod record_shape;
mod units;

#[cfg(test)]
mod fuzz;
