//! Requests for a log of which the node has no replica: reads are relayed to a node that has one, appends go to the
//! leader.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use futures::channel::{mpsc, oneshot};
use futures::executor::block_on;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _, stream};
use grpcio::{RpcStatusCode as Code, WriteFlags};
use parking_lot::Mutex;
use protobuf::Message as _;

use super::node::{FakeConsensus, Fate, ME, Node, OPEN_POLICY, OTHER};
use super::raw::exchange;
use super::{consume, produce, reason, refusal, values};
use crate::api::Forward;
use crate::api::forward::RelayAnswers;
use crate::catalog::{Command, LogSettings, Member, NewLog, Origin};
use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::feature_level::Feature;
use crate::pb::{error_details, log, status, v1};
use crate::replication::relay::{RelayEnd, RelayError, RelayGone, RelayPart, RelayServer, RelayedRequest};
use crate::reply::{ReplyReceiver, reply};
use crate::types::{GroupId, LogId, LogIndex, LogName, NodeId, NodeName};

const FAR: LogId = LogId(0xfa);
const THIRD: NodeId = NodeId(3);

#[derive(Default)]
struct PeersState {
    /// The nodes that answer, and serve relayed requests.
    servers: HashMap<NodeId, Arc<dyn RelayServer>>,
    proposed_to: Vec<NodeId>,
    relayed_to: Vec<NodeId>,
    asked_to_lead: Vec<NodeId>,
    /// The answers to the next read indexes; then each node confirms that it leads.
    read_indexes: VecDeque<ReadIndexError>,
    /// Each keeps the connection of a relayed request.
    cuts: Vec<oneshot::Sender<()>>,
}

/// The other nodes.
struct FakePeers {
    fake: FakeConsensus,
    state: Mutex<PeersState>,
}

impl Forward for FakePeers {
    fn propose(
        &self,
        to: NodeId,
        _principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let (tx, rx) = reply();
        self.state.lock().proposed_to.push(to);
        self.fake.propose(proposal, tx);
        rx
    }

    fn read_index(
        &self,
        to: NodeId,
        _: GroupId,
        _: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let (tx, rx) = reply();
        let mut state = self.state.lock();
        state.asked_to_lead.push(to);
        tx.send(state.read_indexes.pop_front().map_or(Ok(LogIndex(1)), Err));
        rx
    }

    fn relay(&self, to: NodeId, request: &RelayedRequest) -> RelayAnswers {
        let mut state = self.state.lock();
        state.relayed_to.push(to);
        let Some(server) = state.servers.get(&to).cloned() else {
            return stream::iter([Err(RelayError::Lost("it is down".to_owned()))]).boxed();
        };
        if !server.has_replica(&request.log, request.log_id) {
            return stream::iter([Err(RelayError::NoReplica)]).boxed();
        }
        let (cut, is_cut) = oneshot::channel();
        state.cuts.push(cut);
        let (request, (sender, responses)) = (request.clone(), mpsc::channel(0));
        let served = async move {
            let mut sink = sender.sink_map_err(|_| RelayGone);
            match server.serve(request, &mut sink).await {
                RelayEnd::Complete | RelayEnd::Gone => None,
                RelayEnd::Failed(failure) => Some(Err(RelayError::Failed(failure))),
            }
        };
        let responses = responses.map(|bytes| Ok(RelayPart::Response(bytes)));
        let end = served.into_stream().filter_map(futures::future::ready);
        let lost = is_cut.map(|_| Err(RelayError::Lost("the connection is lost".to_owned()))).into_stream();
        // Ends with the failure, or when all responses are sent.
        let answers = stream::iter([Ok(RelayPart::Accepted)]).chain(stream::select(responses, end));
        let mut is_over = false;
        let answers = answers.map(Some).chain(stream::iter([None]));
        stream::select(answers, lost.map(Some))
            .take_while(move |part| {
                let goes_on = part.is_some() && !is_over;
                is_over = is_over || matches!(part, Some(Err(_)));
                futures::future::ready(goes_on)
            })
            .filter_map(futures::future::ready)
            .boxed()
    }
}

