//! `seriatim consume`: prints the records of a log.

use std::convert::Infallible;
use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::after;
use grpcio::RpcStatusCode;
use parking_lot::{Mutex, MutexGuard};

use super::connect::ConnectArgs;
use super::encode::{self, Format};
use super::exit::{Exit, Failure};
use super::log_name::LogArg;
use super::reader_cursor::{self, ReaderCursor, StartOf};
use super::subcommand::{Process, Subcommand};
use super::{interrupt, output, units};
use crate::client::{Client, ClientError, Retry};
use crate::pb::v1::{ConsumeRequest, Record, Start};
use crate::thread::{self, fatal_channel};
use crate::types::LogId;

/// The maximum of records in one response. The server also limits its bytes.
const RECORDS_MAX: u32 = 10_000;
/// The interval of heartbeats while the stream is idle, so that the client notices a broken connection.
const HEARTBEAT_MS: u32 = 1000;
/// The pause before the rest is requested again, unless the node names a time,
const RETRY: Duration = Duration::from_millis(200);
/// which counts only up to this one.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// The maximum time that a blocked standard output, or the last commit, delays the exit after a signal.
const LAST_WRITE_MAX: Duration = Duration::from_secs(1);

/// The first record to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The record at this offset.
    Offset(u64),
    /// The first record that is still stored.
    Earliest,
    /// The next record that is appended.
    Latest,
    /// The first of the last `n` records.
    Last(u64),
    /// The first record appended at or after this time, Unix microseconds.
    Time(u64),
    /// The first record appended within the last `n` milliseconds.
    Ago(u64),
}

fn parse_from(text: &str) -> Result<Begin, String> {
    let number = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is not a number of records"));
    match text {
        "earliest" => return Ok(Begin::Earliest),
        "latest" => return Ok(Begin::Latest),
        _ => {}
    }
    if let Some(us) = text.strip_prefix("us:") {
        return us.parse().map(Begin::Time).map_err(|_| "us:MICROSECONDS".to_owned());
    }
    if let Some(last) = text.strip_prefix('-') {
        return number(last).map(Begin::Last);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return number(text).map(Begin::Offset);
    }
    if let Ok(ago) = units::milliseconds(text) {
        return Ok(Begin::Ago(ago));
    }
    units::moment(text).map(Begin::Time).map_err(|time| {
        format!(
            "expected an offset, `earliest`, `latest`, -10 (the last ten), 10m (the last ten minutes), {time}, or us: and Unix microseconds"
        )
    })
}

/// The first record that is not printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The record at this offset.
    Offset(u64),
    /// The first record appended at or after this time, Unix microseconds.
    Time(u64),
}

impl Limit {
    /// Returns whether the record, or one before it, is the first that is not printed. Timestamps never decrease
    /// within a log.
    fn is_reached(self, record: &Record) -> bool {
        match self {
            Limit::Offset(offset) => record.offset >= offset,
            Limit::Time(time_us) => record.append_time_us >= time_us,
        }
    }
}

fn parse_to(text: &str) -> Result<Limit, String> {
    match parse_from(text) {
        Ok(Begin::Offset(offset)) => Ok(Limit::Offset(offset)),
        Ok(Begin::Time(time_us)) => Ok(Limit::Time(time_us)),
        Ok(Begin::Ago(ms)) => Ok(Limit::Time(ago_us(ms))),
        Ok(Begin::Earliest | Begin::Latest | Begin::Last(_)) | Err(_) => Err(
            "expected an offset, 10m (ten minutes ago), a time like 2026-01-31T12:00:00Z, or us: and Unix microseconds"
                .to_owned(),
        ),
    }
}

/// Returns the time this many milliseconds ago by this machine's clock, as Unix microseconds.
fn ago_us(ms: u64) -> u64 {
    let now_ms = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_millis());
    u64::try_from(now_ms).unwrap_or(u64::MAX).saturating_sub(ms).saturating_mul(1000)
}

