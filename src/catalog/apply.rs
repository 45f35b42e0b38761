//! The state machine: the catalog as a pure function of the commands in group 0's log.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::command::Command;
use super::conflict::Conflict;
use super::meta::{ClusterSettings, Deletion, LogMeta, LogSettings, NewLog, Origin, Placement, Restore};
use super::state::{Applied, Catalog, Change, Changes, Touched, label_bytes, replace_log};
use super::{nodes, replicas};
use crate::feature_level::Feature;
use crate::types::{GroupId, NodeId, ReplicaId};

impl Catalog {
    /// Returns whether a command would change anything now. Checked before a command is proposed: an entry without an
    /// effect would still be synced on every node.
    ///
    /// # Errors
    /// [`Conflict`] if the command does not fit the state.
    pub fn would_change(&self, command: &Command) -> Result<bool, Conflict> {
        self.change(command, 1).map(|change| change.is_some())
    }

    /// Applies a command of an entry that was appended at `at_us`, Unix microseconds. A command that no longer fits
    /// (its name was taken meanwhile) is ignored. Every node decides that alike; the proposer reads the outcome from
    /// the catalog.
    pub fn apply(&mut self, command: &Command, at_us: u64) -> Applied {
        let touched = match self.change(command, at_us.max(1)) {
            Ok(None) => return Applied::Unchanged,
            Err(conflict) => return Applied::Ignored(conflict),
            Ok(Some(change)) => self.perform(change),
        };
        self.check_invariants();
        Applied::Changed(touched)
    }

    fn perform(&mut self, change: Change) -> Touched {
        match change {
            Change::SetMember(member) => {
                let id = member.id;
                let is_new = self.members.insert(id, member).is_none();
                if is_new && !self.allows(Feature::ManyLogs) {
                    nodes::place_everywhere(self, id);
                    return Touched::AllLogs;
                }
                Touched::NoLog
            }
            Change::RemoveMember(id) => {
                nodes::remove_member(self, id);
                Touched::AllLogs
            }
            Change::ReplaceMember(old, by) => {
                nodes::replace_member(self, old, by);
                Touched::AllLogs
            }
            // The replicas that should not lead are read again for each log.
            Change::SetPlan(id, plan) => {
                nodes::set_plan(self, id, plan);
                Touched::AllLogs
            }
            Change::SetBalancing(balancing) => {
                self.balancing = balancing;
                Touched::NoLog
            }
            Change::SetLog { log, next_replica } => {
                let group = log.group;
                self.next_group = self.next_group.max(GroupId(group.0 + 1));
                self.next_replica = self.next_replica.max(next_replica);
                self.set_log(log);
                Touched::Log(group)
            }
            Change::PurgeLog(group) => {
                if let Some(log) = self.logs.get(&group).cloned() {
                    self.count(&log, -1);
                    self.logs.remove(&group);
                    self.names.remove(&log.name);
                    self.add_purged(log.log_id);
                }
                Touched::Log(group)
            }
            Change::SetFeatureLevel(level) => {
                self.feature_level = level;
                Touched::NoLog
            }
            Change::SetClusterSettings(settings) => {
                self.settings = Arc::new(settings);
                self.settings_revision += 1;
                Touched::AllLogs
            }
        }
    }

    fn allows(&self, feature: Feature) -> bool {
        self.feature_level >= feature.level()
    }

