//! What one principal, and all together, may hold at once: open streams, unanswered calls, and bytes of requests and answers
//! in flight. Beyond it a call is refused with LIMIT_REACHED; nobody waits for another's limit.
//!
//! Answers have an allowance of their own, as large as that of requests, so that who never reads can still call. Readers take
//! less the less is left of two thirds of it, a quarter at most; the last third is for small slices. So clients that
//! never read what they asked for do not starve others of the same name. All readers leave a quarter of the node's bytes to
//! those who append.

mod fair_queue;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use parking_lot::{Mutex, MutexGuard};

use self::fair_queue::{Queue, Turn};
use crate::config;
use crate::metrics::Limit;
use crate::security::identity::Principal;
use crate::timers::TimersHandle;

/// What a call in flight costs besides its bytes.
const CALL_BYTES: u64 = 1024;

/// A reader gets as much, however little is left of two thirds of its principal's allowance.
const READ_BYTES_LEAST: u64 = 16 << 10;

/// So long an open stream waits for bytes to read into, before it is refused,
const READ_SOON: Duration = Duration::from_secs(10);
/// and the first of its name asks this often, besides when one of the same name gives some back: it may be all together who
/// hold too many.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// When a principal's streams wait for each other, they read so much, each [`READ_BYTES_LEAST`] or more,
const BURST_BYTES: u64 = 512 << 10;
/// and then nothing for so long: in it gRPC's thread comes to look at its connections, which it does only when it has nothing
/// to run.
const BETWEEN_BURSTS: Duration = Duration::from_millis(1);

/// Somebody is at a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReached {
    /// Which.
    pub limit: Limit,
    /// How much it is.
    pub max: u64,
}

/// What is held, of one principal or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open streams.
    pub streams: u64,
    /// Unanswered calls.
    pub calls: u64,
    /// Bytes of requests.
    pub bytes: u64,
    /// Bytes of answers.
    pub read_bytes: u64,
}

impl Usage {
    /// Bytes in flight, of requests and answers.
    pub fn all_bytes(self) -> u64 {
        self.bytes.saturating_add(self.read_bytes)
    }

    fn plus(self, more: Usage) -> Usage {
        Usage {
            streams: self.streams.saturating_add(more.streams),
            calls: self.calls.saturating_add(more.calls),
            bytes: self.bytes.saturating_add(more.bytes),
            read_bytes: self.read_bytes.saturating_add(more.read_bytes),
        }
    }

    fn minus(self, less: Usage) -> Usage {
        Usage {
            streams: self.streams.saturating_sub(less.streams),
            calls: self.calls.saturating_sub(less.calls),
            bytes: self.bytes.saturating_sub(less.bytes),
            read_bytes: self.read_bytes.saturating_sub(less.read_bytes),
        }
    }
}

#[derive(Default)]
struct Held {
    all: Usage,
    /// Who holds nothing is not in it, so it is bounded by the calls in flight.
    each: HashMap<Principal, Usage>,
    /// Who waits for bytes to read into; bounded by the open streams.
    queues: HashMap<Principal, Queue>,
    /// What the next one who waits gets.
    next_ticket: u64,
}

impl Held {
    /// The first in a principal's queue, to be woken when the lock is let go.
    fn first(&self, principal: &Principal) -> Option<Waker> {
        Some(self.queues.get(principal)?.waiting.front()?.waker.clone())
    }
}

struct Inner {
    max: config::Limits,
    held: Mutex<Held>,
}

/// The limits and what is in use; a clone is the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

fn within(used: u64, max: u64, limit: Limit) -> Result<(), LimitReached> {
    if used > max { Err(LimitReached { limit, max }) } else { Ok(()) }
}

impl Limits {
    /// Nothing in use.
    pub fn new(max: config::Limits) -> Limits {
        Limits(Arc::new(Inner { max, held: Mutex::default() }))
    }

    /// What all hold together.
    pub fn usage(&self) -> Usage {
        self.lock().all
    }

    /// Takes one stream until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached`], of streams.
    pub fn stream(&self, principal: &Principal) -> Result<Permit, LimitReached> {
        self.take(principal, Usage { streams: 1, ..Usage::default() })
    }

