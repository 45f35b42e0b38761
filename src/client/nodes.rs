//! The nodes of a cluster as the library knows them, and the channels to them.
//!
//! Before the first request to a node, and again after its connection was lost, the node is asked for all members. The
//! answer shows that it is reachable and belongs to the same cluster, so a request that changes something is only sent
//! to a node that can answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::{CallOption, Channel, ChannelCredentials, ConnectivityState, RpcStatusCode};
use parking_lot::Mutex;

use super::calls::ClientFiles;
use super::error::{Error, Result};
use super::wait::{Stop, Waited, wait_for};
use crate::grpc::{Env, library_channel, redirect_log};
use crate::pb::log_service_grpc::LogServiceClient;
use crate::pb::unary::Response;
use crate::pb::v1::{GetServersRequest, GetServersResponse};
use crate::reason::Outcome;
use crate::security::tls;
use crate::thread::fatal_channel;

/// After this time, a node is asked for the members again.
const MEMBERS_AGE_MAX: Duration = Duration::from_secs(300);

/// How to reach a cluster, and how long to try.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The client addresses of nodes, `host:port`. One is enough, because it names the other members; with several, the
    /// library can begin while one of them is down.
    pub addrs: Vec<String>,
    /// The files for mutual TLS. `None`: without encryption, for nodes that run with `--insecure`.
    pub files: Option<ClientFiles>,
    /// How long one attempt may take, in addition to the time that a request asks the server to wait. Default: 5 s.
    pub attempt_timeout: Duration,
    /// How long an operation may take, over all its attempts. Default: 120 s.
    pub operation_timeout: Duration,
    /// How long a connection may take. Default: 3 s.
    pub connect_timeout: Duration,
    /// The first pause before a new attempt; each is twice as long as the one before. Default: 100 ms.
    pub backoff_min: Duration,
    /// The longest pause before a new attempt. Default: 5 s.
    pub backoff_max: Duration,
}

impl ClusterOptions {
    /// The defaults, for nodes at these addresses.
    pub fn new<A: Into<String>>(addrs: impl IntoIterator<Item = A>) -> ClusterOptions {
        ClusterOptions { addrs: addrs.into_iter().map(Into::into).collect(), ..ClusterOptions::default() }
    }
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            addrs: Vec::new(),
            files: None,
            attempt_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// A node, and the channel to it.
pub(super) struct Node {
    pub addr: String,
    pub stubs: LogServiceClient,
    /// For calls with messages of another type than the generated one.
    pub raw: grpcio::Client,
    channel: Channel,
    /// When it last named the members. `None` after its connection was lost.
    greeted: Mutex<Option<Instant>>,
}

impl Node {
    /// The node must be asked for the members before the next request.
    pub fn lost(&self) {
        if self.greeted.lock().take().is_some() {
            log::debug!("connection lost node={}", self.addr);
        }
    }

    fn is_greeted(&self) -> bool {
        self.greeted.lock().is_some_and(|at| at.elapsed() < MEMBERS_AGE_MAX)
    }
}

struct Known {
    /// The addresses of the members that were not given.
    members: Vec<String>,
    cluster_id: Option<String>,
    nodes: HashMap<String, Arc<Node>>,
    /// The address of a node that has answered.
    answering: Option<String>,
    /// When a node was last asked for the members.
    asked: Instant,
    /// Another cluster answered.
    changed: Option<Error>,
}

/// All nodes of a cluster, shared by everything that uses them.
pub(super) struct Nodes {
    pub options: ClusterOptions,
    // The channels are dropped before their thread.
    known: Mutex<Known>,
    env: Env,
}

impl Nodes {
    /// Reads the certificate files. Connects to nothing.
    pub fn new(options: ClusterOptions) -> Result<Nodes> {
        let invalid = |what: &str| Error::local(RpcStatusCode::INVALID_ARGUMENT, what, Outcome::None);
        if options.addrs.is_empty() {
            return Err(invalid("no address of a node"));
        }
        if let Some(addr) = options.addrs.iter().find(|addr| !addr.contains(':')) {
            return Err(invalid(&format!("the address {addr:?} has no port: give host:port")));
        }
        credentials(&options)?;
        // The C core would write every failed attempt to stderr.
        redirect_log();
        // Nothing reads the failures of the thread: a call on it ends by its deadline.
        let (fatal, _) = fatal_channel();
        let env = Env::start("seriatim-grpc", 1, &fatal);
        let known = Known {
            members: Vec::new(),
            cluster_id: None,
            nodes: HashMap::new(),
            answering: None,
            asked: Instant::now(),
            changed: None,
        };
        Ok(Nodes { options, known: Mutex::new(known), env })
    }

    /// Returns all addresses, those that were given first.
    pub fn addrs(&self) -> Vec<String> {
        let known = self.known.lock();
        self.options.addrs.iter().chain(&known.members).cloned().collect()
    }

    /// Returns where to begin: a node that has answered before, or the first that was given.
    pub fn first_addr(&self) -> String {
        let known = self.known.lock();
        known.answering.clone().unwrap_or_else(|| self.options.addrs[0].clone())
    }

    /// Begins later operations at this node.
    pub fn answered(&self, addr: &str) {
        let mut known = self.known.lock();
        if known.answering.as_deref() != Some(addr) {
            known.answering = Some(addr.to_owned());
        }
    }