/// A node without a replica of the log `far`, and one that has it.
struct Pair {
    near: Node,
    far: Node,
    peers: Arc<FakePeers>,
}

fn create(nodes: &[NodeId]) -> Command {
    Command::CreateLog(NewLog {
        name: LogName::new("far").expect("a name"),
        log_id: FAR,
        origin: Origin::Nodes(nodes.to_vec()),
        settings: LogSettings { record_bytes_max: Some(2000), ..LogSettings::default() },
        restore: None,
    })
}

impl Pair {
    /// The node that has a replica is `serves`. According to the catalog, the replicas are on `nodes`.
    fn start(policy: &str, nodes: &[NodeId], serves: NodeId) -> Pair {
        let far = Node::serving_named_logs();
        far.commit(create(&[ME]));
        let mut near = Node::joining(policy);
        let peers = Arc::new(FakePeers { fake: near.fake.clone(), state: Mutex::default() });
        peers.state.lock().servers.insert(serves, Arc::new(far.api().relayed_requests()));
        near.commit(Command::RaiseFeatureLevel(Feature::ManyLogs.level()));
        near.commit(Command::AddNode(Member {
            id: THIRD,
            name: NodeName::new("three").expect("a name"),
            bind_addr: "three:1".to_owned(),
            rpc_addr: "three:2".to_owned(),
        }));
        near.commit(create(nodes));
        near.set_forward(peers.clone());
        near.serve();
        Pair { near, far, peers }
    }

    fn new() -> Pair {
        Pair::start(OPEN_POLICY, &[OTHER], OTHER)
    }

    /// Appends at the node with the replica.
    fn append(&self, texts: &[&str]) {
        self.far.client.produce(&to_far(produce(texts))).expect("appended");
    }

    fn state<T>(&self, read: impl FnOnce(&mut PeersState) -> T) -> T {
        read(&mut self.peers.state.lock())
    }
}

fn to_far(request: log::ProduceRequest) -> log::ProduceRequest {
    log::ProduceRequest { log: "far".to_owned(), ..request }
}

fn from_far(offset: u64, max_records: u32) -> log::ConsumeRequest {
    log::ConsumeRequest { log: "far".to_owned(), ..consume(offset, max_records) }
}

/// The responses, and the code, message and details of the status. The metadata in the details has no order.
type Comparable = (Vec<Vec<u8>>, Option<(Code, String, Vec<error_details::ErrorInfo>, usize)>);

fn comparable((responses, end): (Vec<Vec<u8>>, Result<(), grpcio::RpcStatus>)) -> Comparable {
    let status = end.err().map(|s| {
        let details = status::Status::parse_from_bytes(s.details()).expect("a google.rpc.Status").details;
        let infos = details.iter().filter_map(|any| any.unpack().expect("well-formed")).collect();
        (s.code(), s.message().to_owned(), infos, details.len())
    });
    (responses, status)
}

#[test]
fn each_read_gets_the_bytes_that_the_replica_sends_in_both_packages() {
    let pair = Pair::new();
    pair.append(&["a", "b", "c"]);
    let batch = from_far(0, 10);
    let v1 = v1::ConsumeRequest { log: "far".to_owned(), stop_at_end: true, ..Default::default() };
    let one = v1::ConsumeRequest { stop_at_end: false, ..v1.clone() };
    let get_log = v1::GetLogRequest { log: "far".to_owned(), ..Default::default() };
    let get_log_v1 = log::GetLogRequest { log: "far".to_owned(), ..Default::default() };
    let bytes = |message: &dyn protobuf::MessageDyn| message.write_to_bytes_dyn().expect("encoded");
    let methods: [(&str, Vec<u8>); 9] = [
        ("/log.v1.Log/Consume", bytes(&batch)),
        ("/log.v1.Log/Consume", bytes(&from_far(1, 0))),
        ("/log.v1.Log/ConsumeStream", bytes(&log::ConsumeRequest { stop_at_end: true, ..batch })),
        ("/log.v1.Log/ConsumeStream", bytes(&log::ConsumeRequest { stop_at_end: true, ..from_far(0, 0) })),
        ("/log.v1.Log/GetLog", bytes(&get_log_v1)),
        ("/seriatim.v1.LogService/Consume", bytes(&one)),
        ("/seriatim.v1.LogService/ConsumeStream", bytes(&v1)),
        ("/seriatim.v1.LogService/GetLog", bytes(&get_log)),
        ("/seriatim.v1.LogService/TrimLog", bytes(&v1::TrimLogRequest { log: "far".to_owned(), ..Default::default() })),
    ];
    for (method, request) in methods {
        let direct = exchange(&pair.far, method, std::slice::from_ref(&request));
        let relayed = exchange(&pair.near, method, &[request]);
        assert!(!direct.0.is_empty() && direct.1.is_ok(), "{method}: {direct:?}");
        assert_eq!(comparable(relayed), comparable(direct), "{method}");
    }
    assert_eq!(pair.state(|state| state.relayed_to.len()), 9);
}

