//! Reading what is visible: where a request begins, and stored bytes from memory or by a `reader`.

use std::sync::Arc;
use std::time::Instant;

use super::core::{Core, bounds, check_log_id};
use super::error::{ApiError, Invalid};
use super::limits::{LimitReached, Permit};
use crate::logs::OpenLog;
use crate::pb::log::{ConsumeRequest, Start};
use crate::reply::reply;
use crate::storage::ahead::Ahead;
use crate::storage::block::ResumePoint;
use crate::storage::reader::{Access, GroupReader, ReadError, Slice};
use crate::timers::TimersHandle;
use crate::types::Offset;
use crate::watermark::Mark;

/// No answer is larger, but for one record that is: clients take 4 MiB by default, and a message has more than records.
pub const ANSWER_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// What one read may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Exactly one record for each message, in field `record`.
    pub one_by_one: bool,
    /// Records of one read.
    pub records_max: u32,
    /// Bytes of one read; one record may be larger.
    pub bytes_max: usize,
}

impl Batching {
    /// As the request has it. `bytes_default` where it leaves that to the server.
    pub fn of(request: &ConsumeRequest, bytes_default: usize) -> Batching {
        let bytes_max = match request.max_bytes {
            0 => bytes_default,
            bytes => (bytes as usize).min(ANSWER_BYTES_MAX),
        };
        Batching {
            one_by_one: request.max_records == 0,
            records_max: if request.max_records == 0 { u32::MAX } else { request.max_records },
            bytes_max,
        }
    }
}

/// A log, and where in it a request begins.
pub struct Beginning {
    /// The log.
    pub log: Arc<OpenLog>,
    /// The first record that is wanted.
    pub offset: Offset,
    /// The first one may be trimmed away meanwhile; then the next that is there is meant.
    pub earliest: bool,
    /// The mark with everything acknowledged before the call, if it was needed.
    pub confirmed: Option<Mark>,
    /// Where the last read of a stream ended, and up to where the disk has been asked for more.
    place: Option<ResumePoint>,
    ahead: Ahead,
}

/// Finds the beginning. The caller's right is checked already.
///
/// # Errors
/// As [`ConsumeRequest`] says.
pub async fn beginning(
    core: &Core,
    log: Arc<OpenLog>,
    request: &ConsumeRequest,
    timers: &TimersHandle,
    deadline: Option<Instant>,
) -> Result<Beginning, ApiError> {
    check_log_id(&log, request.log_id)?;
    let start = request.start.enum_value().map_err(|value| ApiError::from(Invalid::Start(value)))?;
    let at =
        |log, offset| Beginning { log, offset, earliest: false, confirmed: None, place: None, ahead: Ahead::default() };
    match start {
        Start::START_OFFSET => Ok(at(log, Offset(request.offset))),
        Start::START_EARLIEST => {
            let offset = log.watermark.get().first_offset;
            Ok(Beginning { earliest: true, ..at(log, offset) })
        }
        Start::START_LATEST => {
            let mark = core.catch_up(log.group, &log.watermark, timers, deadline).await?;
            Ok(Beginning { confirmed: Some(mark), ..at(log, mark.next_offset) })
        }
        Start::START_TIME => {
            let mark = log.watermark.get();
            // Times never go back: what is the first one here is the first one everywhere.
            if let Some(offset) = first_not_before(core, &log, &mark, request.start_time_us).await? {
                return Ok(Beginning { earliest: true, ..at(log, offset) });
            }
            let mark = core.catch_up(log.group, &log.watermark, timers, deadline).await?;
            let offset = first_not_before(core, &log, &mark, request.start_time_us).await?;
            let earliest = offset.is_some();
            Ok(Beginning { earliest, confirmed: Some(mark), ..at(log, offset.unwrap_or(mark.next_offset)) })
        }
    }
}

impl Beginning {
    /// What follows for a beginning below the first record that is there: another beginning, or an error.
    ///
    /// # Errors
    /// [`ApiError::OffsetTrimmed`].
    pub fn trimmed(&mut self, mark: &Mark, first_offset: Offset) -> Result<(), ApiError> {
        if self.earliest {
            self.offset = self.offset.max(first_offset);
            return Ok(());
        }
        let mark = Mark { first_offset, ..*mark };
        Err(ApiError::OffsetTrimmed(bounds(&self.log, &mark), self.offset))
    }

    /// The next records of a stream, below the mark: whole entries where that can be, about `bytes_max` or as many as there
    /// is room for, with what they hold of it. `None`: the beginning has moved, look again.
    ///
    /// # Errors
    /// As [`Beginning::read`].
    pub async fn read_on(
        &mut self,
        core: &Core,
        mark: &Mark,
        bytes_max: usize,
        room: Permit,
    ) -> Result<Option<(Slice, Permit)>, ApiError> {
        if self.offset < mark.first_offset {
            return self.trimmed(mark, mark.first_offset).map(|()| None);
        }
        let (from, until, place) = (self.offset, mark.next_offset, self.place);
        let bytes_max = bytes_max.min(room.bytes());
        let block = move |reader: &GroupReader, access| reader.block(from, until, bytes_max, access, place);
        let (read, waited) = read(core, &self.log, room, block).await?;
        let read = read.map(|(slice, place)| {
            self.place = place;
            if waited {
                self.ahead = Ahead::of_waited(place);
            }
            slice
        });
        if let Some(fetch) = self.place.and_then(|place| self.log.reader.to_fetch(place, &mut self.ahead)) {
            // Refused, the next read waits itself: no more.
            let _ = core.readers.run(Box::new(move || fetch.run()));
        }
        self.taken(mark, read)
    }

