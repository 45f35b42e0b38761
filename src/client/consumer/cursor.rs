//! The cursor of a consumer: acquired once, and committed by one call at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::RpcStatusCode;
use parking_lot::Mutex;

use super::buffer::Buffer;
use super::start::StartAt;
use crate::client::error::{Advice, Error, Result};
use crate::client::nodes::Nodes;
use crate::client::route::{Operation, call};
use crate::client::wait::Stop;
use crate::pb::v1::{AcquireCursorRequest, CommitCursorRequest, Cursor, GetCursorRequest};
use crate::reason::Outcome;
use crate::types::StreamId;

/// A cursor as the cluster stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorState {
    /// The next record to read.
    pub next_offset: u64,
    /// Rises when another process acquires the cursor. 0: none has.
    pub epoch: u64,
    /// The number of records from the position to the end of the log, without those that were trimmed.
    pub lag: u64,
    /// The number of records from the position on that were trimmed.
    pub trimmed: u64,
    /// What the process that has acquired it says about itself.
    pub owner: String,
}

impl From<Cursor> for CursorState {
    fn from(cursor: Cursor) -> CursorState {
        CursorState {
            next_offset: cursor.next_offset,
            epoch: cursor.epoch,
            lag: cursor.lag,
            trimmed: cursor.trimmed,
            owner: cursor.owner,
        }
    }
}

/// Returns a cursor of a log.
pub fn get(nodes: &Arc<Nodes>, log: &str, cursor: &str) -> Result<CursorState> {
    let request = GetCursorRequest { log: log.to_owned(), cursor: cursor.to_owned(), ..GetCursorRequest::default() };
    let until = Instant::now() + nodes.options.operation_timeout;
    let operation = Operation { until, reads: true, stop: None };
    let response = call(nodes, &operation, |node, option| node.stubs.get_cursor_async_opt(&request, option))?;
    Ok(response.cursor.unwrap_or_default().into())
}

/// A cursor that this process has acquired.
pub(super) struct OwnCursor {
    nodes: Arc<Nodes>,
    pub log: String,
    pub log_id: String,
    pub name: String,
    pub epoch: u64,
    pub next_offset: u64,
    /// The last committed position. Held during a commit, so that one is in flight.
    committed: Mutex<u64>,
}

impl OwnCursor {
    /// Acquires a cursor. A new one begins at `start`.
    pub fn acquire(nodes: &Arc<Nodes>, log: &str, name: &str, start: StartAt, owner: &str) -> Result<OwnCursor> {
        let instance = StreamId::random()
            .map_err(|e| Error::local(RpcStatusCode::INTERNAL, format!("no random number: {e}"), Outcome::None))?;
        let (start, offset, start_time_us) = start.fields();
        let request = AcquireCursorRequest {
            log: log.to_owned(),
            cursor: name.to_owned(),
            instance: instance.0,
            start: start.into(),
            offset,
            start_time_us,
            owner: owner.to_owned(),
            ..AcquireCursorRequest::default()
        };
        let until = Instant::now() + nodes.options.operation_timeout;
        let operation = Operation { until, reads: false, stop: None };
        let response = call(nodes, &operation, |node, option| node.stubs.acquire_cursor_async_opt(&request, option))?;
        let cursor = response.cursor.unwrap_or_default();
        Ok(OwnCursor {
            nodes: nodes.clone(),
            log: log.to_owned(),
            log_id: cursor.log_id,
            name: name.to_owned(),
            epoch: cursor.epoch,
            next_offset: cursor.next_offset,
            committed: Mutex::new(cursor.next_offset),
        })
    }

    /// Stores the position that `position` returns once no other commit is in flight. If only `progress` counts, a
    /// position that is not above the last one is not stored. Returns the position.
    pub fn commit(&self, position: impl FnOnce() -> Option<u64>, progress: bool, stop: Option<&Stop>) -> Result<u64> {
        let mut committed = self.committed.lock();
        let next_offset = position().unwrap_or(self.next_offset);
        if progress && next_offset <= *committed {
            return Ok(*committed);
        }
        let request = CommitCursorRequest {
            log: self.log.clone(),
            cursor: self.name.clone(),
            log_id: Some(self.log_id.clone()),
            next_offset,
            epoch: self.epoch,
            ..CommitCursorRequest::default()
        };
        let until = Instant::now() + self.nodes.options.operation_timeout;
        let operation = Operation { until, reads: false, stop };
        let result = call(&self.nodes, &operation, |node, option| node.stubs.commit_cursor_async_opt(&request, option));
        match result {
            Ok(_) => {}
            // It is stored, and its answer is lost for good.
            Err(error) if error.outcome() == Outcome::Done => {}
            Err(error) => return Err(error),
        }
        *committed = next_offset;
        Ok(next_offset)
    }

    /// Commits at this interval the records whose successor the application has asked for, until it is stopped.
    pub fn commit_every(
        &self,
        interval: Duration,
        buffer: &Buffer,
        stop: &Stop,
    ) -> std::result::Result<(), std::convert::Infallible> {
        while stop.pause_until(Instant::now() + interval) {
            match self.commit(|| buffer.settled(), true, Some(stop)) {
                Ok(_) => {}
                Err(_) if stop.is_stopped() => {}
                Err(error) => {
                    log::info!("commit failed log={} cursor={} error={error}", self.log, self.name);
                    if error.advice() == Advice::GiveUp {
                        buffer.end(Some(error));
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
