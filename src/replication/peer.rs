//! The thread `peer-<node>`: one peer's channel and its two streams, and its stream of bulk messages (`bulk.rs`).
//!
//! - It dials when there is something to send.
//! - If one stream is lost, all end: two share a connection, and the third leads to the same process. Consensus is
//!   informed that the peer was unreachable. The outcome of unanswered jobs is unknown, unless the log shows it later
//!   (`settle.rs`). The next attempt waits for its backoff, or until the peer is heard from.
//! - After the first loss since the peer was last reached or heard, a probe finds out whether its process has ended
//!   (`probe.rs`).
//! - A failed attempt also drops everything in the mailbox: raft's messages are outdated by then, and forwards must
//!   not wait for a node that may be dead.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::line_limit::LineLimit;
use crate::pb::peer::{ForwardRequest, ForwardResponse, ReplicateRequest};
use crate::pb::peer_grpc::PeerClient;
use crate::replication::bulk::{BulkStep, BulkStream};
use crate::replication::direct::{DirectSender, MessageLink, SendQueue};
use crate::replication::forward::NotSent;
use crate::replication::link::{Link, Lost, WELCOME_MAX};
use crate::replication::node::LocalNode;
use crate::replication::outcome::unknown_part;
use crate::replication::probe::Probe;
use crate::replication::refusal::{Consequence, Refusal};
use crate::replication::settle::settle;
use crate::replication::unanswered::UnansweredJobs;
use crate::replication::wait::{park_until, thread_waker};
use crate::security::peer_names::Dialled;
use crate::thread::FatalSender;
use crate::types::NodeId;

/// The approximate size of a request with several jobs. A larger one is sent alone.
const REQUEST_BYTES: usize = 1 << 20;
/// The maximum number of unanswered jobs of one peer. Further forwards wait in the mailbox.
pub const UNANSWERED_MAX: usize = 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After a link is lost, forwarded proposals wait this long for another leader, whose log shows their outcome.
const ELECTION_MAX: Duration = Duration::from_secs(3);
/// The time for unanswered jobs after the authorities of peers have changed. A removed one may be compromised.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// If some jobs were not answered in that time, and the authorities are the same, new jobs are sent for this long. Then they
/// wait again, so that the new certificates are used before the old ones expire.
const DRAIN_PAUSE: Duration = Duration::from_secs(30);
/// The interval at which deadlines are checked, if there are any.
const SWEEP: Duration = Duration::from_millis(100);
/// The interval while proposals of a lost link wait for the log of the next leader, which shows their outcome.
const SWEEP_LOST: Duration = Duration::from_millis(10);

enum PeerEvent {
    Stop,
    Poked,
    /// Something is queued without a connection, and the backoff is over.
    Dial,
    /// Something is queued for a stream that is not open yet.
    OpenReplicate,
    OpenForward,
    /// Messages are queued, and the stream can send a request.
    SendMessages,
    SendJobs,
    Bulk(BulkStep),
    Outcomes(ForwardResponse),
    Lost(Lost),
    Sweep,
}

struct PeerConnection {
    // The streams are dropped, and so cancelled, before their channel.
    replicate: Option<Arc<Mutex<MessageLink>>>,
    forward: Option<Link<ForwardRequest, ForwardResponse>>,
    client: PeerClient,
    bulk: BulkStream,
    addr: String,
    /// [`Dialer::generation`](crate::replication::dial::Dialer::generation) when the connection was created.
    generation: u64,
    /// `Dialer::authorities` when the connection was created.
    authorities: u64,
    /// When the wait for unanswered jobs ends, after the certificates have changed: the connection ends if the authorities
    /// are others, and takes new jobs again otherwise.
    ends: Option<Instant>,
}

impl PeerConnection {
    /// Returns true once the peer has accepted a hello.
    fn is_welcome(&self) -> bool {
        self.replicate.as_ref().is_some_and(|l| l.lock().is_welcome())
            || self.forward.as_ref().is_some_and(Link::is_welcome)
    }

    fn is_unused(&self) -> bool {
        self.replicate.is_none() && self.forward.is_none()
    }