    /// Returns the node at an address, with a channel that connects when it is used.
    fn node(&self, addr: &str) -> Result<Arc<Node>> {
        let mut known = self.known.lock();
        if let Some(error) = &known.changed {
            return Err(error.clone());
        }
        if let Some(node) = known.nodes.get(addr) {
            return Ok(node.clone());
        }
        let channel = library_channel(self.env.get(), addr, credentials(&self.options)?);
        let node = Arc::new(Node {
            addr: addr.to_owned(),
            stubs: LogServiceClient::new(channel.clone()),
            raw: grpcio::Client::new(channel.clone()),
            channel,
            greeted: Mutex::new(None),
        });
        known.nodes.insert(addr.to_owned(), node.clone());
        Ok(node)
    }

    /// Returns the node at an address, which has named the members.
    pub fn visit(&self, addr: &str, until: Instant, stop: Option<&Stop>) -> Result<Arc<Node>> {
        let node = self.node(addr)?;
        if !node.is_greeted() {
            self.greet(&node, "", until, stop)?;
        }
        Ok(node)
    }

    /// Asks the node at an address for the leader of a log. Returns the node, and the address of the leader if it is
    /// known.
    pub fn visit_for(
        &self,
        addr: &str,
        log: &str,
        until: Instant,
        stop: Option<&Stop>,
    ) -> Result<(Arc<Node>, Option<String>)> {
        let node = self.node(addr)?;
        // Without a name, no leader is reported.
        let leader = self.greet(&node, if log.is_empty() { "default" } else { log }, until, stop)?;
        Ok((node, leader))
    }

    /// Asks for the members again, if that was long ago. For streams that stay open.
    pub fn keep_members(&self, node: &Node, stop: &Stop) {
        if self.known.lock().asked.elapsed() >= MEMBERS_AGE_MAX {
            let until = Instant::now() + self.options.attempt_timeout;
            // The stream shows whether the node can be reached.
            let _ = self.greet(node, "", until, Some(stop));
        }
    }

    /// Asks a node for the members, and returns the address of the log's leader.
    fn greet(&self, node: &Node, log: &str, until: Instant, stop: Option<&Stop>) -> Result<Option<String>> {
        let connected = node.channel.check_connectivity_state(true) == ConnectivityState::GRPC_CHANNEL_READY;
        let options = &self.options;
        let most = if connected { options.attempt_timeout } else { options.connect_timeout };
        let timeout = most.min(until.saturating_duration_since(Instant::now()));
        self.known.lock().asked = Instant::now();
        let request = GetServersRequest { log: log.to_owned(), ..GetServersRequest::default() };
        let call = node.stubs.get_servers_async_opt(&request, CallOption::default().timeout(timeout));
        // The request of the caller was not sent.
        let not_sent = |error: Error| error.with_outcome(Outcome::None);
        let response = answer(call, stop).map_err(not_sent)?;
        self.learn(node, &response)?;
        Ok(response.servers.into_iter().find(|server| server.is_leader).map(|server| server.rpc_addr))
    }

    fn learn(&self, node: &Node, response: &GetServersResponse) -> Result<()> {
        let mut known = self.known.lock();
        let first = known.cluster_id.get_or_insert_with(|| response.cluster_id.clone());
        if *first != response.cluster_id {
            let message = format!("{} belongs to cluster {}, and not to {first}", node.addr, response.cluster_id);
            let ids = [("cluster_id", response.cluster_id.clone())];
            let error = Error::found(RpcStatusCode::FAILED_PRECONDITION, "CLUSTER_CHANGED", message, &ids);
            known.changed = Some(error.clone());
            return Err(error);
        }
        let given = &self.options.addrs;
        let members = response.servers.iter().map(|server| server.rpc_addr.clone());
        let members: Vec<String> = members.filter(|addr| !addr.is_empty() && !given.contains(addr)).collect();
        // The users of a former member keep its channel.
        known.nodes.retain(|addr, _| given.contains(addr) || members.contains(addr) || *addr == node.addr);
        known.members = members;
        if node.greeted.lock().replace(Instant::now()).is_none() {
            log::debug!("connected node={} members={}", node.addr, response.servers.len());
        }
        Ok(())
    }
}

fn credentials(options: &ClusterOptions) -> Result<ChannelCredentials> {
    let Some(files) = &options.files else { return Ok(ChannelCredentials::insecure()) };
    tls::client_credentials(&files.ca_file, &files.cert_file, &files.key_file)
        .map_err(|e| Error::local(RpcStatusCode::INVALID_ARGUMENT, e.to_string(), Outcome::None))
}

/// Waits for the answer of a call, which has a deadline.
pub(super) fn answer<T: Unpin>(call: grpcio::Result<Response<T>>, stop: Option<&Stop>) -> Result<T> {
    match wait_for(call?, None, stop) {
        Waited::Ready(response) => Ok(response?),
        Waited::Stopped => Err(Error::closed("client").with_outcome(Outcome::Unknown)),
        Waited::TimedOut => Err(Error::local(RpcStatusCode::DEADLINE_EXCEEDED, "no answer in time", Outcome::Unknown)),
    }
}