    /// Returns what a command would change. Both proposing and applying use this function.
    fn change(&self, command: &Command, at_us: u64) -> Changes {
        match command {
            Command::AddNode(member) => nodes::add(self, member),
            Command::RemoveNode(id) => nodes::remove(self, *id),
            Command::CreateLog(log) => self.create_log(log, at_us),
            // Only nodes of feature level 1 needed it.
            Command::Founded(_) => Ok(None),
            Command::ConfigureLog(group, change) => {
                let settings = self.active_log(*group)?.settings.changed(change);
                self.change_log(*group, |log| log.settings = settings)
            }
            Command::UpdateLog(group, settings, expected_revision) => {
                self.check_revision(*group, Some(*expected_revision))?;
                self.active_log(*group)?;
                self.change_log(*group, |log| log.settings = settings.clone())
            }
            Command::DeleteLog(group, purge_after_ms, expected_revision) => {
                self.delete_log(*group, *purge_after_ms, *expected_revision, at_us)
            }
            Command::UndeleteLog(group) => self.change_log(*group, |log| log.deletion = None),
            Command::PurgeLog(group) => match self.log(*group).ok_or(Conflict::NoSuchLog(*group))?.deletion {
                Some(_) => Ok(Some(Change::PurgeLog(*group))),
                None => Err(Conflict::NotDeleted(*group)),
            },
            Command::PlaceReplica(group, node) => replicas::place(self, *group, *node),
            Command::RemoveReplica(group, replica) => replicas::remove(self, *group, *replica),
            Command::MoveReplica(group, replica, node) => replicas::move_to(self, *group, *replica, *node),
            Command::ReplicaRemoved(group, replica) => replicas::removed(self, *group, *replica),
            Command::PlanNode(id, plan, expected) => nodes::plan(self, *id, plan, expected),
            Command::ReplaceNode(id, by) => nodes::replace(self, *id, by),
            Command::SetBalancing(balancing) => {
                Ok((*balancing != self.balancing).then_some(Change::SetBalancing(*balancing)))
            }
            Command::FinishRestore(group) => {
                let restore = self.active_log(*group)?.restore.ok_or(Conflict::NotRestored(*group))?;
                self.change_log(*group, |log| log.restore = Some(Restore { is_complete: true, ..restore }))
            }
            // A lower level is not a conflict: two operators may have raised it at the same time.
            Command::RaiseFeatureLevel(level) => {
                Ok((*level > self.feature_level).then_some(Change::SetFeatureLevel(*level)))
            }
            Command::UpdateCluster(settings, expected_revision) => self.update_cluster(settings, *expected_revision),
        }
    }

    fn create_log(&self, new: &NewLog, at_us: u64) -> Changes {
        if let Some(log) = self.log_named(&new.name) {
            return Err(Conflict::NameOfLogTaken(log.group));
        }
        if self.was_used(new.log_id) {
            return Err(Conflict::LogIdTaken(new.log_id));
        }
        if self.logs.len() >= Catalog::LOGS_MAX {
            return Err(Conflict::TooManyLogs);
        }
        let (group, first, replicas, created_us, next_replica) = match &new.origin {
            Origin::Founder(group, founder) => {
                if *group == GroupId::CATALOG || self.log(*group).is_some() {
                    return Err(Conflict::LogTaken);
                }
                let place = |node: &NodeId| Placement { replica: ReplicaId::of_node(*node), node: *node };
                let replicas: Vec<Placement> = self.members.keys().map(place).collect();
                (*group, vec![place(founder)], replicas, 0, self.next_replica)
            }
            Origin::Nodes(nodes) => {
                let distinct: BTreeSet<&NodeId> = nodes.iter().collect();
                let known = nodes.iter().all(|node| self.members.contains_key(node));
                if nodes.is_empty() || distinct.len() != nodes.len() || !known {
                    return Err(Conflict::BadPlacement);
                }
                let mut replicas = Vec::with_capacity(nodes.len());
                let mut next = self.next_replica;
                for node in nodes {
                    let (replica, after) = replicas::new_replica(self, next);
                    replicas.push(Placement { replica, node: *node });
                    next = after;
                }
                (self.next_group, replicas.clone(), replicas, at_us, next)
            }
        };
        let is_begun = |restore: &Restore| !restore.is_complete && restore.first_offset <= restore.end_offset;
        if group.0 > Catalog::GROUPS_MAX || !new.restore.as_ref().is_none_or(is_begun) {
            return Err(Conflict::Malformed);
        }
        let log = LogMeta {
            name: new.name.clone(),
            group,
            log_id: new.log_id,
            first,
            replicas,
            leaving: Vec::new(),
            settings: new.settings.clone(),
            revision: 1,
            created_us,
            deletion: None,
            restore: new.restore,
        };
        self.check_settings(&log)?;
        Ok(Some(Change::SetLog { log, next_replica }))
    }

