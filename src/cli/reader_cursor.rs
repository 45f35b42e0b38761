//! The cursor of `seriatim consume`: the position after what was written out, which the cluster keeps.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::dialer::Dialer;
use super::exit::Failure;
use super::producer::{has_no_such_feature, new_instance, owner};
use crate::client::{Client, ClientError};
use crate::pb::v1::{AcquireCursorRequest, CommitCursorRequest, Cursor, Start};

/// The time between two commits while records are written.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// The maximum time of a commit while records are written. One that fails is made up for by the next.
const COMMIT_MAX: Duration = Duration::from_secs(5);

/// Where a new cursor begins.
#[derive(Clone, Copy, Debug)]
pub struct StartOf {
    /// The kind of position.
    pub start: Start,
    /// For START_OFFSET and START_LAST.
    pub offset: u64,
    /// For START_TIME.
    pub time_us: u64,
}

/// Takes a cursor over. A process that had it before is shut out.
///
/// # Errors
/// If no node answers, or the server refuses it.
pub fn acquire(
    dialer: &Dialer,
    log: &str,
    log_id: Option<String>,
    name: &str,
    start: StartOf,
) -> Result<Cursor, Failure> {
    let instance = new_instance()?;
    let request = AcquireCursorRequest {
        log: log.to_owned(),
        log_id,
        cursor: name.to_owned(),
        instance,
        start: start.start.into(),
        offset: start.offset,
        start_time_us: start.time_us,
        owner: owner("consume"),
        ..AcquireCursorRequest::default()
    };
    let asked = dialer.ask_until_served(|client| client.acquire_cursor(&request));
    asked.map(|(_, cursor)| cursor).map_err(|unanswered| {
        let next = "cursors need a newer version of seriatim on every node, and then `seriatim cluster upgrade`";
        let too_old = has_no_such_feature(&unanswered);
        let failure = Failure::from(unanswered);
        if too_old { Failure { next: next.to_owned(), ..failure } } else { failure }
    })
}

/// The cursor that this process has acquired.
pub struct ReaderCursor {
    dialer: Dialer,
    cursor: Cursor,
    state: Mutex<State>,
}

struct State {
    /// The position after the records that were written out.
    written: u64,
    /// The position that the cluster has.
    committed: u64,
    /// When a commit was last tried.
    tried: Instant,
}

impl ReaderCursor {
    /// Keeps the position of a cursor that was acquired.
    pub fn new(dialer: &Dialer, cursor: Cursor) -> ReaderCursor {
        let state = State { written: cursor.next_offset, committed: cursor.next_offset, tried: Instant::now() };
        ReaderCursor { dialer: dialer.clone(), cursor, state: Mutex::new(state) }
    }

    /// The name of the cursor.
    pub fn name(&self) -> &str {
        &self.cursor.cursor
    }

    /// The id of its log.
    pub fn log_id(&self) -> &str {
        &self.cursor.log_id
    }

    /// The epoch in which it was acquired.
    pub fn epoch(&self) -> u64 {
        self.cursor.epoch
    }

    /// Records that everything below a position was written out.
    pub fn written(&self, next_offset: u64) {
        let mut state = self.state.lock();
        state.written = state.written.max(next_offset);
    }

    /// Commits what was written out, if the last commit was long enough ago.
    ///
    /// # Errors
    /// If another reader has the cursor now. Other failures are made up for by the next commit.
    pub fn commit_sometimes(&self, client: &Client) -> Result<(), ClientError> {
        let written = {
            let mut state = self.state.lock();
            if state.written == state.committed || state.tried.elapsed() < COMMIT_EVERY {
                return Ok(());
            }
            state.tried = Instant::now();
            state.written
        };
        match client.within(COMMIT_MAX).commit_cursor(&self.request(written)) {
            Ok(_) => {
                self.committed(written);
                Ok(())
            }
            Err(error) if is_final(&error) => Err(error),
            Err(error) => {
                log::info!("{}: {error}; the next commit makes up for it", client.addr());
                Ok(())
            }
        }
    }

    /// Commits everything that was written out.
    ///
    /// # Errors
    /// If no node answers, or another reader has the cursor now.
    pub fn commit(&self) -> Result<(), Failure> {
        let written = {
            let state = self.state.lock();
            if state.written == state.committed {
                return Ok(());
            }
            state.written
        };
        let request = self.request(written);
        self.dialer.ask_until_served(|client| client.commit_cursor(&request))?;
        self.committed(written);
        Ok(())
    }

    fn committed(&self, position: u64) {
        let mut state = self.state.lock();
        state.committed = state.committed.max(position);
    }

    fn request(&self, next_offset: u64) -> CommitCursorRequest {
        CommitCursorRequest {
            log: self.cursor.log.clone(),
            log_id: Some(self.cursor.log_id.clone()),
            cursor: self.cursor.cursor.clone(),
            next_offset,
            epoch: self.cursor.epoch,
            metadata: self.cursor.metadata.clone(),
            ..CommitCursorRequest::default()
        }
    }
}

/// Returns whether a later commit would fail in the same way.
fn is_final(error: &ClientError) -> bool {
    error.is_answer() && error.retry() == crate::client::Retry::No
}
