//! Deliberate faults: rules of the product that are broken one at a time (`src/faults.rs`). The simulation must find each.
//!
//! A new fault is a line of [`FAULTS`], with seeds that `make sim-faults` has found, three if it finds so many.

use super::events::{Event, History, Step};
use super::shrink::Failure;
use super::stories::Story;
use super::{number, prepare, run};
use crate::catalog::faults::Fault as P;
use crate::consensus::faults::Fault as C;
use crate::log_state::faults::Fault as L;
use crate::storage::faults::Fault as S;
use crate::{catalog, consensus, log_state, storage};

/// A rule that a history breaks.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Consensus(C),
    Catalog(P),
    LogState(L),
    Storage(S),
}

/// The faults, and seeds that find them.
const FAULTS: &[(Broken, &[u64])] = &[
    (Broken::Consensus(C::AckBeforeSync), &[10, 16, 25]),
    (Broken::Consensus(C::RefusedByUncommitted), &[1, 2, 3]),
    (Broken::Consensus(C::ReadIndexUnconfirmed), &[1, 26, 35]),
    (Broken::Consensus(C::VisibleBeforeCommit), &[2, 13, 22]),
    (Broken::Consensus(C::AnsweredWhenAppended), &[1, 2, 3]),
    (Broken::Consensus(C::AnsweredByIndex), &[2, 3, 4]),
    (Broken::Consensus(C::UnknownTakenForRefused), &[1, 2, 3]),
    (Broken::Consensus(C::TrimBeyondEnd), &[6, 10, 21]),
    (Broken::Consensus(C::ExpectedOffsetIgnored), &[1, 2, 3]),
    (Broken::Consensus(C::DeadlineIgnored), &[2, 5, 8]),
    (Broken::Catalog(P::PurgedStay), &[5, 18, 21]),
    (Broken::Catalog(P::DroppedTooEarly), &[3, 32, 105]),
    (Broken::Catalog(P::ReplicaIdReused), &[1, 2, 3]),
    (Broken::Catalog(P::LeadsAgain), &[1, 2, 3]),
    (Broken::Catalog(P::RemovedWithReplicas), &[11, 26, 28]),
    (Broken::Catalog(P::NeededNodeRemoved), &[18, 51, 52]),
    (Broken::Catalog(P::LeavingNodesChosen), &[49]),
    (Broken::Catalog(P::OutdatedLeaderAdds), &[49]),
    (Broken::Catalog(P::DamagedReplicaReset), &[53]),
    (Broken::LogState(L::UnregisteredAppended), &[1, 2, 3]),
    (Broken::LogState(L::NotInSnapshot), &[1, 3, 6]),
    (Broken::LogState(L::RetryAppended), &[1, 2, 3]),
    (Broken::LogState(L::EpochIgnored), &[1, 2, 3]),
    (Broken::LogState(L::RevisionIgnored), &[1, 2, 4]),
    (Broken::LogState(L::CursorEpochIgnored), &[1, 2, 3]),
    (Broken::LogState(L::CursorsNotInSnapshot), &[1, 2, 3]),
    (Broken::LogState(L::LostAtFailOver), &[1, 2, 3]),
    (Broken::LogState(L::ChainNotInSnapshot), &[26, 39, 158]),
    (Broken::Storage(S::FilesNotSynced), &[1, 2, 3]),
    (Broken::Storage(S::HardStateNotSynced), &[5, 9, 16]),
    (Broken::Storage(S::ManifestNotSynced), &[1, 2, 3]),
    (Broken::Storage(S::NoDirSyncAfterRename), &[1, 2, 3]),
    (Broken::Storage(S::TailCutEarly), &[2, 3, 4]),
    (Broken::Storage(S::TailCutLate), &[25, 94, 99]),
    (Broken::Storage(S::NumberUsedTwice), &[1, 2, 3]),
    (Broken::Storage(S::TrimBeyondState), &[290, 1457, 1689]),
    (Broken::Storage(S::SnapshotWithoutState), &[418, 433, 566]),
    (Broken::Storage(S::StateNotReplayed), &[1, 2, 3]),
    (Broken::Storage(S::TombstoneForgotten), &[2, 13, 24]),
];

/// If none of its seeds finds a fault any more, these are tried.
const SEARCHED: u64 = 200;

/// A fault is found by the seeds up to this one.
const SEEDS_MAX: u64 = 2000;

/// Runs a function while a rule is broken on this thread.
fn with<T>(broken: Broken, act: impl FnOnce() -> T) -> T {
    // What the cluster of the fault begins with is not broken.
    prepare();
    match broken {
        Broken::Consensus(fault) => consensus::faults::set(Some(fault)),
        Broken::Catalog(fault) => catalog::faults::set(Some(fault)),
        Broken::LogState(fault) => log_state::faults::set(Some(fault)),
        Broken::Storage(fault) => storage::faults::set(Some(fault)),
    }
    let result = act();
    consensus::faults::set(None);
    catalog::faults::set(None);
    log_state::faults::set(None);
    storage::faults::set(None);
    result
}

