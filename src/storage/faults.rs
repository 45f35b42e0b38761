//! The rules of storage that tests break, one at a time, to see that they would notice.
//!
//! Outside tests [`broken`] is constantly false, and what hangs on it is compiled away.

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A replaced file's new name is not put on the disk.
    NoDirSyncAfterRename,
    /// A new segment's name is not put on the disk.
    NoDirSyncAfterNewSegment,
    /// That rejected segments were removed is not put on the disk.
    NoDirSyncAfterRejected,
    /// Rejected segments are left where they are.
    RejectedStay,
    /// A hard state alone is reported without a sync.
    HardStateNotSynced,
    /// A sync is reported that was not done.
    FilesNotSynced,
    /// A file is replaced by one whose contents are not on the disk.
    ManifestNotSynced,
    /// Segments go before the manifest that does not need them.
    UnlinksBeforeManifest,
    /// Truncated segments go before the one that takes their place is synced.
    UnlinksAtOnce,
    /// The manifest says what is synced before it is: an entry's commit may be lost that a trim has dropped.
    ManifestBeforeFiles,
    /// Where an index leads is not checked.
    IndexTrusted,
    /// A frame at the very end of a segment is taken for cut off.
    TailCutEarly,
    /// A frame's payload is not checked.
    TailCutLate,
    /// The checksum does not cover the header.
    CrcWithoutHeader,
    /// The checksum does not know segment and position.
    CrcWithoutPlace,
    /// Entries need not continue the log.
    HoleAccepted,
    /// A segment goes on wherever the one before happens to end.
    PredecessorEndIgnored,
    /// The durable position is raised when a sync begins.
    DurableTooHigh,
    /// The manifest's durable position is above what is synced.
    NoteAheadOfSync,
    /// Between rolls the durable position is not written to the manifest.
    DurableNotNoted,
    /// Recovery has no durable position.
    DurableIgnored,
    /// Recovery has the manifest's durable position alone.
    FrameDurableIgnored,
    /// Frames behind a bad one say nothing.
    DurableAfterBadIgnored,
    /// The durable position may lie in a segment newer than the newest.
    DurableInNewerIgnored,
    /// Applied may be behind the commit.
    AppliedUnbounded,
    /// The log goes on over what a torn end has left.
    WritesOverTorn,
    /// A snapshot's segment counts without its manifest.
    UnfinishedMarkerTaken,
    /// Zeros are skipped.
    ZerosSkipped,
    /// A new segment takes the number behind its predecessor's.
    NumberUsedTwice,
    /// What is found at start is not synced before it is believed.
    StartNotSynced,
    /// The names that are found at start are not.
    StartNamesNotSynced,
    /// An entry newer than the hard state does not tell the term.
    TermNotRaised,
    /// What is committed may be behind the end.
    CommitBehindEndTaken,
    /// A new segment does not repeat the hard state.
    HeaderWithoutHardState,
    /// A trim drops what is not applied.
    TrimBeyondApplied,
    /// A new group has its name before its contents are on the disk.
    GroupNotSynced,
    /// A new group's name is not put on the disk.
    GroupNameNotSynced,
    /// A sealed segment can't be read without its index.
    IndexMustBeRead,
    /// Frames after a bad one are not read.
    NothingBehindDamage,
    /// A read that finds damage does not return the valid records before it.
    SoundWithheld,
    /// Damage is skipped without an error.
    LossSkipped,
}

/// True when the rule is to be broken.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn broken(_: Fault) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// True when the rule is to be broken.
#[cfg(test)]
pub(crate) fn broken(fault: Fault) -> bool {
    BROKEN.get() == Some(fault)
}

/// From here on this thread breaks that rule, or none.
#[cfg(test)]
pub(crate) fn set(fault: Option<Fault>) {
    BROKEN.set(fault);
}

/// What this thread breaks.
#[cfg(test)]
pub(crate) fn get() -> Option<Fault> {
    BROKEN.get()
}
