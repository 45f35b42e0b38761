//! The thread `membership`: it owns mDNS and the join addresses, and sends the requests to other nodes.
//!
//! It has one goal at a time, which the agent sets: a probe; then admission; and then, as a member, to keep the
//! catalog's entry of this node up to date. It waits for its inbox, mDNS, answers and the next round at the same
//! time, and never blocks on one of them.

mod ask;
mod form;
mod keep;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::{BoxFuture, FutureExt as _};

use form::FormRound;

use crate::catalog::Member;
use crate::membership::admission::{AdmissionError, Entrance, Probed};
use crate::membership::candidates::Candidates;
use crate::membership::mdns::{Mdns, MdnsEvent};
use crate::membership::options::MembershipOptions;
use crate::membership::reasons;
use crate::membership::search::Search;
use crate::pb::peer::JoinResponse;
use crate::replication::dial::Dialer;
use crate::replication::peers::PeersHandle;
use crate::replication::wait::{park_until, thread_waker};
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::storage::log::StorageError;
use crate::thread::{FatalSender, Joiner, spawn};
use crate::types::{ClusterId, NodeId};
use crate::waiting::WaitingFor;

/// The pause between two rounds of requests.
const ROUND: Duration = Duration::from_millis(500);
/// The delay of the first log line that says what this node waits for.
const REPORT_FIRST: Duration = Duration::from_secs(1);
/// The time between two such lines.
const REPORT: Duration = Duration::from_secs(5);
/// How long a probe waits for nodes that mDNS finds.
const PROBE: Duration = Duration::from_secs(2);
/// The same for a node without join addresses, which has no other way to learn that its cluster exists.
const PROBE_MDNS_ONLY: Duration = Duration::from_secs(6);

/// The `membership` thread. Dropping it stops and joins it.
pub struct Membership {
    handle: MembershipHandle,
    _joiner: Joiner,
}

/// The interface of [`Membership`] for other threads.
#[derive(Clone, Debug)]
pub struct MembershipHandle {
    inbox: mpsc::Sender<MembershipMsg>,
}

/// The messages of the inbox. Each clone of the handle has room for one message, so the few messages of the agent are
/// never refused.
#[derive(Debug)]
enum MembershipMsg {
    /// A probe that begins at this time. True if it waits for nodes that mDNS finds from then on, false if the time
    /// since the start counts.
    Probe(Instant, bool, ReplySender<Probed>),
    Admission(ReplySender<Result<Entrance, AdmissionError>>),
    Admitted(PeersHandleBox),
    Stop,
}

struct PeersHandleBox(PeersHandle);

impl std::fmt::Debug for PeersHandleBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.me().fmt(f)
    }
}

impl Membership {
    /// Starts the thread. `me` is this node with its advertised addresses. The thread sets `waiting` to the reason
    /// for which this node is not admitted yet.
    ///
    /// # Errors
    /// If the system can't create another thread.
    pub fn start(
        options: MembershipOptions,
        me: Member,
        dialer: Dialer,
        waiting: WaitingFor,
        fatal: &FatalSender,
    ) -> std::io::Result<Membership> {
        let (tx, rx) = mpsc::channel(0);
        let driver = MembershipDriver::new(options, me, dialer, waiting, rx);
        let joiner = spawn("membership", fatal, move || driver.run())?;
        Ok(Membership { handle: MembershipHandle { inbox: tx }, _joiner: joiner })
    }

    /// Returns a handle for other threads.
    pub fn handle(&self) -> MembershipHandle {
        self.handle.clone()
    }

    /// Stops and joins the thread.
    pub fn stop(self) {}
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Tells the thread to stop before the joiner is dropped, which waits for it.
        self.handle.stop();
    }
}

impl MembershipHandle {
    fn send(&self, message: MembershipMsg) {
        // Fails only if the thread has ended. The reply in the message is then dropped, which the caller sees.
        let _ = self.inbox.clone().try_send(message);
    }

