//! The Peer service: what other nodes may ask of this one.
//!
//! It exists before this node is a member: until its core is filled, every call is answered UNAVAILABLE. A stream is
//! served by one future on a `grpc` thread, which hands everything on to consensus and never waits for it in turn.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, poll_fn};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use grpcio::{DuplexSink, RequestStream, RpcContext, Service, UnarySink, WriteFlags};

use crate::consensus::handle::{ConsensusHandle, ProposeError, ReadIndexError};
use crate::grpc::spawn_guarded;
use crate::pb::peer::{
    ForwardRequest, ForwardResponse, Hello, Job, JoinRequest, JoinResponse, Outcome, ReplicateRequest,
    ReplicateResponse, job,
};
use crate::pb::peer_grpc::{Peer, create_peer};
use crate::replication::Late;
use crate::replication::forward::proposal_of;
use crate::replication::guard::{Guard, Pass, host_of};
use crate::replication::join;
use crate::replication::outcome::{appended_outcome, read_index_outcome};
use crate::replication::peer::UNANSWERED_MAX;
use crate::replication::peers::PeersHandle;
use crate::replication::refusal::{Rarely, Reason, Refusal};
use crate::thread::FatalSender;
use crate::types::{GroupId, NodeId};

/// Payloads of this many bytes are unanswered on one stream; beyond, it is not read, and the peer's writes wait.
const JOB_BYTES_MAX: usize = 16 << 20;

/// The service for the peer listener. Until `core` (and the consensus inside) is filled every call is answered UNAVAILABLE.
pub(super) fn peer_service(
    cluster_name: &str,
    guard: Guard,
    core: Late<PeersHandle>,
    refusals: Arc<Rarely>,
    fatal: FatalSender,
) -> Service {
    create_peer(PeerService { cluster_name: cluster_name.into(), guard, core, refusals, fatal })
}

#[derive(Clone)]
struct PeerService {
    cluster_name: Arc<str>,
    guard: Guard,
    core: Late<PeersHandle>,
    refusals: Arc<Rarely>,
    fatal: FatalSender,
}

/// This node as a member, for one call.
pub(super) struct Core {
    pub(super) peers: PeersHandle,
    pub(super) consensus: ConsensusHandle,
}

/// How a stream ended.
enum End {
    /// The other side has closed it, and everything is answered.
    Closed,
    /// The other side is gone.
    Gone,
    /// It is refused from here on.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::Refused(refusal)
    }
}

impl PeerService {
    fn core(&self) -> Result<Core, Refusal> {
        let core = self.core.get().and_then(|peers| {
            peers.node().consensus.get().map(|consensus| Core { peers: peers.clone(), consensus: consensus.clone() })
        });
        core.ok_or_else(|| Refusal::new(Reason::NotReady, "this node is not a member of a cluster yet"))
    }

    fn admit(&self, ctx: &RpcContext<'_>) -> Result<(Pass, Core), Refusal> {
        let pass = self.guard.check(ctx)?;
        Ok((pass, self.core()?))
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
                Ok((pass, core)) => replicate(pass, &core, &mut requests, &mut sink).await,
                Err(refusal) => End::Refused(refusal),
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
                Ok((pass, core)) => forward(pass, &core, &mut requests, &mut sink).await,
                Err(refusal) => End::Refused(refusal),
            };
            finish(end, &caller, &refusals, requests, sink).await;
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
                Ok(pass) => join::answer(&cluster_name, core, &pass, request).await,
                Err(refusal) => Err(refusal),
            };
            // Whoever asked may be gone by now; then it asks again.
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
}

/// Ends a stream. The requests are held until the status has gone out, or it would be CANCELLED.
async fn finish<Req, Resp>(
    end: End,
    caller: &str,
    refusals: &Rarely,
    requests: RequestStream<Req>,
    mut sink: DuplexSink<Resp>,
) {
    let _ = match end {
        End::Closed => sink.close().await,
        End::Gone => Ok(()),
        End::Refused(refusal) => {
            refusals.log(&format!("a stream of {}", host_of(caller)), &refusal);
            sink.fail(refusal.status()).await
        }
    };
    drop(requests);
}

/// Checks who opened a stream, and notes where they are reached.
fn welcome(core: &Core, pass: &Pass, hello: Option<&Hello>, alone: bool) -> Result<NodeId, Refusal> {
    let hello = hello.filter(|_| alone);
    let hello = hello.ok_or_else(|| Refusal::new(Reason::Malformed, "the first request holds a hello alone"))?;
    let from = core.peers.me().check(hello, &core.peers.catalog().get())?;
    pass.speaks_for(from, &core.peers.node().addresses)?;
    if !core.peers.heard_from(from, &hello.from_addr, pass.name()) {
        return Err(Refusal::new(Reason::TooMany, "too many nodes that the catalog does not know"));
    }
    Ok(from)
}

/// Refuses a peer that was removed, lost its right, or turned out to be another node, since its stream was opened.
fn still_welcome(core: &Core, pass: &mut Pass, from: NodeId) -> Result<(), Refusal> {
    pass.check()?;
    pass.speaks_for(from, &core.peers.node().addresses)?;
    super::hello::check_removed(from, &core.peers.catalog().get())
}

