//! The thread `membership`: owns mDNS and the join addresses, and asks.
//!
//! It has one goal at a time, given by the agent: probe, then admission, then (as a member) keeping the catalog's word
//! about this node true. It waits for its inbox, for mDNS, for answers and for the next round at once; nothing blocks it.

mod ask;
mod keep;

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::{BoxFuture, FutureExt as _};

use crate::catalog::Member;
use crate::membership::admission::{Admission, AdmissionError, Probed};
use crate::membership::candidates::Candidates;
use crate::membership::mdns::{Mdns, MdnsEvent};
use crate::membership::reasons;
use crate::membership::search::Search;
use crate::pb::peer::JoinResponse;
use crate::replication::dial::Dialer;
use crate::replication::peers::PeersHandle;
use crate::replication::wait::{park_until, thread_waker};
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::thread::{FatalSender, Joiner, spawn};
use crate::types::NodeId;
use crate::waiting::WaitingFor;

/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(500);
/// The first line in the log about what is waited for comes after this long.
const REPORT_FIRST: Duration = Duration::from_secs(1);
/// Between two lines in the log about what is waited for.
const REPORT: Duration = Duration::from_secs(5);
/// What mDNS has not found within this time does not count for a probe.
const PROBE: Duration = Duration::from_secs(2);

/// What membership is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Only nodes of this cluster are asked.
    pub cluster_name: String,
    /// Peer addresses that may be members, `host:port`.
    pub join: Vec<String>,
    /// Find and be found by mDNS.
    pub mdns: bool,
}

/// The `membership` thread. Dropping it stops and joins it.
pub struct Membership {
    handle: MembershipHandle,
    _joiner: Joiner,
}

/// What others hold of [`Membership`].
#[derive(Clone, Debug)]
pub struct MembershipHandle {
    inbox: mpsc::Sender<Message>,
}

/// Its inbox. Each clone of the handle has room for one message, so the few that the agent sends are never refused.
#[derive(Debug)]
enum Message {
    /// To begin at that moment.
    Probe(Instant, ReplySender<Probed>),
    Admission(ReplySender<Result<Admission, AdmissionError>>),
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
    /// Starts the thread. `me` is this node with the addresses that it advertises; `waiting` is told why it is not admitted yet.
    ///
    /// # Errors
    /// When the system can't make another thread.
    pub fn start(
        options: Options,
        me: Member,
        dialer: Dialer,
        waiting: WaitingFor,
        fatal: &FatalSender,
    ) -> std::io::Result<Membership> {
        let (tx, rx) = mpsc::channel(0);
        let driver = Driver::new(options, me, dialer, waiting, rx);
        let joiner = spawn("membership", fatal, move || {
            driver.run();
            Ok::<(), Infallible>(())
        })?;
        Ok(Membership { handle: MembershipHandle { inbox: tx }, _joiner: joiner })
    }

    /// The handle.
    pub fn handle(&self) -> MembershipHandle {
        self.handle.clone()
    }

    /// Stops and joins the thread.
    pub fn stop(self) {}
}

impl Drop for Membership {
    fn drop(&mut self) {
        // The joiner is dropped after this.
        self.handle.stop();
    }
}

impl MembershipHandle {
    fn send(&self, message: Message) {
        // Refused only when the thread has ended; then the reply in the message is dropped, which says so.
        let _ = self.inbox.clone().try_send(message);
    }

    /// Asks every join address and what mDNS finds, from `begin` on for two seconds, whether a cluster of our name answers. The
    /// reply is dropped when the node stops.
    pub fn probe(&self, begin: Instant) -> ReplyReceiver<Probed> {
        let (tx, rx) = reply();
        self.send(Message::Probe(begin, tx));
        rx
    }

    /// Asks to be admitted, for as long as it takes. The answer comes when a cluster has admitted this node, or will never.
    pub fn admission(&self) -> ReplyReceiver<Result<Admission, AdmissionError>> {
        let (tx, rx) = reply();
        self.send(Message::Admission(tx));
        rx
    }

