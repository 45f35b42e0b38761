//! What all nodes report of themselves (`GetNode`). The other nodes are asked over the connections between peers, so this
//! node needs no client certificate.
//!
//! The nodes are asked at most once a second, and only while somebody looks at the page.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::{BoxFuture, Either, Shared, join_all, select};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;

use crate::api::core::Core;
use crate::api::messages::Request;
use crate::api::node::get_node;
use crate::api::nodes::describe;
use crate::api::package::Package;
use crate::api::service::{Call, Service};
use crate::events::Event;
use crate::pb::{self, v1};
use crate::replication::relay::{RelayError, RelayKind, RelayPackage, RelayPart, RelayedRequest};
use crate::security::identity::Principal;
use crate::types::{LogId, LogName, NodeId};

/// Nodes that have not answered after this time are shown without what they report.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The nodes are asked again after this time.
const FRESH: Duration = Duration::from_secs(1);

/// What is known about the cluster at one moment.
pub(super) struct Snapshot {
    pub taken: SystemTime,
    pub cluster_name: String,
    pub cluster_id: String,
    /// The name of this node.
    pub me: String,
    pub balancing: bool,
    /// By name. Before this node is a member, it is the only one.
    pub nodes: Vec<NodeAnswer>,
    pub logs: Vec<LogRow>,
    /// The events of this node, the newest first.
    pub events: Vec<Event>,
}

/// A member, and what it reports of itself or why it does not.
pub(super) struct NodeAnswer {
    pub member: v1::Node,
    pub answer: Result<v1::GetNodeResponse, String>,
}

/// A log as the catalog of this node has it.
pub(super) struct LogRow {
    pub name: String,
    /// The nodes on which it should have replicas.
    pub nodes: Vec<String>,
    pub replicas_wanted: u32,
}

type Gathering = Shared<BoxFuture<'static, Arc<Snapshot>>>;

/// Asks the nodes, and keeps their answers for a moment.
pub(super) struct Gatherer {
    service: Service,
    last: Mutex<Option<(Instant, Gathering)>>,
}

impl Gatherer {
    pub fn new(service: Service) -> Gatherer {
        Gatherer { service, last: Mutex::default() }
    }

    /// Returns the answers of this moment, or those of at most a second ago.
    pub fn snapshot(&self) -> Gathering {
        let mut last = self.last.lock();
        let is_usable = |(began, gathering): &&(Instant, Gathering)| {
            let age = began.elapsed();
            age < FRESH || (gathering.peek().is_none() && age < ANSWER_MAX + FRESH)
        };
        if let Some((_, gathering)) = last.as_ref().filter(is_usable) {
            return gathering.clone();
        }
        let gathering = gather(self.service.clone()).boxed().shared();
        *last = Some((Instant::now(), gathering.clone()));
        gathering
    }
}

async fn gather(service: Service) -> Arc<Snapshot> {
    let mut snapshot = Snapshot {
        taken: SystemTime::now(),
        cluster_name: service.me.cluster_name.clone(),
        cluster_id: String::new(),
        me: service.me.node_name.to_string(),
        balancing: false,
        nodes: Vec::new(),
        logs: Vec::new(),
        events: service.metrics.registry().events().newest(),
    };
    match service.core() {
        Ok(core) => {
            snapshot.cluster_id = core.cluster_id.to_string();
            let catalog = core.catalog.get();
            snapshot.balancing = catalog.is_balancing();
            let members: Vec<(NodeId, v1::Node)> =
                catalog.members().map(|member| (member.id, describe(core, &catalog, member))).collect();
            let name = |node: NodeId| catalog.member(node).map_or_else(|| node.to_string(), |m| m.name.to_string());
            let present = catalog.logs().filter(|log| log.deletion.is_none());
            snapshot.logs = present
                .map(|log| LogRow {
                    name: log.name.to_string(),
                    nodes: log.placements().map(|placement| name(placement.node)).collect(),
                    replicas_wanted: catalog.settings_of(log).replicas,
                })
                .collect();
            let answers = members.into_iter().map(|(id, member)| ask(&service, core, id, member));
            snapshot.nodes = join_all(answers).await;
        }
        Err(_) => {
            let answer = ask_here(&service).await;
            let member = v1::Node {
                name: service.me.node_name.to_string(),
                node_id: service.me.node_id.to_string(),
                is_heard: true,
                ..v1::Node::default()
            };
            snapshot.nodes.push(NodeAnswer { member, answer });
        }
    }
    snapshot.nodes.sort_by(|a, b| a.member.name.cmp(&b.member.name));
    snapshot.logs.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(snapshot)
}

async fn ask(service: &Service, core: &Core, id: NodeId, member: v1::Node) -> NodeAnswer {
    let answer = match id == core.me.node_id {
        true => ask_here(service).await,
        false if core.consensus.is_silent(id) => Err("no heartbeats arrive from it".to_owned()),
        false => ask_peer(service, core, id).await,
    };
    NodeAnswer { member, answer }
}

async fn ask_here(service: &Service) -> Result<v1::GetNodeResponse, String> {
    let call = Call::relayed(Package::SeriatimV1, Principal::anonymous(), None);
    get_node(service.clone(), call, Request(Vec::new())).await.map_err(|error| error.to_string())
}

async fn ask_peer(service: &Service, core: &Core, id: NodeId) -> Result<v1::GetNodeResponse, String> {
    let deadline = Instant::now() + ANSWER_MAX;
    let request = RelayedRequest {
        kind: RelayKind::GetNode,
        package: RelayPackage::SeriatimV1,
        // It is about the node, and needs no log.
        log: LogName::default_log(),
        log_id: LogId(0),
        principal: Principal::anonymous().to_string(),
        deadline: Some(deadline),
        request: Vec::new(),
    };
    let mut answers = core.forward.relay(id, &request);
    let mut late = service.timers.at(deadline);
    loop {
        let part = match select(answers.next(), &mut late).await {
            Either::Left((part, _)) => part,
            Either::Right(_) => return Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        match part {
            Some(Ok(RelayPart::Accepted)) => {}
            Some(Ok(RelayPart::Response(bytes))) => {
                return pb::parse(&bytes).map_err(|error| format!("its answer can't be read: {error}"));
            }
            Some(Err(RelayError::Lost(why))) => return Err(why),
            Some(Err(RelayError::NoReplica)) => return Err("it runs a version that does not answer this".to_owned()),
            Some(Err(RelayError::Failed(failure))) => return Err(failure.reason),
            None => return Err("the connection was lost".to_owned()),
        }
    }
}