    /// Searches for a cluster of this name, from `begin` on: asks every join address, and every node that mDNS finds
    /// within two seconds. The reply is dropped if the node stops.
    pub fn probe(&self, begin: Instant) -> ReplyReceiver<Probed> {
        let (tx, rx) = reply();
        self.send(MembershipMsg::Probe(begin, true, tx));
        rx
    }

    /// Like [`MembershipHandle::probe`], but at once. It waits for nodes that mDNS finds only if this node was started
    /// a moment ago.
    pub fn probe_known(&self) -> ReplyReceiver<Probed> {
        let (tx, rx) = reply();
        self.send(MembershipMsg::Probe(Instant::now(), false, tx));
        rx
    }

    /// Requests admission until a cluster admits this node or refuses it permanently, which is the answer. A node that
    /// forms a cluster with other blank nodes may become its founder instead.
    pub fn admission(&self) -> ReplyReceiver<Result<Entrance, AdmissionError>> {
        let (tx, rx) = reply();
        self.send(MembershipMsg::Admission(tx));
        rx
    }

    /// Tells the thread that this node is a member. From now on the thread announces it by mDNS, keeps its name and
    /// addresses in the catalog up to date, and suggests addresses of other members that mDNS finds to `peers`.
    pub fn admitted(&self, peers: PeersHandle) {
        self.send(MembershipMsg::Admitted(PeersHandleBox(peers)));
    }

    /// Withdraws the mDNS announcement and ends the thread. A pending request for admission is answered with
    /// [`AdmissionError::Stopped`].
    pub fn stop(&self) {
        self.send(MembershipMsg::Stop);
    }
}

enum Goal {
    Nothing,
    Probe {
        reply: ReplySender<Probed>,
        until: Option<Instant>,
    },
    Admission {
        reply: ReplySender<Result<Entrance, AdmissionError>>,
    },
    /// This node is a member. `settled` is true once the catalog contains its current name and addresses.
    Keep {
        peers: PeersHandle,
        settled: bool,
    },
}

/// The current step towards the goal.
enum Stage {
    Rest { until: Instant },
    Searching(Box<Search>),
    Forming(FormRound),
    Joining { addr: String, call: BoxFuture<'static, grpcio::Result<JoinResponse>> },
}

enum MembershipEvent {
    MembershipMsg(MembershipMsg),
    Mdns(MdnsEvent),
    /// The next round is due.
    Round,
    /// A round of probes is over.
    Searched,
    /// A round of messages to other blank nodes is over.
    Formed,
    Joined(grpcio::Result<JoinResponse>),
    Report,
    /// The next search for another cluster of this name is due.
    Watch,
    Watched,
}

struct MembershipDriver {
    options: MembershipOptions,
    me: Member,
    dialer: Dialer,
    inbox: mpsc::Receiver<MembershipMsg>,
    mdns: Option<Mdns>,
    started: Instant,
    candidates: Candidates,
    goal: Goal,
    stage: Stage,
    /// The number of join requests so far, so that each one goes to the next address.
    joins: usize,
    /// The number of join requests in a row that were refused because another node is joining.
    waits: u32,
    /// The leader's address, according to the last answer.
    leader: Option<String>,
    /// The number of such answers in a row.
    hints: u32,
    /// As a member: the running search for another cluster of this name, and when the next one is due.
    watch: Option<Box<Search>>,
    next_watch: Instant,
    /// When another cluster last answered. Set while appends are refused because of it.
    rival_seen: Option<Instant>,
    /// The result of the last round, for the log.
    trouble: String,
    /// True if the result was a member's refusal, which is reported until another answer arrives.
    refused: bool,
    /// True if no node answered in the last round.
    nothing_answers: bool,
    /// The pledge could not be stored, which ends the node.
    failure: Option<StorageError>,
    /// The result of the last round, for clients.
    waiting: WaitingFor,
    next_report: Instant,
}

impl MembershipDriver {
    fn new(
        options: MembershipOptions,
        me: Member,
        dialer: Dialer,
        waiting: WaitingFor,
        inbox: mpsc::Receiver<MembershipMsg>,
    ) -> MembershipDriver {
        let now = Instant::now();
        MembershipDriver {
            candidates: Candidates::new(&options.cluster_name, &options.join),
            options,
            me,
            dialer,
            inbox,
            mdns: None,
            started: now,
            goal: Goal::Nothing,
            stage: Stage::Rest { until: now },
            joins: 0,
            waits: 0,
            leader: None,
            hints: 0,
            watch: None,
            next_watch: now,
            rival_seen: None,
            trouble: String::new(),
            refused: false,
            nothing_answers: false,
            failure: None,
            waiting,
            next_report: now,
        }
    }

