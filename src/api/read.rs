//! Reads visible records: determines where a request starts, and reads stored bytes from the page cache, or on a `reader` thread.

use std::sync::Arc;
use std::time::Instant;

use super::core::{Core, bounds};
use super::error::{ApiError, Invalid};
use super::limits::{LimitReached, Permit};
use super::metrics::RequestMetrics;
use super::read_request::{ReadRequest, StartAt};
use crate::log_state::StateRefusal;
use crate::logs::OpenLog;
use crate::reply::reply;
use crate::storage::ahead::Ahead;
use crate::storage::block::ResumePoint;
use crate::storage::reader::{Access, GroupReader, Link, ReadError, Slice};
use crate::timers::TimersHandle;
use crate::types::Offset;
use crate::watermark::Visible;

/// The maximum size of the records in a response, unless a single record is larger. Clients accept messages of 4 MiB by default,
/// and a message contains more than records.
pub const ANSWER_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// The most bytes that a gRPC thread hashes for a request.
const FEW_BYTES: usize = 64 << 10;

/// The sizes of messages that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Each message contains exactly one record, in field `record`.
    pub one_by_one: bool,
    /// The maximum number of records in one message.
    pub records_max: u32,
    /// The maximum size of the records in one message, unless a single record is larger.
    pub bytes_max: usize,
}

impl Batching {
    /// Returns the sizes of the request; `bytes_default` if it sets no size.
    pub fn of(request: &ReadRequest, bytes_default: usize) -> Batching {
        let bytes_max = match request.bytes_max {
            0 => bytes_default,
            bytes => (bytes as usize).min(ANSWER_BYTES_MAX),
        };
        Batching { one_by_one: request.one_by_one, records_max: request.records_max, bytes_max }
    }
}

/// A log, and the position of a request in it.
pub struct ReadPosition {
    /// The log that the request names.
    pub log: Arc<OpenLog>,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// If that record is trimmed before it is read, the first remaining one is read instead of an error.
    pub skips_trimmed: bool,
    /// The visible range that includes everything acknowledged before the request, if it was determined.
    pub confirmed: Option<Visible>,
    /// Where the last read of a stream ended.
    resume_point: Option<ResumePoint>,
    /// How far the page cache has been filled ahead of the stream.
    read_ahead: Ahead,
}

/// Determines the start of a request. The caller has checked its permission.
///
/// # Errors
/// If the log id or the start is invalid, the reader no longer has its cursor, this node can't catch up with the leader, or a read
/// fails.
pub async fn read_position(
    core: &Core,
    log: Arc<OpenLog>,
    request: &ReadRequest,
    timers: &TimersHandle,
    deadline: Option<Instant>,
) -> Result<ReadPosition, ApiError> {
    request.log_id.check(&log)?;
    let fence = request.fence();
    if request.start != StartAt::Cursor {
        if let Some(fence) = fence
            && fence.check(&log.tables.get()).is_err()
        {
            // Perhaps this node only lags.
            core.catch_up(log.group, &log.watermark, timers, deadline).await?;
            fence.check(&log.tables.get()).map_err(|refusal| refused(&log, refusal))?;
        }
        return position_at(core, log, request.start, timers, deadline).await;
    }
    let visible = core.catch_up(log.group, &log.watermark, timers, deadline).await?;
    let tables = log.tables.get();
    if let Some(fence) = fence {
        fence.check(&tables).map_err(|refusal| refused(&log, refusal))?;
    }
    let cursor = request.cursor.as_ref().and_then(|name| tables.cursors.get(name));
    let next_offset = cursor.ok_or_else(|| refused(&log, StateRefusal::NoSuchCursor(0)))?.next_offset;
    let position = position_at(core, log, StartAt::Offset(next_offset), timers, deadline).await?;
    // The tables are published before the watermark, so they may be newer.
    Ok(ReadPosition { confirmed: Some(visible).filter(|visible| next_offset <= visible.next_offset), ..position })
}

