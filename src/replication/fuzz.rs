//! Fuzz loops of what peers send to each other: streams, forwarded work, refusals.

use std::time::{Duration, Instant};

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::Message as _;

use super::form;
use super::hello::PeerIdentity;
use super::outcome::{appended_outcome, read_appended, read_index_outcome, read_read_index};
use super::proposal::proposal_of;
use super::refusal::{Reason, Refusal};
use super::relay::{
    RelayError, RelayFailure, RelayKind, RelayPackage, RelayPart, RelayedRequest, failure, part_of, response,
};
use crate::catalog::Catalog;
use crate::consensus::handle::{Appended, ProposeError};
use crate::feature_level::ClusterLevel;
use crate::forming::{BlankNode, FormMessage, Word};
use crate::fuzz::{Loop, PROTOBUF_FIXED_BYTES};
use crate::pb::peer as pb;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::payload::{RecordFields, encode_record, stamp_records};
use crate::types::{ClusterId, LogId, LogIndex, LogName, NodeId, NodeName, Offset, Term};

fn me(node: u64) -> PeerIdentity {
    PeerIdentity {
        cluster_name: "x".to_owned(),
        cluster_id: ClusterId(5),
        node_id: NodeId(node),
        bind_addr: "a:1".to_owned(),
        levels: ClusterLevel::default(),
    }
}

/// The first message of a stream, whatever else it contains.
#[test]
fn hello() {
    let request =
        pb::ReplicateRequest { hello: Some(me(2).hello(NodeId(1))).into(), ..pb::ReplicateRequest::default() };
    Loop::new("hello", vec![request.write_to_bytes().expect("encoded")])
        .memory(400)
        .memory_fixed(PROTOBUF_FIXED_BYTES)
        .run(|bytes| {
            let Ok(request) = pb::ReplicateRequest::parse_from_bytes(bytes) else { return false };
            let Some(hello) = request.hello.as_ref() else { return false };
            let Ok(peer) = me(1).check(hello, &Catalog::default()) else { return false };
            let from = peer.node;
            assert!((from.0, hello.cluster_id, hello.to) == (hello.from, 5, 1) && ![0, 1].contains(&from.0));
            true
        });
}

/// An accepted forwarded proposal becomes an entry that every node can apply.
///
/// A trim of nine bytes, and a batch without records, were accepted. Committed, they stopped their group on every node
/// as damaged.
#[test]
fn forward_request() {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value: b"v", ..RecordFields::default() });
    let job = |kind: EntryKind, count, payload: Vec<u8>| {
        let mut job = pb::Job { id: 1, group: 1, deadline_ms: 9, principal: "root".into(), ..pb::Job::default() };
        let propose = pb::Propose {
            kind: u32::from(kind.code()),
            count,
            payload: payload.into(),
            stream: 3,
            ..pb::Propose::default()
        };
        job.set_propose(propose);
        job
    };
    let mut read_index = pb::Job { id: 2, group: 1, ..pb::Job::default() };
    read_index.set_read_index(pb::ReadIndex::new());
    let jobs = vec![job(EntryKind::Records, 1, payload), job(EntryKind::Trim, 0, vec![1; 8]), read_index];
    let request = pb::ForwardRequest { jobs, ..pb::ForwardRequest::default() };
    Loop::new("forward_request", vec![request.write_to_bytes().expect("encoded")])
        .memory(400)
        .memory_fixed(PROTOBUF_FIXED_BYTES)
        .run(|bytes| {
            let Ok(request) = pb::ForwardRequest::parse_from_bytes(bytes) else { return false };
            let mut taken = false;
            for job in request.jobs {
                let Some(pb::job::Work::Propose(propose)) = job.work else { continue };
                let Ok(proposal) = proposal_of(job.group, None, propose, &Catalog::default()) else { continue };
                // As the leader does next (`consensus/group/propose.rs`).
                let mut payload = proposal.payload.to_vec();
                if proposal.kind == EntryKind::Records
                    && stamp_records(&mut payload, Offset(0), Term(1), 1) != Ok(proposal.count)
                {
                    continue;
                }
                let stamp = Stamp {
                    kind: proposal.kind,
                    count: proposal.count,
                    base_offset: Offset(0),
                    append_time_us: 1,
                    producer_id: proposal.producer_id,
                    sequence: proposal.sequence,
                };
                let entry = Entry::new(LogIndex(1), Term(1), stamp, &payload);
                assert_eq!(entry.stamp(), Ok(stamp));
                assert!(proposal.kind != EntryKind::Trim || entry.payload().len() == 8, "a trim is an offset");
                taken = true;
            }
            taken
        });
}

