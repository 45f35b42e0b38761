//! The command line: one file per subcommand.
//!
//! A new subcommand needs an entry in the table below, and a module with an implementation of
//! [`Subcommand`](subcommand::Subcommand), whose doc comment is the help text. `seriatim --help` lists all subcommands.
//!
//! An option is given by a flag, otherwise by an environment variable (`SERIATIM_...`), and otherwise in a TOML file:
//! that of --config for `serve`, and that with the profiles (`profiles.rs`) for commands that connect. Records are
//! written to standard output, and messages for the user to standard error. `exit.rs` has the table of exit codes.

pub mod command;
mod config_reload;
mod connect;
mod descriptors;
pub mod dialer;
mod environment;
pub mod exit;
mod interrupt;
mod journal;
pub mod log_name;
mod profiles;
pub mod subcommand;

pub mod auth;
pub mod backup;
pub mod certs;
pub mod cluster;
pub mod cluster_set;
pub mod completion;
pub mod config_cmd;
pub mod consume;
pub mod cursor;
pub mod dump;
pub mod log_admin;
pub mod log_create;
pub mod log_delete;
mod log_limits;
pub mod log_list;
pub mod man;
pub mod node;
pub mod node_admin;
pub mod produce;
mod producer;
pub mod profile;
pub mod quickstart;
pub mod recover;
pub mod serve;
pub mod status;
pub mod top;
pub mod verify;
pub mod version;

mod encode;
mod lines;
mod log_settings;
mod log_show;
mod output;
mod pipeline;
mod progress;
mod reader_cursor;
pub mod receipt;
mod record_shape;
mod units;

#[cfg(test)]
mod fuzz;

use subcommand::Entry;

/// All subcommands, in the order of `seriatim --help`.
const SUBCOMMANDS: &[Entry] = &[
    Entry::of::<quickstart::Args>(),
    Entry::of::<serve::Args>(),
    Entry::of::<produce::Args>(),
    Entry::of::<consume::Args>(),
    Entry::of::<status::Args>(),
    Entry::of::<top::Args>(),
    Entry::group("log", "Create, inspect, change and delete logs", LOG_SUBCOMMANDS),
    Entry::group("cursor", "Inspect, move and delete the stored positions of readers", CURSOR_SUBCOMMANDS),
    Entry::group("cluster", "Inspect and administer the cluster", CLUSTER_SUBCOMMANDS),
    Entry::group("node", "Inspect the nodes", NODE_SUBCOMMANDS),
    Entry::group("backup", "Copy a log to files, and restore it", BACKUP_SUBCOMMANDS),
    Entry::of::<recover::Args>(),
    Entry::group("data", "Check and read the data directory of a stopped node", DATA_SUBCOMMANDS),
    Entry::of::<certs::Args>(),
    Entry::group("config", "Check and show the configuration of a node", CONFIG_SUBCOMMANDS),
    Entry::group("auth", "Print your identity and rights, and check access policies", AUTH_SUBCOMMANDS),
    Entry::group("profile", "Name sets of connection options", PROFILE_SUBCOMMANDS),
    Entry::of::<completion::Args>(),
    Entry::of::<version::Args>(),
    Entry::of::<man::Args>().hidden(),
];

const LOG_SUBCOMMANDS: &[Entry] = &[
    Entry::of::<log_create::CreateArgs>(),
    Entry::of::<log_list::ListArgs>(),
    Entry::of::<log_admin::InfoArgs>(),
    Entry::of::<log_admin::SetArgs>().formerly(&["configure"]),
    Entry::of::<log_admin::TrimArgs>(),
    Entry::of::<log_delete::DeleteArgs>(),
    Entry::of::<log_delete::UndeleteArgs>(),
    Entry::of::<receipt::get::Args>(),
    Entry::of::<receipt::prove::Args>(),
    Entry::of::<receipt::verify::Args>(),
    Entry::of::<verify::Args>().hidden(),
    Entry::of::<dump::Args>().hidden(),
];

const CURSOR_SUBCOMMANDS: &[Entry] =
    &[Entry::of::<cursor::ListArgs>(), Entry::of::<cursor::SetArgs>(), Entry::of::<cursor::DeleteArgs>()];

const CLUSTER_SUBCOMMANDS: &[Entry] = &[
    Entry::of::<cluster::InfoArgs>(),
    Entry::of::<status::Args>(),
    Entry::of::<cluster_set::SetArgs>(),
    Entry::of::<node_admin::BalanceArgs>(),
    Entry::of::<node_admin::LeadArgs>(),
    Entry::of::<cluster::UpgradeArgs>(),
];

const BACKUP_SUBCOMMANDS: &[Entry] = &[
    Entry::of::<backup::create::CreateArgs>(),
    Entry::of::<backup::inspect::VerifyArgs>(),
    Entry::of::<backup::inspect::InfoArgs>(),
    Entry::of::<backup::restore::RestoreArgs>(),
];

const DATA_SUBCOMMANDS: &[Entry] = &[Entry::of::<verify::Args>(), Entry::of::<dump::Args>()];

const PROFILE_SUBCOMMANDS: &[Entry] = &[
    Entry::of::<profile::ListArgs>(),
    Entry::of::<profile::SetArgs>(),
    Entry::of::<profile::UseArgs>(),
    Entry::of::<profile::ShowArgs>(),
];

const AUTH_SUBCOMMANDS: &[Entry] =
    &[Entry::of::<auth::WhoAmIArgs>(), Entry::of::<auth::CanIArgs>(), Entry::of::<auth::CheckPolicyArgs>()];

const NODE_SUBCOMMANDS: &[Entry] = &[
    Entry::of::<node::ListArgs>(),
    Entry::of::<node::InfoArgs>(),
    Entry::of::<node_admin::DrainArgs>(),
    Entry::of::<node_admin::UndrainArgs>(),
    Entry::of::<node_admin::RemoveArgs>(),
    Entry::of::<node_admin::ReplaceArgs>(),
];

const CONFIG_SUBCOMMANDS: &[Entry] = &[Entry::of::<config_cmd::CheckArgs>(), Entry::of::<config_cmd::ShowArgs>()];