/// Returns the error of a request that does not fit the cursors or the producers of its log.
pub fn refused(log: &OpenLog, refusal: StateRefusal) -> ApiError {
    ApiError::State { log: log.name.clone(), refusal }
}

/// Determines a position in a log.
///
/// # Errors
/// If the start is invalid, this node can't catch up with the leader, or a read fails.
pub async fn position_at(
    core: &Core,
    log: Arc<OpenLog>,
    start: StartAt,
    timers: &TimersHandle,
    deadline: Option<Instant>,
) -> Result<ReadPosition, ApiError> {
    let at = |log, offset| ReadPosition {
        log,
        offset,
        skips_trimmed: false,
        confirmed: None,
        resume_point: None,
        read_ahead: Ahead::default(),
    };
    match start {
        StartAt::Unknown(value) => Err(Invalid::Start(value).into()),
        // `read_position` replaces it by an offset.
        StartAt::Cursor => Err(Invalid::NoCursor.into()),
        StartAt::Offset(offset) => Ok(at(log, offset)),
        StartAt::Earliest => {
            let offset = log.watermark.get().first_offset;
            Ok(ReadPosition { skips_trimmed: true, ..at(log, offset) })
        }
        StartAt::Last(records) => {
            let visible = core.catch_up(log.group, &log.watermark, timers, deadline).await?;
            let offset = Offset(visible.next_offset.0.saturating_sub(records)).max(visible.first_offset);
            Ok(ReadPosition { skips_trimmed: true, confirmed: Some(visible), ..at(log, offset) })
        }
        StartAt::Latest => {
            let visible = core.catch_up(log.group, &log.watermark, timers, deadline).await?;
            Ok(ReadPosition { confirmed: Some(visible), ..at(log, visible.next_offset) })
        }
        StartAt::Time(time_us) => {
            let visible = log.watermark.get();
            // Append times never decrease, so the first matching record on this node is the first one on every node.
            if let Some(offset) = first_not_before(core, &log, &visible, time_us).await? {
                return Ok(ReadPosition { skips_trimmed: true, ..at(log, offset) });
            }
            let visible = core.catch_up(log.group, &log.watermark, timers, deadline).await?;
            let offset = first_not_before(core, &log, &visible, time_us).await?;
            let skips_trimmed = offset.is_some();
            Ok(ReadPosition {
                skips_trimmed,
                confirmed: Some(visible),
                ..at(log, offset.unwrap_or(visible.next_offset))
            })
        }
    }
}

impl ReadPosition {
    /// Handles a position below the first record: advances it, or fails.
    ///
    /// # Errors
    /// [`ApiError::OffsetTrimmed`].
    pub fn skip_trimmed(&mut self, visible: &Visible, first_offset: Offset) -> Result<(), ApiError> {
        if self.skips_trimmed {
            self.offset = self.offset.max(first_offset);
            return Ok(());
        }
        let visible = Visible { first_offset, ..*visible };
        Err(ApiError::OffsetTrimmed(bounds(&self.log, &visible), self.offset))
    }

    /// Reads the next visible records of a stream: whole entries if possible, about `bytes_max`, or as many as the permit allows.
    /// Returns them with the permit that they hold; `None` if the position has advanced, and the caller must try again.
    ///
    /// # Errors
    /// Those of [`ReadPosition::read`].
    pub async fn read_next(
        &mut self,
        core: &Core,
        metrics: &RequestMetrics,
        visible: &Visible,
        bytes_max: usize,
        permit: Permit,
    ) -> Result<Option<(Slice, Permit)>, ApiError> {
        if self.offset < visible.first_offset {
            return self.skip_trimmed(visible, visible.first_offset).map(|()| None);
        }
        let (from, until, place) = (self.offset, visible.next_offset, self.resume_point);
        let bytes_max = bytes_max.min(permit.bytes());
        let block = move |reader: &GroupReader, access| reader.block(from, until, bytes_max, access, place);
        let (read, waited) = read(core, metrics, &self.log, permit, block).await?;
        let read = read.map(|(slice, place)| {
            self.resume_point = place;
            if waited {
                self.read_ahead = Ahead::of_waited(place);
            }
            slice
        });
        if let Some(fetch) = self.resume_point.and_then(|place| self.log.reader.to_fetch(place, &mut self.read_ahead)) {
            // If the queue is full, the next read itself waits for the disk.
            let _ = core.readers.run(Box::new(move || fetch.run()));
        }
        self.finish_read(visible, read)
    }