async fn replicate(
    mut pass: Pass,
    core: &Core,
    requests: &mut RequestStream<ReplicateRequest>,
    sink: &mut DuplexSink<ReplicateResponse>,
) -> End {
    let Some(Ok(first)) = requests.next().await else { return End::Gone };
    let from = match welcome(core, &pass, first.hello.as_ref(), first.messages.is_empty()) {
        Ok(from) => from,
        Err(refusal) => return refusal.into(),
    };
    if sink.send((ReplicateResponse::new(), WriteFlags::default())).await.is_err() {
        return End::Gone;
    }
    let me = core.peers.me().node_id;
    while let Some(request) = requests.next().await {
        let Ok(request) = request else { return End::Gone };
        if let Err(refusal) = still_welcome(core, &mut pass, from) {
            return refusal.into();
        }
        if request.messages.iter().any(|m| m.from != from.0 || m.to != me.0) {
            return Refusal::new(Reason::Malformed, format!("a message that is not from {from} to {me}")).into();
        }
        if request.clock_us > 0 {
            core.consensus.peer_clocks().heard(from, request.clock_us, Instant::now());
        }
        core.consensus.peer(from, request.messages);
    }
    End::Closed
}

/// What a forward stream waits for.
enum Step {
    Request(ForwardRequest),
    Outcomes(Vec<Outcome>),
    /// No more requests, and nothing unanswered.
    Done,
    Gone,
}

async fn forward(
    mut pass: Pass,
    core: &Core,
    requests: &mut RequestStream<ForwardRequest>,
    sink: &mut DuplexSink<ForwardResponse>,
) -> End {
    let Some(Ok(first)) = requests.next().await else { return End::Gone };
    let from = match welcome(core, &pass, first.hello.as_ref(), first.jobs.is_empty()) {
        Ok(from) => from,
        Err(refusal) => return refusal.into(),
    };
    let welcome = ForwardResponse { checks_term: true, ..ForwardResponse::default() };
    if sink.send((welcome, WriteFlags::default())).await.is_err() {
        return End::Gone;
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
                return Poll::Ready(Step::Outcomes(outcomes));
            }
            if !open {
                return if running.is_empty() { Poll::Ready(Step::Done) } else { Poll::Pending };
            }
            if running.len() >= UNANSWERED_MAX || running_bytes >= JOB_BYTES_MAX {
                return Poll::Pending;
            }
            requests.poll_next_unpin(cx).map(|request| match request {
                Some(Ok(request)) => Step::Request(request),
                Some(Err(_)) => Step::Gone,
                None => {
                    open = false;
                    Step::Outcomes(Vec::new())
                }
            })
        });
        match step.await {
            Step::Request(request) => {
                if let Err(refusal) = still_welcome(core, &mut pass, from) {
                    return refusal.into();
                }
                for job in request.jobs {
                    let (bytes, future) = start(core, job);
                    running_bytes += bytes;
                    running.push(future);
                }
            }
            Step::Outcomes(outcomes) if outcomes.is_empty() => {}
            Step::Outcomes(outcomes) => {
                let response = ForwardResponse { outcomes, ..ForwardResponse::default() };
                if sink.send((response, WriteFlags::default())).await.is_err() {
                    return End::Gone;
                }
            }
            Step::Done => return End::Closed,
            Step::Gone => return End::Gone,
        }
    }
}

/// Hands a job to consensus, in the order of the stream; the future gives its outcome.
fn start(core: &Core, job: Job) -> (usize, BoxFuture<'static, (usize, Outcome)>) {
    let id = job.id;
    let left = Duration::from_millis(job.deadline_ms.into());
    let deadline = (job.deadline_ms > 0).then(|| Instant::now() + left);
    match job.work {
        // This node's own clients are refused too (`api/router.rs`): another cluster of the same name answers.
        Some(job::Work::Propose(_)) if core.peers.rival().is_some() => {
            ready(appended_outcome(id, Err(ProposeError::Dropped)))
        }
        Some(job::Work::Propose(propose)) => {
            let bytes = propose.payload.len();
            match proposal_of(job.group, deadline, propose, &core.peers.catalog().get()) {
                Some(proposal) => {
                    let reply = core.consensus.propose(proposal);
                    // A reply that was dropped says nothing about what was done.
                    let answer = reply.map(|r| r.unwrap_or(Err(ProposeError::OutcomeUnknown)));
                    (bytes, answer.map(move |result| (bytes, appended_outcome(id, result))).boxed())
                }
                None => ready(appended_outcome(id, Err(ProposeError::Dropped))),
            }
        }
        Some(job::Work::ReadIndex(_)) => {
            let reply = core.consensus.read_index(GroupId(job.group), deadline);
            let answer = reply.map(|r| r.unwrap_or(Err(ReadIndexError::Unconfirmed)));
            (0, answer.map(move |result| (0, read_index_outcome(id, result))).boxed())
        }
        // A newer version's kind of work: surely not done.
        None => ready(appended_outcome(id, Err(ProposeError::Dropped))),
    }
}

fn ready(outcome: Outcome) -> (usize, BoxFuture<'static, (usize, Outcome)>) {
    (0, futures::future::ready((0, outcome)).boxed())
}
