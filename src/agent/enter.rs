//! Makes a node a member of a cluster: it founds one, is admitted to one, or was a member before its restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::base::Base;
use super::error::{AgentError, no_thread};
use crate::catalog::Member;
use crate::config::Config;
use crate::forming::{BlankNode, Forming, FormingHandle};
use crate::membership::admission::{AdmissionError, Entrance, Probed};
use crate::replication::wait::block_until;
use crate::reply::ReplyReceiver;
use crate::storage::check_groups;
use crate::storage::log::{Genesis, GroupLog};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::replicas::unlist_retired;
use crate::thread::{Joiner, spawn};
use crate::types::{ClusterId, GroupId, NodeId, ReplicaId};

/// A probe for an existing cluster takes at most eight seconds. If it takes longer than this limit, membership has
/// failed.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// The pause between two probes of a founder that can't reach its join addresses.
const PROBE_PAUSE: Duration = Duration::from_millis(500);
/// The time between two log lines about this.
const REPORT: Duration = Duration::from_secs(30);

impl Base {
    /// Depending on the data directory and the configuration, continues as a member, founds a cluster, or joins one.
    /// Returns the thread that waits for the admission or the founding, if one is needed.
    pub(super) fn begin(self: Arc<Base>, node_file: NodeFile) -> Result<Option<Joiner>, AgentError> {
        if let Some(cluster_id) = node_file.cluster_id {
            self.waiting.set("recovering its logs from its disk");
            self.run(cluster_id, node_file, Vec::new())?;
            return Ok(None);
        }
        if self.config.cluster.bootstrap {
            if let Some(candidate) = self.data_dir.load_pledge()?.candidate.filter(|c| c.id != self.me.id) {
                return Err(AgentError::Pledged { node: candidate.id, addr: candidate.addr });
            }
            self.waiting.set(format!(
                "checking that cluster {:?} does not exist yet, before founding it",
                self.config.cluster.cluster_name
            ));
            let Some(possible_clusters) = self.probe(Duration::ZERO)? else { return Ok(None) };
            if possible_clusters.is_empty() {
                self.found_cluster(node_file)?;
                return Ok(None);
            }
            let (fatal, base) = (self.fatal.clone(), self);
            let waits = move || base.found_once_sure(possible_clusters, node_file);
            return spawn("admission", &fatal, waits).map(Some).map_err(no_thread);
        }
        let fatal = self.fatal.clone();
        let base = self;
        let joiner = spawn("admission", &fatal, move || base.join(node_file)).map_err(no_thread)?;
        Ok(Some(joiner))
    }

    /// After a pause, searches for a cluster at the join addresses. Returns the addresses that can't be reached,
    /// where a cluster may exist. `None` if this node is stopping.
    fn probe(&self, pause: Duration) -> Result<Option<Vec<String>>, AgentError> {
        let begin = Instant::now() + pause;
        // The membership thread waits for the pause, so that a stop can interrupt it.
        let Some(probed) = wait_for(self.membership.handle().probe(begin), begin)? else { return Ok(None) };
        let possible_clusters = probed.possible_clusters();
        probed.found.map_or(Ok(Some(possible_clusters)), |found| Err(AgentError::ClusterExists(found)))
    }

    /// Founds the cluster once every join address has answered or refused the connection. Otherwise a founder with a
    /// replaced disk would found a second cluster while its join addresses can't be reached.
    fn found_once_sure(&self, mut possible_clusters: Vec<String>, node_file: NodeFile) -> Result<(), AgentError> {
        let mut next_report = Instant::now();
        while !possible_clusters.is_empty() {
            self.report_not_sure(&possible_clusters, &mut next_report);
            let Some(now) = self.probe(PROBE_PAUSE)? else { return Ok(()) };
            possible_clusters = now;
        }
        self.found_cluster(node_file)
    }

    fn report_not_sure(&self, possible_clusters: &[String], next_report: &mut Instant) {
        let why = format!(
            "not founding cluster {:?} yet: no answer from {}, where it may exist already. If these hosts were never members, \
             start without them in --join",
            self.config.cluster.cluster_name,
            possible_clusters.join(", ")
        );
        if Instant::now() >= *next_report {
            log::warn!("{why}");
            *next_report = Instant::now() + REPORT;
        }
        self.waiting.set(why);
    }

    fn found_cluster(&self, mut node_file: NodeFile) -> Result<(), AgentError> {
        let cluster_id = ClusterId::random().map_err(|e| AgentError::System(e.to_string()))?;
        log::info!("founding cluster {} with id {cluster_id}", self.config.cluster.cluster_name);
        self.enter(cluster_id, Genesis::founder(ReplicaId::of_node(self.me.id)), &mut node_file)?;
        self.run(cluster_id, node_file, Vec::new())
    }

