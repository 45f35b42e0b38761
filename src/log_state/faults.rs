//! The rules of the log state that tests break (`crate::faults`).

use crate::faults::faults;

faults! {
    /// A request with an id that is not registered is appended.
    UnregisteredAppended,
    /// A new leader goes on with the producers and cursors of its last term, which contain entries that were replaced.
    NotRolledBack,
    /// A snapshot contains no producers and no cursors.
    NotInSnapshot,
    /// A retry is appended again, and gets another offset.
    RetryAppended,
    /// Requests of earlier epochs are appended.
    EpochIgnored,
    /// A producer that was not used for a minute is forgotten when another one registers.
    EvictedByTime,
    /// A commit of a cursor ignores the expected revision.
    RevisionIgnored,
    /// A commit of a cursor ignores the epoch.
    CursorEpochIgnored,
    /// A snapshot contains no cursors.
    CursorsNotInSnapshot,
    /// A new leader begins without producers and cursors.
    LostAtFailOver,
    /// A snapshot contains no hash chain.
    ChainNotInSnapshot,
}
