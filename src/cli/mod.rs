//! The command line: one file per subcommand.
//!
//! A new subcommand needs an entry in the table below, and a module with an implementation of
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
pub mod cluster;
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

use subcommand::Entry;

/// All subcommands, in the order of `seriatim --help`.
const SUBCOMMANDS: &[Entry] = &[
    Entry::of::<serve::Args>(),
    Entry::of::<produce::Args>(),
    Entry::of::<consume::Args>(),
    Entry::of::<status::Args>(),
    Entry::group("log", "Inspect and configure a log, or the log files of a stopped node", LOG_SUBCOMMANDS),
    Entry::group("cluster", "Administer the cluster", CLUSTER_SUBCOMMANDS),
    Entry::of::<certs::Args>(),
];

const LOG_SUBCOMMANDS: &[Entry] = &[
    Entry::of::<log_admin::InfoArgs>(),
    Entry::of::<log_admin::ConfigureArgs>(),
    Entry::of::<log_admin::TrimArgs>(),
    Entry::of::<verify::Args>(),
    Entry::of::<dump::Args>(),
];

const CLUSTER_SUBCOMMANDS: &[Entry] = &[Entry::of::<cluster::UpgradeArgs>()];
