//! The budgets: what each principal, and all principals together, hold of every limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::late::LateRefusals;
use super::queue::{FairQueue, READ_BYTES_LEAST};
use crate::config;
use crate::metrics::Limit;
use crate::security::identity::Principal;

/// Counted for each request in flight in addition to its bytes.
const REQUEST_OVERHEAD_BYTES: u64 = 1024;

/// A request would exceed a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request would exceed {} ({max}) of this node", .limit.code())]
pub struct LimitReached {
    /// The limit that it would exceed.
    pub limit: Limit,
    /// The value of the limit.
    pub max: u64,
}

/// What one principal, or all principals together, hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open streams, and long polls that wait.
    pub streams: u64,
    /// Requests without a response.
    pub calls: u64,
    /// Bytes of requests in flight.
    pub bytes: u64,
    /// Bytes of responses in flight, and bytes reserved for reads.
    pub read_bytes: u64,
}

impl Usage {
    /// Returns the bytes of requests and responses in flight.
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

/// What is held now.
#[derive(Default)]
pub(super) struct HeldBudgets {
    all: Usage,
    /// A principal that holds nothing is removed, so the requests in flight bound the size.
    each: HashMap<Principal, Usage>,
    /// The streams that wait for their next read. The number of open streams bounds the size.
    pub queues: HashMap<Principal, FairQueue>,
    /// The ticket of the next stream that waits.
    pub next_ticket: u64,
}

impl HeldBudgets {
    /// Returns the waker of the first in a principal's queue, to be woken after the lock is released.
    pub fn first(&self, principal: &Principal) -> Option<Waker> {
        Some(self.queues.get(principal)?.first()?.1.clone())
    }
}

struct SharedBudgets {
    max: RwLock<config::Limits>,
    held: Mutex<HeldBudgets>,
    late: LateRefusals,
}

/// The limits, and what is held of them. Clones share the state.
#[derive(Clone)]
pub struct Budgets(Arc<SharedBudgets>);

fn within(used: u64, max: u64, limit: Limit) -> Result<(), LimitReached> {
    if used > max { Err(LimitReached { limit, max }) } else { Ok(()) }
}

impl Budgets {
    /// Creates budgets with these limits.
    pub fn new(max: config::Limits) -> Budgets {
        let (max, held, late) = (RwLock::new(max), Mutex::default(), LateRefusals::default());
        Budgets(Arc::new(SharedBudgets { max, held, late }))
    }

