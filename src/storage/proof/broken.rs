//! Each rule of storage is broken on purpose, and the proof that is named with it must fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{forged, histories, holes, recovery, replicas, story, sweep};
use crate::storage::faults::{self, Fault};
use crate::storage::write::repair;

/// The proof that finds a fault.
#[derive(Clone, Copy, Debug)]
enum Proof {
    Histories,
    TornEnds,
    Story,
    Replicas,
    Recovery,
    Sweep(sweep::End),
    Forged,
    Holes,
    Newer,
    Repair,
}

/// The number of histories that is enough to find any fault.
const HISTORIES_MAX: u64 = 1500;
/// One in this many bytes is damaged.
const STRIDE: usize = 40;

const FOUND_BY: [(Fault, Proof); 57] = [
    (Fault::NoDirSyncAfterRename, Proof::Story),
    (Fault::NoDirSyncAfterNewSegment, Proof::Histories),
    (Fault::NoDirSyncAfterRejected, Proof::TornEnds),
    (Fault::RejectedStay, Proof::TornEnds),
    (Fault::HardStateNotSynced, Proof::Histories),
    (Fault::FilesNotSynced, Proof::Story),
    (Fault::ManifestNotSynced, Proof::Histories),
    (Fault::UnlinksBeforeManifest, Proof::Histories),
    (Fault::UnlinksAtOnce, Proof::Histories),
    (Fault::ManifestBeforeFiles, Proof::Histories),
    (Fault::IndexTrusted, Proof::Forged),
    (Fault::TailCutEarly, Proof::Histories),
    (Fault::TailCutLate, Proof::Histories),
    (Fault::CrcWithoutHeader, Proof::Histories),
    (Fault::CrcWithoutPlace, Proof::Histories),
    (Fault::HoleAccepted, Proof::Forged),
    (Fault::PredecessorEndIgnored, Proof::TornEnds),
    (Fault::DurableTooHigh, Proof::Histories),
    (Fault::NoteAheadOfSync, Proof::Histories),
    (Fault::DurableNotNoted, Proof::Sweep(sweep::End::Killed)),
    (Fault::DurableIgnored, Proof::Sweep(sweep::End::Stopped)),
    (Fault::FrameDurableIgnored, Proof::Sweep(sweep::End::Busy)),
    (Fault::DurableAfterBadIgnored, Proof::Sweep(sweep::End::Busy)),
    (Fault::DurableInNewerIgnored, Proof::Sweep(sweep::End::Stopped)),
    (Fault::AppliedUnbounded, Proof::Forged),
    (Fault::WritesOverTorn, Proof::TornEnds),
    (Fault::UnfinishedSnapshotTaken, Proof::Histories),
    (Fault::ZerosSkipped, Proof::Histories),
    (Fault::NumberUsedTwice, Proof::Histories),
    (Fault::StartNotSynced, Proof::Histories),
    (Fault::StartNamesNotSynced, Proof::Histories),
    (Fault::TermNotRaised, Proof::Histories),
    (Fault::CommitAboveEndTaken, Proof::Forged),
    (Fault::HeaderWithoutHardState, Proof::Histories),
    (Fault::TrimBeyondApplied, Proof::Histories),
    (Fault::GroupNotSynced, Proof::Story),
    (Fault::GroupNameNotSynced, Proof::Story),
    (Fault::ListedBeforeCreated, Proof::Replicas),
    (Fault::UnlistedBeforeRetired, Proof::Replicas),
    (Fault::DeletedBeforeUnlisted, Proof::Replicas),
    (Fault::RetiredNameNotSynced, Proof::Replicas),
    (Fault::TombstoneForgotten, Proof::Replicas),
    (Fault::CatalogNotStored, Proof::Replicas),
    (Fault::TrimBeyondState, Proof::Histories),
    (Fault::SnapshotWithoutState, Proof::Histories),
    (Fault::StateAfterManifest, Proof::Histories),
    (Fault::StateNotReplayed, Proof::Histories),
    (Fault::DamagedStateEmpty, Proof::Sweep(sweep::End::Stopped)),
    (Fault::RecoveryNotDecided, Proof::Recovery),
    (Fault::IndexMustBeRead, Proof::Forged),
    (Fault::NothingAfterDamage, Proof::Holes),
    (Fault::SoundWithheld, Proof::Holes),
    (Fault::LossSkipped, Proof::Holes),
    (Fault::DamageTakenForNewer, Proof::Newer),
    (Fault::NewerTakenForDamage, Proof::Newer),
    (Fault::RepairUnverified, Proof::Repair),
    (Fault::RepairNotRenamed, Proof::Repair),
];

impl Proof {
    /// The number of steps until the proof fails; `None` if it does not fail.
    fn fails(self, histories_max: u64) -> Option<u64> {
        let by_seed = |history: fn(u64)| (0..histories_max).find(|seed| panics(|| history(*seed)));
        match self {
            Proof::Histories => by_seed(histories::history),
            Proof::TornEnds => by_seed(histories::torn_ends),
            Proof::Holes => by_seed(holes::history),
            Proof::Newer => by_seed(holes::newer_history),
            Proof::Story => panics(|| {
                story::told(0, 2);
            })
            .then_some(1),
            Proof::Replicas => panics(|| {
                replicas::told(3);
            })
            .then_some(1),
            Proof::Recovery => panics(|| {
                recovery::told(3);
            })
            .then_some(1),
            Proof::Sweep(end) => {
                let found = catch_unwind(|| sweep::sweep(end, STRIDE, 1).1.len() as u64);
                Some(found.unwrap_or(1)).filter(|wrong| *wrong > 0)
            }
            Proof::Forged => panics(forged::all).then_some(1),
            Proof::Repair => panics(repair::tests::proof).then_some(1),
        }
    }
}

fn panics(proof: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(proof)).is_err()
}

#[test]
fn every_fault_is_found() {
    for proof in [
        Proof::Histories,
        Proof::TornEnds,
        Proof::Story,
        Proof::Replicas,
        Proof::Recovery,
        Proof::Sweep(sweep::End::Busy),
        Proof::Forged,
        Proof::Holes,
        Proof::Newer,
        Proof::Repair,
    ] {
        assert_eq!(proof.fails(250), None, "{proof:?} fails without a fault");
    }
    let mut silent = Vec::new();
    for (i, (fault, proof)) in FOUND_BY.into_iter().enumerate() {
        assert_eq!(fault as usize, i, "all faults, in their order");
        let began = Instant::now();
        faults::set(Some(fault));
        let found = proof.fails(HISTORIES_MAX);
        faults::set(None);
        println!("{fault:?}: {proof:?} {found:?}, {:?}", began.elapsed());
        if found.is_none() {
            silent.push((fault, proof));
        }
    }
    assert!(silent.is_empty(), "nobody noticed: {silent:?}");
}
