//! Runs the driver: on its thread, or on a thread that brings a small piece of work (`wake.rs` says why).
//!
//! A turn takes what is queued, and performs the effects. Only the thread ticks, stops, and takes large work. A turn on
//! another thread takes little, and only while the disk is fast: gRPC's threads must not wait for it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use parking_lot::Mutex;

use super::{Consensus, ConsensusParts, Driver};
use crate::clock;
use crate::consensus::error::HostError;
use crate::consensus::handle::ConsensusMsg;
use crate::consensus::wake::{ConsensusWaker, GATHER_MAX, SMALL_BYTES_MAX, Work, requests_to_wake};
use crate::thread::{FatalSender, Joiner, spawn};

/// The number of messages taken from the inbox in one turn: one fdatasync then covers their effects.
const TURN_MESSAGES_MAX: usize = 512;
/// The same limit in bytes, applied separately to clients' records and to peers' entries. More would delay the next
/// heartbeat.
const TURN_BYTES_MAX: usize = 8 << 20;

/// While more proposals than this are unanswered, a request wakes the thread, which takes several requests at once.
const UNANSWERED_MAX: usize = 1;
/// After a turn on another thread that took this long, the disk is slow: for a while, only the thread runs the driver.
const SLOW_TURN: Duration = Duration::from_millis(5);
/// For this long.
const SLOW_FOR: Duration = Duration::from_secs(1);

impl Consensus {
    /// Recovers every group of this node, then starts the thread. Blocks for the recovery.
    ///
    /// # Errors
    /// A group can't be recovered, or the thread can't be created.
    pub fn start(self, parts: ConsensusParts, fatal: &FatalSender) -> Result<Joiner, HostError> {
        let driver = SharedDriver::share(self.recover(parts)?);
        spawn("consensus", fatal, move || driver.run()).map_err(HostError::Thread)
    }
}

/// What the thread does after a turn.
enum Next {
    Turn,
    WaitUntil(Instant),
    Stop,
}

/// The driver between two turns.
enum Slot {
    Idle(Box<Driver>),
    /// A turn on another thread failed with this error.
    Failed(HostError),
    /// A turn is running, or one has panicked, or the thread has ended.
    Taken,
}

/// The driver, for all threads that may run it.
pub(super) struct SharedDriver {
    slot: Mutex<Slot>,
    waker: ConsensusWaker,
}

impl SharedDriver {
    /// From now on, threads that bring small work run it.
    pub fn share(driver: Driver) -> Arc<SharedDriver> {
        let waker = driver.waker.clone();
        let shared = Arc::new(SharedDriver { slot: Mutex::new(Slot::Idle(Box::new(driver))), waker: waker.clone() });
        // Weak: the driver contains the waker.
        let weak: Weak<SharedDriver> = Arc::downgrade(&shared);
        waker.set_run_here(move |work| weak.upgrade().is_some_and(|shared| shared.run_here(work)));
        shared
    }

    /// The body of the thread.
    pub fn run(&self) -> Result<(), HostError> {
        self.waker.attach_current_thread();
        loop {
            let mut slot = self.slot.lock();
            // Taken out: after a panic nothing uses its state any more.
            let mut driver = match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Idle(driver) => driver,
                Slot::Failed(error) => return Err(error),
                Slot::Taken => return Err(HostError::Panicked),
            };
            match turn(&mut driver)? {
                Next::Turn => *slot = Slot::Idle(driver),
                Next::WaitUntil(moment) => {
                    driver.waits_until = moment;
                    *slot = Slot::Idle(driver);
                    drop(slot);
                    self.waker.wait_until(moment);
                }
                Next::Stop => {
                    drop(slot);
                    return driver.stop();
                }
            }
        }
    }

    /// Runs a turn on the calling thread, unless the driver is in use. Returns false if the thread must be woken.
    fn run_here(&self, work: Work) -> bool {
        let Some(mut slot) = self.slot.try_lock() else { return false };
        let mut driver = match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Idle(driver) => driver,
            other => {
                *slot = other;
                return false;
            }
        };
        let begun = clock::now();
        if !runs_here(&driver, work, begun) {
            *slot = Slot::Idle(driver);
            return false;
        }
        let turn = small_turn(&mut driver, work);
        let now = clock::now();
        if now.saturating_duration_since(begun) > SLOW_TURN {
            driver.not_here_before = now + SLOW_FOR;
        }
        match turn {
            Ok(()) => {
                let done = !has_work(&driver) && next_due(&driver) >= driver.waits_until;
                *slot = Slot::Idle(driver);
                done
            }
            Err(error) => {
                *slot = Slot::Failed(error);
                false
            }
        }
    }
}

#[cfg(test)]
impl SharedDriver {
    /// Looks at the driver, or changes it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Driver) -> T) -> T {
        let mut slot = self.slot.lock();
        let Slot::Idle(driver) = &mut *slot else { panic!("it has ended") };
        act(driver)
    }
}

/// What the thread handles in one turn.
#[expect(clippy::large_enum_variant, reason = "one value, which is moved once")]
enum Event {
    Message(ConsensusMsg),
    /// The log-writer or a reader has completed something, a peer has sent messages, or a campaign is due.
    Completed,
    Tick,
    Stop,
}

