//! Rules of consensus that tests break (`crate::faults`). `group/settings.rs` has others, for simulations of one group.

use crate::faults::faults;

faults! {
    /// A vote is sent before it is synced.
    VoteNotSynced,
    /// Entries are acknowledged before they are synced.
    AckBeforeSync,
    /// [`super::group::Rules::hold_uncommitted_refusals`].
    RefusedByUncommitted,
    /// A leader answers a request for a read index without asking the others.
    ReadIndexUnconfirmed,
    /// Entries are visible as soon as they are written.
    VisibleBeforeCommit,
    /// A proposal is acknowledged as soon as the leader has appended it.
    AnsweredWhenAppended,
    /// A proposal is acknowledged when any entry at its index is applied.
    AnsweredByIndex,
    /// A proposal whose outcome is unknown is reported as not appended.
    UnknownTakenForRefused,
    /// A trim beyond the end of the log is appended.
    TrimBeyondEnd,
    /// A proposal is appended whatever offset it expects.
    ExpectedOffsetIgnored,
    /// A proposal is appended although its deadline has passed.
    DeadlineIgnored,
}