#[test]
fn forward_response() {
    let appended = Appended {
        offset: Offset(7),
        count: 2,
        term: Term(3),
        index: LogIndex(11),
        append_time_us: 1_700_000_000,
        duplicate: false,
    };
    let outcomes = vec![
        appended_outcome(1, Ok(appended)),
        appended_outcome(2, Err(ProposeError::PastEnd { next_offset: Offset(3) })),
        read_index_outcome(3, Ok(LogIndex(5))),
    ];
    let response = pb::ForwardResponse { outcomes, ..pb::ForwardResponse::default() };
    Loop::new("forward_response", vec![response.write_to_bytes().expect("encoded")])
        .memory(400)
        .memory_fixed(PROTOBUF_FIXED_BYTES)
        .run(|bytes| {
            let Ok(response) = pb::ForwardResponse::parse_from_bytes(bytes) else { return false };
            for outcome in &response.outcomes {
                let answer = read_appended(outcome.clone());
                if !matches!(answer, Err(ProposeError::Dropped)) {
                    // An error that concerns only the other node is decoded as "dropped". Every other error decodes
                    // as encoded.
                    assert_eq!(read_appended(appended_outcome(outcome.id, answer)), answer);
                }
                let index = read_read_index(outcome.clone());
                assert_eq!(read_read_index(read_index_outcome(outcome.id, index)), index);
                let certain = outcome.has_appended() || outcome.has_refused();
                assert!(certain || answer == Err(ProposeError::OutcomeUnknown), "never a guess");
            }
            true
        });
}

/// A decoded request encodes to a message that decodes to the same request.
#[test]
fn relay_request() {
    let now = Instant::now();
    let seeds = RelayKind::ALL.iter().map(|kind| {
        let request = RelayedRequest {
            kind: *kind,
            package: RelayPackage::SeriatimV1,
            log: LogName::new("a").expect("a name"),
            log_id: LogId(7),
            principal: "root".to_owned(),
            deadline: Some(now + Duration::from_millis(9)),
            request: vec![1, 2, 3],
        };
        request.message(me(2).hello(NodeId(1)), now).write_to_bytes().expect("encoded")
    });
    Loop::new("relay_request", seeds.collect()).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES).run(|bytes| {
        let Ok(message) = pb::RelayRequest::parse_from_bytes(bytes) else { return false };
        let Ok(request) = RelayedRequest::of_message(message, now) else { return false };
        let again = request.message(me(2).hello(NodeId(1)), now);
        assert_eq!(RelayedRequest::of_message(again, now), Ok(request));
        true
    });
}

#[test]
fn relay_response() {
    let failed = RelayFailure { reason: "NO_LEADER".to_owned(), status: vec![1, 2] };
    let messages = [pb::RelayResponse::default(), response(vec![1, 2, 3]), failure(failed)];
    let seeds = messages.map(|message| message.write_to_bytes().expect("encoded"));
    Loop::new("relay_response", seeds.into()).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES).run(|bytes| {
        let Ok(message) = pb::RelayResponse::parse_from_bytes(bytes) else { return false };
        let part = part_of(message);
        let again = match part.clone() {
            Ok(RelayPart::Accepted) => pb::RelayResponse::default(),
            Ok(RelayPart::Response(bytes)) => response(bytes),
            Err(RelayError::Failed(failed)) => failure(failed),
            Err(other) => panic!("no message says {other:?}"),
        };
        assert_eq!(part_of(again), part);
        true
    });
}

/// The details of a status, as another node sends them.
#[test]
fn refusal_details() {
    let seeds =
        [Reason::Removed, Reason::NoLeader].map(|reason| Refusal::new(reason, "text").status().details().to_vec());
    Loop::new("refusal_details", seeds.into()).memory(400).run(|bytes| {
        let status = RpcStatus::with_details(RpcStatusCode::FAILED_PRECONDITION, "text".to_owned(), bytes.to_vec());
        let Some(refusal) = Refusal::from_status(&status) else { return false };
        // The text of an unknown reason contains its code.
        assert_eq!(Refusal::from_status(&refusal.status()), Some(refusal));
        true
    });
}

/// What a blank node says to another one.
#[test]
fn form_request() {
    let from = BlankNode {
        id: NodeId(7),
        name: NodeName::new("a").expect("a name"),
        addr: "a:1".to_owned(),
        expect: 3,
        incarnation: 9,
    };
    let words = [
        None,
        Some(Word::Pledge { to: NodeId(1), incarnation: 2, epoch: 3 }),
        Some(Word::Withdraw { to: NodeId(1), epoch: 3 }),
    ];
    let seeds = words.map(|word| {
        let message = FormMessage { from: from.clone(), word };
        form::request("c", &message).write_to_bytes().expect("encoded")
    });
    Loop::new("form_request", seeds.into()).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES).run(|bytes| {
        let Ok(request) = pb::FormRequest::parse_from_bytes(bytes) else { return false };
        let Some(message) = form::read_request(request) else { return false };
        assert_eq!(form::read_request(form::request("c", &message)), Some(message));
        true
    });
}