    /// This node is a member (or the founder). From now on it is announced by mDNS, its name and addresses in the catalog
    /// are kept as they are here, and what mDNS says of other members' addresses is suggested to `peers`.
    pub fn admitted(&self, peers: PeersHandle) {
        self.send(Message::Admitted(PeersHandleBox(peers)));
    }

    /// Says goodbye by mDNS and ends the thread; what is still waited for is answered [`AdmissionError::Stopped`].
    pub fn stop(&self) {
        self.send(Message::Stop);
    }
}

/// What the thread is after.
enum Goal {
    Nothing,
    Probe {
        reply: ReplySender<Probed>,
        until: Option<Instant>,
    },
    Admission {
        reply: ReplySender<Result<Admission, AdmissionError>>,
    },
    /// A member. `settled` once the catalog says of this node what it says of itself.
    Keep {
        peers: PeersHandle,
        settled: bool,
    },
}

/// What it is doing for that.
enum Stage {
    Rest { until: Instant },
    Searching(Box<Search>),
    Joining { addr: String, call: BoxFuture<'static, grpcio::Result<JoinResponse>> },
}

enum Event {
    Message(Message),
    Mdns(MdnsEvent),
    /// The next round is due.
    Round,
    /// A round of probes is over.
    Searched,
    Joined(grpcio::Result<JoinResponse>),
    Report,
    /// It is time to look for another cluster of our name.
    Watch,
    Watched,
}

struct Driver {
    options: Options,
    me: Member,
    dialer: Dialer,
    inbox: mpsc::Receiver<Message>,
    mdns: Option<Mdns>,
    candidates: Candidates,
    goal: Goal,
    stage: Stage,
    /// Counts joins, so that each goes to the next address.
    joins: usize,
    /// Counts those in a row that had to wait for another node.
    waits: u32,
    /// Where the last one that was asked says that the leader is.
    leader: Option<String>,
    /// Counts such hints in a row.
    hints: u32,
    /// As a member: a look at whether another cluster of our name answers, and when the next one is due.
    watch: Option<Box<Search>>,
    next_watch: Instant,
    /// When another cluster, because of which appends are refused, answered last.
    rival_seen: Option<Instant>,
    /// What the last round came to, for the log.
    trouble: String,
    /// That was a member's refusal: until another answer comes, it is what this node waits for.
    refused: bool,
    /// The same for clients.
    waiting: WaitingFor,
    next_report: Instant,
}

impl Driver {
    fn new(
        options: Options,
        me: Member,
        dialer: Dialer,
        waiting: WaitingFor,
        inbox: mpsc::Receiver<Message>,
    ) -> Driver {
        let now = Instant::now();
        Driver {
            candidates: Candidates::new(&options.cluster_name, &options.join),
            options,
            me,
            dialer,
            inbox,
            mdns: None,
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
            waiting,
            next_report: now,
        }
    }

    fn run(mut self) {
        if self.options.mdns {
            match Mdns::start() {
                Ok(mdns) => self.mdns = Some(mdns),
                Err(error) => log::warn!("{error}: nodes are found by join addresses alone"),
            }
        }
        let waker = thread_waker();
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.next_event(&mut cx) {
                Ok(Event::Message(Message::Stop)) => break,
                Ok(event) => self.handle_event(event),
                Err(wake_at) => park_until(wake_at),
            }
        }
        if let Goal::Admission { reply } = self.goal {
            reply.send(Err(AdmissionError::Stopped));
        }
        if let Some(mdns) = self.mdns {
            mdns.stop();
        }
    }

