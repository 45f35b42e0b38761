//! The catalog: the members of the cluster, its logs and their settings, and the policy by which a node acts on them.
//!
//! ```text
//!   records of group 0 ──▶ command ──▶ state ──▶ view ──▶ api, replication, membership
//!                          (decode)   (apply)      │
//!                                                  ▼
//!   replicas of this node, time ───────────────▶ policy ──▶ actions ──▶ consensus performs them
//! ```
//!
//! - [`meta`]: members, logs and their limits.
//! - [`command`]: the commands and their encoding.
//! - [`state`]: the state machine. Applying a command is a pure function of the state, the same on every node.
//! - [`view`]: the newest applied catalog, for other threads.
//! - [`policy`]: decides what this node does next to bring the cluster to the state that the catalog describes: which
//!   replicas it creates, which nodes vote, whether another node may join, and what is trimmed. It is a pure state
//!   machine, too: its inputs are the catalog, facts about replicas and the time; its outputs are actions.
//!
//! - `snapshot`: the state as bytes.
//! - [`recovered`]: the state with which one node continues after the others are lost for good.
//!
//! Group 0's log contains only commands. It is trimmed up to the snapshots that each node writes, and what follows the
//! newest snapshot is replayed at each start. `consensus` does both.
//!
//! # How to add a command
//!
//! 1. `proto/seriatim/catalog/v1/catalog.proto`: a message, and a field for it in `Command`.
//! 2. `command.rs`: a variant in the table `commands!`, with the name of the message, and the message's `store` and
//!    `load`.
//! 3. `apply.rs`: an arm in `Catalog::change`, which checks the command against the state and returns the change. If
//!    the command changes a new kind of item, that kind is a field of `Catalog` and a variant of `Change`, and
//!    `snapshot.rs` stores it.
//! 4. `tests/mod.rs` and `tests/script.rs`: a sample in `samples()`, and the command's syntax for the scripts in
//!    `tests/scripts/`.
//!
//! Once the message exists, the compiler finds steps 2 and 3. An older version refuses the new command by its number:
//! it does not write the entry, and does not start with a log that contains it. So a new command, or a new field of
//! an existing one, is proposed only once every member knows it.

mod apply;
pub mod command;
pub mod conflict;
pub(crate) mod faults;
pub mod meta;
mod nodes;
pub mod plans;
pub mod policy;
pub mod recovered;
mod replicas;
mod snapshot;
pub mod state;
pub mod view;

pub use command::{BadCommand, Command};
pub use conflict::Conflict;
pub use meta::{
    ClusterSettings, EffectiveSettings, LogMeta, LogSettings, Member, NewLog, Origin, Placement, is_address,
};
pub use plans::{Destination, Plan};
pub use state::{Applied, Catalog, Touched};
pub use view::CatalogView;

#[cfg(test)]
mod tests;
