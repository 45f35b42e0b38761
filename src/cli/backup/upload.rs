//! Sends the records of a backup to a log that is being restored.
//!
//! Records with the same append time become one request, so that each entry of the log has the time of its records. Many
//! requests are sent before the first is answered. After a failure the log says where it ends, and the rest is sent
//! again from there: every request names the offset at which its records belong.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use indicatif::ProgressBar;

use super::files::{self, Backup, CheckedFile};
use crate::cli::dialer::Dialer;
use crate::cli::exit::{Exit, Failure};
use crate::cli::log_show::state;
use crate::cli::record_shape::content_bytes;
use crate::client::{Client, ClientError, Outcome, ProduceStream, Retry};
use crate::pb::v1::{LogInfo, LogState, ProduceRequest, Record};
use crate::reason::ErrorReason;

/// The maximum size of the records of a request, if the log allows it.
const REQUEST_BYTES: usize = 512 << 10;
const REQUEST_RECORDS: usize = 10_000;
/// The maximum number and size of unanswered requests. Beyond twice that, the server would stop reading.
const UNANSWERED_MAX: usize = 128;
const UNANSWERED_BYTES_MAX: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(200);
/// The command fails if the log does not grow for this long.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The log that is being restored.
pub struct Target {
    log: String,
    log_id: String,
    request_bytes: usize,
}

impl Target {
    /// Reads what the log allows.
    pub fn of(log: &LogInfo) -> Target {
        let limit = log.config.max_request_bytes.map_or(REQUEST_BYTES, |bytes| bytes as usize);
        Target { log: log.name.clone(), log_id: log.log_id.clone(), request_bytes: limit.min(REQUEST_BYTES) }
    }
}

/// Why sending ended.
enum Ended {
    /// Reading a file failed, or the server refused records for good.
    Failed(Failure),
    /// The rest can be sent again. Where to, and why.
    Broken(String, ClientError),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

/// Sends all records that the log does not have yet.
///
/// # Errors
/// If a file can't be read, the server refuses the records, or no node takes any for a minute.
pub fn upload(dialer: &Dialer, target: &Target, backup: &Backup, bar: &ProgressBar) -> Result<(), Failure> {
    let end = backup.last().end_offset;
    let (mut last_addr, mut grew): (Option<String>, _) = (None, Instant::now());
    let mut next_before = None;
    loop {
        let (_, log) = dialer.ask_until_served(|client| client.get_log(&target.log))?;
        if log.log_id != target.log_id {
            let what = format!("log {} was replaced by another one meanwhile", target.log);
            return Err(Failure::new(Exit::Precondition, what, "restore under another name: --as LOG"));
        }
        let next = log.position.next_offset;
        // The same restore may run elsewhere, and be finished: then the log may have more records already.
        if next >= end {
            return Ok(());
        }
        if next_before.replace(next) != Some(next) {
            grew = Instant::now();
        }
        let client = dialer.connect_within(dialer.timeout, last_addr.as_deref())?;
        match send(&client, target, backup, next, bar) {
            Ok(()) => {}
            Err(Ended::Failed(failure)) => return if is_finished(dialer, target) { Ok(()) } else { Err(failure) },
            Err(Ended::Broken(addr, error)) if grew.elapsed() > STALL_MAX => {
                let failure = Failure::of_call(&addr, &error);
                let next = "run the same command again: it continues where it stopped".to_owned();
                return Err(Failure { next, ..failure });
            }
            Err(Ended::Broken(addr, _)) => {
                last_addr = Some(addr);
                let _ = after(PAUSE).recv();
            }
        }
    }
}

/// Returns true if the same restore was finished elsewhere. The log then refuses the records.
fn is_finished(dialer: &Dialer, target: &Target) -> bool {
    let log = dialer.ask_until_served(|client| client.get_log(&target.log));
    log.is_ok_and(|(_, log)| log.log_id == target.log_id && state(&log) == LogState::LOG_STATE_ACTIVE)
}

/// Sends the records from offset `next` on, over one stream.
fn send(client: &Client, target: &Target, backup: &Backup, next: u64, bar: &ProgressBar) -> Result<(), Ended> {
    let addr = client.addr();
    let stream = client.produce_stream().map_err(|error| Ended::Broken(addr.to_owned(), error))?;
    let mut sending =
        Sending { addr, target, stream, request: None, bytes: 0, unanswered: VecDeque::new(), in_flight: 0 };
    let mut before = backup.bytes();
    for file in &backup.files {
        if file.header.end_offset <= next {
            before += file.bytes;
            continue;
        }
        let failed = |bad| Ended::Failed(files::failure(&file.path, &bad));
        let mut reader = files::open(&file.path)?;
        if *reader.header() != file.header {
            return Err(changed(file));
        }
        reader.skip_to(next).map_err(failed)?;
        while let Some(records) = reader.next_records().map_err(failed)? {
            for record in records.into_iter().skip_while(|record| record.offset < next) {
                sending.add(record)?;
            }
            bar.set_position(before + reader.position());
        }
        if reader.trailer() != Some(&file.trailer) {
            return Err(changed(file));
        }
        before += file.bytes;
    }
    sending.finish()
}

/// The failure of a file that is another one than the file that was checked.
fn changed(file: &CheckedFile) -> Ended {
    let what = format!("{} was replaced by another file meanwhile", file.path.display());
    Ended::Failed(Failure::new(
        Exit::BadData,
        what,
        "abandon the restore with `seriatim log delete --purge`, and begin again",
    ))
}

/// A request without an answer.
struct Unanswered {
    offset: u64,
    append_time_us: u64,
    bytes: usize,
}

/// A stream of requests.
struct Sending<'a> {
    addr: &'a str,
    target: &'a Target,
    stream: ProduceStream,
    /// The next request, and the size of its records.
    request: Option<ProduceRequest>,
    bytes: usize,
    unanswered: VecDeque<Unanswered>,
    in_flight: usize,
}

