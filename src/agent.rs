//! One node: starts its components from the bottom layer up, and stops them from the top down.
//!
//! The files of the configuration are loaded (`files.rs`), and the addresses checked (`listen_addr.rs`,
//! `advertised.rs`). Then the listeners are bound, and answer JOINING until the node is a member of a cluster. It
//! becomes one in one of three ways (`enter.rs`): it was a member before its restart, it founds a cluster, or it is
//! admitted. Then the components of a member are started (`base.rs`): log-writer-*, readers, peers, consensus.

mod advertised;
mod base;
mod enter;
mod error;
mod files;
mod listen_addr;
mod monitoring;
mod readiness;
mod reloads;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use base::Base;
pub use error::AgentError;
use error::no_thread;
pub use files::{FileError, check as check_files};
use reloads::Reloads;

use crate::api::core::Me;
use crate::api::server::{Api, ApiOptions};
use crate::catalog::Member;
use crate::config::Config;
use crate::events::{EventKind, Severity};
use crate::feature_level::{ClusterLevel, FeatureRange};
use crate::forming::FormingHandle;
use crate::grpc::Env;
use crate::http::HttpServer;
use crate::membership::{FormingOptions, Membership, MembershipOptions};
use crate::metrics::Metrics;
use crate::monitor::Liveness;
use crate::replication::Late;
use crate::replication::dial::Dialer;
use crate::replication::guard::PeerGuard;
use crate::replication::listener::{PeerListener, PeerListenerOptions};
use crate::replication::peers::PeersHandle;
use crate::replication::refusal::Refusal;
use crate::security::acl::Acl;
use crate::security::identity::Identities;
use crate::security::peer_rules::PeerRules;
use crate::security::tls::Tls;
use crate::storage::disk::Disk;
use crate::storage::node::DataDir;
use crate::storage::space::SpaceWatch;
use crate::thread::{Fatal, Joiner, fatal_channel};
use crate::waiting::WaitingFor;
use crate::writer;

/// The time for requests in progress to finish when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// After this time a restarted member reports that it is ready, even without a leader.
const LEADER_MAX: Duration = Duration::from_secs(3);

/// The current step of a stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopStep(Arc<Mutex<&'static str>>);

impl StopStep {
    /// Returns the current step; empty before the stop.
    pub fn get(&self) -> &'static str {
        *self.0.lock()
    }

    fn set(&self, step: &'static str) {
        *self.0.lock() = step;
    }
}

/// A running node. Dropping it stops it.
pub struct Agent {
    /// `None` once the node is stopped. Dropping it releases the lock of the data directory.
    base: Option<Arc<Base>>,
    listener: Option<PeerListener>,
    admission: Option<Joiner>,
    bind_addr: SocketAddr,
    rpc_addr: SocketAddr,
    http: Option<HttpServer>,
    liveness: Liveness,
    tls: Tls,
    acl: Acl,
    rules: PeerRules,
    metrics: Arc<Metrics>,
    env: Option<Env>,
    space: Option<SpaceWatch>,
    failures: Receiver<Fatal>,
    step: StopStep,
}

