//! The Peer service: the calls of other nodes.
//!
//! The service already runs before this node is a member. Until its core is set, every call is refused with
//! [`Reason::NotReady`]. Each stream is served by one future on a `grpc` thread. It passes everything on to
//! consensus, and never blocks.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, poll_fn};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use grpcio::{DuplexSink, RequestStream, RpcContext, ServerStreamingSink, Service, UnarySink, WriteFlags};

use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::forming::FormingHandle;
use crate::grpc::spawn_guarded;
use crate::pb::peer::{
    FormRequest, FormResponse, ForwardRequest, ForwardResponse, Job, JoinRequest, JoinResponse, Outcome, RaftMessage,
    RelayRequest, RelayResponse, ReplicateRequest, ReplicateResponse, job,
};
use crate::pb::peer_grpc::{Peer, create_peer};
use crate::replication::Late;
use crate::replication::core::MemberCore;
use crate::replication::form;
use crate::replication::guard::{AuthorizedPeer, PeerGuard, host_of};
use crate::replication::hello::{StreamPeer, describe};
use crate::replication::join;
use crate::replication::levels::levels_of;
use crate::replication::outcome::{appended_outcome, read_index_outcome};
use crate::replication::peer::UNANSWERED_MAX;
use crate::replication::peers::PeersHandle;
use crate::replication::proposal::proposal_of;
use crate::replication::refusal::{Reason, Refusal};
use crate::replication::refusal_log::RefusalLog;
use crate::replication::relay_service::{CallEnd, relay};
use crate::replication::welcome::{still_welcome, welcome};
use crate::thread::FatalSender;
use crate::types::GroupId;

/// The payload bytes of the running jobs of one stream. At this limit the stream is not read, so the peer's writes
/// wait.
const JOB_BYTES_MAX: usize = 16 << 20;

/// Returns the service of the peer listener. Until `core` and its consensus are set, every call is refused.
pub(super) fn peer_service(
    cluster_name: &str,
    guard: PeerGuard,
    core: Late<PeersHandle>,
    forming: Late<FormingHandle>,
    refusals: Arc<RefusalLog>,
    fatal: FatalSender,
) -> Service {
    create_peer(PeerService { cluster_name: cluster_name.into(), guard, core, forming, refusals, fatal })
}

#[derive(Clone)]
struct PeerService {
    cluster_name: Arc<str>,
    guard: PeerGuard,
    core: Late<PeersHandle>,
    /// Set if this node forms a cluster with other blank nodes.
    forming: Late<FormingHandle>,
    refusals: Arc<RefusalLog>,
    fatal: FatalSender,
}

/// How a stream ended.
enum StreamEnd {
    /// The peer has closed it, and everything is answered.
    Closed,
    /// The connection is lost.
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for StreamEnd {
    fn from(refusal: Refusal) -> StreamEnd {
        StreamEnd::Refused(refusal)
    }
}

impl PeerService {
    fn core(&self) -> Result<MemberCore, Refusal> {
        MemberCore::of(&self.core)
    }

    fn admit(&self, ctx: &RpcContext<'_>) -> Result<(AuthorizedPeer, MemberCore), Refusal> {
        let caller = self.guard.check(ctx)?;
        Ok((caller, self.core()?))
    }
}

impl Peer for PeerService {
    fn replicate(
        &mut self,
        ctx: RpcContext<'_>,
        mut requests: RequestStream<ReplicateRequest>,
        mut sink: DuplexSink<ReplicateResponse>,
    ) {
        let admitted = self.admit(&ctx);
        let (caller, refusals) = (ctx.peer(), self.refusals.clone());
        let future = async move {
            let end = match admitted {
                Ok((caller, core)) => replicate(caller, &core, &mut requests, &mut sink).await,
                Err(refusal) => StreamEnd::Refused(refusal),
            };
            finish(end, &caller, &refusals, requests, sink).await;
        };
        spawn_guarded(&ctx, &self.fatal, future);
    }

    fn forward(
        &mut self,
        ctx: RpcContext<'_>,
        mut requests: RequestStream<ForwardRequest>,
        mut sink: DuplexSink<ForwardResponse>,
    ) {
        let admitted = self.admit(&ctx);
        let (caller, refusals) = (ctx.peer(), self.refusals.clone());
        let future = async move {
            let end = match admitted {
                Ok((caller, core)) => forward(caller, &core, &refusals, &mut requests, &mut sink).await,
                Err(refusal) => StreamEnd::Refused(refusal),
            };
            finish(end, &caller, &refusals, requests, sink).await;
        };
        spawn_guarded(&ctx, &self.fatal, future);
    }

    fn relay(&mut self, ctx: RpcContext<'_>, request: RelayRequest, mut sink: ServerStreamingSink<RelayResponse>) {
        let admitted = self.admit(&ctx);
        let (caller, refusals) = (ctx.peer(), self.refusals.clone());
        let future = async move {
            let end = match admitted {
                Ok((caller, core)) => relay(caller, &core, request, &mut sink).await,
                Err(refusal) => CallEnd::Refused(refusal),
            };
            let _ = match end {
                CallEnd::Complete => sink.close().await,
                CallEnd::Gone => Ok(()),
                CallEnd::Refused(refusal) => {
                    // Normal: the caller's catalog may be older or newer than the replicas here.
                    if refusal.reason != Reason::NoReplica {
                        refusals.log(&format!("a relayed request of {}", host_of(&caller)), &refusal);
                    }
                    sink.fail(refusal.status()).await
                }
            };
        };
        spawn_guarded(&ctx, &self.fatal, future);
    }