    fn run(mut self) -> Result<(), StorageError> {
        if let Some(bind_ip) = self.options.mdns {
            match Mdns::start(bind_ip) {
                Ok(mdns) => self.mdns = Some(mdns),
                Err(error) => log::warn!("{error}: nodes are found by join addresses only"),
            }
        }
        let waker = thread_waker();
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.next_event(&mut cx) {
                Ok(MembershipEvent::MembershipMsg(MembershipMsg::Stop)) => break,
                Ok(event) => self.handle_event(event),
                Err(wake_at) => park_until(wake_at),
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        if let Goal::Admission { reply } = self.goal {
            reply.send(Err(AdmissionError::Stopped));
        }
        if let Some(mdns) = self.mdns {
            mdns.stop();
        }
        Ok(())
    }

    /// Returns the next event, or the time at which to check again.
    fn next_event(&mut self, cx: &mut Context<'_>) -> Result<MembershipEvent, Option<Instant>> {
        match self.inbox.poll_next_unpin(cx) {
            Poll::Ready(Some(message)) => return Ok(MembershipEvent::MembershipMsg(message)),
            // Every handle was dropped.
            Poll::Ready(None) => return Ok(MembershipEvent::MembershipMsg(MembershipMsg::Stop)),
            Poll::Pending => {}
        }
        if let Some(Poll::Ready(event)) = self.mdns.as_mut().map(|m| m.poll_event(cx)) {
            return Ok(MembershipEvent::Mdns(event));
        }
        let now = Instant::now();
        let mut watch_at = None;
        if matches!(self.goal, Goal::Keep { .. }) {
            if let Some(search) = &mut self.watch {
                if search.poll(cx, now).is_ready() {
                    return Ok(MembershipEvent::Watched);
                }
                watch_at = search.wake_at();
            } else if now >= self.next_watch {
                return Ok(MembershipEvent::Watch);
            } else {
                watch_at = Some(self.next_watch);
            }
        }
        let reports = match &self.goal {
            Goal::Nothing => return Err(None),
            Goal::Keep { settled: true, .. } => return Err(watch_at),
            Goal::Probe { .. } => None,
            Goal::Admission { .. } | Goal::Keep { settled: false, .. } => Some(self.next_report),
        };
        let wake_at = match &mut self.stage {
            Stage::Rest { until } if now >= *until => return Ok(MembershipEvent::Round),
            Stage::Rest { until } => Some(*until),
            Stage::Searching(search) => match search.poll(cx, now) {
                Poll::Ready(()) => return Ok(MembershipEvent::Searched),
                Poll::Pending => search.wake_at(),
            },
            Stage::Forming(round) => match round.poll(cx) {
                Poll::Ready(()) => return Ok(MembershipEvent::Formed),
                Poll::Pending => None,
            },
            Stage::Joining { call, .. } => match call.poll_unpin(cx) {
                Poll::Ready(answer) => return Ok(MembershipEvent::Joined(answer)),
                Poll::Pending => None,
            },
        };
        if reports.is_some_and(|moment| now >= moment) {
            return Ok(MembershipEvent::Report);
        }
        Err(wake_at.into_iter().chain(reports).chain(watch_at).min())
    }

    fn handle_event(&mut self, event: MembershipEvent) {
        match event {
            MembershipEvent::MembershipMsg(message) => self.set_goal(message),
            MembershipEvent::Mdns(event) => self.handle_mdns(event),
            MembershipEvent::Round => self.round(),
            MembershipEvent::Searched => self.searched(),
            MembershipEvent::Formed => self.formed(),
            MembershipEvent::Joined(answer) => self.joined(answer),
            MembershipEvent::Report => self.report(),
            MembershipEvent::Watch => self.watch(),
            MembershipEvent::Watched => self.evaluate_watch(),
        }
    }

    fn set_goal(&mut self, message: MembershipMsg) {
        let now = Instant::now();
        self.stage = Stage::Rest { until: now };
        self.next_report = now + REPORT_FIRST;
        self.goal = match message {
            MembershipMsg::Probe(begin, waits, reply) => {
                self.stage = Stage::Rest { until: begin };
                let wait = if self.candidates.join().is_empty() { PROBE_MDNS_ONLY } else { PROBE };
                let since = if waits { begin.max(now) } else { self.started };
                Goal::Probe { reply, until: self.mdns.is_some().then(|| since + wait) }
            }
            MembershipMsg::Admission(reply) => {
                self.not_admitted(reasons::looking(self.candidates.join(), self.mdns_state()));
                if self.options.forming.is_some() {
                    self.announce(ClusterId(0));
                }
                Goal::Admission { reply }
            }
            MembershipMsg::Admitted(PeersHandleBox(peers)) => {
                let cluster_id = peers.me().cluster_id;
                self.announce(cluster_id);
                self.candidates.nodes_of(cluster_id).for_each(|(node, addr)| suggest(&peers, node, addr));
                Goal::Keep { peers, settled: false }
            }
            // The loop ends at this message and does not call this function.
            MembershipMsg::Stop => Goal::Nothing,
        };
    }

    fn announce(&mut self, cluster_id: ClusterId) {
        if let Some(mdns) = &mut self.mdns
            && let Err(error) = mdns.announce(&self.options.cluster_name, cluster_id, &self.me)
        {
            log::warn!("this node is not announced: {error}");
        }
    }

    fn handle_mdns(&mut self, event: MdnsEvent) {
        match event {
            MdnsEvent::Found(find) => {
                let (node, cluster_id, addr) = (find.node_id, find.cluster_id, find.bind_addr.clone());
                if node == self.me.id || !self.candidates.add(find) {
                    return;
                }
                log::debug!("mDNS found node {node} of cluster {cluster_id} at {addr}");
                match (&self.goal, &mut self.stage) {
                    (Goal::Keep { peers, .. }, _) if peers.me().cluster_id == cluster_id => suggest(peers, node, &addr),
                    (Goal::Keep { .. }, _) if cluster_id == ClusterId(0) => {}
                    (Goal::Keep { .. }, _) => self.next_watch = Instant::now(),
                    (Goal::Probe { .. } | Goal::Admission { .. }, Stage::Searching(search)) => search.ask(vec![addr]),
                    (Goal::Admission { .. }, Stage::Rest { until }) => *until = Instant::now(),
                    (Goal::Nothing | Goal::Probe { .. } | Goal::Admission { .. }, _) => {}
                }
            }
            MdnsEvent::Gone(instance) => self.candidates.remove(&instance),
            MdnsEvent::Ended => log::warn!("mDNS has ended: nodes are found by join addresses only"),
        }
    }
}

fn suggest(peers: &PeersHandle, node: NodeId, addr: &str) {
    if peers.catalog().get().member(node).is_some() {
        peers.suggest(node, addr);
    }
}