    /// What to do next, or until when there is nothing.
    fn next_event(&mut self, cx: &mut Context<'_>) -> Result<Event, Option<Instant>> {
        match self.inbox.poll_next_unpin(cx) {
            Poll::Ready(Some(message)) => return Ok(Event::Message(message)),
            // Every handle is gone.
            Poll::Ready(None) => return Ok(Event::Message(Message::Stop)),
            Poll::Pending => {}
        }
        if let Some(Poll::Ready(event)) = self.mdns.as_mut().map(|m| m.poll_event(cx)) {
            return Ok(Event::Mdns(event));
        }
        let now = Instant::now();
        let mut watch_at = None;
        if matches!(self.goal, Goal::Keep { .. }) {
            if let Some(search) = &mut self.watch {
                if search.poll(cx, now).is_ready() {
                    return Ok(Event::Watched);
                }
                watch_at = search.wake_at();
            } else if now >= self.next_watch {
                return Ok(Event::Watch);
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
            Stage::Rest { until } if now >= *until => return Ok(Event::Round),
            Stage::Rest { until } => Some(*until),
            Stage::Searching(search) => match search.poll(cx, now) {
                Poll::Ready(()) => return Ok(Event::Searched),
                Poll::Pending => search.wake_at(),
            },
            Stage::Joining { call, .. } => match call.poll_unpin(cx) {
                Poll::Ready(answer) => return Ok(Event::Joined(answer)),
                Poll::Pending => None,
            },
        };
        if reports.is_some_and(|moment| now >= moment) {
            return Ok(Event::Report);
        }
        Err(wake_at.into_iter().chain(reports).chain(watch_at).min())
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.set_goal(message),
            Event::Mdns(event) => self.heard(event),
            Event::Round => self.round(),
            Event::Searched => self.searched(),
            Event::Joined(answer) => self.joined(answer),
            Event::Report => self.report(),
            Event::Watch => self.watch(),
            Event::Watched => self.watched(),
        }
    }

    fn set_goal(&mut self, message: Message) {
        let now = Instant::now();
        self.stage = Stage::Rest { until: now };
        self.next_report = now + REPORT_FIRST;
        self.goal = match message {
            Message::Probe(begin, reply) => {
                self.stage = Stage::Rest { until: begin };
                Goal::Probe { reply, until: self.mdns.is_some().then(|| begin.max(now) + PROBE) }
            }
            Message::Admission(reply) => {
                self.not_admitted(reasons::looking(self.candidates.join(), self.mdns_state()));
                Goal::Admission { reply }
            }
            Message::Admitted(PeersHandleBox(peers)) => {
                let cluster_id = peers.me().cluster_id;
                if let Some(mdns) = &mut self.mdns
                    && let Err(error) = mdns.announce(&self.options.cluster_name, cluster_id, &self.me)
                {
                    log::warn!("this node is not announced: {error}");
                }
                self.candidates.nodes_of(cluster_id).for_each(|(node, addr)| suggest(&peers, node, addr));
                Goal::Keep { peers, settled: false }
            }
            // Ends the loop before it gets here.
            Message::Stop => Goal::Nothing,
        };
    }

    fn heard(&mut self, event: MdnsEvent) {
        match event {
            MdnsEvent::Found(find) => {
                let (node, cluster_id, addr) = (find.node_id, find.cluster_id, find.bind_addr.clone());
                if node == self.me.id || !self.candidates.found(find) {
                    return;
                }
                log::debug!("mDNS found node {node} of cluster {cluster_id} at {addr}");
                match (&self.goal, &mut self.stage) {
                    (Goal::Keep { peers, .. }, _) if peers.me().cluster_id == cluster_id => suggest(peers, node, &addr),
                    (Goal::Keep { .. }, _) => self.next_watch = Instant::now(),
                    (Goal::Probe { .. } | Goal::Admission { .. }, Stage::Searching(search)) => search.ask(vec![addr]),
                    (Goal::Admission { .. }, Stage::Rest { until }) => *until = Instant::now(),
                    (Goal::Nothing | Goal::Probe { .. } | Goal::Admission { .. }, _) => {}
                }
            }
            MdnsEvent::Gone(instance) => self.candidates.gone(&instance),
            MdnsEvent::Ended => log::warn!("mDNS has ended: nodes are found by join addresses alone"),
        }
    }
}

fn suggest(peers: &PeersHandle, node: NodeId, addr: &str) {
    if peers.catalog().get().member(node).is_some() {
        peers.suggest(node, addr);
    }
}