    /// Takes one unanswered call with its bytes until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached`], of calls or bytes.
    pub fn call(&self, principal: &Principal, bytes: usize) -> Result<Permit, LimitReached> {
        self.take(principal, Usage { calls: 1, bytes: (bytes as u64).saturating_add(CALL_BYTES), ..Usage::default() })
    }

    /// Takes bytes, and what a request costs besides, until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached`], of bytes.
    pub fn bytes(&self, principal: &Principal, bytes: usize) -> Result<Permit, LimitReached> {
        self.take(principal, Usage { bytes: (bytes as u64).saturating_add(CALL_BYTES), ..Usage::default() })
    }

    /// Takes bytes to read into: as many as wanted, or fewer. [`Permit::fits`] when it is known how many they are.
    ///
    /// # Errors
    /// [`LimitReached`], of bytes.
    pub fn read(&self, principal: &Principal, wanted: usize) -> Result<Permit, LimitReached> {
        self.read_in(&mut self.lock(), principal, wanted)
    }

    fn read_in(&self, held: &mut Held, principal: &Principal, wanted: usize) -> Result<Permit, LimitReached> {
        let max = &self.0.max;
        let now = held.each.get(principal).copied().unwrap_or_default();
        let left = (max.bytes_per_principal_max / 3 * 2).saturating_sub(now.read_bytes);
        let read_bytes = (wanted as u64).min((left / 4).max(READ_BYTES_LEAST));
        let more = Usage { read_bytes, ..Usage::default() };
        within(now.plus(more).read_bytes, max.bytes_per_principal_max, Limit::PrincipalBytes)?;
        self.readers_within(held.all.plus(more))?;
        Ok(self.hold(held, principal, more))
    }

    /// The same, and waits some seconds for them, in the order of coming. Others of the same name, a thousand tails that one
    /// record wakes, may hold all there is for a moment: a stream that is open does not end for that, nor is it overtaken.
    ///
    /// # Errors
    /// [`LimitReached`], of bytes, all the time.
    pub async fn read_soon(
        &self,
        principal: &Principal,
        wanted: usize,
        timers: &TimersHandle,
    ) -> Result<Permit, LimitReached> {
        let turn = Turn::new(self, principal, wanted, timers);
        match select(turn, timers.at(Instant::now() + READ_SOON)).await {
            Either::Left((permit, _)) => Ok(permit),
            Either::Right(_) => self.read(principal, wanted),
        }
    }

    fn readers_within(&self, all: Usage) -> Result<(), LimitReached> {
        let bytes_max = self.0.max.bytes_max;
        within(all.read_bytes, bytes_max / 4 * 3, Limit::Bytes)?;
        within(all.all_bytes(), bytes_max, Limit::Bytes)
    }

    fn take(&self, principal: &Principal, more: Usage) -> Result<Permit, LimitReached> {
        let max = &self.0.max;
        let mut held = self.lock();
        let one = held.each.get(principal).copied().unwrap_or_default().plus(more);
        let all = held.all.plus(more);
        // What is not asked for is not refused, even to one that has too much of it.
        if more.streams > 0 {
            within(one.streams, max.streams_per_principal_max, Limit::PrincipalStreams)?;
            within(all.streams, max.streams_max, Limit::Streams)?;
        }
        if more.calls > 0 {
            within(one.calls, max.calls_per_principal_max, Limit::PrincipalCalls)?;
            within(all.calls, max.calls_max, Limit::Calls)?;
        }
        if more.bytes > 0 {
            within(one.bytes, max.bytes_per_principal_max, Limit::PrincipalBytes)?;
            within(all.all_bytes(), max.bytes_max, Limit::Bytes)?;
        }
        Ok(self.hold(&mut held, principal, more))
    }

    fn hold(&self, held: &mut Held, principal: &Principal, more: Usage) -> Permit {
        held.all = held.all.plus(more);
        match held.each.get_mut(principal) {
            Some(usage) => *usage = usage.plus(more),
            None => drop(held.each.insert(principal.clone(), more)),
        }
        Permit { limits: self.clone(), principal: principal.clone(), held: more, waited: false }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Every critical section leaves the map whole.
        self.0.held.lock()
    }
}

/// What a call holds of its principal's limits; given back when dropped.
pub struct Permit {
    limits: Limits,
    principal: Principal,
    held: Usage,
    /// It was got by a turn in a queue: what it reads counts for the pauses.
    waited: bool,
}