/// Print the records of a log
///
/// Without --follow it ends after the last record that was stored when it started. If the connection breaks, it
/// continues with the next offset at the same or another of the given addresses; if none answers for --timeout
/// seconds, it fails.
///
/// If records are trimmed before it reads them, it prints their offsets on stderr and continues with the first record
/// that is left; with --from OFFSET it fails instead.
///
/// With --cursor, it continues where the last command with this cursor has stopped, and the cluster keeps the position:
/// every second, and at the end, it stores the position after the records that it has written out. A new cursor begins
/// at --from. If it is killed, it prints up to a second of records again the next time. Only one process reads with a
/// cursor: an earlier one ends, with exit code 4. It requires the action `commit`.
///
/// SIGINT (Ctrl-C) and SIGTERM end it after a complete record, with exit code 130.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArg,
    /// First record to print: an offset; `earliest`; `latest`; -10, the last ten records; 10m, the records of the
    /// last ten minutes by this machine's clock (ms, s, m, h, d); or a time, as 2026-01-31T12:00:00Z or as
    /// us:1769860800000000 (Unix microseconds). With a time in the future, records appended before it are not printed
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true, value_parser = parse_from)]
    pub from: Begin,
    /// Stop before this record: an offset; a time, as 2026-01-31T12:00:00Z or us:1769860800000000; or 10m, ten minutes
    /// ago. With --follow, it waits for a record at or after it
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, value_parser = parse_to)]
    pub to: Option<Limit>,
    /// Exit after this number of records
    #[arg(long, visible_alias = "max-records", value_name = "RECORDS")]
    pub count: Option<u64>,
    /// Wait for more records at the end of the log
    #[arg(long, short)]
    pub follow: bool,
    /// Exit after the last record that was stored at the start (the default)
    #[arg(long, conflicts_with = "follow")]
    pub until_end: bool,
    /// Name of the cursor to continue at; `seriatim cursor list` prints all
    #[arg(long, value_name = "NAME", value_parser = super::cursor::parse_name)]
    pub cursor: Option<String>,
    /// Read only if the log has this id (see `seriatim log info`): a log that was created again has another id
    #[arg(long, value_name = "ID", value_parser = units::log_id)]
    pub log_id: Option<LogId>,
    /// Output format
    #[arg(long = "output", short = 'o', alias = "format", value_enum, value_name = "FORMAT", default_value_t = Format::Lines)]
    pub format: Format,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "consume";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim consume --certs certs --from earliest",
        "seriatim consume --certs certs --from -10 --follow",
        "seriatim consume --certs certs --cursor billing --follow -o json",
        "seriatim consume --certs certs --from 2026-01-31T12:00:00Z --to 2026-02-01T00:00:00Z -o json > copy.jsonl",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    if let (Begin::Offset(from), Some(Limit::Offset(to))) = (args.from, args.to)
        && to < from
    {
        let message = format!("--to {to} is before --from {from}");
        return Err(Failure::new(Exit::BadConfig, message, "--to is the first record that is not printed"));
    }
    let dialer = args.connect.resolve()?;
    let log = args.log.name(&dialer)?;
    let out = Out::new();
    let mut position = Position::new(args.from);
    let log_id = args.log_id.map(|id| id.to_string());
    let cursor = args.cursor.as_ref().map(|name| {
        let (start, offset, time_us) = position.start();
        let start = StartOf { start, offset, time_us };
        let acquired = reader_cursor::acquire(&dialer, &log, log_id.clone(), name, start)?;
        // --from has determined where a new cursor begins, and does not apply any more.
        position = Position { from: Begin::Offset(acquired.next_offset), not_before_us: 0 };
        Ok::<_, Failure>(Arc::new(ReaderCursor::new(&dialer, acquired)))
    });
    let cursor = cursor.transpose()?;
    let log_id = cursor.as_ref().map(|cursor| cursor.log_id().to_owned()).or(log_id);
    out.end_at_a_signal(cursor.clone());
    let mut reading = Reading {
        out,
        format: args.format,
        left: args.count.unwrap_or(u64::MAX),
        log,
        position,
        limit: args.to,
        log_id,
        cursor,
        answered: false,
    };
    let mut client = dialer.connect()?;
    let mut broken_since = Instant::now();
    while reading.left > 0 {
        let end = reading.read(&client, args);
        if std::mem::take(&mut reading.answered) {
            broken_since = Instant::now();
        }
        match end {
            Ok(()) => break,
            // What was written before the pipe was closed was perhaps not read, so it is not committed.
            Err(Stop::Output(error)) => return output::written(Err(error)),
            Err(Stop::Call(error)) if is_temporary(&error) && broken_since.elapsed() < dialer.timeout => {
                log::info!("{}: {error}; trying again", client.addr());
                // Clients are not notified when the cluster is available again.
                let wait = error.status().and_then(|status| status.retry_after).unwrap_or(RETRY);
                let _ = after(wait.min(RETRY_MAX)).recv();
                client = dialer.connect()?;
            }
            Err(Stop::Call(error)) if reading.skip_trimmed(args, &error) => {}
            Err(Stop::Call(error)) => {
                // All records before the error are complete.
                if let Err(failure) = reading.finish() {
                    output::tell(&format!("seriatim: {failure}"));
                }
                return Err(Failure::of_call(client.addr(), &error));
            }
        }
    }
    reading.finish()
}