    fn check_settings(&self, log: &LogMeta) -> Result<(), Conflict> {
        let before = self.log(log.group).map_or(0, |log| label_bytes(&log.settings));
        let labels_fit = self.label_bytes - before + label_bytes(&log.settings) <= Catalog::LABEL_BYTES_MAX;
        // Two changes that are valid alone may be invalid in combination.
        let holds = log.settings.effective(&self.settings.log_defaults).limits_hold() && log.settings.labels_hold();
        if holds && labels_fit { Ok(()) } else { Err(Conflict::BadLimits(log.group)) }
    }

    fn active_log(&self, group: GroupId) -> Result<&LogMeta, Conflict> {
        let log = self.log(group).ok_or(Conflict::NoSuchLog(group))?;
        if log.deletion.is_some() { Err(Conflict::Deleted(group)) } else { Ok(log) }
    }

    fn check_revision(&self, group: GroupId, expected: Option<u64>) -> Result<(), Conflict> {
        let log = self.log(group).ok_or(Conflict::NoSuchLog(group))?;
        match expected {
            Some(expected) if expected != log.revision => Err(Conflict::OtherRevision(log.revision)),
            Some(_) | None => Ok(()),
        }
    }

    /// Changes the settings or the deletion of a log, which makes a new revision.
    fn change_log(&self, group: GroupId, change: impl FnOnce(&mut LogMeta)) -> Changes {
        let changed = replace_log(self, group, change)?;
        Ok(match changed {
            Some(Change::SetLog { mut log, next_replica }) => {
                log.revision += 1;
                self.check_settings(&log)?;
                Some(Change::SetLog { log, next_replica })
            }
            other => other,
        })
    }

    fn delete_log(
        &self,
        group: GroupId,
        purge_after_ms: Option<u64>,
        expected_revision: Option<u64>,
        at_us: u64,
    ) -> Changes {
        let log = self.log(group).ok_or(Conflict::NoSuchLog(group))?;
        let wait_ms = purge_after_ms.unwrap_or_else(|| self.settings.deleted_log_retention_ms());
        if let Some(deletion) = log.deletion {
            // Deleted again with an earlier end: for example at once, because the disk is full.
            let purge_us = at_us.saturating_add(wait_ms.saturating_mul(1000)).min(deletion.purge_us);
            return match purge_after_ms {
                Some(_) => self.change_log(group, |log| log.deletion = Some(Deletion { purge_us, ..deletion })),
                None => Ok(None),
            };
        }
        self.check_revision(group, expected_revision)?;
        let purge_us = at_us.saturating_add(wait_ms.saturating_mul(1000));
        self.change_log(group, |log| log.deletion = Some(Deletion { deleted_us: at_us, purge_us }))
    }

    fn update_cluster(&self, settings: &ClusterSettings, expected_revision: u64) -> Changes {
        if expected_revision != self.settings_revision {
            return Err(Conflict::OtherRevision(self.settings_revision));
        }
        let defaults = &settings.log_defaults;
        let holds = |log: &LogSettings| log.effective(defaults).limits_hold();
        if !defaults.labels.is_empty() || !holds(&LogSettings::default()) {
            return Err(Conflict::BadDefaults(None));
        }
        if let Some((_, log)) = self.logs.iter().find(|(_, log)| !holds(&log.settings)) {
            return Err(Conflict::BadDefaults(Some(log.name.clone())));
        }
        Ok((*settings != *self.settings).then(|| Change::SetClusterSettings(settings.clone())))
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.members.len() <= Catalog::MEMBERS_MAX, "more members than the catalog accepts");
        assert_eq!(self.logs.len(), self.names.len(), "two logs have the same name");
        assert_eq!(self.logs.len() + self.purged.len(), self.ids.len(), "two logs have the same id");
    }
}