    /// Reads visible records from the position on, as many as the request and the permit allow. Returns them with the permit that
    /// they hold; `None` if the position has advanced, and the caller must try again.
    ///
    /// # Errors
    /// [`ApiError::OffsetTrimmed`], [`ApiError::Damaged`], or if the readers are busy or one record exceeds the budget.
    pub async fn read(
        &mut self,
        core: &Core,
        metrics: &RequestMetrics,
        visible: &Visible,
        batching: Batching,
        permit: Permit,
    ) -> Result<Option<(Slice, Permit)>, ApiError> {
        if self.offset < visible.first_offset {
            return self.skip_trimmed(visible, visible.first_offset).map(|()| None);
        }
        let (from, until, records_max) = (self.offset, visible.next_offset, batching.records_max);
        let bytes_max = batching.bytes_max.min(permit.bytes());
        let records = move |reader: &GroupReader, access| {
            reader.records(from, until, records_max, bytes_max, access).map(|slice| (slice, ()))
        };
        let (read, _) = read(core, metrics, &self.log, permit, records).await?;
        self.finish_read(visible, read.map(|(slice, ())| slice))
    }

    fn finish_read(
        &mut self,
        visible: &Visible,
        read: Result<SliceAndPermit, ReadError>,
    ) -> Result<Option<(Slice, Permit)>, ApiError> {
        match read {
            Ok((slice, permit)) if slice.next > self.offset => {
                self.skips_trimmed = false;
                Ok(Some((slice, permit?)))
            }
            Ok(_) => {
                let what = "nothing is stored below the watermark".to_owned();
                Err(ApiError::Damaged { log: self.log.name.clone(), offset: self.offset, resume: None, what })
            }
            Err(ReadError::Trimmed { first_offset }) => self.skip_trimmed(visible, first_offset).map(|()| None),
            Err(error) => Err(ApiError::from_read(error, bounds(&self.log, visible), self.offset)),
        }
    }
}

/// The records that were read, and the permit that they hold; or the limit that a single large record would exceed.
type SliceAndPermit = (Slice, Result<Permit, LimitReached>);

/// Reads from the page cache, or else on a `reader` thread, so that this thread never waits for the disk. Also returns whether a
/// `reader` was needed.
async fn read<T: Send + 'static>(
    core: &Core,
    metrics: &RequestMetrics,
    log: &Arc<OpenLog>,
    permit: Permit,
    read: impl Fn(&GroupReader, Access) -> Result<(Slice, T), ReadError> + Send + 'static,
) -> Result<(Result<(SliceAndPermit, T), ReadError>, bool), ApiError> {
    check_not_withdrawn(log)?;
    match read(&log.reader, Access::Cached) {
        Err(ReadError::NotCached) => {}
        done => return Ok((done.map(|(slice, more)| (resize_permit(slice, permit), more)), false)),
    }
    let reader = log.reader.clone();
    // Records that exceed the budget are dropped at once, not when this thread processes the result.
    let job = move || read(&reader, Access::Blocking).map(|(slice, more)| (resize_permit(slice, permit), more));
    let began = Instant::now();
    let read = run_on_reader(core, job).await?;
    metrics.disk_read(began);
    Ok((read, true))
}

/// A replica that differs from the others serves no reads, because a client could read other records here than elsewhere.
fn check_not_withdrawn(log: &OpenLog) -> Result<(), ApiError> {
    if log.watermark.is_withdrawn() { Err(ApiError::ReplicaDamaged) } else { Ok(()) }
}

fn resize_permit(slice: Slice, mut permit: Permit) -> SliceAndPermit {
    match permit.resize(slice.bytes.len()) {
        Ok(()) => (slice, Ok(permit)),
        Err(limit) => (Slice { bytes: Vec::new(), ..slice }, Err(limit)),
    }
}

