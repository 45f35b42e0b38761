//! The components of a node: those that exist from its start, and those that run once it is a member of a cluster.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::error::{AgentError, no_thread};
use crate::api::core::{Core, Me};
use crate::api::leaders::LeaderHints;
use crate::api::server::Api;
use crate::catalog::{CatalogView, Member};
use crate::config::Config;
use crate::consensus::handle::ConsensusHandle;
use crate::consensus::{Consensus, ConsensusParts};
use crate::feature_level::ClusterLevel;
use crate::forming::FormingHandle;
use crate::logs::Logs;
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::replication::Late;
use crate::replication::bulk_rate::BulkRate;
use crate::replication::dial::Dialer;
use crate::replication::hello::PeerIdentity;
use crate::replication::peers::{Peers, PeersHandle};
use crate::storage::disk::Disk;
use crate::storage::log::LogOptions;
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::reader::Readers;
use crate::storage::replicas::retired_dirs;
use crate::storage::scrub::{Scrub, ScrubOptions};
use crate::thread::{FatalSender, Joiner, Progress, Silence};
use crate::types::{ClusterId, GroupId};
use crate::waiting::WaitingFor;
use crate::watermark::HighWatermark;
use crate::writer::{WRITER_THREADS, Writer, WriterHandle, WriterMetrics};

/// The components that run once the node is a member, in the order in which they are stopped.
pub(super) struct Running {
    pub consensus: ConsensusHandle,
    pub thread: Joiner,
    pub peers: Peers,
    pub writer: Writer,
    pub readers: Readers,
    pub scrub: Scrub,
    pub alive: Progress,
    pub consensus_silence: Silence<u64>,
    pub writer_handle: WriterHandle,
    pub writer_silences: [Silence<Option<Instant>>; WRITER_THREADS],
    pub hang_max: Duration,
    pub logs: Logs,
    pub since: Instant,
    /// True if the node had a log when it started.
    pub restarted: bool,
}

/// The components that exist from the start. Shared with the thread that waits for admission.
pub(super) struct Base {
    pub config: Config,
    pub fatal: FatalSender,
    pub disk: Disk,
    pub data_dir: Arc<DataDir>,
    pub me: Member,
    pub dialer: Dialer,
    pub api: Mutex<Api>,
    pub membership: Membership,
    /// Set for a blank node that forms a cluster with other ones.
    pub forming: Option<FormingHandle>,
    pub metrics: Arc<Metrics>,
    pub waiting: WaitingFor,
    pub levels: ClusterLevel,
    pub late_peers: Late<PeersHandle>,
    pub running: Mutex<Option<Running>>,
}

impl Base {
    pub fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock()
    }

    pub fn api(&self) -> MutexGuard<'_, Api> {
        self.api.lock()
    }

    pub fn log_options(&self) -> LogOptions {
        LogOptions { segment_bytes: self.disk.space().segment_bytes(self.config.storage.segment_bytes) }
    }

    /// Recovers the logs, starts the components of a member, and lets the listeners accept requests.
    /// `admission_members` contains the members at this node's admission if it does not have the catalog yet.
    pub fn run(
        &self,
        cluster_id: ClusterId,
        node_file: NodeFile,
        admission_members: Vec<Member>,
    ) -> Result<(), AgentError> {
        let consensus = Consensus::default();
        let handle = consensus.handle();
        let alive = consensus.progress();
        let catalog = CatalogView::new(self.levels.clone());
        let catalog_watermark = HighWatermark::default();
        let logs = Logs::default();
        let writer =
            Writer::start(&self.disk, consensus.report(), WriterMetrics::new(self.metrics.registry()), &self.fatal)
                .map_err(no_thread)?;
        for retired in retired_dirs(&self.data_dir)? {
            writer.handle().remove_directory(retired);
        }
        let readers = Readers::start(&self.fatal).map_err(no_thread)?;
        let options = ScrubOptions {
            bytes_per_second: self.config.storage.scrub_bytes_per_second,
            interval: self.config.storage.scrub_interval,
        };
        let scrub = Scrub::start(&self.disk, self.data_dir.path(), options, &self.fatal).map_err(no_thread)?;
        let late_consensus: Late<ConsensusHandle> = Arc::new(OnceLock::new());
        let identity = PeerIdentity {
            cluster_name: self.config.cluster.cluster_name.clone(),
            cluster_id,
            node_id: self.me.id,
            bind_addr: self.me.bind_addr.clone(),
            levels: self.levels.clone(),
        };
        let dialer = self.dialer.clone();
        let peers = Peers::start(
            identity,
            dialer,
            (catalog.clone(), catalog_watermark.clone()),
            late_consensus.clone(),
            logs.clone(),
            BulkRate::new(self.config.replication.catch_up_bytes_per_second, self.metrics.registry()),
            self.fatal.clone(),
        );
        peers.observe(self.metrics.registry());
        peers.handle().set_admission_members(admission_members);
        let restarted = node_file.groups.keys().any(|group| *group != GroupId::CATALOG);
        let parts = ConsensusParts {
            metrics: self.metrics.registry().clone(),
            me: self.me.clone(),
            disk: self.disk.clone(),
            data_dir: self.data_dir.clone(),
            node_file,
            log_options: self.log_options(),
            writer: writer.handle(),
            readers: readers.handle(),
            scrub: scrub.handle(),
            outbound: Arc::new(peers.handle()),
            catalog: catalog.clone(),
            catalog_watermark: catalog_watermark.clone(),
            logs: logs.clone(),
        };
        let thread = consensus.start(parts, &self.fatal)?;
        let _ = late_consensus.set(handle.clone());
        let _ = self.late_peers.set(peers.handle());
        self.api().serve(Core {
            me: Me {
                node_id: self.me.id,
                node_name: self.me.name.clone(),
                cluster_name: self.config.cluster.cluster_name.clone(),
            },
            cluster_id,
            consensus: handle.clone(),
            logs: logs.clone(),
            catalog,
            catalog_watermark,
            forward: Arc::new(peers.handle()),
            leaders: LeaderHints::default(),
            readers: readers.handle(),
            scrub: scrub.handle(),
            space: self.disk.space().clone(),
        });
        peers.handle().serve_relays(Arc::new(self.api().relayed_requests()));
        self.membership.handle().admitted(peers.handle());
        let writer_handle = writer.handle();
        let hang_max = self.config.storage.hang_max;
        let running = Running {
            consensus: handle,
            thread,
            peers,
            writer,
            readers,
            scrub,
            alive,
            consensus_silence: Silence::default(),
            writer_handle,
            writer_silences: Default::default(),
            hang_max,
            logs,
            since: Instant::now(),
            restarted,
        };
        *self.running() = Some(running);
        Ok(())
    }
}