#[test]
fn a_failure_has_the_status_of_the_node_that_served_it() {
    let pair = Pair::new();
    pair.append(&["a"]);
    for method in ["/log.v1.Log/Consume", "/log.v1.Log/ConsumeStream"] {
        let request = from_far(7, 10).write_to_bytes().expect("encoded");
        let direct = exchange(&pair.far, method, std::slice::from_ref(&request));
        let relayed = exchange(&pair.near, method, &[request]);
        assert_eq!(direct.1.as_ref().expect_err("past the end").code(), Code::OUT_OF_RANGE);
        assert_eq!(comparable(relayed), comparable(direct), "{method}");
    }
    let trim = v1::TrimLogRequest { log: "far".to_owned(), first_offset: 9, ..Default::default() };
    assert_eq!(reason(pair.near.logs.trim_log(&trim)), (Code::OUT_OF_RANGE, "OFFSET_PAST_END".to_owned()));
}

#[test]
fn a_tail_follows_and_ends_at_both_nodes_when_its_client_is_gone() {
    let pair = Pair::new();
    pair.append(&["a"]);
    let mut tail = pair.near.client.consume_stream(&from_far(0, 10)).expect("sent");
    let next = |tail: &mut grpcio::ClientSStreamReceiver<log::ConsumeResponse>| {
        values(&block_on(tail.next()).expect("a message").expect("no status"))
    };
    assert_eq!(next(&mut tail), ["a"]);
    pair.far.until("it waits", |node| node.waiters() == 1);
    pair.append(&["b", "c"]);
    assert_eq!(next(&mut tail), ["b", "c"]);
    let long_poll = log::ConsumeRequest { wait_ms: 10_000, ..from_far(3, 1) };
    let poll = pair.near.client.consume_async(&long_poll).expect("sent");
    pair.far.until("both wait", |node| node.waiters() == 2);
    pair.append(&["d"]);
    assert_eq!(values(&block_on(poll).expect("a response")), ["d"]);
    assert_eq!(next(&mut tail), ["d"]);
    pair.far.until("the tail waits", |node| node.waiters() == 1);
    assert!(pair.far.api().limits().usage().streams == 1, "its principal counts at this node, too");
    drop(tail);
    pair.far.until("it has ended there", |node| node.waiters() == 0 && node.api().limits().usage().streams == 0);
    pair.near.until("and here", |node| node.api().limits().usage().streams == 0);
}

/// Before that level every node gets a replica of every log, and the others may not know the call.
#[test]
fn nothing_is_relayed_below_the_feature_level() {
    let mut near = Node::joining(OPEN_POLICY);
    let peers = Arc::new(FakePeers { fake: near.fake.clone(), state: Mutex::default() });
    near.commit(create(&[OTHER]));
    near.set_forward(peers.clone());
    near.serve();
    let joining = (Code::UNAVAILABLE, "JOINING".to_owned());
    assert_eq!(reason(near.client.consume(&from_far(0, 10))), joining);
    assert_eq!(reason(near.client.produce(&to_far(produce(&["x"])))), joining);
    let state = peers.state.lock();
    assert_eq!((state.relayed_to.len(), state.proposed_to.len(), state.asked_to_lead.len()), (0, 0, 0));
}