    fn join(&self, mut node_file: NodeFile) -> Result<(), AgentError> {
        let mut next_report = Instant::now();
        let admission = loop {
            let Ok(entrance) = self.membership.handle().admission().wait() else { return Ok(()) };
            match entrance {
                Ok(Entrance::Admitted(admission)) => break admission,
                Ok(Entrance::Founds) => match self.may_found(&mut next_report)? {
                    None => return Ok(()),
                    Some(true) => return self.found_cluster(node_file),
                    // It asks for admission again: a cluster was found, or a node or an address does not answer.
                    Some(false) => {}
                },
                Err(AdmissionError::Stopped) => return Ok(()),
                Err(error) => return Err(AgentError::NotAdmitted(error)),
            }
        };
        self.waiting.set("admitted to the cluster; starting its replica of the catalog");
        log::info!("admitted to cluster {} with id {}", self.config.cluster.cluster_name, admission.cluster_id);
        self.enter(admission.cluster_id, Genesis::Blank, &mut node_file)?;
        self.run(admission.cluster_id, node_file, admission.members)
    }

    /// Returns whether this node, which has the pledges of the other blank nodes, may found the cluster now: no member
    /// answers, every join address has answered or refused the connection, and the pledges still hold. Meanwhile it
    /// confirms no withdrawal. `None` if this node is stopping.
    fn may_found(&self, next_report: &mut Instant) -> Result<Option<bool>, AgentError> {
        let Some(forming) = &self.forming else { return Ok(Some(false)) };
        let Some(probed) = wait_for(self.membership.handle().probe_known(), Instant::now())? else { return Ok(None) };
        let possible_clusters = probed.possible_clusters();
        if probed.found.is_none() && possible_clusters.is_empty() && forming.lock().may_found(Instant::now()) {
            return Ok(Some(true));
        }
        if probed.found.is_none() && !possible_clusters.is_empty() {
            self.report_not_sure(&possible_clusters, next_report);
        }
        forming.lock().reopen();
        Ok(Some(false))
    }

    /// Stores the cluster in the node file, and creates the replica of the catalog.
    fn enter(&self, cluster_id: ClusterId, genesis: Genesis, node_file: &mut NodeFile) -> Result<(), AgentError> {
        let groups_dir = self.data_dir.groups_dir();
        GroupLog::create(&self.disk, &groups_dir, GroupId::CATALOG, &self.log_options(), genesis)?;
        node_file.cluster_name = Some(self.config.cluster.cluster_name.clone());
        node_file.cluster_id = Some(cluster_id);
        node_file.add(GroupId::CATALOG, ReplicaId::of_node(node_file.node_id));
        self.data_dir.store(node_file)?;
        self.data_dir.remove_pledge()?;
        Ok(())
    }
}

/// Waits for a probe that begins at this time. `None` if this node is stopping.
fn wait_for(probe: ReplyReceiver<Probed>, begin: Instant) -> Result<Option<Probed>, AgentError> {
    match block_until(probe, begin + PROBE_MAX) {
        Some(answer) => Ok(answer.ok()),
        None => Err(AgentError::System(format!("membership did not answer a probe within {PROBE_MAX:?}"))),
    }
}

/// Returns the state of a blank node that forms a cluster with other ones; `None` for any other node.
pub(super) fn forming(
    config: &Config,
    data_dir: &DataDir,
    node_file: &NodeFile,
    me: &Member,
) -> Result<Option<FormingHandle>, AgentError> {
    let Some(expect) = config.cluster.bootstrap_expect.filter(|_| node_file.cluster_id.is_none()) else {
        return Ok(None);
    };
    let incarnation = NodeId::random().map_err(|e| AgentError::System(e.to_string()))?.0;
    let me = BlankNode {
        id: me.id,
        name: me.name.clone(),
        addr: me.bind_addr.clone(),
        expect: u32::try_from(expect).unwrap_or(u32::MAX),
        incarnation,
    };
    Ok(Some(Arc::new(Mutex::new(Forming::new(me, data_dir.load_pledge()?)))))
}

/// Reads the node file. In a blank data directory, creates one with a new id. The node's name may change. Its id
/// never changes, and neither does the cluster's name of a member. If a member's file does not contain the cluster's
/// name, because an older version wrote it, the configured name is added.
pub(super) fn node_file(config: &Config, data_dir: &DataDir) -> Result<NodeFile, AgentError> {
    let stored = data_dir.load()?;
    check_groups(data_dir, stored.as_ref())?;
    let mut node_file = match &stored {
        Some(stored) => {
            let mut node_file = stored.clone();
            unlist_retired(data_dir, &mut node_file)?;
            node_file
        }
        None => {
            let id = NodeId::random().map_err(|e| AgentError::System(e.to_string()))?;
            NodeFile::new(id, config.node.node_name.clone())
        }
    };
    node_file.node_name = config.node.node_name.clone();
    if node_file.cluster_id.is_some() {
        let stored = node_file.cluster_name.get_or_insert_with(|| config.cluster.cluster_name.clone());
        if *stored != config.cluster.cluster_name {
            let (stored, given) = (stored.clone(), config.cluster.cluster_name.clone());
            return Err(AgentError::OtherClusterName { data_dir: config.node.data_dir.clone(), stored, given });
        }
    }
    if stored.as_ref() != Some(&node_file) {
        data_dir.store(&node_file)?;
    }
    Ok(node_file)
}
