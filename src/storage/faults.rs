//! The rules of storage that tests break (`crate::faults`).

use crate::faults::faults;

faults! {
    /// The directory is not synced after a file was replaced.
    NoDirSyncAfterRename,
    /// The directory is not synced after a segment was created.
    NoDirSyncAfterNewSegment,
    /// The directory is not synced after rejected segments were deleted.
    NoDirSyncAfterRejected,
    /// Rejected segments are not deleted.
    RejectedStay,
    /// A hard state without entries is reported as durable without a sync.
    HardStateNotSynced,
    /// A sync is reported as done without being done.
    FilesNotSynced,
    /// A file is replaced by one whose contents are not synced.
    ManifestNotSynced,
    /// Segments are deleted before the manifest that does not need them is written.
    UnlinksBeforeManifest,
    /// Truncated segments are deleted before the one that replaces them is synced.
    UnlinksAtOnce,
    /// The manifest states a durable position before the files are synced: the commit index of an entry that a trim has
    /// dropped may be lost.
    ManifestBeforeFiles,
    /// The frame at the position from an index is not checked.
    IndexTrusted,
    /// A frame at the very end of a segment is treated as cut off.
    TailCutEarly,
    /// A frame's payload is not checked.
    TailCutLate,
    /// The checksum does not cover the header.
    CrcWithoutHeader,
    /// The checksum does not depend on segment and position.
    CrcWithoutPlace,
    /// Entries need not continue the log.
    HoleAccepted,
    /// A segment continues wherever its predecessor ends.
    PredecessorEndIgnored,
    /// The durable position is raised when a sync starts.
    DurableTooHigh,
    /// The manifest's durable position is above what is synced.
    NoteAheadOfSync,
    /// The durable position is not written to the manifest between segments.
    DurableNotNoted,
    /// Recovery ignores the durable position.
    DurableIgnored,
    /// Recovery uses only the manifest's durable position.
    FrameDurableIgnored,
    /// Recovery ignores the durable position of frames after a bad one.
    DurableAfterBadIgnored,
    /// The durable position may be in a segment newer than the newest of the chain.
    DurableInNewerIgnored,
    /// The applied index may be above the commit index.
    AppliedUnbounded,
    /// The log continues at its end although the remains of a torn write are there.
    WritesOverTorn,
    /// The segment of a snapshot is accepted without its manifest.
    UnfinishedSnapshotTaken,
    /// Zeros are skipped.
    ZerosSkipped,
    /// A new segment gets the number after its predecessor's.
    NumberUsedTwice,
    /// The files that a start finds are not synced before they are used.
    StartNotSynced,
    /// The names that a start finds are not synced.
    StartNamesNotSynced,
    /// An entry newer than the hard state does not raise the term.
    TermNotRaised,
    /// The commit index may be above the last entry.
    CommitAboveEndTaken,
    /// A new segment does not repeat the hard state.
    HeaderWithoutHardState,
    /// A trim drops entries that are not applied.
    TrimBeyondApplied,
    /// A new group gets its name before its contents are synced.
    GroupNotSynced,
    /// A new group's name is not synced.
    GroupNameNotSynced,
    /// A replica is listed before it is created.
    ListedBeforeCreated,
    /// A replica is removed from the list before its directory is renamed.
    UnlistedBeforeRetired,
    /// A replica's directory is deleted, and not renamed, before it is removed from the list.
    DeletedBeforeUnlisted,
    /// The new name of a replica that was given up is not synced.
    RetiredNameNotSynced,
    /// `node.toml` does not contain which replicas the node had before.
    TombstoneForgotten,
    /// The catalog's log is trimmed although its snapshot was not stored.
    CatalogNotStored,
    /// A trim drops entries above the newest state file.
    TrimBeyondState,
    /// The log restarts after a snapshot without a state file, as if its tables were empty.
    SnapshotWithoutState,
    /// The manifest names a state file before it is written.
    StateAfterManifest,
    /// A start does not apply the entries after the state file.
    StateNotReplayed,
    /// A damaged state file is taken for an empty one.
    DamagedStateEmpty,
    /// A recovery changes the directory before all changes are decided.
    RecoveryNotDecided,
    /// A sealed segment can't be read without its index.
    IndexMustBeRead,
    /// Frames after a bad one are not read.
    NothingAfterDamage,
    /// A read that finds damage does not return the valid records before it.
    SoundWithheld,
    /// Damage is skipped without an error.
    LossSkipped,
    /// Damage next to a frame of a newer version is reported as such a frame.
    DamageTakenForNewer,
    /// A frame of a newer version is reported as damage.
    NewerTakenForDamage,
    /// A repaired segment is not checked.
    RepairUnverified,
    /// A damaged segment is deleted before the repaired one takes its place.
    RepairNotRenamed,
}

/// The rule that this thread breaks.
#[cfg(test)]
pub(crate) fn get() -> Option<Fault> {
    BROKEN.get()
}