#[test]
fn the_next_node_is_asked_until_one_has_a_replica() {
    let pair = Pair::start(OPEN_POLICY, &[OTHER, THIRD], THIRD);
    pair.append(&["a"]);
    assert_eq!(values(&pair.near.client.consume(&from_far(0, 10)).expect("a response")), ["a"]);
    assert_eq!(pair.state(|state| state.relayed_to.clone()), [OTHER, THIRD], "the first one is down");
    // A node that answers and has no replica.
    let empty = Node::serving_named_logs();
    pair.state(|state| {
        state.relayed_to.clear();
        state.servers.insert(OTHER, Arc::new(empty.api().relayed_requests()));
    });
    assert_eq!(values(&pair.near.client.consume(&from_far(0, 10)).expect("a response")), ["a"]);
    assert_eq!(pair.state(|state| state.relayed_to.clone()), [OTHER, THIRD]);
    // The leader, once it is known, is asked first.
    pair.near.fates(&[Fate::Fail(ProposeError::NotLeader { leader: Some(THIRD) })]);
    pair.near.client.produce(&to_far(produce(&["b"]))).expect("appended");
    pair.state(|state| state.relayed_to.clear());
    pair.near.client.consume(&from_far(0, 10)).expect("a response");
    assert_eq!(pair.state(|state| state.relayed_to.clone()), [THIRD]);
    // No node has one.
    pair.state(|state| state.servers.clear());
    let unreachable = (Code::UNAVAILABLE, "JOINING".to_owned());
    assert_eq!(reason(pair.near.client.consume(&from_far(0, 10))), unreachable);
    let get_log = v1::GetLogRequest { log: "far".to_owned(), ..Default::default() };
    let (code, info) = refusal(pair.near.logs.get_log(&get_log));
    assert_eq!((code, info.reason.as_str()), (Code::UNAVAILABLE, "REPLICA_UNREACHABLE"));
    assert_eq!((info.metadata["outcome"].as_str(), info.metadata["retry"].as_str()), ("none", "same"));
}

#[test]
fn a_tail_whose_node_is_lost_or_stops_says_that_it_can_be_continued() {
    for stops in [false, true] {
        let mut pair = Pair::new();
        pair.append(&["a"]);
        let request = v1::ConsumeRequest { log: "far".to_owned(), ..Default::default() };
        let mut tail = pair.near.logs.consume_stream(&request).expect("sent");
        let mut resume = 0;
        while resume == 0 {
            resume = block_on(tail.next()).expect("a message").expect("no status").resume_offset;
        }
        pair.far.until("it waits", |node| node.waiters() == 1);
        match stops {
            true => pair.far.api.take().expect("a listener").stop(),
            false => pair.state(|state| state.cuts.clear()),
        }
        let (code, info) = refusal(block_on(tail.next()).expect("a status"));
        assert_eq!((code, info.reason.as_str()), (Code::UNAVAILABLE, "REPLICA_UNREACHABLE"), "stops: {stops}");
        assert_eq!((info.metadata["outcome"].as_str(), info.metadata["retry"].as_str()), ("none", "same"));
    }
}

#[test]
fn the_outcome_of_a_trim_whose_node_is_lost_is_unknown_and_a_retry_is_safe() {
    let pair = Pair::new();
    pair.append(&["a", "b"]);
    pair.far.fate(Fate::Silence);
    let trim = v1::TrimLogRequest { log: "far".to_owned(), first_offset: 1, ..Default::default() };
    let answer = pair.near.logs.trim_log_async(&trim).expect("sent");
    pair.far.until("it is proposed", |node| node.silent() == 1);
    pair.state(|state| state.cuts.clear());
    assert_eq!(reason(block_on(answer)), (Code::UNAVAILABLE, "ANSWER_LOST".to_owned()));
}

#[test]
fn rights_are_checked_before_a_request_is_relayed() {
    let policy = "p, anonymous, default, produce\np, anonymous, default, consume\np, anonymous, default, admin\n";
    let pair = Pair::start(policy, &[OTHER], OTHER);
    pair.append(&["a"]);
    let denied = |result: (Code, String)| assert_eq!(result, (Code::PERMISSION_DENIED, "NOT_ALLOWED".to_owned()));
    denied(reason(pair.near.client.consume(&from_far(0, 10))));
    denied(reason(pair.near.client.produce(&to_far(produce(&["x"])))));
    let mut tail = pair.near.client.consume_stream(&from_far(0, 10)).expect("sent");
    denied(reason(block_on(tail.next()).expect("a status")));
    assert_eq!(pair.state(|state| (state.relayed_to.len(), state.proposed_to.len())), (0, 0));
}

