//! The proof of storage: tests of what it must survive. `broken.rs` shows that these tests detect every broken rule.
//!
//! ```text
//!   entries.rs    random entries, with records, producers and cursors
//!   plain.rs      random operations, reopens among them, against a plain Vec
//!   model.rs      a log, and the states that it may be in after a crash
//!   histories.rs  random steps of a model and random crashes, by a seed
//!   story.rs      one scripted life of a data directory, stopped at every change of the disk, and again inside recovery
//!   replicas.rs   one scripted life of a node whose replicas come and go, stopped at every change of the disk
//!   recovery.rs   a recovery after a lost quorum, stopped at every change of the disk
//!   sweep.rs      every byte of a stopped directory damaged, one at a time
//!   holes.rs      damage and frames of a newer version under a running log: valid records are served, lost ones are named exactly
//!   forged.rs     valid bytes that neither a crash nor a damaged byte can produce
//!   kept.rs       a data directory of an older version: it starts, goes on, and is encoded to the same bytes
//!   same_bytes.rs the files that a scripted life writes are those of an older version
//!   broken.rs     each rule of the storage broken on purpose (`faults.rs`): one of the others must fail
//! ```
//!
//! `SERIATIM_HISTORIES` is the number of histories, `SERIATIM_SEED` the first seed. With `SERIATIM_SWEEP=1` every byte
//! is damaged; `make test` damages only some of them.

mod broken;
mod entries;
mod forged;
mod histories;
mod holes;
mod kept;
mod model;
mod plain;
mod recovery;
mod replicas;
mod same_bytes;
mod story;
mod sweep;

/// A number from the environment.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Runs histories by their seeds; a failure names the seed.
fn by_seed(histories: u64, history: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let first = asked("SERIATIM_SEED", 0);
    for seed in first..first + asked("SERIATIM_HISTORIES", histories) {
        let told = std::panic::catch_unwind(|| history(seed));
        assert!(told.is_ok(), "history {seed} failed: SERIATIM_SEED={seed} SERIATIM_HISTORIES=1 runs it alone");
    }
}
