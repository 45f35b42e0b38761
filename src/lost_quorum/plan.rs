//! What becomes of each log. Nothing is given up without the consent of the operator, log by log.

use std::collections::BTreeSet;

use super::compare::Survivor;
use super::survey::{Found, LogCopy, LogSurvey, Survey};
use crate::catalog::Member;
use crate::storage::log::ConfState;
use crate::types::{GroupId, LogName, ReplicaId};

/// What the operator consents to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// Remove these logs, which the node can't continue.
    pub drop: BTreeSet<LogName>,
    /// Remove all logs of which the node and the other survivors have nothing.
    pub drop_lost: bool,
    /// Continue these logs with what the node has, although that is known to be incomplete.
    pub keep: BTreeSet<LogName>,
}

/// What becomes of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It continues under its id: nothing that was acknowledged is missing.
    Same,
    /// It continues under a new id: other nodes may have acknowledged more.
    NewId,
    /// It is removed.
    Dropped,
    /// The operator must decide.
    Undecided(Question),
}

/// Why the operator must decide about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The node has nothing of it, or nothing that a start accepts. It can only be removed.
    Lost,
    /// The same, but this other survivor has a replica.
    Elsewhere(String),
    /// Some of its records can't be read.
    Damaged,
    /// The replica was moved to another node, and is older than the log.
    HasLeft,
    /// Another survivor has more of it.
    Behind(String),
}

/// The plan of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the survey's logs.
    pub fates: Vec<Fate>,
    /// The members that are removed.
    pub removed: Vec<Member>,
    /// True if no change of the catalog can be missing.
    pub is_catalog_complete: bool,
    /// The survivor with a newer catalog.
    pub newer_catalog: Option<String>,
}

impl Plan {
    /// Returns the logs about which the operator must decide.
    pub fn questions<'a>(&'a self, survey: &'a Survey) -> impl Iterator<Item = (&'a LogName, &'a Question)> {
        let logs = survey.logs.iter().zip(&self.fates);
        logs.filter_map(|(log, fate)| match fate {
            Fate::Undecided(question) => Some((&log.name, question)),
            Fate::Same | Fate::NewId | Fate::Dropped => None,
        })
    }
}

/// Makes the plan.
///
/// # Errors
/// A text if the consent names a log that does not exist, or what can't be done with it.
pub fn plan(survey: &Survey, consent: &Consent, others: &[Survivor]) -> Result<Plan, String> {
    others.iter().try_for_each(|other| other.check(survey))?;
    let named = consent.drop.iter().chain(&consent.keep);
    if let Some(name) = named.clone().find(|name| survey.logs.iter().all(|log| log.name != **name)) {
        return Err(format!("there is no log {name}"));
    }
    if let Some(name) = consent.drop.intersection(&consent.keep).next() {
        return Err(format!("log {name} can't be both dropped and kept"));
    }
    let fates = survey.logs.iter().map(|log| fate(log, consent, others)).collect::<Result<Vec<_>, _>>()?;
    let me = survey.node.node_id;
    let newer = |other: &&Survivor| other.catalog.is_ahead_of(&survey.catalog_copy);
    Ok(Plan {
        fates,
        removed: survey.catalog.members().filter(|member| member.id != me).cloned().collect(),
        is_catalog_complete: is_complete(GroupId::CATALOG, &survey.catalog_copy, others),
        newer_catalog: others.iter().find(newer).map(|other| other.node_name.clone()),
    })
}

fn fate(log: &LogSurvey, consent: &Consent, others: &[Survivor]) -> Result<Fate, String> {
    let (drops, keeps) = (consent.drop.contains(&log.name), consent.keep.contains(&log.name));
    let elsewhere = || others.iter().find(|other| other.copy_of(log.group).is_some()).map(|o| o.node_name.clone());
    let copy = match &log.found {
        Found::Copy(copy) => copy,
        Found::Nothing | Found::Blank | Found::Refused(_) if keeps => {
            return Err(format!("log {} can't be kept: this node has nothing of it that can be used", log.name));
        }
        // A replica that was created for a log whose creation is lost, and has never been used.
        Found::Blank if log.meta.is_none() => return Ok(Fate::Dropped),
        Found::Nothing | Found::Blank if consent.drop_lost && elsewhere().is_none() => return Ok(Fate::Dropped),
        Found::Nothing | Found::Blank | Found::Refused(_) if drops => return Ok(Fate::Dropped),
        Found::Nothing | Found::Blank | Found::Refused(_) => {
            return Ok(Fate::Undecided(elsewhere().map_or(Question::Lost, Question::Elsewhere)));
        }
    };
    let Some(question) = question(log.group, copy, others) else {
        if drops {
            return Err(format!("log {} is not lost: delete it after the recovery", log.name));
        }
        let is_same = log.meta.is_some() && is_complete(log.group, copy, others);
        return Ok(if is_same { Fate::Same } else { Fate::NewId });
    };
    Ok(match (drops, keeps) {
        (true, _) => Fate::Dropped,
        (false, true) => Fate::NewId,
        (false, false) => Fate::Undecided(question),
    })
}

/// Why a replica with which the node would start must not be continued without consent.
fn question(group: GroupId, copy: &LogCopy, others: &[Survivor]) -> Option<Question> {
    let ahead = others.iter().find(|other| other.copy_of(group).is_some_and(|theirs| theirs.is_ahead_of(copy)));
    if !copy.damage.is_empty() {
        Some(Question::Damaged)
    } else if let Some(other) = ahead {
        Some(Question::Behind(other.node_name.clone()))
    } else if copy.has_left {
        Some(Question::HasLeft)
    } else {
        None
    }
}

/// True if no entry that this replica lacks can have been committed: see `lost_quorum/mod.rs`.
fn is_complete(group: GroupId, copy: &LogCopy, others: &[Survivor]) -> bool {
    let theirs = || others.iter().filter_map(|other| other.copy_of(group));
    let survivors: BTreeSet<ReplicaId> = theirs().map(|copy| copy.id()).chain([copy.replica]).collect();
    let is_lost = |id: &&ReplicaId| !survivors.contains(id);
    let needs_a_survivor = |conf: &ConfState| {
        let majority = conf.voters.len() / 2 + 1;
        conf.voters.contains(&copy.replica) && conf.voters.iter().filter(is_lost).count() < majority
    };
    copy.facts.differing.is_none()
        && copy.conf_before.iter().chain(&copy.confs).all(needs_a_survivor)
        && copy.conf_before.is_some()
        && !theirs().any(|theirs| theirs.is_ahead_of(copy))
}