#[test]
fn an_open_tail_ends_when_the_permission_is_revoked_at_the_node_that_relays_it() {
    let pair = Pair::new();
    pair.append(&["a"]);
    let mut tail = pair.near.client.consume_stream(&from_far(0, 10)).expect("sent");
    block_on(tail.next()).expect("a message").expect("no status");
    std::fs::write(&pair.near.policy_file, "p, anonymous, default, consume\n").expect("written");
    pair.near.acl.reload().expect("reloaded");
    pair.near.api().recheck();
    let end = reason(block_on(tail.next()).expect("a status"));
    assert_eq!(end, (Code::PERMISSION_DENIED, "NOT_ALLOWED".to_owned()));
    pair.far.until("it has ended there", |node| node.waiters() == 0);
}

#[test]
fn a_relayed_request_is_not_relayed_again() {
    // A third node believes that `near` has a replica.
    let pair = Pair::new();
    let server = pair.near.api().relayed_requests();
    assert!(!server.has_replica(&LogName::new("far").expect("a name"), FAR));
    assert!(!server.has_replica(&LogName::new("default").expect("a name"), FAR), "another log of that name");
    let request = RelayedRequest {
        kind: crate::replication::relay::RelayKind::Consume,
        package: crate::replication::relay::RelayPackage::SeriatimV1,
        log: LogName::new("far").expect("a name"),
        log_id: FAR,
        principal: "root".to_owned(),
        deadline: None,
        request: v1::ConsumeRequest { log: "far".to_owned(), ..Default::default() }.write_to_bytes().expect("encoded"),
    };
    let (sender, _responses) = mpsc::channel(1);
    let mut sink = sender.sink_map_err(|_| RelayGone);
    let RelayEnd::Failed(failure) = block_on(server.serve(request, &mut sink)) else { panic!("it is refused") };
    assert_eq!(failure.reason, "REPLICA_UNREACHABLE");
    assert_eq!(pair.state(|state| state.relayed_to.len()), 0);
}

#[test]
fn an_append_follows_the_leader_and_is_never_sent_twice_if_it_may_be_appended() {
    let pair = Pair::start(OPEN_POLICY, &[OTHER, THIRD], THIRD);
    let append = || pair.near.client.produce(&to_far(produce(&["x"])));
    let sent_to = || pair.state(|state| std::mem::take(&mut state.proposed_to));
    let not_leader = |leader| Fate::Fail(ProposeError::NotLeader { leader });

    pair.near.fates(&[not_leader(Some(THIRD)), Fate::Commit]);
    assert_eq!(append().expect("appended").log_id, FAR.0);
    assert_eq!(sent_to(), [OTHER, THIRD]);
    append().expect("appended");
    assert_eq!(sent_to(), [THIRD], "the leader is remembered");
    // The leader has changed, or can't be reached: surely not appended.
    pair.near.fates(&[Fate::Fail(ProposeError::Dropped), Fate::Commit]);
    append().expect("appended");
    assert_eq!(sent_to(), [THIRD, OTHER]);
    pair.near.fates(&[not_leader(None), not_leader(None)]);
    assert_eq!(reason(append()), (Code::UNAVAILABLE, "NO_LEADER".to_owned()));
    assert_eq!(sent_to(), [OTHER, THIRD], "each node is asked once");
    // A node outside of the log is not asked.
    pair.near.fates(&[not_leader(Some(NodeId(99))), not_leader(Some(ME))]);
    assert_eq!(reason(append()), (Code::UNAVAILABLE, "NO_LEADER".to_owned()));
    assert_eq!(sent_to(), [OTHER, THIRD]);
    for error in [ProposeError::OutcomeUnknown, ProposeError::QueueFull, ProposeError::DiskFull] {
        pair.near.fates(&[Fate::Fail(error)]);
        assert!(append().is_err());
        assert_eq!(sent_to(), [OTHER], "{error:?}");
    }
    // The settings of the log are those of the catalog.
    let large = to_far(produce(&[&"x".repeat(2001)]));
    assert_eq!(reason(pair.near.client.produce(&large)), (Code::INVALID_ARGUMENT, "RECORD_TOO_LARGE".to_owned()));
    let other_id = log::ProduceRequest { log_id: Some(1), ..to_far(produce(&["x"])) };
    assert_eq!(reason(pair.near.client.produce(&other_id)).1, "LOG_ID_MISMATCH");
    assert_eq!(sent_to(), []);
}

