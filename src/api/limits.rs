//! What one principal may hold at once: open streams, and bytes of requests and answers in flight. Beyond it a call is
//! refused with LIMIT_REACHED; nobody waits for another's limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::security::identity::Principal;

/// What a call in flight costs besides its bytes.
const CALL_BYTES: u64 = 1024;

/// The principal is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// Of open streams.
    Streams {
        /// The limit.
        max: u64,
    },
    /// Of bytes in flight.
    Bytes {
        /// The limit.
        max: u64,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    streams: u64,
    bytes: u64,
}

struct Inner {
    streams_max: u64,
    bytes_max: u64,
    /// Who holds nothing is not in it, so it is bounded by the calls in flight.
    usage: Mutex<HashMap<Principal, Usage>>,
}

/// The limits and what is in use; a clone is the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

impl Limits {
    /// Nothing in use.
    pub fn new(streams_max: u64, bytes_max: u64) -> Limits {
        Limits(Arc::new(Inner { streams_max, bytes_max, usage: Mutex::default() }))
    }

    /// Takes one stream until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached::Streams`].
    pub fn stream(&self, principal: &Principal) -> Result<Permit, LimitReached> {
        self.take(principal, Usage { streams: 1, bytes: 0 })
    }

    /// Takes bytes, and what a call costs besides, until the permit is dropped.
    ///
    /// # Errors
    /// [`LimitReached::Bytes`].
    pub fn bytes(&self, principal: &Principal, bytes: usize) -> Result<Permit, LimitReached> {
        self.take(principal, Usage { streams: 0, bytes: (bytes as u64).saturating_add(CALL_BYTES) })
    }

    fn take(&self, principal: &Principal, more: Usage) -> Result<Permit, LimitReached> {
        let mut all = self.lock();
        let now = all.get(principal).copied().unwrap_or_default();
        let streams = now.streams.saturating_add(more.streams);
        let bytes = now.bytes.saturating_add(more.bytes);
        if streams > self.0.streams_max {
            return Err(LimitReached::Streams { max: self.0.streams_max });
        }
        if bytes > self.0.bytes_max {
            return Err(LimitReached::Bytes { max: self.0.bytes_max });
        }
        all.insert(principal.clone(), Usage { streams, bytes });
        drop(all);
        Ok(Permit { limits: self.clone(), principal: principal.clone(), held: more })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, Usage>> {
        // Every critical section leaves the map whole.
        self.0.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call holds of its principal's limits; given back when dropped.
pub struct Permit {
    limits: Limits,
    principal: Principal,
    held: Usage,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut all = self.limits.lock();
        if let Some(usage) = all.get_mut(&self.principal) {
            usage.streams = usage.streams.saturating_sub(self.held.streams);
            usage.bytes = usage.bytes.saturating_sub(self.held.bytes);
            if *usage == Usage::default() {
                all.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_has_its_own_and_gives_it_back() {
        let limits = Limits::new(2, 10 * 1024);
        let (a, b) = (Principal::anonymous(), Principal::new("b").expect("a name"));
        let first = limits.stream(&a).expect("a stream");
        let _second = limits.stream(&a).expect("a stream");
        assert_eq!(limits.stream(&a).err(), Some(LimitReached::Streams { max: 2 }));
        assert!(limits.stream(&b).is_ok());
        drop(first);
        assert!(limits.stream(&a).is_ok());

        let held = limits.bytes(&b, 9 * 1024).expect("bytes");
        assert_eq!(limits.bytes(&b, 0).err(), Some(LimitReached::Bytes { max: 10 * 1024 }));
        assert!(limits.bytes(&a, 9 * 1024).is_ok());
        drop(held);
        assert!(!limits.lock().contains_key(&b), "who holds nothing is forgotten");
        assert!(limits.bytes(&b, usize::MAX).is_err());
    }
}