/// Returns whether the rest can be read later, or from another node. Records that one node can't read are an error at
/// once: it names them, and the user decides whether to continue after them.
fn is_temporary(error: &ClientError) -> bool {
    let code = error.status().map(|status| status.code);
    let of_records = matches!(code, Some(RpcStatusCode::DATA_LOSS | RpcStatusCode::UNIMPLEMENTED));
    matches!(error.retry(), Retry::Same | Retry::Elsewhere) && !of_records
}

/// Standard output, shared with the thread that handles signals. When the lock is free, the buffer contains only
/// whole records.
#[derive(Clone)]
struct Out(Arc<Mutex<BufWriter<Stdout>>>);

impl Out {
    fn new() -> Out {
        Out(Arc::new(Mutex::new(BufWriter::with_capacity(256 * 1024, io::stdout()))))
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.0.lock()
    }

    /// Makes the first signal write all complete records, store the position after them, and end the process.
    fn end_at_a_signal(&self, cursor: Option<Arc<ReaderCursor>>) {
        let out = self.clone();
        interrupt::on_first(move || {
            // The last write may block, so this thread ends the process after a time limit.
            let (fatal, _) = fatal_channel();
            let end = || -> Result<(), Infallible> {
                let _ = after(LAST_WRITE_MAX).recv();
                interrupt::end();
                Ok(())
            };
            // Not joined: the thread ends with the process.
            std::mem::forget(thread::spawn("end", &fatal, end));
            // Locked until the end: nothing more is written, and so nothing more counts as written.
            let mut out = out.lock();
            if let (Ok(()), Some(cursor)) = (out.flush(), cursor)
                && let Err(failure) = cursor.commit()
            {
                output::tell(&format!("seriatim: the position of cursor {} was not stored: {failure}", cursor.name()));
            }
            interrupt::end();
        });
    }
}

/// Where the next request begins, and which records are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    from: Begin,
    /// Records appended before this time (Unix microseconds) are not printed. Timestamps never decrease within a log,
    /// so this only has an effect if the time is in the future.
    not_before_us: u64,
}

impl Position {
    fn new(from: Begin) -> Position {
        let from = if let Begin::Ago(ms) = from { Begin::Time(ago_us(ms)) } else { from };
        let not_before_us = if let Begin::Time(time_us) = from { time_us } else { 0 };
        Position { from, not_before_us }
    }

    /// Returns the start of a request, with its offset and its time.
    fn start(self) -> (Start, u64, u64) {
        match self.from {
            Begin::Offset(offset) => (Start::START_OFFSET, offset, 0),
            Begin::Earliest => (Start::START_EARLIEST, 0, 0),
            Begin::Latest => (Start::START_LATEST, 0, 0),
            Begin::Last(records) => (Start::START_LAST, records, 0),
            Begin::Time(time_us) => (Start::START_TIME, 0, time_us),
            // `Position::new` has replaced it by a time.
            Begin::Ago(_) => (Start::START_EARLIEST, 0, 0),
        }
    }
}

struct Reading {
    out: Out,
    format: Format,
    log: String,
    left: u64,
    limit: Option<Limit>,
    position: Position,
    log_id: Option<String>,
    cursor: Option<Arc<ReaderCursor>>,
    /// True if a message, possibly only a heartbeat, was received since this was last reset.
    answered: bool,
}

enum Stop {
    Call(ClientError),
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

impl Reading {
    /// If a trim has removed the next records, reports their offsets and moves the position after them. Returns false
    /// if it is another error, or if the user specified an offset.
    fn skip_trimmed(&mut self, args: &Args, error: &ClientError) -> bool {
        let status = error.status().filter(|status| status.code == RpcStatusCode::OUT_OF_RANGE);
        let first = status.and_then(|status| status.number("first_offset"));
        let (Begin::Offset(next), Some(first)) = (self.position.from, first) else { return false };
        let is_given = self.cursor.is_none() && matches!(args.from, Begin::Offset(_));
        if is_given || first <= next {
            return false;
        }
        output::tell(&format!(
            "seriatim: records {next} to {} of log {} were trimmed before they were read; continuing at {first}",
            first - 1,
            self.log
        ));
        self.position.from = Begin::Offset(first);
        true
    }

