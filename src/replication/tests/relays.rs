//! Tests of requests that one node relays to another, over real connections.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;

use futures::future::{BoxFuture, poll_fn};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use parking_lot::Mutex;

use super::{LONG, TestNode, pair};
use crate::catalog::{Catalog, Command};
use crate::feature_level::Feature;
use crate::replication::refusal::{Reason, Refusal};
use crate::replication::relay::{
    RelayEnd, RelayError, RelayFailure, RelayGone, RelayKind, RelayPackage, RelayPart, RelayServer, RelaySink,
    RelayedRequest,
};
use crate::replication::relay_answer::RelayAnswer;
use crate::replication::wait::block_until;
use crate::types::{LogId, LogName};

/// Has a replica of the log `a`, and answers each method in another way.
#[derive(Default)]
struct FakeServer {
    requests: Mutex<Vec<RelayedRequest>>,
    /// The number of streams whose client is gone.
    gone: AtomicUsize,
}

impl RelayServer for FakeServer {
    fn has_replica(&self, log: &LogName, log_id: LogId) -> bool {
        log.as_str() == "a" && log_id == LogId(7)
    }

    fn serve<'a>(&'a self, request: RelayedRequest, responses: &'a mut RelaySink<'_>) -> BoxFuture<'a, RelayEnd> {
        async move {
            let (kind, is_idle) = (request.kind, request.principal == "idle");
            self.requests.lock().push(request);
            if is_idle {
                poll_fn(|cx| match Pin::new(&mut *responses).poll_flush(cx) {
                    Poll::Ready(Err(RelayGone)) => Poll::Ready(()),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                })
                .await;
                return RelayEnd::Gone;
            }
            match kind {
                RelayKind::GetLog => {
                    responses.send(b"first".to_vec()).await.expect("sent");
                    responses.send(Vec::new()).await.expect("sent");
                    RelayEnd::Complete
                }
                RelayKind::Consume => {
                    responses.send(vec![7; 5 << 20]).await.expect("sent");
                    RelayEnd::Complete
                }
                RelayKind::ConsumeStream => loop {
                    if let Err(RelayGone) = responses.send(vec![1; 64 << 10]).await {
                        self.gone.fetch_add(1, Ordering::SeqCst);
                        return RelayEnd::Gone;
                    }
                },
                _ => RelayEnd::Failed(failure()),
            }
        }
        .boxed()
    }
}

fn failure() -> RelayFailure {
    RelayFailure { reason: "NO_LEADER".to_owned(), status: vec![1, 2, 3] }
}

fn request(kind: RelayKind) -> RelayedRequest {
    RelayedRequest {
        kind,
        package: RelayPackage::SeriatimV1,
        log: LogName::new("a").expect("a name"),
        log_id: LogId(7),
        principal: "root".to_owned(),
        deadline: None,
        request: vec![9, 8, 7],
    }
}

/// Returns two nodes of a cluster that may relay. The second one serves.
fn relaying() -> (TestNode, TestNode, Arc<FakeServer>) {
    let (a, b) = pair();
    let server = Arc::new(FakeServer::default());
    b.peers.handle().serve_relays(server.clone());
    for node in [&a, &b] {
        let mut catalog = Catalog::clone(&node.catalog.get());
        catalog.apply(&Command::RaiseFeatureLevel(Feature::ManyLogs.level()), 1);
        node.catalog.publish(catalog);
    }
    (a, b, server)
}

fn next(answer: &mut RelayAnswer) -> Option<Result<RelayPart, RelayError>> {
    block_until(answer.next(), Instant::now() + LONG).expect("an answer in time")
}

fn all(mut answer: RelayAnswer) -> Vec<Result<RelayPart, RelayError>> {
    std::iter::from_fn(|| next(&mut answer)).collect()
}

#[test]
fn responses_and_failures_arrive_as_they_were_sent() {
    let (a, b, server) = relaying();
    let relay = |kind| all(a.peers.handle().relay(b.id, &request(kind)));
    let response = |bytes: &[u8]| Ok(RelayPart::Response(bytes.to_vec()));
    let accepted = || Ok(RelayPart::Accepted);
    assert_eq!(relay(RelayKind::GetLog), [accepted(), response(b"first"), response(b"")]);
    assert_eq!(relay(RelayKind::Consume), [accepted(), response(&vec![7; 5 << 20])]);
    assert_eq!(relay(RelayKind::TrimLog), [accepted(), Err(RelayError::Failed(failure()))]);
    let kinds = [RelayKind::GetLog, RelayKind::Consume, RelayKind::TrimLog];
    assert_eq!(*server.requests.lock(), kinds.map(request));
}

