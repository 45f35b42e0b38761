//! The applied producers and cursors of a log, for readers, and the readers that a newer one shuts out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::channel::oneshot;
use parking_lot::{Mutex, RwLock};

use super::refusal::StateRefusal;
use super::tables::Tables;
use crate::types::CursorName;

/// The cursor of a reader, and the epoch in which the reader has acquired it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Which cursor of the log.
    pub cursor: CursorName,
    /// The epoch, above 0.
    pub epoch: u64,
}

impl Fence {
    /// Checks that the reader still has the cursor.
    ///
    /// # Errors
    /// [`StateRefusal::CursorFenced`], or [`StateRefusal::NoSuchCursor`] if it was deleted.
    pub fn check(&self, tables: &Tables) -> Result<(), StateRefusal> {
        match tables.cursors.get(&self.cursor) {
            Some(cursor) if cursor.epoch == self.epoch => Ok(()),
            Some(cursor) => Err(StateRefusal::CursorFenced(cursor.epoch)),
            None => Err(StateRefusal::NoSuchCursor(0)),
        }
    }
}

/// The applied producers and cursors of a log. `consensus` publishes them before it advances the watermark, so they are
/// never older. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct TablesView(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    tables: RwLock<Arc<Tables>>,
    readers: Mutex<Vec<(Fence, oneshot::Sender<StateRefusal>)>>,
}

impl TablesView {
    /// Returns the newest tables.
    pub fn get(&self) -> Arc<Tables> {
        Arc::clone(&self.0.tables.read())
    }

    /// Replaces the tables, and wakes the readers that no longer have their cursor.
    pub fn publish(&self, tables: &Arc<Tables>) {
        {
            let mut current = self.0.tables.write();
            if Arc::ptr_eq(&current, tables) {
                return;
            }
            let before = std::mem::replace(&mut *current, Arc::clone(tables));
            if tables.cursors.have_the_same_owners(&before.cursors) {
                return;
            }
        }
        let shut_out: Vec<_> = {
            let mut readers = self.0.readers.lock();
            readers.extract_if(.., |(fence, _)| fence.check(tables).is_err()).collect()
        };
        for (fence, wake) in shut_out {
            if let Err(refusal) = fence.check(tables) {
                // The reader may have gone.
                let _ = wake.send(refusal);
            }
        }
    }

    /// Waits until the reader no longer has its cursor, and returns why.
    pub fn wait_fenced(&self, fence: &Fence) -> Fenced {
        let (wake, woken) = oneshot::channel();
        {
            let mut readers = self.0.readers.lock();
            // So each insertion costs the same on average, however many there are.
            if readers.len() == readers.capacity() {
                readers.retain(|(_, wake)| !wake.is_canceled());
            }
            readers.push((fence.clone(), wake));
        }
        // After it is registered, so that no change is missed.
        Fenced { at_once: fence.check(&self.get()).err(), woken }
    }

    /// The number of readers that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.0.readers.lock().iter().filter(|(_, wake)| !wake.is_canceled()).count()
    }
}

/// A future that waits until a reader has lost its cursor.
pub struct Fenced {
    at_once: Option<StateRefusal>,
    woken: oneshot::Receiver<StateRefusal>,
}

impl Future for Fenced {
    type Output = StateRefusal;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StateRefusal> {
        if let Some(refusal) = self.at_once.take() {
            return Poll::Ready(refusal);
        }
        match self.woken.poll_unpin(cx) {
            Poll::Ready(Ok(refusal)) => Poll::Ready(refusal),
            // Without a sender, the log is not served here any more, which ends its streams.
            Poll::Ready(Err(oneshot::Canceled)) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::log_state::StateCommand;
    use crate::log_state::cursors::{AcquireCursor, CommitCursor, DeleteCursor};
    use crate::types::{LogIndex, Offset};

    fn name() -> CursorName {
        CursorName::new("c").expect("a name")
    }

    fn acquire(instance: u64) -> StateCommand {
        StateCommand::AcquireCursor(AcquireCursor {
            name: name(),
            instance,
            expected_epoch: None,
            next_offset: Offset(0),
            owner: String::new(),
        })
    }

    fn apply(view: &TablesView, command: &StateCommand) {
        let mut tables = view.get();
        Arc::make_mut(&mut tables).apply(command, LogIndex(1), 1);
        view.publish(&tables);
    }

    #[test]
    fn a_reader_is_woken_when_another_one_acquires_its_cursor_and_by_nothing_else() {
        let view = TablesView::default();
        apply(&view, &acquire(1));
        let epoch = view.get().cursors.get(&name()).expect("a cursor").epoch;
        let mut fenced = view.wait_fenced(&Fence { cursor: name(), epoch });
        let commit = CommitCursor {
            name: name(),
            next_offset: Offset(5),
            epoch,
            expected_revision: None,
            allow_rewind: false,
            metadata: Vec::new(),
        };
        apply(&view, &StateCommand::CommitCursor(commit));
        assert_eq!((&mut fenced).now_or_never(), None);
        apply(&view, &acquire(2));
        let next = view.get().cursors.get(&name()).expect("a cursor").epoch;
        assert_eq!((&mut fenced).now_or_never(), Some(StateRefusal::CursorFenced(next)));
        // One that is late, and one whose cursor is deleted.
        assert!(view.wait_fenced(&Fence { cursor: name(), epoch }).now_or_never().is_some());
        let mut newer = view.wait_fenced(&Fence { cursor: name(), epoch: next });
        apply(&view, &StateCommand::DeleteCursor(DeleteCursor { name: name(), epoch: None, expected_revision: None }));
        assert_eq!((&mut newer).now_or_never(), Some(StateRefusal::NoSuchCursor(0)));
        assert_eq!(view.waiting(), 0);
    }

    #[test]
    fn readers_that_are_gone_are_forgotten() {
        let view = TablesView::default();
        apply(&view, &acquire(1));
        let fence = Fence { cursor: name(), epoch: view.get().cursors.get(&name()).expect("a cursor").epoch };
        for _ in 0..100 {
            drop(view.wait_fenced(&fence));
        }
        let _last = view.wait_fenced(&fence);
        assert_eq!(view.waiting(), 1);
        assert!(view.0.readers.lock().len() <= 8);
    }
}