#[test]
fn a_produce_stream_finds_the_leader_first_and_all_its_requests_go_there() {
    let pair = Pair::start(OPEN_POLICY, &[OTHER, THIRD], THIRD);
    pair.state(|state| state.read_indexes.push_back(ReadIndexError::NotLeader { leader: Some(THIRD) }));
    let (mut requests, mut answers) = pair.near.client.produce_stream().expect("started");
    let mut send = |text: &str| {
        block_on(requests.send((to_far(produce(&[text])), WriteFlags::default()))).expect("sent");
    };
    for (offset, text) in ["a", "b", "c"].into_iter().enumerate() {
        send(text);
        let answer = block_on(answers.next()).expect("a response").expect("no status");
        assert_eq!(answer.offset, offset as u64);
    }
    assert_eq!(pair.state(|state| state.asked_to_lead.clone()), [OTHER, THIRD]);
    assert_eq!(pair.state(|state| state.proposed_to.clone()), [THIRD, THIRD, THIRD]);
    // Another node leads now. The request was not appended, and the next stream goes there.
    pair.near.fates(&[Fate::Fail(ProposeError::NotLeader { leader: Some(OTHER) })]);
    // The status may arrive before the end of the send, which fails then.
    let _ = block_on(requests.send((to_far(produce(&["d"])), WriteFlags::default())));
    let (code, info) = refusal(block_on(answers.next()).expect("a status"));
    assert_eq!((code, info.reason.as_str()), (Code::UNAVAILABLE, "NOT_APPENDED"));
    assert_eq!(info.metadata["failed_request"], "3");
    let (mut requests, mut answers) = pair.near.client.produce_stream().expect("started");
    block_on(requests.send((to_far(produce(&["d"])), WriteFlags::default()))).expect("sent");
    assert_eq!(block_on(answers.next()).expect("a response").expect("no status").offset, 3);
    assert_eq!(pair.state(|state| state.proposed_to.last().copied()), Some(OTHER));
    assert_eq!(pair.state(|state| state.asked_to_lead.len()), 2, "it is known");
}

#[test]
fn the_catalog_says_what_became_of_a_log_that_no_node_serves() {
    let pair = Pair::new();
    pair.state(|state| state.servers.clear());
    let group = pair.near.group_of("far");
    let servers = |node: &Node| {
        let request = v1::GetServersRequest { log: "far".to_owned(), ..Default::default() };
        node.logs.get_servers(&request).expect("servers").servers
    };
    let replicas: Vec<_> = servers(&pair.near).into_iter().filter(|server| server.is_replica).collect();
    assert_eq!(replicas.len(), 1);
    assert_eq!((replicas[0].id.as_str(), replicas[0].is_leader, replicas[0].is_voter), ("two", true, true));
    pair.near.commit(Command::DeleteLog(group, None, None));
    let get_log = v1::GetLogRequest { log: "far".to_owned(), ..Default::default() };
    let info = pair.near.logs.get_log(&get_log).expect("it can be seen").log.unwrap_or_default();
    assert_eq!(info.state.enum_value(), Ok(v1::LogState::LOG_STATE_DELETED));
    let read = v1::ConsumeRequest { log: "far".to_owned(), ..Default::default() };
    assert_eq!(reason(pair.near.logs.consume(&read)), (Code::NOT_FOUND, "LOG_DELETED".to_owned()));
    assert_eq!(reason(pair.near.client.produce(&to_far(produce(&["x"])))).1, "NO_SUCH_LOG");
}