    /// Prints records until the stream ends or `left` records are printed.
    fn read(&mut self, client: &Client, args: &Args) -> Result<(), Stop> {
        let (start, offset, start_time_us) = self.position.start();
        let request = ConsumeRequest {
            log: self.log.clone(),
            start: start.into(),
            offset,
            start_time_us,
            max_records: u32::try_from(self.left).unwrap_or(u32::MAX).min(RECORDS_MAX),
            stop_at_end: !args.follow,
            heartbeat_ms: if args.follow { HEARTBEAT_MS } else { 0 },
            log_id: self.log_id.clone(),
            // Set only if needed: an older node refuses fields that it does not know.
            cursor: self.cursor.as_ref().map(|cursor| cursor.name().to_owned()).unwrap_or_default(),
            cursor_epoch: self.cursor.as_ref().map_or(0, |cursor| cursor.epoch()),
            ..ConsumeRequest::default()
        };
        for answer in client.consume_stream(&request, None).map_err(Stop::Call)? {
            let answer = answer.map_err(Stop::Call)?;
            self.answered = true;
            self.log_id = Some(answer.log_id);
            let mut out = self.out.lock();
            for record in &answer.records {
                if self.limit.is_some_and(|limit| limit.is_reached(record)) {
                    return Ok(());
                }
                self.position.from = Begin::Offset(record.offset + 1);
                if record.append_time_us < self.position.not_before_us {
                    continue;
                }
                encode::write(&mut *out, self.format, record)?;
                // While `out` is locked: after a signal, everything that counts as written is written out.
                if let Some(cursor) = &self.cursor {
                    cursor.written(record.offset + 1);
                }
                self.left -= 1;
                if self.left == 0 {
                    return Ok(());
                }
            }
            // The first message has no records: from then on, the position is an offset. A relative one would skip records when
            // it is resolved again after the log has grown.
            self.position.from = Begin::Offset(answer.resume_offset);
            if args.follow || self.cursor.is_some() {
                out.flush()?;
            }
            drop(out);
            if let Some(cursor) = &self.cursor {
                cursor.written(answer.resume_offset);
                cursor.commit_sometimes(client).map_err(Stop::Call)?;
            }
        }
        Ok(())
    }

    /// Writes out all records, and stores the position after them.
    fn finish(&self) -> Result<(), Failure> {
        let flushed = self.out.lock().flush();
        let is_written = flushed.is_ok();
        output::written(flushed)?;
        match &self.cursor {
            Some(cursor) if is_written => cursor.commit(),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_where_to_begin() {
        for (text, from) in [
            ("7", Begin::Offset(7)),
            ("-10", Begin::Last(10)),
            ("10m", Begin::Ago(600_000)),
            ("1500ms", Begin::Ago(1500)),
            ("us:5", Begin::Time(5)),
            ("1970-01-01T00:00:01Z", Begin::Time(1_000_000)),
            ("earliest", Begin::Earliest),
            ("latest", Begin::Latest),
        ] {
            assert_eq!(parse_from(text), Ok(from), "{text}");
        }
        for bad in ["", "-", "--follow", "-1x", "yesterday", "99999999999999999999"] {
            assert!(parse_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parses_where_to_stop() {
        assert_eq!((parse_to("7"), parse_to("us:5")), (Ok(Limit::Offset(7)), Ok(Limit::Time(5))));
        assert!(matches!(parse_to("1h"), Ok(Limit::Time(time)) if time > 1_700_000_000_000_000));
        for bad in ["", "-10", "earliest", "latest", "tomorrow"] {
            assert!(parse_to(bad).is_err(), "{bad}");
        }
        let record = Record { offset: 7, append_time_us: 5, ..Record::default() };
        for (limit, reached) in
            [(Limit::Offset(7), true), (Limit::Offset(8), false), (Limit::Time(5), true), (Limit::Time(6), false)]
        {
            assert_eq!(limit.is_reached(&record), reached, "{limit:?}");
        }
    }

    #[test]
    fn converts_an_age_to_a_time_once() {
        let Position { from: Begin::Time(time), not_before_us } = Position::new(Begin::Ago(0)) else {
            panic!("a time")
        };
        assert_eq!(time, not_before_us);
        assert!(time > 1_700_000_000_000_000, "{time}");
        assert_eq!(Position::new(Begin::Earliest), Position { from: Begin::Earliest, not_before_us: 0 });
    }
}