fn turn(driver: &mut Driver) -> Result<Next, HostError> {
    // Ticks come first, so that a flood of requests can't stop time.
    let now = clock::now();
    let passed = driver.ticking.pass(now, driver.ticks_to_next(), || driver.quiet.is_alone(&driver.groups));
    (0..passed.slept).try_for_each(|_| driver.tick())?;
    if passed.is_late {
        driver.ticks_are_late();
    }
    let event = match passed.is_due {
        true => Event::Tick,
        false if passed.slept > 0 => Event::Completed,
        false => match next_event(driver, now) {
            Ok(event) => event,
            Err(moment) => return Ok(Next::WaitUntil(moment)),
        },
    };
    for (from, message) in driver.peers.take(TURN_BYTES_MAX) {
        driver.step(from, message);
    }
    driver.lose_nodes();
    match event {
        Event::Message(message) => {
            let bytes = message.bytes();
            driver.handle(message);
            take_requests(driver, TURN_MESSAGES_MAX, TURN_BYTES_MAX.saturating_sub(bytes));
        }
        Event::Completed => {}
        Event::Tick => driver.tick()?,
        Event::Stop => driver.stops = true,
    }
    if driver.stops {
        return Ok(Next::Stop);
    }
    driver.take_completions();
    end_turn(driver)?;
    Ok(Next::Turn)
}

/// Returns the next event, or the time until which there is none.
fn next_event(driver: &mut Driver, now: Instant) -> Result<Event, Instant> {
    if now >= driver.gathers_until {
        driver.waker.gather(1);
    }
    if driver.left.is_some() || driver.waker.are_gathered(driver.inbox.len()) {
        driver.waker.take_urgency();
        driver.gathers_until = now + GATHER_MAX;
        match driver.left.take().map_or_else(|| driver.inbox.try_recv(), Ok) {
            Ok(ConsensusMsg::Stop) | Err(TryRecvError::Disconnected) => return Ok(Event::Stop),
            Ok(message) => return Ok(Event::Message(message)),
            Err(TryRecvError::Empty) => {}
        }
    }
    let due = next_due(driver);
    if !driver.sinks.completions.is_empty() || !driver.peers.is_empty() || due <= now {
        Ok(Event::Completed)
    } else {
        Err(due)
    }
}

/// Takes requests until `messages_max` or `bytes_max` is reached, but at least one.
fn take_requests(driver: &mut Driver, messages_max: usize, bytes_max: usize) {
    let mut sum = 0;
    for message in driver.inbox.clone().try_iter().take(messages_max) {
        if matches!(message, ConsensusMsg::Stop) {
            driver.stops = true;
            return;
        }
        sum += message.bytes();
        driver.handle(message);
        if sum > bytes_max {
            break;
        }
    }
    if !driver.inbox.is_empty() {
        // What is left may contain an urgent one, and has waited long enough.
        driver.waker.wake_for_request();
    }
}

/// Performs the effects of all that was taken.
fn end_turn(driver: &mut Driver) -> Result<(), HostError> {
    driver.quiet.campaign(&mut driver.groups, clock::now());
    driver.perform()?;
    driver.quiet.obey(&mut driver.groups, &driver.host.lost);
    driver.host.disk.space().kept();
    driver.progress.mark();
    let gathers = clock::now() < driver.gathers_until;
    driver.waker.gather(if gathers { requests_to_wake(driver.groups.unanswered()) } else { 1 });
    Ok(())
}

/// Returns true if this work may run on the thread that has brought it.
fn runs_here(driver: &Driver, work: Work, now: Instant) -> bool {
    let is_idle = match work {
        // Others may be before the caller's request, and may be large.
        Work::Request => driver.inbox.len() <= 1 && driver.groups.unanswered() <= UNANSWERED_MAX,
        Work::Persisted => driver.groups.unanswered() <= UNANSWERED_MAX,
        Work::Messages => true,
    };
    // Ticks that the thread has slept through are performed first.
    let is_on_time = !driver.ticking.has_passed(now);
    is_idle && is_on_time && !driver.stops && driver.left.is_none() && now >= driver.not_here_before
}

/// A turn on another thread. What may take long is left to the thread.
fn small_turn(driver: &mut Driver, work: Work) -> Result<(), HostError> {
    for (from, message) in driver.peers.take_small(SMALL_BYTES_MAX).unwrap_or_default() {
        driver.step(from, message);
    }
    if work == Work::Request
        && let Ok(message) = driver.inbox.try_recv()
    {
        match message.is_small() {
            true => driver.handle(message),
            false => driver.left = Some(message),
        }
    }
    let persisted = driver.sinks.completions.take_small();
    driver.take_persisted(persisted);
    end_turn(driver)
}

fn has_work(driver: &Driver) -> bool {
    driver.stops
        || driver.left.is_some()
        || driver.waker.are_gathered(driver.inbox.len())
        || !driver.sinks.completions.is_empty()
        || !driver.peers.is_empty()
}

/// Returns the time of the next tick or campaign, or when requests no longer wait for others.
fn next_due(driver: &Driver) -> Instant {
    let next_tick = driver.ticking.wakes_at(driver.ticks_to_next());
    let gathered = driver.waker.gathers().then_some(driver.gathers_until);
    [driver.quiet.next_campaign(), gathered].into_iter().flatten().fold(next_tick, Instant::min)
}