    /// Returns the time at which a stream without a welcome is given up.
    fn welcome_deadline(&self) -> Option<Instant> {
        let replicate = self.replicate.as_ref().map(|l| l.lock()).filter(|l| !l.is_welcome()).map(|l| l.opened());
        let forward = self.forward.as_ref().filter(|l| !l.is_welcome()).map(Link::opened);
        replicate.into_iter().chain(forward).min().map(|opened| opened + WELCOME_MAX)
    }
}

/// The kinds of rate-limited log lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum LineKind {
    Trouble,
    Outcome,
}

/// The state of one peer's thread.
pub struct Peer {
    id: NodeId,
    node: Arc<LocalNode>,
    queue: Arc<SendQueue>,
    direct: Arc<DirectSender>,
    fatal: FatalSender,
    connection: Option<PeerConnection>,
    /// The last probe.
    probe: Option<Probe>,
    /// True if the next loss starts a probe.
    probes_next: bool,
    unanswered: UnansweredJobs,
    /// The number of losses since the last welcome. Determines the backoff.
    failures: u32,
    /// The number of attempts since the last welcome. Determines the address and the expected certificate.
    attempts: usize,
    next_dial: Instant,
    next_sweep: Instant,
    /// The last logged text. It is not logged again, so that a dead peer does not fill the log.
    last_trouble: Option<String>,
    /// Limits the lines if two reasons alternate from attempt to attempt.
    lines: LineLimit<LineKind>,
}

impl Peer {
    /// Creates the state. The loop is not running yet.
    pub fn new(queue: Arc<SendQueue>, direct: Arc<DirectSender>, fatal: FatalSender) -> Peer {
        let now = Instant::now();
        Peer {
            id: queue.peer,
            node: queue.node.clone(),
            queue,
            direct,
            fatal,
            connection: None,
            probe: None,
            probes_next: true,
            unanswered: UnansweredJobs::default(),
            failures: 0,
            attempts: 0,
            next_dial: now,
            next_sweep: now,
            last_trouble: None,
            lines: LineLimit::default(),
        }
    }

