//! The sealed segments whose files are open. A sealed segment is opened when it is read, and at most
//! [`SEALED_OPEN_MAX`] stay open in the process. So the number of descriptors that a log takes does not grow with its
//! length. The newest segment of a log is always open and is not in this cache.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The number of sealed segments that may stay open. To open another one, approximately the least recently read one is
/// closed. Small in tests.
pub(crate) const SEALED_OPEN_MAX: usize = if cfg!(test) { 3 } else { 128 };

/// One segment in the cache.
pub(crate) trait CacheSlot: Send + Sync {
    /// True if the segment was read since the last call.
    fn take_used(&self) -> bool;

    /// Closes the segment; returns false if it was not open.
    fn close(&self) -> bool;

    #[cfg(test)]
    fn is_open(&self) -> bool;
}

/// The cache. The front of the queue is the next slot to close. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SegmentCache(Arc<Mutex<VecDeque<Weak<dyn CacheSlot>>>>);

impl SegmentCache {
    /// Adds an open segment, and closes others if there are too many now.
    pub(crate) fn keep(&self, slot: &Arc<dyn CacheSlot>) {
        let mut excess = Vec::new();
        {
            let mut queue = self.0.lock();
            queue.push_back(Arc::downgrade(slot));
            let mut chances = queue.len();
            while queue.len() > SEALED_OPEN_MAX
                && let Some(first) = queue.pop_front()
            {
                // The slot of a trimmed segment is dropped, and its file closed.
                let Some(slot) = first.upgrade() else { continue };
                if slot.take_used() && chances > 0 {
                    chances -= 1;
                    queue.push_back(first);
                } else {
                    excess.push(slot);
                }
            }
        }
        // Closing a file may wait for the disk.
        excess.iter().for_each(|slot| {
            slot.close();
        });
    }

    /// Closes all of them to free their descriptors; returns false if none was open.
    pub(crate) fn close_all(&self) -> bool {
        let queue = std::mem::take(&mut *self.0.lock());
        queue.iter().filter_map(Weak::upgrade).filter(|slot| slot.close()).count() > 0
    }

    /// The number of open segments.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().iter().filter(|slot| slot.upgrade().is_some_and(|slot| slot.is_open())).count()
    }
}

#[cfg(test)]
mod tests;