impl Agent {
    /// Starts a node. Returns when the listeners are bound and the logs are recovered. The node may still be waiting
    /// for admission or for a leader.
    ///
    /// # Errors
    /// [`AgentError`]. The components that were started are stopped again.
    pub fn start(config: Config) -> Result<Agent, AgentError> {
        let (fatal, failures) = fatal_channel();
        let test_max = std::env::var(FeatureRange::TEST_MAX).ok();
        let range = FeatureRange::of_process(test_max.as_deref(), config.tls.is_none())?;
        if test_max.is_some() {
            log::warn!("{} is set: this node claims {range}, for a test", FeatureRange::TEST_MAX);
        }
        let levels = ClusterLevel::new(range);
        let (tls, rules, acl) = files::load(&config).map_err(AgentError::Files)?;
        let identities = Identities::new(&config.cluster.cluster_name, tls.is_insecure());
        let disk = Disk::real();
        if let Err(error) = disk.keep_descriptors() {
            log::warn!("{error}: a host that opens too many connections can end this node");
        }
        let data_dir = Arc::new(DataDir::open(&disk, &config.node.data_dir)?);
        disk.watch_space(&config.node.data_dir, &config.disk_space)?;
        let space = SpaceWatch::start(disk.space(), &fatal).map_err(no_thread)?;
        listen_addr::check("bind-addr (for peers)", config.node.bind_addr)?;
        listen_addr::check("rpc-addr (for clients)", config.node.rpc_addr)?;
        let http_listener = monitoring::bind(&config)?;
        let node_file = enter::node_file(&config, &data_dir)?;

        let env = Env::start("grpc", Env::threads_for_this_machine(), &fatal);
        let late_peers: Late<PeersHandle> = Arc::new(OnceLock::new());
        let late_forming: Late<FormingHandle> = Arc::new(OnceLock::new());
        let options = PeerListenerOptions {
            bind_addr: config.node.bind_addr.to_string(),
            cluster_name: config.cluster.cluster_name.clone(),
            memory_bytes_max: config.limits.peer_memory_bytes_max,
            forming: late_forming.clone(),
        };
        let metrics = Arc::new(Metrics::default());
        disk.space().record_in(metrics.registry().events().clone());
        let authorities = tls.peer_authorities();
        let guard = PeerGuard::new(identities.clone(), authorities, acl.clone(), rules.clone(), metrics.clone());
        let creds = tls.peer_listener();
        let listener = PeerListener::start(&env, &options, creds, guard, late_peers.clone(), fatal.clone())
            .map_err(|error| AgentError::PeerListener { addr: config.node.bind_addr, error })?;
        metrics.set_certificates_expire(&tls.expiries());
        let waiting = WaitingFor::default();
        waiting.set("the node is starting");
        let api = Api::start(
            ApiOptions {
                listen_addr: config.node.rpc_addr,
                credentials: tls.client_listener(),
                identities,
                authorities: tls.client_authorities(),
                signer: tls.signer(),
                acl: acl.clone(),
                limits: config.limits.clone(),
                metrics: metrics.clone(),
                waiting: waiting.clone(),
                me: Me {
                    node_id: node_file.node_id,
                    node_name: config.node.node_name.clone(),
                    cluster_name: config.cluster.cluster_name.clone(),
                },
            },
            &env,
            &fatal,
        )?;
        let bind_addr = SocketAddr::new(config.node.bind_addr.ip(), listener.port());
        let rpc_addr = SocketAddr::new(config.node.rpc_addr.ip(), api.port());
        let is_derived =
            |addr: SocketAddr, advertised: &Option<String>| addr.ip().is_unspecified() && advertised.is_none();
        let host = match is_derived(bind_addr, &config.node.advertise_bind_addr)
            || is_derived(rpc_addr, &config.node.advertise_rpc_addr)
        {
            true => advertised::Host::find(&config.cluster.join, bind_addr.port())
                .map_err(|error| AgentError::System(format!("can't list the addresses of this host: {error}")))?,
            // A sandbox may forbid to list them.
            false => advertised::Host::default(),
        };
        let find = |flag, listens| host.to_advertise(listens).map_err(|why| AgentError::ListenAddr { flag, why });
        let me = Member {
            id: node_file.node_id,
            name: config.node.node_name.clone(),
            bind_addr: match config.node.advertise_bind_addr.clone() {
                Some(addr) => addr,
                None => find("advertise-bind-addr (for peers)", bind_addr)?,
            },
            rpc_addr: match config.node.advertise_rpc_addr.clone() {
                Some(addr) => addr,
                None => find("advertise-rpc-addr (for clients)", rpc_addr)?,
            },
        };
        let http_addr = monitoring::addr_text(http_listener.as_ref());
        log::info!("listening bind_addr={bind_addr} rpc_addr={rpc_addr} http_addr={http_addr}");
        tls.warn_unless_named(&me.rpc_addr);
        let dialer = Dialer::for_cluster(env.get(), tls.clone(), rules.clone());
        let forming = enter::forming(&config, &data_dir, &node_file, &me)?;
        if let Some(forming) = &forming {
            let _ = late_forming.set(forming.clone());
        }
        let options = MembershipOptions {
            cluster_name: config.cluster.cluster_name.clone(),
            join: config.cluster.join.clone(),
            mdns: config.mdns().then(|| config.node.bind_addr.ip()),
            levels: levels.clone(),
            forming: forming.clone().map(|state| FormingOptions { state, data_dir: data_dir.clone() }),
        };
        let membership = Membership::start(options, me.clone(), dialer.clone(), waiting.clone(), &fatal);
        let base = Base {
            config,
            fatal,
            disk,
            data_dir,
            me,
            dialer,
            api: Mutex::new(api),
            membership: membership.map_err(no_thread)?,
            forming,
            metrics: metrics.clone(),
            waiting,
            levels,
            late_peers,
            running: Mutex::default(),
        };
        let base = Arc::new(base);
        let started = format!("the node has started, version {}", env!("CARGO_PKG_VERSION"));
        metrics.registry().events().record(EventKind::Node, Severity::Info, started);
        let liveness = Liveness::default();
        let http = match http_listener {
            Some(listener) => Some(monitoring::start(listener, &base, liveness.clone())?),
            None => None,
        };
        let mut agent = Agent {
            base: Some(base.clone()),
            listener: Some(listener),
            admission: None,
            bind_addr,
            rpc_addr,
            http,
            liveness,
            tls,
            acl,
            rules,
            metrics,
            env: Some(env),
            space: Some(space),
            failures,
            step: StopStep::default(),
        };
        agent.admission = base.begin(node_file)?;
        Ok(agent)
    }