    /// Replaces the limits. What is held stays held, even if it exceeds a lower limit.
    pub fn set_limits(&self, max: config::Limits) {
        *self.0.max.write() = max;
        // Streams that wait may read now.
        let held = self.lock();
        let waiting: Vec<Waker> = held.queues.keys().filter_map(|principal| held.first(principal)).collect();
        drop(held);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn max(&self) -> config::Limits {
        self.0.max.read().clone()
    }

    /// Returns what all principals together hold.
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

    /// Takes one unanswered request with its bytes until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached`], of requests or bytes.
    pub fn call(&self, principal: &Principal, bytes: usize) -> Result<Permit, LimitReached> {
        self.take(
            principal,
            Usage { calls: 1, bytes: (bytes as u64).saturating_add(REQUEST_OVERHEAD_BYTES), ..Usage::default() },
        )
    }

    /// Takes bytes, and the overhead of a request, until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached`], of bytes.
    pub fn bytes(&self, principal: &Principal, bytes: usize) -> Result<Permit, LimitReached> {
        self.take(principal, Usage { bytes: (bytes as u64).saturating_add(REQUEST_OVERHEAD_BYTES), ..Usage::default() })
    }

    /// Takes bytes for a read: as many as wanted, or fewer. After the read, [`Permit::resize`] sets the actual size.
    ///
    /// # Errors
    /// [`LimitReached`], of bytes.
    pub fn read(&self, principal: &Principal, wanted: usize) -> Result<Permit, LimitReached> {
        self.read_in(&mut self.lock(), principal, wanted)
    }

    pub(super) fn read_in(
        &self,
        held: &mut HeldBudgets,
        principal: &Principal,
        wanted: usize,
    ) -> Result<Permit, LimitReached> {
        let max = self.max();
        let now = held.each.get(principal).copied().unwrap_or_default();
        let left = (max.bytes_per_principal_max / 3 * 2).saturating_sub(now.read_bytes);
        let read_bytes = (wanted as u64).min((left / 4).max(READ_BYTES_LEAST));
        let more = Usage { read_bytes, ..Usage::default() };
        within(now.plus(more).read_bytes, max.bytes_per_principal_max, Limit::PrincipalBytes)?;
        self.readers_within(held.all.plus(more))?;
        Ok(self.hold(held, principal, more))
    }

    /// Returns when a rejected request of this size is answered; `None` for immediately. See `late`.
    pub fn refusal_due(
        &self,
        principal: &Principal,
        bytes: usize,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        self.0.late.due(principal, bytes, now, deadline)
    }

    fn readers_within(&self, all: Usage) -> Result<(), LimitReached> {
        let bytes_max = self.max().bytes_max;
        within(all.read_bytes, bytes_max / 4 * 3, Limit::Bytes)?;
        within(all.all_bytes(), bytes_max, Limit::Bytes)
    }

    fn take(&self, principal: &Principal, more: Usage) -> Result<Permit, LimitReached> {
        let max = self.max();
        let mut held = self.lock();
        let one = held.each.get(principal).copied().unwrap_or_default().plus(more);
        let all = held.all.plus(more);
        // A limit that the request does not use is not checked, even if it is exceeded already.
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

    fn hold(&self, held: &mut HeldBudgets, principal: &Principal, more: Usage) -> Permit {
        held.all = held.all.plus(more);
        match held.each.get_mut(principal) {
            Some(usage) => *usage = usage.plus(more),
            None => drop(held.each.insert(principal.clone(), more)),
        }
        Permit { limits: self.clone(), principal: principal.clone(), held: more, waited: false }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HeldBudgets> {
        self.0.held.lock()
    }
}

/// What a request holds of its principal's limits. Dropping it releases that.
pub struct Permit {
    limits: Budgets,
    principal: Principal,
    held: Usage,
    /// It came from the fair queue: what it reads counts for the queue's pauses.
    pub(super) waited: bool,
}

impl Permit {
    /// How many bytes may be read into it.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.held.read_bytes).unwrap_or(usize::MAX)
    }

    /// Holds as many bytes as were read: fewer than taken, or more, where one record is larger.
    ///
    /// # Errors
    /// [`LimitReached`]; then it holds what it held before.
    pub fn resize(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let read_bytes = bytes as u64;
        let mut held = self.limits.lock();
        let less = Usage { read_bytes: self.held.read_bytes, ..Usage::default() };
        let more = Usage { read_bytes, ..Usage::default() };
        let one = held.each.get(&self.principal).copied().unwrap_or_default().minus(less).plus(more);
        let all = held.all.minus(less).plus(more);
        if more.read_bytes > less.read_bytes {
            let max = self.limits.max().bytes_per_principal_max / 3 * 2;
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
            queue.has_read(read_bytes, Instant::now());
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
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn limits() -> Budgets {
        Budgets::new(config::Limits {
            streams_per_principal_max: 2,
            streams_max: 3,
            calls_per_principal_max: 2,
            calls_max: 3,
            bytes_per_principal_max: MIB,
            bytes_max: 4 * MIB,
            ..config::Limits::default()
        })
    }

    fn principal(name: &str) -> Principal {
        Principal::new(name).expect("a name")
    }

    fn reached(limit: Limit, max: u64) -> Option<LimitReached> {
        Some(LimitReached { limit, max })
    }

    #[test]
    fn each_principal_has_budgets_of_its_own_and_releases_them() {
        let limits = limits();
        let (a, b) = (principal("a"), principal("b"));
        let first = limits.stream(&a).expect("a stream");
        let _second = limits.stream(&a).expect("a stream");
        assert_eq!(limits.stream(&a).err(), reached(Limit::PrincipalStreams, 2));
        assert!(limits.stream(&b).is_ok());
        drop(first);
        assert!(limits.stream(&a).is_ok());

        let held = limits.bytes(&b, 1023 << 10).expect("bytes");
        assert_eq!(limits.bytes(&b, 0).err(), reached(Limit::PrincipalBytes, MIB));
        assert!(limits.bytes(&a, 1023 << 10).is_ok());
        assert!(limits.stream(&b).is_ok(), "another limit is not affected");
        drop(held);
        assert!(!limits.lock().each.contains_key(&b), "a principal that holds nothing is removed");
        assert!(limits.bytes(&b, usize::MAX).is_err());
    }

    #[test]
    fn all_principals_together_have_limits_too() {
        let limits = limits();
        let _held = ["a", "b", "c"].map(|name| (limits.stream(&principal(name)), limits.call(&principal(name), 0)));
        assert_eq!(limits.stream(&principal("d")).err(), reached(Limit::Streams, 3));
        assert_eq!(limits.call(&principal("d"), 0).err(), reached(Limit::Calls, 3));
        let bytes: Vec<_> =
            (0..4).map(|i| limits.bytes(&principal(&format!("p{i}")), 1020 << 10).expect("bytes")).collect();
        assert_eq!(limits.bytes(&principal("e"), 1020 << 10).err(), reached(Limit::Bytes, 4 * MIB));
        drop((bytes, _held));
        assert_eq!(limits.usage(), Usage::default());
        let _two = [limits.call(&principal("a"), 1), limits.call(&principal("a"), 1)];
        assert_eq!(limits.call(&principal("a"), 1).err(), reached(Limit::PrincipalCalls, 2));
    }

    #[test]
    fn a_read_takes_less_the_less_is_left_and_never_less_than_the_least() {
        let limits = limits();
        let a = principal("a");
        let mut held: Vec<Permit> = Vec::new();
        while let Ok(permit) = limits.read(&a, 10 << 20) {
            assert!(held.last().is_none_or(|last| last.bytes() >= permit.bytes()));
            held.push(permit);
        }
        assert_eq!(held[0].bytes() as u64, MIB / 3 * 2 / 4);
        assert_eq!(held[held.len() - 1].bytes() as u64, READ_BYTES_LEAST);
        assert!(held.len() > 25, "{} permits that are never released", held.len());
        assert!(limits.usage().read_bytes <= MIB && limits.usage().read_bytes > MIB - READ_BYTES_LEAST);
        assert_eq!(limits.read(&a, 1 << 20).err(), reached(Limit::PrincipalBytes, MIB));
        assert!(limits.call(&a, 1000 << 10).is_ok(), "requests have a budget of their own");
        assert!(limits.read(&principal("b"), 1 << 20).is_ok(), "another principal is not affected");
        held.pop();
        assert!(limits.read(&a, 1 << 20).is_ok());

        held.clear();
        let all: Vec<_> = (0..100).map_while(|i| limits.read(&principal(&format!("p{i}")), 1 << 20).ok()).collect();
        assert_eq!(all.len(), 18, "a quarter of four MiB is for appends");
        assert_eq!(limits.read(&a, 1 << 20).err(), reached(Limit::Bytes, 3 * MIB));
        assert!(limits.bytes(&a, 1 << 19).is_ok());
    }

    #[test]
    fn new_limits_apply_at_once_and_take_nothing_away() {
        let limits = limits();
        let a = principal("a");
        let held = [limits.stream(&a).expect("a stream"), limits.stream(&a).expect("a stream")];
        let max = |streams| config::Limits { streams_per_principal_max: streams, ..limits.max() };
        limits.set_limits(max(1));
        assert_eq!(limits.stream(&a).err(), reached(Limit::PrincipalStreams, 1));
        assert_eq!(limits.usage().streams, 2, "open streams stay open");
        limits.set_limits(max(3));
        assert!(limits.stream(&a).is_ok());
        drop(held);
        assert_eq!(limits.usage(), Usage::default());
    }

    #[test]
    fn a_permit_holds_what_was_read() {
        let limits = limits();
        let a = principal("a");
        let mut permit = limits.read(&a, 100 << 10).expect("bytes");
        assert_eq!(permit.bytes(), 100 << 10);
        permit.resize(7).expect("fewer");
        assert_eq!(limits.usage().read_bytes, 7);
        permit.resize(600 << 10).expect("one record");
        assert_eq!(limits.usage().read_bytes, 600 * KIB);
        assert_eq!(permit.resize(700 << 10), Err(LimitReached { limit: Limit::PrincipalBytes, max: MIB / 3 * 2 }));
        assert_eq!(limits.usage().read_bytes, 600 * KIB, "as before");
        drop(permit);
        assert_eq!(limits.usage(), Usage::default());
    }
}
