//! `seriatim consume`: records of a log to stdout.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use grpcio::RpcStatusCode;

use super::connect::ConnectArgs;
use super::encode::{self, Format};
use super::exit::Failure;
use super::{output, units};
use crate::client::{Client, ClientError};
use crate::pb::log::{ConsumeRequest, Start};
use crate::types::LogId;

/// Records of one message; its bytes are limited by the server.
const RECORDS_MAX: u32 = 10_000;
/// A connection that is quiet for longer is broken, not idle.
const HEARTBEAT_MS: u32 = 1000;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this offset.
    Offset(u64),
    /// At the first record that is still there.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first record that was appended at this moment or later, Unix microseconds.
    Time(u64),
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        text if text.starts_with("us:") => text[3..].parse().map(From::Time).map_err(|_| "us:MICROSECONDS".to_owned()),
        number if number.bytes().all(|b| b.is_ascii_digit()) => {
            number.parse().map(From::Offset).map_err(|_| "an offset".to_owned())
        }
        moment => units::moment(moment)
            .map(From::Time)
            .map_err(|time| format!("an offset, `earliest`, `latest`, {time}, or us: and Unix microseconds")),
    }
}

/// Read records of a log to stdout: what is there now, or on and on with --follow.
///
/// When the connection breaks, it goes on with the next offset at the same or another of the given addresses; when none
/// answers for --timeout seconds, it ends.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The log
    #[arg(long, env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "NAME", default_value = "default")]
    pub log: String,
    /// Where to begin: an offset, `earliest`, `latest`, or the first record appended at a time or later, given as
    /// 2026-01-31T12:00:00Z or as us:1769860800000000 (Unix microseconds)
    #[arg(long, value_name = "WHERE", default_value = "earliest", value_parser = parse_from)]
    pub from: From,
    /// End after so many records
    #[arg(long, visible_alias = "max-records", value_name = "RECORDS")]
    pub count: Option<u64>,
    /// Wait for more at the end; else it ends at what was there when it began
    #[arg(long, short)]
    pub follow: bool,
    /// End at what was there when it began: what it does without --follow, said aloud
    #[arg(long, conflicts_with = "follow")]
    pub until_end: bool,
    /// Read only if the log has this id (`seriatim log info` shows it): another one of the same name is another log
    #[arg(long, value_name = "ID", value_parser = units::log_id)]
    pub log_id: Option<LogId>,
    /// How a record is written
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    pub format: Format,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut reading = Reading {
        out: BufWriter::with_capacity(256 * 1024, io::stdout().lock()),
        format: args.format,
        left: args.count.unwrap_or(u64::MAX),
        position: args.from,
        log_id: args.log_id.map(|id| id.0),
        answered: false,
    };
    let mut client = args.connect.connect()?;
    let mut broken_since = Instant::now();
    while reading.left > 0 {
        let end = reading.read(&client, args);
        if std::mem::take(&mut reading.answered) {
            broken_since = Instant::now();
        }
        match end {
            Ok(()) => break,
            Err(Stop::Output(error)) => return output::written(Err(error)),
            Err(Stop::Call(error)) if passes(&error) && broken_since.elapsed() < args.connect.timeout() => {
                log::info!("{}: {error}; going on", client.addr());
                // A timer: nothing tells when the cluster is there again.
                let _ = after(Duration::from_millis(200)).recv();
                client = args.connect.connect()?;
            }
            Err(Stop::Call(error)) => {
                // The records before the damage are complete.
                output::written(reading.out.flush())?;
                return Err(Failure::of_call(client.addr(), &error));
            }
        }
    }
    output::written(reading.out.flush())
}

fn passes(error: &ClientError) -> bool {
    error.status().is_some_and(|s| matches!(s.code, RpcStatusCode::UNAVAILABLE | RpcStatusCode::RESOURCE_EXHAUSTED))
}

struct Reading<W: Write> {
    out: W,
    format: Format,
    left: u64,
    position: From,
    log_id: Option<u64>,
    /// Something came since the last look, a heartbeat at least.
    answered: bool,
}

enum Stop {
    Call(ClientError),
    Output(io::Error),
}

impl std::convert::From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

impl<W: Write> Reading<W> {
    /// Reads until the stream ends, or there are enough.
    fn read(&mut self, client: &Client, args: &Args) -> Result<(), Stop> {
        let (start, offset, start_time_us) = match self.position {
            From::Offset(offset) => (Start::START_OFFSET, offset, 0),
            From::Earliest => (Start::START_EARLIEST, 0, 0),
            From::Time(time_us) => (Start::START_TIME, 0, time_us),
            From::Latest => {
                // Now and not again: after a break the latest would be another one, and what came between be left out.
                let log = client.get_log(&args.log).map_err(Stop::Call)?;
                self.position = From::Offset(log.next_offset);
                self.log_id = self.log_id.or(Some(log.log_id));
                (Start::START_OFFSET, log.next_offset, 0)
            }
        };
        let request = ConsumeRequest {
            log: args.log.clone(),
            start: start.into(),
            offset,
            start_time_us,
            max_records: u32::try_from(self.left).unwrap_or(u32::MAX).min(RECORDS_MAX),
            stop_at_end: !args.follow,
            heartbeat_ms: if args.follow { HEARTBEAT_MS } else { 0 },
            log_id: self.log_id,
            ..ConsumeRequest::default()
        };
        for answer in client.consume_stream(&request, None).map_err(Stop::Call)? {
            let answer = answer.map_err(Stop::Call)?;
            self.answered = true;
            self.log_id = Some(answer.log_id);
            for record in &answer.records {
                encode::write(&mut self.out, self.format, record)?;
                self.position = From::Offset(record.offset + 1);
                self.left -= 1;
                if self.left == 0 {
                    return Ok(());
                }
            }
            if args.follow {
                self.out.flush()?;
            }
        }
        Ok(())
    }
}