/// Returns the first visible record that was appended at or after this time.
async fn first_not_before(
    core: &Core,
    log: &Arc<OpenLog>,
    visible: &Visible,
    time_us: u64,
) -> Result<Option<Offset>, ApiError> {
    check_not_withdrawn(log)?;
    if visible.last_append_time_us < time_us {
        return Ok(None);
    }
    let (from, until) = (visible.first_offset, visible.next_offset);
    let found = match log.reader.first_not_before(time_us, from, until, Access::Cached) {
        Err(ReadError::NotCached) => {
            let reader = log.reader.clone();
            run_on_reader(core, move || reader.first_not_before(time_us, from, until, Access::Blocking)).await?
        }
        done => done,
    };
    found.map_err(|error| ApiError::from_read(error, bounds(log, visible), from))
}

/// Returns when the first record was appended; `None` for an empty log.
///
/// # Errors
/// Those of [`ReadPosition::read`].
pub async fn append_time_us(core: &Core, log: &Arc<OpenLog>, visible: &Visible) -> Result<Option<u64>, ApiError> {
    check_not_withdrawn(log)?;
    let (from, until) = (visible.first_offset, visible.next_offset);
    let time = match log.reader.append_time_us(from, until, Access::Cached) {
        Err(ReadError::NotCached) => {
            let reader = log.reader.clone();
            run_on_reader(core, move || reader.append_time_us(from, until, Access::Blocking)).await?
        }
        done => done,
    };
    time.map_err(|error| ApiError::from_read(error, bounds(log, visible), from))
}

/// Returns the links of the hash chain from the entry on that contains `from`, which is visible. At least one.
///
/// # Errors
/// Those of [`ReadPosition::read`].
pub async fn read_links(
    core: &Core,
    log: &Arc<OpenLog>,
    visible: &Visible,
    from: Offset,
    links_max: usize,
    bytes_max: usize,
) -> Result<Vec<Link>, ApiError> {
    check_not_withdrawn(log)?;
    let until = visible.next_offset;
    // On this thread only as much as a read returns: a `reader` hashes the rest.
    let links = match log.reader.links(from, until, links_max, FEW_BYTES, Access::Cached) {
        Ok(links) if links.len() == links_max || links.last().is_some_and(|last| last.end() >= until) => Ok(links),
        Ok(_) | Err(ReadError::NotCached) => {
            let reader = log.reader.clone();
            run_on_reader(core, move || reader.links(from, until, links_max, bytes_max, Access::Blocking)).await?
        }
        Err(error) => Err(error),
    };
    links.map_err(|error| ApiError::from_read(error, bounds(log, visible), from))
}

async fn run_on_reader<T: Send + 'static>(
    core: &Core,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (answer, answered) = reply();
    core.readers.run(Box::new(move || answer.send(job()))).map_err(|_| ApiError::QueueFull)?;
    // A reader drops a job only if it is stopping.
    answered.await.map_err(|_| ApiError::Stopping)
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;
    use crate::api::messages::Request;
    use crate::api::package::Package;
    use crate::api::read_request::ReadMethod;
    use crate::pb::v1;

    #[test]
    fn batching_follows_the_request_within_bounds() {
        let request = |max_records, max_bytes| {
            let request = v1::ConsumeRequest { max_records, max_bytes, ..v1::ConsumeRequest::default() };
            let request = Request(request.write_to_bytes().expect("encoded"));
            ReadRequest::decode(&request, ReadMethod::Unary, Package::SeriatimV1).expect("valid")
        };
        let default = Batching::of(&request(0, 0), 1000);
        assert_eq!(default, Batching { one_by_one: false, records_max: 1000, bytes_max: 1000 });
        let many = Batching::of(&request(7, u32::MAX), 1000);
        assert_eq!(many, Batching { one_by_one: false, records_max: 7, bytes_max: ANSWER_BYTES_MAX });
    }
}
