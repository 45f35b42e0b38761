//! Changes of the catalog that operators ask for, and what they are told about them.

use super::*;
use crate::consensus::tests::sim::{Answer, answered};
use crate::storage::payload::records;
use crate::types::LogId;

/// The requests of operators.
#[derive(Default)]
pub struct Operators {
    asked: Vec<(Command, Answer)>,
    /// The logs whose creation was refused.
    refused: Vec<LogId>,
}

impl Simulation {
    pub(super) fn command(&mut self, command: Command) {
        let answer = self.cluster.ask_for(command.clone());
        self.operators.asked.extend(answer.map(|answer| (command, answer)));
    }

    /// Takes the answers that have arrived. What was acknowledged is in the catalog.
    pub(super) fn take_outcomes(&mut self) {
        for (command, mut answer) in std::mem::take(&mut self.operators.asked) {
            let outcome = answered(&mut answer);
            if let Some(outcome) = &outcome {
                self.cluster.checks.trace.line(|| format!("-- {command:?}: {outcome:?}"));
            }
            match outcome {
                None => self.operators.asked.push((command, answer)),
                Some(Ok(appended)) => {
                    let entry = self.cluster.checks.groups[&GroupId::CATALOG].entry(appended.index);
                    let entry = entry.filter(|entry| entry.term == appended.term);
                    let payload = entry.map(|entry| entry.payload()).unwrap_or_default();
                    let stored = records(&payload).next().map(|record| record.expect("canonical"));
                    let stored = stored.map(|record| Command::of_record(record).expect("a command"));
                    let is_it = match (&stored, &command) {
                        // The leader has chosen its nodes.
                        (Some(Command::CreateLog(one)), Command::CreateLog(other)) => one.log_id == other.log_id,
                        (one, other) => one.as_ref() == Some(other),
                    };
                    assert!(is_it, "{command:?} was acknowledged as entry {}, which is {stored:?}", appended.index);
                }
                Some(Err(ProposeError::OutcomeUnknown)) => {}
                Some(Err(_)) => {
                    if let Command::CreateLog(new) = command {
                        self.operators.refused.push(new.log_id);
                    }
                }
            }
        }
    }

    /// Checks that nothing that was refused is in the catalog.
    pub(super) fn check_refused(&self) {
        let used = self.operators.refused.iter().find(|log_id| self.cluster.checks.catalog.was_used(**log_id));
        assert_eq!(used, None, "the creation of this log was refused");
    }
}
