//! The rules of the catalog and of consensus that tests break (`crate::faults`).

use crate::faults::faults;

faults! {
    /// A node creates again replicas that it gave up: the replay of the catalog resurrects deleted logs.
    ReplayResurrects,
    /// A node keeps the replicas of purged logs.
    PurgedStay,
    /// A node drops a replica that should leave before its group has removed it.
    DroppedTooEarly,
    /// A replica that is placed later gets an id that another one has.
    ReplicaIdReused,
    /// Every member votes in the catalog's group.
    LearnersVote,
    /// Messages of and to replicas that have left are accepted.
    LateMessagesAccepted,
    /// The first replica leads its first term again after a restart.
    LeadsAgain,
    /// Completions of a dropped replica are applied to the next one of its group.
    EpochIgnored,
    /// A node that becomes silent wakes no quiet group.
    SilenceIgnored,
    /// Neither a different digest of quiet groups, nor a node that restarts or is heard again, wakes them.
    DigestsIgnored,
    /// A leader adds replicas that its catalog lists, although the catalog may be older than its election.
    OutdatedLeaderAdds,
    /// A node whose process has ended is not taken for lost: its followers wait for the election timeout.
    GoneIgnored,
    /// A voter that hears the leader grants the pre-vote of one that believes it lost.
    DeposedByRumour,
    /// A leader whose disk alone is full keeps leading.
    FullDiskLeads,
    /// A replica that moves leaves its group before the new one votes.
    RemovedBeforeReplaced,
    /// A node that is removed leaves the cluster while it still has replicas.
    RemovedWithReplicas,
    /// A node is removed although a group could not commit without it.
    NeededNodeRemoved,
    /// A node that leaves is chosen for new replicas.
    LeavingNodesChosen,
    /// A replica whose files are damaged starts again with an empty log, under the same id.
    DamagedReplicaReset,
}
