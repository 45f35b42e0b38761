//! What is open of segments: a file and an index each. The newest segment of a log is always open; of the sealed ones, which
//! are opened when they are read, at most [`SEALED_OPEN_MAX`] stay so in a process. So the descriptors and mappings that a log
//! takes do not grow with its length.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::storage::io::disk::DiskFile;
use crate::storage::read::index::Index;

/// So many sealed segments stay open; beyond it the one that was not read for longest is closed, or nearly that one. Few in
/// tests, so that they meet it.
pub(in crate::storage) const SEALED_OPEN_MAX: usize = if cfg!(test) { 3 } else { 128 };

/// What is open of one segment.
#[derive(Default)]
pub(in crate::storage) struct Slot {
    open: Mutex<Open>,
    /// Used since it was last asked.
    used: AtomicBool,
}

/// An index is open with its file, or not at all.
#[derive(Default)]
struct Open {
    file: Option<Arc<DiskFile>>,
    index: Option<Arc<Index>>,
}

impl Slot {
    /// Of a segment whose file and index are open already.
    pub(in crate::storage) fn of(file: Arc<DiskFile>, index: Arc<Index>) -> Slot {
        Slot { open: Mutex::new(Open { file: Some(file), index: Some(index) }), used: AtomicBool::new(true) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    pub(in crate::storage) fn file(&self) -> Option<Arc<DiskFile>> {
        self.used.store(true, Ordering::Relaxed);
        self.lock().file.clone()
    }

    pub(in crate::storage) fn index(&self) -> Option<Arc<Index>> {
        self.used.store(true, Ordering::Relaxed);
        self.lock().index.clone()
    }

    /// The index stays open as long as the file does.
    pub(in crate::storage) fn keep_index(&self, index: Arc<Index>) {
        let mut open = self.lock();
        if open.file.is_some() && open.index.is_none() {
            open.index = Some(index);
        }
    }

    fn close(&self) -> Open {
        std::mem::take(&mut *self.lock())
    }
}

/// The sealed segments that are open, the next to be closed first; a clone is the same.
#[derive(Clone, Default)]
pub(in crate::storage) struct Opened(Arc<Mutex<VecDeque<Weak<Slot>>>>);

impl Opened {
    /// A sealed segment's file was opened, to stay so for a while; the one that was first, where another was faster.
    pub(in crate::storage) fn keep_file(&self, slot: &Arc<Slot>, file: Arc<DiskFile>) -> Arc<DiskFile> {
        {
            let mut open = slot.lock();
            if let Some(first) = &open.file {
                return first.clone();
            }
            open.file = Some(file.clone());
        }
        self.keep(slot);
        file
    }

    /// This segment is open and sealed: closes another one, if there are too many now.
    pub(in crate::storage) fn keep(&self, slot: &Arc<Slot>) {
        let mut closed = Vec::new();
        {
            let mut queue = self.0.lock();
            queue.push_back(Arc::downgrade(slot));
            let mut chances = queue.len();
            while queue.len() > SEALED_OPEN_MAX
                && let Some(first) = queue.pop_front()
            {
                // Those that were trimmed away are closed already.
                let Some(slot) = first.upgrade() else { continue };
                if slot.used.swap(false, Ordering::Relaxed) && chances > 0 {
                    chances -= 1;
                    queue.push_back(first);
                } else {
                    closed.push(slot.close());
                }
            }
        }
        // Files are closed without the lock.
        drop(closed);
    }

    /// Closes all of them, for their descriptors; false when there was none.
    pub(in crate::storage) fn close_all(&self) -> bool {
        let queue = std::mem::take(&mut *self.0.lock());
        let closed: Vec<Open> = queue.iter().filter_map(Weak::upgrade).map(|slot| slot.close()).collect();
        closed.iter().any(|open| open.file.is_some())
    }

    /// How many are open.
    #[cfg(test)]
    pub(in crate::storage) fn count(&self) -> usize {
        let queue = self.0.lock();
        queue.iter().filter(|slot| slot.upgrade().is_some_and(|slot| slot.lock().file.is_some())).count()
    }
}

#[cfg(test)]
mod tests;