    fn join(&mut self, ctx: RpcContext<'_>, request: JoinRequest, sink: UnarySink<JoinResponse>) {
        let admitted = self.guard.check(&ctx);
        let core = self.core();
        let cluster_name = self.cluster_name.clone();
        let (caller, refusals) = (ctx.peer(), self.refusals.clone());
        let future = async move {
            let answer = match admitted {
                Ok(caller) => join::answer(&cluster_name, core, &caller, request).await,
                Err(refusal) => Err(refusal),
            };
            // The caller may have disconnected; it will retry.
            let _ = match answer {
                Ok(response) => sink.success(response).await,
                Err(refusal) => {
                    if refusal.reason == Reason::PeerName {
                        refusals.log(&format!("a join of {}", host_of(&caller)), &refusal);
                    }
                    sink.fail(refusal.status()).await
                }
            };
        };
        spawn_guarded(&ctx, &self.fatal, future);
    }

    fn form(&mut self, ctx: RpcContext<'_>, request: FormRequest, sink: UnarySink<FormResponse>) {
        let is_member = self.core.get().is_some();
        let answer = self.guard.check(&ctx).and_then(|caller| match self.forming.get() {
            Some(_) if is_member => Ok(FormResponse { is_member, ..FormResponse::default() }),
            Some(forming) => form::answer(&self.cluster_name, forming, &caller, request, Instant::now()),
            None => Err(Refusal::new(Reason::NotReady, "this node does not wait for blank nodes (bootstrap_expect)")),
        });
        let future = async move {
            // The caller may have disconnected; it will retry.
            let _ = match answer {
                Ok(response) => sink.success(response).await,
                Err(refusal) => sink.fail(refusal.status()).await,
            };
        };
        spawn_guarded(&ctx, &self.fatal, future);
    }
}

/// Ends a stream. The requests are dropped last: otherwise the peer would get the status CANCELLED.
async fn finish<Req, Resp>(
    end: StreamEnd,
    caller: &str,
    refusals: &RefusalLog,
    requests: RequestStream<Req>,
    mut sink: DuplexSink<Resp>,
) {
    let _ = match end {
        StreamEnd::Closed => sink.close().await,
        StreamEnd::Gone => Ok(()),
        StreamEnd::Refused(refusal) => {
            refusals.log(&format!("a stream of {}", host_of(caller)), &refusal);
            sink.fail(refusal.status()).await
        }
    };
    drop(requests);
}

async fn replicate(
    mut caller: AuthorizedPeer,
    core: &MemberCore,
    requests: &mut RequestStream<ReplicateRequest>,
    sink: &mut DuplexSink<ReplicateResponse>,
) -> StreamEnd {
    let Some(Ok(first)) = requests.next().await else { return StreamEnd::Gone };
    let peer = match welcome(core, &caller, first.hello.as_ref(), first.messages.is_empty()) {
        Ok(peer) => peer,
        Err(refusal) => return refusal.into(),
    };
    let levels = Some(levels_of(&core.peers.me().levels)).into();
    let welcome = ReplicateResponse { levels, ..ReplicateResponse::default() };
    if sink.send((welcome, WriteFlags::default())).await.is_err() {
        return StreamEnd::Gone;
    }
    let (from, me) = (peer.node, core.peers.me().node_id);
    // Dropped only after all messages are queued.
    let _heard = core.peers.node().heard.open(from);
    while let Some(request) = requests.next().await {
        let Ok(request) = request else { return StreamEnd::Gone };
        if let Err(refusal) = still_welcome(core, &mut caller, &peer) {
            return refusal.into();
        }
        // In the catalog's group, replicas have the ids of their nodes. Consensus checks the others.
        let is_misdirected = |m: &RaftMessage| m.group == GroupId::CATALOG.0 && (m.from != from.0 || m.to != me.0);
        if request.messages.iter().any(|m| is_misdirected(m) && m.node_heartbeat.is_none()) {
            return Refusal::new(Reason::Malformed, format!("a message that is not from {from} to {me}")).into();
        }
        if request.clock_us > 0 {
            core.consensus.peer_clocks().record(from, request.clock_us, Instant::now());
        }
        if request.messages.iter().any(|message| message.bulk) {
            // The stream contains nothing else. Its sender waits, too.
            core.consensus.bulk_room().await;
        }
        core.consensus.peer(from, request.messages);
    }
    StreamEnd::Closed
}

/// The next event of a forward stream.
enum ForwardStep {
    Request(ForwardRequest),
    Outcomes(Vec<Outcome>),
    /// No more requests, and every job is answered.
    Done,
    Gone,
}

async fn forward(
    mut caller: AuthorizedPeer,
    core: &MemberCore,
    refusals: &RefusalLog,
    requests: &mut RequestStream<ForwardRequest>,
    sink: &mut DuplexSink<ForwardResponse>,
) -> StreamEnd {
    let Some(Ok(first)) = requests.next().await else { return StreamEnd::Gone };
    let peer = match welcome(core, &caller, first.hello.as_ref(), first.jobs.is_empty()) {
        Ok(peer) => peer,
        Err(refusal) => return refusal.into(),
    };
    let levels = Some(levels_of(&core.peers.me().levels)).into();
    let welcome = ForwardResponse { checks_term: true, levels, ..ForwardResponse::default() };
    if sink.send((welcome, WriteFlags::default())).await.is_err() {
        return StreamEnd::Gone;
    }
    let mut running: FuturesUnordered<BoxFuture<'static, (usize, Outcome)>> = FuturesUnordered::new();
    let mut running_bytes = 0;
    let mut open = true;
    loop {
        let step = poll_fn(|cx| {
            let mut outcomes = Vec::new();
            while let Poll::Ready(Some((bytes, outcome))) = running.poll_next_unpin(cx) {
                running_bytes -= bytes;
                outcomes.push(outcome);
            }
            if !outcomes.is_empty() {
                return Poll::Ready(ForwardStep::Outcomes(outcomes));
            }
            if !open {
                return if running.is_empty() { Poll::Ready(ForwardStep::Done) } else { Poll::Pending };
            }
            if running.len() >= UNANSWERED_MAX || running_bytes >= JOB_BYTES_MAX {
                return Poll::Pending;
            }
            requests.poll_next_unpin(cx).map(|request| match request {
                Some(Ok(request)) => ForwardStep::Request(request),
                Some(Err(_)) => ForwardStep::Gone,
                None => {
                    open = false;
                    ForwardStep::Outcomes(Vec::new())
                }
            })
        });
        match step.await {
            ForwardStep::Request(request) => {
                if let Err(refusal) = still_welcome(core, &mut caller, &peer) {
                    return refusal.into();
                }
                for job in request.jobs {
                    let (bytes, future) = start(core, &peer, refusals, job);
                    running_bytes += bytes;
                    running.push(future);
                }
            }
            ForwardStep::Outcomes(outcomes) if outcomes.is_empty() => {}
            ForwardStep::Outcomes(outcomes) => {
                let response = ForwardResponse { outcomes, ..ForwardResponse::default() };
                if sink.send((response, WriteFlags::default())).await.is_err() {
                    return StreamEnd::Gone;
                }
            }
            ForwardStep::Done => return StreamEnd::Closed,
            ForwardStep::Gone => return StreamEnd::Gone,
        }
    }
}

/// Passes a job on to consensus, in the order of the stream. Returns the job's size, and a future of its size and
/// outcome.
fn start(
    core: &MemberCore,
    peer: &StreamPeer,
    refusals: &RefusalLog,
    job: Job,
) -> (usize, BoxFuture<'static, (usize, Outcome)>) {
    let id = job.id;
    let left = Duration::from_millis(job.deadline_ms.into());
    let deadline = (job.deadline_ms > 0).then(|| Instant::now() + left);
    match job.work {
        // Another cluster of the same name answers. `api/router.rs` refuses the requests of this node's own clients,
        // too.
        Some(job::Work::Propose(_)) if core.peers.rival().is_some() => {
            ready(appended_outcome(id, Err(ProposeError::Dropped)))
        }
        Some(job::Work::Propose(propose)) => {
            let bytes = propose.payload.len();
            match proposal_of(job.group, deadline, propose, &core.peers.catalog().get()) {
                Ok(proposal) => {
                    let reply = core.consensus.propose(proposal);
                    // A dropped reply does not say whether the proposal was appended.
                    let answer = reply.map(|r| r.unwrap_or(Err(ProposeError::OutcomeUnknown)));
                    (bytes, answer.map(move |result| (bytes, appended_outcome(id, result))).boxed())
                }
                Err(bad) => {
                    let from = describe(peer.node, &core.peers.catalog().get());
                    refusals.warn(&format!("refused a forwarded proposal of {from}: {bad}"));
                    ready(appended_outcome(id, Err(ProposeError::Dropped)))
                }
            }
        }
        Some(job::Work::ReadIndex(_)) => {
            let reply = core.consensus.read_index(GroupId(job.group), deadline);
            let answer = reply.map(|r| r.unwrap_or(Err(ReadIndexError::Unconfirmed)));
            (0, answer.map(move |result| (0, read_index_outcome(id, result))).boxed())
        }
        // The kind of work is unknown, so it was not done.
        None => {
            let from = describe(peer.node, &core.peers.catalog().get());
            refusals.warn(&format!("refused a job of {from}: a kind of work that this version does not know"));
            ready(appended_outcome(id, Err(ProposeError::Dropped)))
        }
    }
}

fn ready(outcome: Outcome) -> (usize, BoxFuture<'static, (usize, Outcome)>) {
    (0, futures::future::ready((0, outcome)).boxed())
}
