//! The simulation: blank nodes start, crash, restart, lose their disks and are cut off from each other; messages are
//! lost, delayed and doubled. Never a second cluster, and one as soon as the faults stop.
//!
//! `SERIATIM_FORM_SEEDS` is the number of seeds, `SERIATIM_FORM_SEED` the first one.

use super::world::World;
use crate::forming::faults::{self, Fault};

/// The seeds within which each fault must be found.
const FAULT_SEEDS: u64 = 5000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a history. If it fails, runs it again with a trace.
fn run(seed: u64) -> Result<(), String> {
    World::new(seed, false).run().or_else(|_| World::new(seed, true).run())
}

#[test]
fn blank_nodes_form_one_cluster_whatever_fails_meanwhile() {
    let first = number("SERIATIM_FORM_SEED").unwrap_or(0);
    for seed in first..first + number("SERIATIM_FORM_SEEDS").unwrap_or(1000) {
        if let Err(error) = run(seed) {
            panic!(
                "{error}\nseed {seed}: SERIATIM_FORM_SEED={seed} SERIATIM_FORM_SEEDS=1 cargo test --release --lib \
                 blank_nodes_form_one_cluster"
            );
        }
    }
}

#[test]
fn a_seed_always_has_the_same_history() {
    for seed in [3, 77] {
        let histories = [(); 2].map(|()| {
            let mut world = World::new(seed, true);
            world.run().expect("no fault");
            world.trace.expect("a trace")
        });
        assert!(histories[0] == histories[1] && histories[0].len() > 20);
    }
}

#[test]
fn every_broken_rule_is_found() {
    for fault in [
        Fault::PledgeForgotten,
        Fault::ToldBeforeStored,
        Fault::MovedUnconfirmed,
        Fault::WithdrawalNotStored,
        Fault::OnePledgeLess,
        Fault::ReleasedByFounder,
        Fault::VoidCounted,
        Fault::OldIncarnationCounted,
        Fault::OwnPledgeIgnored,
    ] {
        faults::set(Some(fault));
        let found = (0..FAULT_SEEDS).find_map(|seed| Some((seed, run(seed).err()?)));
        faults::set(None);
        let (seed, error) = found.unwrap_or_else(|| panic!("{fault:?} is not found by {FAULT_SEEDS} seeds"));
        let what = error.lines().last().unwrap_or_default();
        println!("{fault:?}: seed {seed}: {what}");
    }
}
