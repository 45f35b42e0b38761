//! Deterministic simulations of groups on a faulty disk and a lossy network: one thread, one seed. Scenarios are
//! golden scripts (`scripts/`).

mod campaigns;
mod catalog_snapshot;
mod cluster;
pub(super) mod compared;
pub(super) mod cursors;
mod disk;
mod full_disk;
mod histories;
mod learners;
mod placements;
mod producers;
mod safety;
mod script;
mod show;
pub(super) mod sim;
mod slow_disks;
mod soak;
mod voters;

/// Returns how many histories end in a violation. It is for histories with a disabled rule, so the panics that they
/// print are not test failures.
fn violations(seeds: u64, history: impl Fn(u64) + std::panic::RefUnwindSafe) -> usize {
    (1..=seeds).filter(|seed| std::panic::catch_unwind(|| history(*seed)).is_err()).count()
}