impl Permit {
    /// How many bytes may be read into it.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.held.read_bytes).unwrap_or(usize::MAX)
    }

    /// Holds as many bytes as were read: fewer than taken, or more, where one record is larger.
    ///
    /// # Errors
    /// [`LimitReached`]; then it holds what it held.
    pub fn fits(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let read_bytes = bytes as u64;
        let mut held = self.limits.lock();
        let less = Usage { read_bytes: self.held.read_bytes, ..Usage::default() };
        let more = Usage { read_bytes, ..Usage::default() };
        let one = held.each.get(&self.principal).copied().unwrap_or_default().minus(less).plus(more);
        let all = held.all.minus(less).plus(more);
        if more.read_bytes > less.read_bytes {
            let max = self.limits.0.max.bytes_per_principal_max / 3 * 2;
            within(one.read_bytes, max, Limit::PrincipalBytes)?;
            self.limits.readers_within(all)?;
        }
        held.all = all;
        if let Some(usage) = held.each.get_mut(&self.principal) {
            *usage = one;
        }
        if self.waited
            && let Some(queue) = held.queues.get_mut(&self.principal)
        {
            queue.has_read(read_bytes);
        }
        let next = held.first(&self.principal);
        drop(held);
        self.held.read_bytes = read_bytes;
        next.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.limits.lock();
        held.all = held.all.minus(self.held);
        if let Some(usage) = held.each.get_mut(&self.principal) {
            *usage = usage.minus(self.held);
            if *usage == Usage::default() {
                held.each.remove(&self.principal);
            }
        }
        let next = held.first(&self.principal);
        drop(held);
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;
    use futures::executor::block_on;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn limits() -> Limits {
        Limits::new(config::Limits {
            streams_per_principal_max: 2,
            streams_max: 3,
            calls_per_principal_max: 2,
            calls_max: 3,
            bytes_per_principal_max: MIB,
            bytes_max: 4 * MIB,
            ..config::Limits::default()
        })
    }

    fn who(name: &str) -> Principal {
        Principal::new(name).expect("a name")
    }

    fn reached(limit: Limit, max: u64) -> Option<LimitReached> {
        Some(LimitReached { limit, max })
    }

    #[test]
    fn each_principal_has_its_own_and_gives_it_back() {
        let limits = limits();
        let (a, b) = (who("a"), who("b"));
        let first = limits.stream(&a).expect("a stream");
        let _second = limits.stream(&a).expect("a stream");
        assert_eq!(limits.stream(&a).err(), reached(Limit::PrincipalStreams, 2));
        assert!(limits.stream(&b).is_ok());
        drop(first);
        assert!(limits.stream(&a).is_ok());

        let held = limits.bytes(&b, 1023 << 10).expect("bytes");
        assert_eq!(limits.bytes(&b, 0).err(), reached(Limit::PrincipalBytes, MIB));
        assert!(limits.bytes(&a, 1023 << 10).is_ok());
        assert!(limits.stream(&b).is_ok(), "of something else there is enough");
        drop(held);
        assert!(!limits.lock().each.contains_key(&b), "who holds nothing is forgotten");
        assert!(limits.bytes(&b, usize::MAX).is_err());
    }

    #[test]
    fn all_together_have_theirs() {
        let limits = limits();
        let _held = ["a", "b", "c"].map(|name| (limits.stream(&who(name)), limits.call(&who(name), 0)));
        assert_eq!(limits.stream(&who("d")).err(), reached(Limit::Streams, 3));
        assert_eq!(limits.call(&who("d"), 0).err(), reached(Limit::Calls, 3));
        let bytes: Vec<_> = (0..4).map(|i| limits.bytes(&who(&format!("p{i}")), 1020 << 10).expect("bytes")).collect();
        assert_eq!(limits.bytes(&who("e"), 1020 << 10).err(), reached(Limit::Bytes, 4 * MIB));
        drop((bytes, _held));
        assert_eq!(limits.usage(), Usage::default());
        let _two = [limits.call(&who("a"), 1), limits.call(&who("a"), 1)];
        assert_eq!(limits.call(&who("a"), 1).err(), reached(Limit::PrincipalCalls, 2));
    }

    #[test]
    fn a_reader_takes_less_the_less_is_left_and_a_little_at_last() {
        let limits = limits();
        let a = who("a");
        let mut held: Vec<Permit> = Vec::new();
        while let Ok(permit) = limits.read(&a, 10 << 20) {
            assert!(held.last().is_none_or(|last| last.bytes() >= permit.bytes()));
            held.push(permit);
        }
        assert_eq!(held[0].bytes() as u64, MIB / 3 * 2 / 4);
        assert_eq!(held[held.len() - 1].bytes() as u64, READ_BYTES_LEAST);
        assert!(held.len() > 25, "{} readers that never read", held.len());
        assert!(limits.usage().read_bytes <= MIB && limits.usage().read_bytes > MIB - READ_BYTES_LEAST);
        assert_eq!(limits.read(&a, 1 << 20).err(), reached(Limit::PrincipalBytes, MIB));
        assert!(limits.call(&a, 1000 << 10).is_ok(), "requests have their own");
        assert!(limits.read(&who("b"), 1 << 20).is_ok(), "another one does not feel it");
        held.pop();
        assert!(limits.read(&a, 1 << 20).is_ok());

        held.clear();
        let all: Vec<_> = (0..100).map_while(|i| limits.read(&who(&format!("p{i}")), 1 << 20).ok()).collect();
        assert_eq!(all.len(), 18, "a quarter of four MiB is for those who append");
        assert_eq!(limits.read(&a, 1 << 20).err(), reached(Limit::Bytes, 3 * MIB));
        assert!(limits.bytes(&a, 1 << 19).is_ok());
    }

    #[test]
    fn an_open_stream_waits_for_room() {
        let (fatal, _failures) = crate::thread::fatal_channel();
        let timers = crate::timers::Timers::start(&fatal).expect("a thread");
        let (limits, a) = (limits(), who("a"));
        let held: Vec<_> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let handle = timers.handle();
        let mut room = pin!(limits.read_soon(&a, 1 << 20, &handle));
        assert!(room.as_mut().now_or_never().is_none(), "there is none now");
        drop(held);
        assert!(block_on(room).is_ok_and(|permit| permit.bytes() > 0));
    }

    /// A thousand tails that fell behind together: who asked every tenth of a second was overtaken for seconds by those that
    /// came back for more.
    #[test]
    fn nobody_who_waits_for_room_is_overtaken() {
        let (fatal, _failures) = crate::thread::fatal_channel();
        let timers = crate::timers::Timers::start(&fatal).expect("a thread");
        let (limits, a, handle) = (limits(), who("a"), timers.handle());
        let mut held: Vec<_> = std::iter::from_fn(|| limits.read(&a, 1 << 20).ok()).collect();
        let wait = || Box::pin(limits.read_soon(&a, 1 << 20, &handle));
        let mut waiting: Vec<_> = (0..5).map(|_| wait()).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        // The third loses its client.
        drop(waiting.remove(2));
        drop(held.pop());
        let mut late = wait();
        assert!(late.as_mut().now_or_never().is_none(), "there is room for one, and others were first");
        for one in waiting.iter_mut().skip(1) {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let mut first = waiting.remove(0);
        let got = first.as_mut().now_or_never().expect("its turn").expect("room");
        drop(first);
        drop((got, held));
        for one in waiting {
            assert!(block_on(one).is_ok());
        }
        assert!(block_on(late).is_ok());
        assert!(limits.lock().queues.is_empty());
    }

    #[test]
    fn a_read_holds_what_it_brought() {
        let limits = limits();
        let a = who("a");
        let mut permit = limits.read(&a, 100 << 10).expect("bytes");
        assert_eq!(permit.bytes(), 100 << 10);
        permit.fits(7).expect("fewer");
        assert_eq!(limits.usage().read_bytes, 7);
        permit.fits(600 << 10).expect("one record");
        assert_eq!(limits.usage().read_bytes, 600 * KIB);
        assert_eq!(permit.fits(700 << 10), Err(LimitReached { limit: Limit::PrincipalBytes, max: MIB / 3 * 2 }));
        assert_eq!(limits.usage().read_bytes, 600 * KIB, "as before");
        drop(permit);
        assert_eq!(limits.usage(), Usage::default());
    }
}
