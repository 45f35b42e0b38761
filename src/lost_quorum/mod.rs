//! `seriatim recover`: a stopped node continues alone as the founder of a new cluster, after the majority of its cluster
//! is lost for good.
//!
//! ```text
//!   data directory ──▶ survey ──▶ plan ──▶ perform ──▶ storage/recover/roll_forward.rs
//!                       (what is    (what becomes of     (one atomic step, then
//!                        here)       each log)            changes that a crash may interrupt)
//! ```
//!
//! - [`survey`] reads the directory and changes nothing.
//! - [`plan`] decides what becomes of each log; what would be lost needs the consent of the operator.
//! - [`compare`] reads what other survivors have.
//! - [`perform`] changes the directory.
//!
//! # What is kept, and what is lost
//!
//! Every entry of the replica is kept, committed or not: one above the commit index may have been acknowledged, and a
//! majority of the other nodes may know that. It may also be of a leader that was replaced. Then the lost nodes may have
//! acknowledged other records at the same offsets. So only the records below the commit index are certain, and a log of
//! which this is possible gets a new id.
//!
//! # When the id of a log stays
//!
//! The id of a log promises its readers one history. It stays only if no record that this node lacks can have been
//! acknowledged or read: if the lost nodes alone were never a majority of the log's voters. That is so if the lost voters
//! are fewer than a majority in the conf state that this replica knows, before its last change, and after each conf change
//! in its log.
//!
//! Proof. Let e be the first committed entry that is not in this replica's log. All conf changes before e are committed,
//! so they are in this log. A leader counts by the conf state that it has applied, which may lag by one change: it proposes
//! a change only after it has applied the one before. So e was committed by a majority of the voters after one of these
//! changes, or before the last one that this replica has applied. This majority contains a survivor, so a survivor has e on its disk, as acknowledgements follow a sync. Of the survivors, this replica has the
//! highest last term and the highest index in it, and by the argument of Raft's Leader Completeness its log contains all
//! committed entries that any of them has. A contradiction.
//!
//! In practice: a log with one replica, on this node; one with two replicas, which needs both for each append; or an
//! even number of voters of which exactly half are lost, and the survivors were compared.

pub mod compare;
pub mod perform;
pub mod plan;
pub mod survey;

#[cfg(test)]
pub(crate) mod tests;