    /// Runs until the mailbox is stopped.
    pub fn run(mut self) {
        let waker = thread_waker();
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.next_event(&mut cx) {
                Ok(PeerEvent::Stop) => break,
                Ok(event) => self.handle_event(event),
                Err(wake_at) => park_until(wake_at),
            }
        }
        self.unanswered.fail_all();
        self.refuse_waiting(NotSent::Stopping);
    }

    /// Returns the next event, or the time at which to check again.
    fn next_event(&mut self, cx: &mut Context<'_>) -> Result<PeerEvent, Option<Instant>> {
        let waiting = self.queue.mailbox.contents(cx);
        let now = Instant::now();
        if waiting.stopped {
            return Ok(PeerEvent::Stop);
        }
        if waiting.poked {
            return Ok(PeerEvent::Poked);
        }
        if self.connection.is_some() && self.node.addresses.is_denied(self.id) {
            return Ok(PeerEvent::Lost(Lost::because("its certificates are refused here (peer_deny_file)")));
        }
        // A connection with outdated certificates answers its jobs first. New jobs wait for the next connection.
        let is_outdated = self.is_outdated();
        let waits = is_outdated && self.connection.as_ref().is_some_and(|c| c.ends.is_none_or(|until| now < until));
        let jobs_wait = waiting.forwards && !waits && self.unanswered.len() < UNANSWERED_MAX;
        let is_waiting = waiting.messages || waiting.bulk || waiting.forwards;
        if !is_waiting && self.connection.as_ref().is_some_and(PeerConnection::is_unused) {
            // The caller for which the connection was created has given up. The next attempt may need another address
            // or certificate.
            self.connection = None;
        }
        if is_outdated && self.unanswered.len() == 0 {
            // The certificates have changed; the next connection uses the new ones. Messages in flight are lost, and
            // raft sends them again.
            self.connection = None;
            self.node.unreachable(self.id);
        }
        let mut wake_at = (self.unanswered.len() > 0 || waiting.forwards).then_some(self.next_sweep);
        let mut wake_by = |moment: Instant| wake_at = Some(wake_at.map_or(moment, |w| w.min(moment)));
        match &mut self.connection {
            None if is_waiting => {
                if now >= self.next_dial {
                    return Ok(PeerEvent::Dial);
                }
                wake_by(self.next_dial);
            }
            None => {}
            Some(connection) => {
                if is_outdated {
                    let until = *connection.ends.get_or_insert(now + DRAIN_MAX);
                    if now < until {
                        wake_by(until);
                    } else if connection.authorities != self.node.dialer.authorities() {
                        return Ok(PeerEvent::Lost(Lost::because(
                            "the authorities of peers have changed: connecting again",
                        )));
                    } else if now >= until + DRAIN_PAUSE {
                        connection.ends = None;
                    }
                }
                match &mut connection.replicate {
                    None if waiting.messages || waiting.bulk => return Ok(PeerEvent::OpenReplicate),
                    None => {}
                    Some(link) => {
                        let mut link = link.lock();
                        match link.poll_response(cx) {
                            // The welcome is the only response on this stream.
                            Poll::Ready(Ok(_)) | Poll::Pending => {}
                            Poll::Ready(Err(lost)) => return Ok(PeerEvent::Lost(lost)),
                        }
                        if let Some(lost) = self.node.refused_peer(self.id, link.welcome().map(|w| w.levels.as_ref())) {
                            return Ok(PeerEvent::Lost(lost));
                        }
                        if waiting.messages && link.poll_ready(cx) {
                            return Ok(PeerEvent::SendMessages);
                        }
                    }
                }
                match &mut connection.forward {
                    None if jobs_wait => return Ok(PeerEvent::OpenForward),
                    None => {}
                    Some(link) => {
                        match link.poll_response(cx) {
                            Poll::Ready(Ok(response)) => return Ok(PeerEvent::Outcomes(response)),
                            Poll::Ready(Err(lost)) => return Ok(PeerEvent::Lost(lost)),
                            Poll::Pending => {}
                        }
                        if let Some(lost) = self.node.refused_peer(self.id, link.welcome().map(|w| w.levels.as_ref())) {
                            return Ok(PeerEvent::Lost(lost));
                        }
                        if jobs_wait && link.poll_ready(cx) {
                            return Ok(PeerEvent::SendJobs);
                        }
                    }
                }
                if connection.is_welcome() {
                    match connection.bulk.next(cx, waiting.bulk, self.id, &self.node) {
                        BulkStep::Wait(until) => until.into_iter().for_each(&mut wake_by),
                        step => return Ok(PeerEvent::Bulk(step)),
                    }
                }
                if let Some(moment) = connection.welcome_deadline() {
                    if now >= moment {
                        return Ok(PeerEvent::Lost(Lost::because("no answer")));
                    }
                    wake_by(moment);
                }
                if connection.is_welcome() && !self.probes_next {
                    self.probes_next = true;
                    self.probe.iter().for_each(Probe::stop);
                }
                if connection.is_welcome() && self.failures > 0 {
                    self.failures = 0;
                    let addr = connection.addr.clone();
                    if self.last_trouble.take().is_some() {
                        log::info!("peer {} answers again at {addr}", self.name());
                    }
                }
            }
        }
        if wake_at.is_some() && now >= self.next_sweep {
            return Ok(PeerEvent::Sweep);
        }
        Err(wake_at)
    }

    fn handle_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Stop => {}
            PeerEvent::Poked => {
                self.next_dial = Instant::now();
                self.probes_next = true;
            }
            PeerEvent::Dial => self.dial(),
            PeerEvent::OpenReplicate => {
                let (hello, direct) = (self.hello(), self.direct.clone());
                self.with_connection(|c| {
                    let link = Arc::new(Mutex::new(Link::open(c.client.replicate(), hello)?));
                    direct.set(&link, c.generation, thread_waker());
                    c.replicate = Some(link);
                    Ok(())
                });
            }
            PeerEvent::Bulk(act) => {
                let (hello, mailbox, node) = (self.hello(), self.queue.mailbox.clone(), self.node.clone());
                self.with_connection(|c| match act {
                    BulkStep::Open => c.bulk.open(hello),
                    BulkStep::Send => c.bulk.send(&mailbox, &node.bulk_rate),
                    BulkStep::Lost(lost) => Err(lost),
                    BulkStep::Wait(_) => Ok(()),
                });
            }
            PeerEvent::OpenForward => {
                let hello =
                    ForwardRequest { hello: Some(self.node.me.hello(self.id)).into(), ..ForwardRequest::default() };
                self.with_connection(|c| {
                    c.forward = Some(Link::open(c.client.forward(), hello)?);
                    Ok(())
                });
            }
            PeerEvent::SendMessages => self.send_messages(),
            PeerEvent::SendJobs => self.send_jobs(),
            PeerEvent::Outcomes(response) => {
                for outcome in response.outcomes {
                    let id = outcome.id;
                    if let Some(unknown) = unknown_part(&outcome)
                        && self.lines.admit(LineKind::Outcome, Instant::now()).is_some()
                    {
                        log::warn!("peer {} answered a job with {unknown}: its outcome is unknown here", self.name());
                    }
                    if !self.unanswered.answer(outcome) {
                        log::debug!("peer {} answered job {id}, for which no caller waits", self.name());
                    }
                }
            }
            PeerEvent::Lost(lost) => self.handle_lost(&lost),
            PeerEvent::Sweep => self.sweep(),
        }
    }

    fn hello(&self) -> ReplicateRequest {
        ReplicateRequest { hello: Some(self.node.me.hello(self.id)).into(), ..ReplicateRequest::default() }
    }

    fn with_connection(&mut self, act: impl FnOnce(&mut PeerConnection) -> Result<(), Lost>) {
        if let Some(connection) = &mut self.connection
            && let Err(lost) = act(connection)
        {
            self.handle_lost(&lost);
        }
    }

    fn dial(&mut self) {
        let (addresses, expected) = (self.node.addresses.of(self.id), self.node.addresses.expected(self.id));
        if expected.is_empty() {
            return self.handle_lost(&Lost::because("it has no certificate that is accepted here"));
        }
        let pairs: Vec<(&Dialled, &String)> =
            expected.iter().flat_map(|whom| addresses.iter().map(move |addr| (whom, addr))).collect();
        // The next attempt tries the next pair.
        let Some((whom, addr)) = pairs.get(self.attempts % pairs.len().max(1)) else {
            return self.handle_lost(&Lost::because("its address is not known"));
        };
        // Read before the channel is created: if they change in between, the channel is created once more.
        let (generation, authorities) = (self.node.dialer.generation(), self.node.dialer.authorities());
        let channels = [(); 2].map(|()| self.node.dialer.channel(addr, whom));
        let [Some(channel), Some(bulk)] = channels else {
            return self.handle_lost(&Lost::because("this node is stopping"));
        };
        self.connection = Some(PeerConnection {
            client: PeerClient::new(channel),
            bulk: BulkStream::new(PeerClient::new(bulk)),
            addr: (*addr).clone(),
            generation,
            authorities,
            ends: None,
            replicate: None,
            forward: None,
        });
    }

    fn is_outdated(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.generation != self.node.dialer.generation())
    }

    fn send_messages(&mut self) {
        let Some(link) = self.connection.as_ref().and_then(|c| c.replicate.clone()) else { return };
        let sent = self.queue.send(&mut link.lock(), &thread_waker());
        drop(link);
        if let Err(lost) = sent {
            self.handle_lost(&lost);
        }
    }

    fn send_jobs(&mut self) {
        let now = Instant::now();
        let forwards = self.queue.mailbox.take_forwards(UNANSWERED_MAX - self.unanswered.len(), REQUEST_BYTES);
        let welcome = self.connection.as_ref().and_then(|c| c.forward.as_ref()).and_then(Link::welcome);
        let checks_term = welcome.is_some_and(|welcome| welcome.checks_term);
        let mut jobs = Vec::with_capacity(forwards.len());
        for forward in forwards {
            let led = forward.proposes_to().filter(|_| checks_term).and_then(|group| self.node.led_by(self.id, group));
            jobs.extend(self.unanswered.job(forward, led, now));
        }
        let request = ForwardRequest { jobs, ..ForwardRequest::default() };
        if request.jobs.is_empty() {
            return;
        }
        // From here on the outcome of the jobs is unknown until the peer sends it.
        self.with_connection(|c| c.forward.as_mut().map_or(Ok(()), |link| link.send(request)));
    }

    fn handle_lost(&mut self, lost: &Lost) {
        let mut connection = self.connection.take();
        // A peer that this node refuses after the welcome is treated like one that refuses this node.
        let welcomed =
            connection.as_ref().is_some_and(PeerConnection::is_welcome) && !matches!(lost, Lost::PeerRefused(_));
        // Before consensus is told of the loss, so that no other thread sends on this stream after that.
        self.direct.clear();
        connection.iter_mut().for_each(|connection| connection.replicate = None);
        self.unanswered.link_lost(Instant::now() + ELECTION_MAX);
        self.next_sweep = Instant::now();
        self.node.unreachable(self.id);
        let backoff = BACKOFF_MIN * 2u32.pow(self.failures.min(4));
        self.next_dial = Instant::now() + backoff.min(BACKOFF_MAX);
        if !welcomed {
            self.queue.drop_messages();
            self.refuse_waiting(NotSent::Unreachable);
        }
        self.failures = self.failures.saturating_add(1);
        self.attempts = if welcomed { 0 } else { self.attempts.wrapping_add(1) };
        if let (Some(connection), Lost::Ended(_)) = (&connection, lost) {
            self.start_probe(&connection.addr);
        }
        let addr = connection.map_or_else(String::new, |c| format!(" at {}", c.addr));
        let trouble = format!("peer {}{addr}: {}", self.name(), lost.text());
        if let Lost::RefusedByPeer(refusal) = lost
            && refusal.reason.consequence() == Consequence::EndsNode
        {
            let _ = self.node.excluded.set(Refusal::new(refusal.reason, trouble.clone()));
        }
        let is_new = self.last_trouble.as_ref() != Some(&trouble);
        if is_new && let Some(hidden) = self.lines.admit(LineKind::Trouble, Instant::now()) {
            let trouble = match hidden {
                0 => trouble.clone(),
                _ => format!("{trouble} (and {hidden} more changes before it)"),
            };
            match lost {
                Lost::Ended(_) => log::info!("{trouble}"),
                Lost::PeerRefused(_) => log::warn!("refused {trouble}"),
                Lost::RefusedByPeer(refusal) => match refusal.reason.consequence() {
                    Consequence::PassesSoon | Consequence::AskAnother => log::info!("{trouble}"),
                    Consequence::NeedsAChange | Consequence::EndsJoin | Consequence::EndsNode => {
                        log::warn!("refused by {trouble}");
                    }
                },
            }
        }
        self.last_trouble = Some(trouble);
    }

    fn start_probe(&mut self, addr: &str) {
        let has_ended = self.probe.as_ref().is_none_or(Probe::has_ended);
        if has_ended && std::mem::take(&mut self.probes_next) {
            // The thread of the previous one has ended, so dropping it does not wait.
            self.probe = Probe::start(self.id, addr.to_owned(), self.node.clone(), &self.fatal);
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.next_sweep = now + if self.connection.is_none() && self.unanswered.len() > 0 { SWEEP_LOST } else { SWEEP };
        settle(&mut self.unanswered, self.id, &self.node, now);
        self.unanswered.expire(now);
        self.queue.mailbox.expire(now);
    }

    fn refuse_waiting(&mut self, why: NotSent) {
        self.queue.mailbox.take_forwards(usize::MAX, usize::MAX).into_iter().for_each(|f| f.refuse(why));
    }

    fn name(&self) -> String {
        let catalog = self.node.catalog.get();
        catalog.member(self.id).map_or_else(|| self.id.to_string(), |m| m.name.to_string())
    }
}
