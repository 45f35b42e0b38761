//! Whether a node is ready, and what it waits for.

use super::LEADER_MAX;
use super::base::Base;
use crate::catalog::LogMeta;
use crate::types::GroupId;

impl Base {
    /// Returns what the node waits for, if it is not ready: it is a member, no other cluster of its name answers, and the
    /// logs of which it should have replicas are open and have leaders. A restarted member waits only a few seconds for
    /// leaders, because the other nodes may be started after it.
    pub(super) fn readiness(&self) -> Result<(), String> {
        let running = self.running();
        let Some(running) = running.as_ref() else { return Err(self.waiting.get()) };
        let led = |group| running.consensus.status(group).is_some_and(|status| status.leader.is_some());
        let peers = running.peers.handle();
        let catalog = peers.catalog().get();
        if let Some(rival) = peers.rival() {
            return Err(format!("another cluster of the same name answers: {rival}"));
        }
        if running.restarted && running.since.elapsed() > LEADER_MAX {
            return Ok(());
        }
        if !catalog.had_logs() {
            return Err("the cluster is being created, or this node does not have its catalog yet".to_owned());
        }
        let is_here = |log: &&LogMeta| log.deletion.is_none() && log.is_on(peers.me().node_id);
        // A damaged replica does not stop the node.
        let is_open =
            |log: &LogMeta| running.logs.get(&log.name).is_some() || running.consensus.lost(log.group).is_some();
        if let Some(log) = catalog.logs().filter(is_here).find(|log| !is_open(log)) {
            return Err(format!("log {} is not open yet", log.name));
        }
        let open = running.logs.all();
        let is_leaderless = |group| running.consensus.lost(group).is_none() && !led(group);
        if let Some(log) = open.iter().find(|log| is_leaderless(log.group)) {
            return Err(format!("log {} has no leader", log.name));
        }
        if !led(GroupId::CATALOG) {
            return Err("the catalog has no leader".to_owned());
        }
        Ok(())
    }
}