    /// Returns the address of the peer listener, with its actual port.
    pub fn bind_addr(&self) -> SocketAddr {
        self.bind_addr
    }

    /// Returns the address of the client listener, with its actual port.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// Returns the address of the listener for monitoring, with its actual port; `None` if it is off.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::addr)
    }

    /// Returns whether the node is ready.
    pub fn takes_calls(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.readiness().is_ok())
    }

    /// Returns the channel for the failures of the node's threads. After a failure, the node must be stopped.
    pub fn failures(&self) -> &Receiver<Fatal> {
        &self.failures
    }

    /// Reloads the certificates, the access policy and the list of denied peers, if they have changed. An unusable
    /// file is ignored: the version in use is kept.
    pub fn reload(&self) {
        let reloads = Reloads::new(&self.metrics);
        match self.tls.reload() {
            Ok(true) => {
                log::info!("certificates reloaded");
                reloads.done("certificates");
                self.metrics.set_certificates_expire(&self.tls.expiries());
                if let Some(base) = &self.base {
                    self.tls.warn_unless_named(&base.me.rpc_addr);
                }
            }
            Ok(false) => {}
            Err(error) => {
                log::error!("certificates not reloaded, the old ones stay in use: {error}");
                reloads.failed("certificates", &error);
            }
        }
        match self.acl.reload() {
            Ok(true) => {
                log::info!("access policy reloaded");
                reloads.done("access policy");
            }
            Ok(false) => {}
            Err(error) => {
                log::error!("access policy not reloaded, the old one stays in use: {error}");
                reloads.failed("access policy", &error);
            }
        }
        match self.rules.reload() {
            Ok(true) => {
                log::info!("list of denied peers reloaded");
                reloads.done("denied peers");
            }
            Ok(false) => {}
            Err(error) => {
                log::error!("list of denied peers not reloaded, the old one stays in use: {error}");
                reloads.failed("denied peers", &error);
            }
        }
        if let Some(base) = &self.base {
            base.api().recheck();
        }
    }

    /// Applies the options that a reload may change: the limits of clients. The caller sets the log level.
    pub fn reload_config(&self, config: &Config) {
        if let Some(base) = &self.base {
            base.api().set_limits(config.limits.clone());
        }
        Reloads::new(&self.metrics).done("configuration");
    }

    /// Records that a changed configuration can't be used.
    pub fn config_refused(&self, why: &str) {
        Reloads::new(&self.metrics).failed("configuration", &why);
    }

    /// Returns the thread that has made no progress for `hang_max`, if any. The caller must then abort the
    /// process, because a node that hangs must not keep its leadership. Must be called every second: if two calls are
    /// further apart, the process was suspended, and the time between them does not count.
    pub fn hanging(&self) -> Option<String> {
        let silent = self.silent();
        self.liveness.record(silent.as_ref().map(|(thread, time, _)| (thread.clone(), *time)));
        silent.filter(|(_, time, hang_max)| time > hang_max).map(|(thread, ..)| thread)
    }

    /// Returns the thread that has made no progress for the longest time, this time, and `hang_max`.
    fn silent(&self) -> Option<(String, Duration, Duration)> {
        let mut running = self.base.as_ref()?.running();
        let running = running.as_mut()?;
        let now = Instant::now();
        let consensus = running.consensus_silence.check(running.alive.last(), now);
        let silences = running.writer_silences.iter_mut().zip(running.writer_handle.busy_since()).enumerate();
        let writers = silences.map(|(number, (silence, busy))| {
            let time = silence.check(busy, now);
            (if busy.is_some() { time } else { Duration::ZERO }, writer::thread_name(number))
        });
        let (time, thread) = writers.chain([(consensus, "consensus".to_owned())]).max()?;
        Some((thread, time, running.hang_max))
    }

    /// Returns why the cluster rejects this node, if it does. The node then takes part in no group.
    pub fn excluded(&self) -> Option<Refusal> {
        let running = self.base.as_ref()?.running();
        running.as_ref()?.peers.handle().excluded().cloned()
    }

    /// Returns the current step of [`Agent::stop`], for another thread.
    pub fn stop_step(&self) -> StopStep {
        self.step.clone()
    }

    /// Stops the node. Every request gets a response or a status, and everything written is synced. All steps run,
    /// even if one fails.
    ///
    /// # Errors
    /// The first failure of a thread that was not read from [`Agent::failures`].
    pub fn stop(mut self) -> Result<(), AgentError> {
        self.stop_now();
        match self.failures.try_recv() {
            Ok(fatal) => Err(AgentError::System(fatal.to_string())),
            Err(_) => Ok(()),
        }
    }

    fn stop_now(&mut self) {
        let Some(base) = self.base.take() else { return };
        self.step.set("leaving the cluster's membership");
        base.api().leave();
        base.membership.handle().stop();
        self.admission = None;
        let running = base.running().take();
        if let Some(running) = &running {
            self.step.set("handing leadership over");
            // `consensus` limits the wait, even if no node can take over.
            let _ = running.consensus.hand_over().wait();
        }
        self.step.set("ending requests");
        if !base.api().drain(Instant::now() + DRAIN_MAX) {
            log::warn!("cancelling requests that did not end within {DRAIN_MAX:?}");
        }
        if let Some(running) = running {
            self.step.set("stopping consensus");
            running.consensus.stop();
            running.thread.join();
            self.step.set("stopping replication");
            if let Some(listener) = &mut self.listener {
                listener.stop();
            }
            running.peers.stop();
            drop(running.peers);
            self.step.set("syncing the logs");
            running.writer.stop();
            self.step.set("ending reads");
            running.readers.stop();
            running.scrub.stop();
        }
        self.step.set("closing connections");
        self.http = None;
        // A gRPC channel keeps its threads alive, so all owners of channels are dropped first.
        self.listener = None;
        self.space = None;
        drop(base);
        if let Some(Err(error)) = self.env.take().map(Env::stop) {
            log::warn!("gRPC's threads did not end: {error:?}");
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop_now();
    }
}
