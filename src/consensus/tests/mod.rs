//! Groups on a faulty disk and a lossy network, in one thread from one seed; and the rules that lose data when forgotten.

mod cluster;
mod conf_changes;
mod disk;
mod elections;
mod full_disk;
mod learners;
mod markers;
mod proposals;
mod rules;
mod sim;
mod soak;