#[test]
fn a_node_without_a_replica_refuses() {
    let (a, b, server) = relaying();
    for (name, log_id) in [("b", 7), ("a", 8)] {
        let log = LogName::new(name).expect("a name");
        let request = RelayedRequest { log, log_id: LogId(log_id), ..request(RelayKind::GetLog) };
        assert_eq!(all(a.peers.handle().relay(b.id, &request)), [Err(RelayError::NoReplica)]);
    }
    assert!(!a.peers.handle().is_suspect(b.id), "it answers");
    // It does not serve clients yet.
    let refused = all(b.peers.handle().relay(a.id, &request(RelayKind::GetLog)));
    assert!(matches!(&refused[..], [Err(RelayError::Lost(_))]), "{refused:?}");
    assert!(server.requests.lock().is_empty());
}

#[test]
fn the_caller_is_checked_like_that_of_every_call() {
    let (a, b, server) = relaying();
    let refused = |change: &dyn Fn(&mut crate::pb::peer::RelayRequest)| {
        let hello = a.peers.handle().me().hello(b.id);
        let mut message = request(RelayKind::GetLog).message(hello, Instant::now());
        change(&mut message);
        // Kept until the end, because dropping the channel would end the call.
        let client = b.dial(&a);
        let mut responses = client.relay(&message).expect("a call");
        let first = block_until(responses.next(), Instant::now() + LONG).expect("in time").expect("a status");
        Refusal::from_error(&first.expect_err("a refusal")).expect("a reason").reason
    };
    assert_eq!(refused(&|message| message.hello = None.into()), Reason::Malformed);
    assert_eq!(refused(&|message| message.hello.mut_or_insert_default().cluster_id = 1), Reason::ClusterId);
    assert_eq!(refused(&|message| message.hello.mut_or_insert_default().to = 9), Reason::WrongNode);
    assert_eq!(refused(&|message| message.kind = 99), Reason::Malformed);
    assert_eq!(refused(&|message| message.package = 0), Reason::Malformed);
    b.removes(a.id);
    assert_eq!(refused(&|_| {}), Reason::Removed);
    assert!(server.requests.lock().is_empty());
}

#[test]
fn a_stream_ends_there_when_it_is_dropped_here() {
    let (a, b, server) = relaying();
    let mut answer = a.peers.handle().relay(b.id, &request(RelayKind::ConsumeStream));
    for _ in 0..5 {
        next(&mut answer).expect("a part").expect("no error");
    }
    drop(answer);
    let until = Instant::now() + LONG;
    while server.gone.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "it has not ended");
        std::thread::yield_now();
    }
}

#[test]
fn a_removed_node_gets_no_further_response() {
    let (a, b, server) = relaying();
    let mut answer = a.peers.handle().relay(b.id, &request(RelayKind::ConsumeStream));
    next(&mut answer).expect("a part").expect("no error");
    b.removes(a.id);
    let end = std::iter::from_fn(|| next(&mut answer)).find_map(Result::err).expect("an end");
    assert!(matches!(&end, RelayError::Lost(why) if why.contains("was removed")), "{end:?}");
    assert_eq!(server.gone.load(Ordering::SeqCst), 1);
}

#[test]
fn a_lost_node_is_asked_last_until_it_answers_again() {
    let (a, mut b, _server) = relaying();
    let peers = a.peers.handle();
    let mut open = peers.relay(b.id, &request(RelayKind::ConsumeStream));
    next(&mut open).expect("a part").expect("no error");
    b.stop_listening();
    let end = std::iter::from_fn(|| next(&mut open)).find_map(Result::err).expect("an end");
    assert!(matches!(end, RelayError::Lost(_)), "{end:?}");
    assert!(peers.is_suspect(b.id));
    let down = all(peers.relay(b.id, &request(RelayKind::GetLog)));
    assert!(matches!(&down[..], [Err(RelayError::Lost(_))]), "{down:?}");
    b.listen_again("127.0.0.1:0");
    a.knows(&[b.member()]);
    let until = Instant::now() + LONG;
    while all(peers.relay(b.id, &request(RelayKind::GetLog))).len() != 3 {
        assert!(Instant::now() < until, "it does not answer");
    }
    assert!(!peers.is_suspect(b.id));
    a.peers.stop();
    let stopped = all(peers.relay(b.id, &request(RelayKind::GetLog)));
    assert_eq!(stopped, [Err(RelayError::Lost("this node is stopping".to_owned()))]);
}

#[test]
fn many_requests_share_connections_that_each_have_room() {
    let (a, b, server) = relaying();
    let peers = a.peers.handle();
    // More than one connection may carry.
    let idle = RelayedRequest { principal: "idle".to_owned(), ..request(RelayKind::ConsumeStream) };
    let mut open: Vec<RelayAnswer> = (0..1100).map(|_| peers.relay(b.id, &idle)).collect();
    for answer in &mut open {
        assert_eq!(next(answer), Some(Ok(RelayPart::Accepted)));
    }
    assert_eq!(server.requests.lock().len(), 1100);
}
