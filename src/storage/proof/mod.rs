//! The proof of the storage: what it must survive, and that these tests would notice if it did not.
//!
//! ```text
//!   plain.rs      random operations, reopens among them, against a plain Vec: what is read is what was written
//!   model.rs      a log, and the states that it may be in after a crash
//!   histories.rs  random steps of a model and random crashes, by a seed
//!   story.rs      one scripted life of a data directory, stopped at every change of the disk, and again inside recovery
//!   sweep.rs      every byte of a stopped directory damaged, one at a time
//!   holes.rs     damage under a running log: valid records are served, and lost ones are named exactly
//!   forged.rs     what neither a crash nor a damaged byte can make, made by hand
//!   broken.rs     each rule of the storage broken on purpose (`faults.rs`): one of the others must fail
//! ```
//!
//! `SERIATIM_HISTORIES` says how many histories, `SERIATIM_SEED` which is the first; `SERIATIM_SWEEP=1` sweeps over every
//! byte, where `make test` takes one in some.

mod broken;
mod forged;
mod histories;
mod holes;
mod model;
mod plain;
mod story;
mod sweep;

/// A number from the environment.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Runs histories by their seeds, and says which one fails.
fn by_seed(histories: u64, history: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let first = asked("SERIATIM_SEED", 0);
    for seed in first..first + asked("SERIATIM_HISTORIES", histories) {
        let told = std::panic::catch_unwind(|| history(seed));
        assert!(told.is_ok(), "history {seed} failed: SERIATIM_SEED={seed} SERIATIM_HISTORIES=1 runs it alone");
    }
}
