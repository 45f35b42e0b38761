//! The command line: one file per subcommand.
//!
//! Adding a subcommand takes an entry in the table in `command.rs`, and its file with an implementation of
//! [`Subcommand`](subcommand::Subcommand), whose doc comment is the help text. `seriatim --help` lists all subcommands.
//!
//! An option is given by a flag, otherwise by an environment variable (`SERIATIM_...`), and for `serve` otherwise in a TOML
//! file. Records are written to standard output, and messages for the user to standard error. `exit.rs` has the table of exit codes.

pub mod command;
pub mod connect;
mod descriptors;
pub mod exit;
mod interrupt;
mod journal;
pub mod subcommand;

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