    /// Records from the beginning on, below the mark, as many as there is room for, with what they hold of it. `None`: the
    /// beginning has moved, look again.
    ///
    /// # Errors
    /// [`ApiError::OffsetTrimmed`], [`ApiError::Damaged`], or the readers are busy, or one record is too much for the room.
    pub async fn read(
        &mut self,
        core: &Core,
        mark: &Mark,
        batching: Batching,
        room: Permit,
    ) -> Result<Option<(Slice, Permit)>, ApiError> {
        if self.offset < mark.first_offset {
            return self.trimmed(mark, mark.first_offset).map(|()| None);
        }
        let (from, until, records_max) = (self.offset, mark.next_offset, batching.records_max);
        let bytes_max = batching.bytes_max.min(room.bytes());
        let records = move |reader: &GroupReader, access| {
            reader.records(from, until, records_max, bytes_max, access).map(|slice| (slice, ()))
        };
        let (read, _) = read(core, &self.log, room, records).await?;
        self.taken(mark, read.map(|(slice, ())| slice))
    }

    fn taken(&mut self, mark: &Mark, read: Result<Fitted, ReadError>) -> Result<Option<(Slice, Permit)>, ApiError> {
        match read {
            Ok((slice, room)) if slice.next > self.offset => {
                self.earliest = false;
                Ok(Some((slice, room?)))
            }
            Ok(_) => {
                let what = "nothing is stored below the watermark".to_owned();
                Err(ApiError::Damaged { log: self.log.name.clone(), offset: self.offset, resume: None, what })
            }
            Err(ReadError::Trimmed { first_offset }) => self.trimmed(mark, first_offset).map(|()| None),
            Err(error) => Err(ApiError::from_read(error, bounds(&self.log, mark), self.offset)),
        }
    }
}

/// What was read, and the room that it holds; or that one record is too much for it.
type Fitted = (Slice, Result<Permit, LimitReached>);

/// Reads from memory, or by a `reader` (then `true`): this thread never waits for the disk.
async fn read<T: Send + 'static>(
    core: &Core,
    log: &Arc<OpenLog>,
    room: Permit,
    read: impl Fn(&GroupReader, Access) -> Result<(Slice, T), ReadError> + Send + 'static,
) -> Result<(Result<(Fitted, T), ReadError>, bool), ApiError> {
    not_withdrawn(log)?;
    match read(&log.reader, Access::Cached) {
        Err(ReadError::NotCached) => {}
        done => return Ok((done.map(|(slice, more)| (fit(slice, room), more)), false)),
    }
    let reader = log.reader.clone();
    // What does not fit goes before it waits for anybody.
    let job = move || read(&reader, Access::Blocking).map(|(slice, more)| (fit(slice, room), more));
    Ok((by_reader(core, job).await?, true))
}

/// A replica that differs from the others shows nothing: a client could read other bytes here than elsewhere.
fn not_withdrawn(log: &OpenLog) -> Result<(), ApiError> {
    if log.watermark.is_withdrawn() { Err(ApiError::ReplicaDamaged) } else { Ok(()) }
}

fn fit(slice: Slice, mut room: Permit) -> Fitted {
    match room.fits(slice.bytes.len()) {
        Ok(()) => (slice, Ok(room)),
        Err(limit) => (Slice { bytes: Vec::new(), ..slice }, Err(limit)),
    }
}

/// The first visible record that was appended at that time or later.
async fn first_not_before(
    core: &Core,
    log: &Arc<OpenLog>,
    mark: &Mark,
    time_us: u64,
) -> Result<Option<Offset>, ApiError> {
    not_withdrawn(log)?;
    if mark.last_append_time_us < time_us {
        return Ok(None);
    }
    let (from, until) = (mark.first_offset, mark.next_offset);
    let found = match log.reader.first_not_before(time_us, from, until, Access::Cached) {
        Err(ReadError::NotCached) => {
            let reader = log.reader.clone();
            by_reader(core, move || reader.first_not_before(time_us, from, until, Access::Blocking)).await?
        }
        done => done,
    };
    found.map_err(|error| ApiError::from_read(error, bounds(log, mark), from))
}

/// When the record at `offset` was appended; `None` when there is none.
///
/// # Errors
/// As [`Beginning::read`].
pub async fn append_time_us(core: &Core, log: &Arc<OpenLog>, mark: &Mark) -> Result<Option<u64>, ApiError> {
    not_withdrawn(log)?;
    let (from, until) = (mark.first_offset, mark.next_offset);
    let time = match log.reader.append_time_us(from, until, Access::Cached) {
        Err(ReadError::NotCached) => {
            let reader = log.reader.clone();
            by_reader(core, move || reader.append_time_us(from, until, Access::Blocking)).await?
        }
        done => done,
    };
    time.map_err(|error| ApiError::from_read(error, bounds(log, mark), from))
}

async fn by_reader<T: Send + 'static>(core: &Core, job: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let (answer, answered) = reply();
    core.readers.run(Box::new(move || answer.send(job()))).map_err(|_| ApiError::QueueFull)?;
    // A reader drops a job only when it stops.
    answered.await.map_err(|_| ApiError::Stopping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batching_follows_the_request_within_bounds() {
        let mut request = ConsumeRequest::new();
        let exact = Batching::of(&request, 1000);
        assert_eq!(exact, Batching { one_by_one: true, records_max: u32::MAX, bytes_max: 1000 });
        request.max_records = 7;
        request.max_bytes = u32::MAX;
        let many = Batching::of(&request, 1000);
        assert_eq!(many, Batching { one_by_one: false, records_max: 7, bytes_max: ANSWER_BYTES_MAX });
    }
}
