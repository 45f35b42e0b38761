//! The rules of forming that tests break (`crate::faults`).

use crate::faults::faults;

faults! {
    /// A node does not remember its pledge after a restart.
    PledgeForgotten,
    /// A node sends its pledge before it is stored.
    ToldBeforeStored,
    /// A node moves its pledge without the confirmation of the candidate.
    MovedUnconfirmed,
    /// A node stores that it withdraws its pledge only once that is confirmed.
    WithdrawalNotStored,
    /// A candidate founds the cluster with a pledge less.
    OnePledgeLess,
    /// A candidate confirms a withdrawal although it founds the cluster.
    ReleasedByFounder,
    /// A candidate counts a pledge that was withdrawn, if it arrives again.
    VoidCounted,
    /// A candidate counts pledges that were sent to it before its restart.
    OldIncarnationCounted,
    /// A node founds the cluster although the pledge of its own belongs to another one.
    OwnPledgeIgnored,
}
