//! Reports of replicas that a group has removed. Their nodes then drop them, so a leader that was replaced must not
//! report one: its successor may have added it.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::FutureExt as _;

use super::group::Group;
use super::handle::ReadIndexError;
use crate::reply::{ReplyReceiver, reply};
use crate::types::{GroupId, LogIndex, ReplicaId, Term};

/// A leader's question whether it still leads in the term.
struct Question {
    term: Term,
    answer: ReplyReceiver<Result<LogIndex, ReadIndexError>>,
}

/// The reports that wait until a majority has confirmed the leader.
#[derive(Default)]
pub struct Removals(BTreeMap<(GroupId, ReplicaId), Question>);

impl Removals {
    /// Returns true if a majority has confirmed this leader since the first call about the removed replica. Otherwise
    /// asks for it. Called again on later ticks.
    pub fn is_confirmed(&mut self, id: GroupId, removed: ReplicaId, group: &mut Group, now: Instant) -> bool {
        let term = group.term();
        if let Some(question) = self.0.get_mut(&(id, removed))
            && question.term == term
        {
            match (&mut question.answer).now_or_never() {
                None => return false,
                Some(Ok(Ok(_))) => {
                    self.0.remove(&(id, removed));
                    return true;
                }
                Some(_) => {}
            }
        }
        let (sender, answer) = reply();
        group.read_index(None, now, sender);
        self.0.insert((id, removed), Question { term, answer });
        false
    }

    /// Forgets a group that this node no longer has a replica of.
    pub fn forget(&mut self, group: GroupId) {
        self.0.retain(|(of, _), _| *of != group);
    }
}