impl Sending<'_> {
    fn add(&mut self, record: Record) -> Result<(), Ended> {
        let bytes = content_bytes(&record);
        let fits = self.request.as_ref().is_some_and(|request| {
            request.restored_append_time_us == Some(record.append_time_us)
                && request.records.len() < REQUEST_RECORDS
                && self.bytes + bytes <= self.target.request_bytes
        });
        if !fits {
            self.flush()?;
        }
        let request = self.request.get_or_insert_with(|| ProduceRequest {
            log: self.target.log.clone(),
            log_id: Some(self.target.log_id.clone()),
            expected_offset: Some(record.offset),
            restored_append_time_us: Some(record.append_time_us),
            ..ProduceRequest::default()
        });
        request.records.push(record);
        self.bytes += bytes;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Ended> {
        let Some(request) = self.request.take() else { return Ok(()) };
        let bytes = std::mem::take(&mut self.bytes);
        while self.unanswered.len() >= UNANSWERED_MAX || self.in_flight > UNANSWERED_BYTES_MAX {
            self.answer()?;
        }
        let offset = request.expected_offset.unwrap_or_default();
        let append_time_us = request.restored_append_time_us.unwrap_or_default();
        // If the stream has ended, the answer says why.
        self.stream.send(request);
        self.unanswered.push_back(Unanswered { offset, append_time_us, bytes });
        self.in_flight += bytes;
        Ok(())
    }

    fn answer(&mut self) -> Result<(), Ended> {
        let Some(Unanswered { offset, append_time_us, bytes }) = self.unanswered.pop_front() else { return Ok(()) };
        self.in_flight -= bytes;
        let error = match self.stream.answer() {
            Some(Ok(response)) if (response.offset, response.append_time_us) == (offset, append_time_us) => {
                return Ok(());
            }
            Some(Ok(response)) => {
                let (at, time) = (response.offset, response.append_time_us);
                let what = format!(
                    "{}: the records of offset {offset} and append time {append_time_us} are at {at} with {time}",
                    self.addr
                );
                return Err(Ended::Failed(Failure::new(Exit::Failed, what, "report this: it is a bug")));
            }
            None => ClientError::Local("the stream ended without a status".to_owned()),
            Some(Err(error)) => error,
        };
        match continues(&error) {
            true => Err(Ended::Broken(self.addr.to_owned(), error)),
            false => Err(Ended::Failed(Failure::of_call(self.addr, &error))),
        }
    }

    fn finish(mut self) -> Result<(), Ended> {
        self.flush()?;
        self.stream.close();
        while !self.unanswered.is_empty() {
            self.answer()?;
        }
        Ok(())
    }
}

/// Returns true if the rest can be sent again from the end of the log.
fn continues(error: &ClientError) -> bool {
    // An earlier attempt was appended after its answer was lost.
    let was_appended = error.status().is_some_and(|s| s.reason == ErrorReason::ExpectedOffsetMismatch.code());
    was_appended || error.outcome() == Outcome::Unknown || error.retry() != Retry::No
}