fn fails(broken: Broken, seed: u64) -> bool {
    with(broken, || run(&History::of_seed(seed), false).failure.is_some())
}

/// All rules that can be broken, also those whose breach has no effect that the simulation can see.
fn all() -> Vec<Broken> {
    let mut all: Vec<Broken> = consensus::faults::ALL.iter().copied().map(Broken::Consensus).collect();
    all.extend(catalog::faults::ALL.iter().copied().map(Broken::Catalog));
    all.extend(log_state::faults::ALL.iter().copied().map(Broken::LogState));
    all.extend(storage::faults::ALL.iter().copied().map(Broken::Storage));
    all
}

#[test]
fn each_deliberate_fault_is_found() {
    // A change of the product changes the histories of all seeds, so others may find a fault now.
    let found = |(broken, seeds): &&(Broken, &[u64])| {
        seeds.iter().any(|seed| fails(*broken, *seed)) || (1..=SEARCHED).any(|seed| fails(*broken, seed))
    };
    let missed: Vec<Broken> = FAULTS.iter().filter(|fault| !found(fault)).map(|(broken, _)| *broken).collect();
    assert!(missed.is_empty(), "faults that no seed finds any more; make sim-faults searches for some: {missed:?}");
}

/// The rule that each story is about.
const STORIES: [(Story, Broken); 5] = [
    (Story::LossDuringMove, Broken::Catalog(P::RemovedBeforeReplaced)),
    (Story::CreationDuringDrain, Broken::Catalog(P::LeavingNodesChosen)),
    (Story::NeededNodeLeaves, Broken::Catalog(P::NeededNodeRemoved)),
    (Story::OutdatedLeader, Broken::Catalog(P::OutdatedLeaderAdds)),
    (Story::DamagedVoter, Broken::Catalog(P::DamagedReplicaReset)),
];

/// Seeds after which a story must have found the fault.
const STORY_SEEDS: u64 = 24;

#[test]
fn each_story_finds_the_fault_that_it_is_about() {
    let mut missed = Vec::new();
    for (story, broken) in STORIES {
        let history = |seed: u64| {
            let step = |event, rounds| Step { event, rounds, salt: seed << 32 | 0x5eed << 8 | u64::from(rounds) };
            let steps = vec![step(Event::Load(4), 10), step(Event::Story(story, seed as usize), 30)];
            History { seed, nodes: 5, steps }
        };
        let found = (1..=STORY_SEEDS).find(|seed| with(broken, || run(&history(*seed), false).failure.is_some()));
        if found.is_none() {
            // What has happened, as far as the story tells it.
            let lines = (1..=2).flat_map(|seed| with(broken, || run(&history(seed), true).lines));
            let told: Vec<String> = lines.filter(|line| line.starts_with("--")).collect();
            missed.push(format!("{story:?} does not find {broken:?}:\n{}", told.join("\n")));
        }
        println!("{story:?} finds {broken:?} with seed {found:?}");
        let failure = (1..=3).find_map(|seed| run(&history(seed), false).failure);
        assert_eq!(failure, None, "{story:?} fails without a fault");
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// `make sim-faults` searches for the faults of the table, and `ONLY=all` for all that there are.
#[test]
fn search_for_faults() {
    let Ok(only) = std::env::var("SERIATIM_SIM_FAULTS") else { return };
    let (first, seeds) = (number("SERIATIM_SIM_SEED", 1), number("SERIATIM_SIM_SEEDS", SEEDS_MAX));
    let is_wanted = |broken: &Broken| only.is_empty() || only == "all" || format!("{broken:?}").contains(&only);
    let wanted = match only.as_str() {
        "" => FAULTS.iter().map(|(broken, _)| *broken).collect(),
        _ => all(),
    };
    let mut missing = Vec::new();
    for broken in wanted.into_iter().filter(is_wanted) {
        let found: Vec<u64> = (first..first + seeds).filter(|seed| fails(broken, *seed)).take(3).collect();
        println!("{broken:?}: {found:?}");
        if found.is_empty() {
            missing.push(broken);
        }
    }
    assert!(missing.is_empty() || only == "all", "not found within {seeds} seeds: {missing:?}");
}

/// The part of the history that is left also fails, and one line runs it again.
#[test]
fn a_failure_is_shrunk_to_a_line_that_runs_it_again() {
    let broken = Broken::LogState(log_state::faults::Fault::RetryAppended);
    let seed = (1..100).find(|seed| fails(broken, *seed)).expect("found");
    let history = History::of_seed(seed);
    let failure = with(broken, || Failure::of(&history));
    assert!(failure.steps() < history.steps.len(), "{failure}");
    let line = failure.line();
    let events = line.split("EVENTS=").nth(1).expect("events");
    let again = super::shrink::selected(&history, events);
    assert!(with(broken, || run(&again, false).failure.is_some()), "{failure}");
    assert!(run(&again, false).failure.is_none(), "only the fault fails");
}
