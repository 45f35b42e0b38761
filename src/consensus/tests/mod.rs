//! Groups on a faulty disk and a lossy network, in one thread from one seed; scenarios as golden scripts (`scripts/`).

mod cluster;
pub(super) mod compared;
mod disk;
mod full_disk;
mod histories;
mod learners;
mod safety;
mod script;
mod show;
mod sim;
mod slow_disks;
mod soak;
mod voters;

/// How many of the histories of these seeds end in a violation. For histories with a rule disabled: what they print is not a test
/// failure.
fn violations(seeds: u64, history: impl Fn(u64) + std::panic::RefUnwindSafe) -> usize {
    (1..=seeds).filter(|seed| std::panic::catch_unwind(|| history(*seed)).is_err()).count()
}
