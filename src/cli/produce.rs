//! `seriatim produce`: appends lines, or a whole file as one record, to a log.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError, bounded, select};
use indicatif::ProgressBar;
use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::lines::{Lines, Piece};
use super::log_limits::{Limits, limits};
use super::log_name::LogArg;
use super::output::{self, OutputArgs};
use super::pipeline::{Done, Failed, Pipeline, Session};
use super::producer::init_producer;
use super::record_shape::{RecordArgs, content_bytes, stored_bytes};
use super::subcommand::{Process, Subcommand};
use super::{interrupt, progress, units};
use crate::pb::v1::Record;
use crate::types::LogId;

/// Append lines, or one whole file, to a log
///
/// Each line becomes a record: the bytes before the newline (a carriage return included), possibly none. Bytes after
/// the last newline become a record too, so `consume` prints such a file with a newline at its end. With --format json,
/// each line is an object as `consume --format json` writes it, so that a log can be copied.
///
/// At a line that is not a valid record, or exceeds the log's limit for value, key and headers, it stops with exit code
/// 65, and only the lines before it are appended.
///
/// It survives the loss of the leader, and with several addresses also that of its own node: what was not acknowledged is
/// sent again for --timeout seconds, and appended once. If no node answers for that long, it prints which lines may or
/// may not be appended, and exits with code 3.
///
/// With --producer, the log remembers under that name how many records were appended. The same command again continues
/// with the line after them, whatever has ended the first one, and a second one at the same time stops the first. Use a
/// name for one input only. Without it, an interrupted input has to be continued by hand.
///
/// With --no-idempotence, what was not acknowledged is sent again only if it was certainly not appended.
///
/// With --output json, it prints what it has appended as one object, also if it failed after it had begun to send.
///
/// SIGINT (Ctrl-C) and SIGTERM end it after everything sent is acknowledged; it prints how much was appended. A
/// second signal ends it at once.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// File to read; standard input if it is missing or `-`
    pub file: Option<PathBuf>,
    #[command(flatten)]
    log: LogArg,
    /// Append the whole input as one record
    #[arg(long)]
    pub whole: bool,
    /// Append only if the first record gets this offset, and no other client appends in between
    #[arg(long, value_name = "OFFSET")]
    pub expected_offset: Option<u64>,
    /// Name under which the log remembers how much of the input was appended
    #[arg(long, value_name = "NAME", conflicts_with_all = ["whole", "no_idempotence", "expected_offset"])]
    pub producer: Option<String>,
    /// Send without a producer: a record may be appended twice if it is sent again by hand
    #[arg(long)]
    pub no_idempotence: bool,
    /// Append only if the log has this id (see `seriatim log info`): a log that was created again has another id
    #[arg(long, value_name = "ID", value_parser = units::log_id)]
    pub log_id: Option<LogId>,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Print nothing on success, and show no progress bar
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "produce";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim produce --certs certs events.txt",
        "seriatim produce --certs certs --addr n1:8400,n2:8400,n3:8400 --key-separator : < pairs.txt",
        "seriatim produce --certs certs --producer import-7 events.txt",
        "seriatim produce --certs certs --format json < copy.jsonl",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    args.records.check(args.whole).map_err(|e| Failure::new(Exit::BadConfig, e, "leave one out"))?;
    let (input, bytes) = open(args.file.as_deref())?;
    let dialer = args.connect.resolve()?;
    let log = args.log.name(&dialer)?;
    let (client, limits) = limits(&dialer, &log)?;
    let log_id = args.log_id.map(|id| id.to_string()).or_else(|| limits.log_id.clone());
    let producer = match args.no_idempotence {
        true => None,
        false => init_producer(args.producer.as_deref(), &dialer, &log, log_id.clone())?,
    };
    let before = producer.as_ref().map_or(0, |producer| producer.records);
    let mut pipeline = Pipeline::new(client, &dialer, &log, log_id);
    pipeline.expect_offset(args.expected_offset);
    pipeline.use_producer(producer.map(|producer| Session {
        id: producer.producer_id,
        epoch: producer.epoch,
        last_sequence: producer.last_sequence,
    }));
    let begin = Instant::now();
    let bar = progress::bar(bytes, args.quiet);
    let interrupted = interrupt::receiver();
    let end = if args.whole {
        produce_whole(input, &limits, &args.records, &mut pipeline, &interrupted)
    } else {
        produce_lines(input, before, &limits, &args.records, &mut pipeline, &bar, &interrupted)
    };
    bar.finish_and_clear();
    let done = pipeline.done();
    if args.output.is_json() {
        output::confirm(&format!("{}\n", result_json(&log, done, &end)));
    }
    match end {
        Ok(()) => {
            if !args.quiet {
                let earlier = if before > 0 { format!("; {before} were appended before") } else { String::new() };
                output::tell(&format!("{} in {:.1} s{earlier}", appended(&log, done), begin.elapsed().as_secs_f64()));
            }
            Ok(())
        }
        Err(end) => Err(explain(end, args, (&log, before), pipeline.addr(), done)),
    }
}

/// Returns what is known of the records, also after a failure.
fn result_json(log: &str, done: Done, end: &Result<(), End>) -> serde_json::Value {
    let offset = |offset: u64| (done.records > 0).then_some(offset);
    let unknown = if let Err(End::Failed(failed)) = end { failed.unknown_records } else { 0 };
    json!({
        "log": log,
        "records": done.records,
        "first_offset": offset(done.first_offset),
        "next_offset": offset(done.next_offset),
        "unknown_records": unknown,
    })
}

/// Why not all input was appended.
enum End {
    Input(io::Error),
    Interrupted,
    TooLong {
        record_bytes_max: usize,
    },
    Invalid {
        what: String,
    },
    /// The input has so many lines less than the producer has appended.
    Shorter {
        missing: u64,
    },
    Failed(Failed),
}

impl From<Failed> for End {
    fn from(failed: Failed) -> End {
        End::Failed(failed)
    }
}

/// Sends the lines after the first `skipped` ones, which were appended before.
fn produce_lines(
    input: Box<dyn Read + Send>,
    mut skipped: u64,
    limits: &Limits,
    shape: &RecordArgs,
    pipeline: &mut Pipeline<'_>,
    bar: &ProgressBar,
    interrupted: &Receiver<()>,
) -> Result<(), End> {
    let pieces = read_ahead(input, shape.line_bytes_max(limits.record_bytes));
    loop {
        if interrupted.try_recv().is_ok() {
            pipeline.finish()?;
            return Err(End::Interrupted);
        }
        let piece = if pipeline.is_settled() {
            select! {
                recv(interrupted) -> _ => return Err(End::Interrupted),
                recv(pieces) -> piece => piece.map_err(|_| TryRecvError::Disconnected),
            }
        } else {
            pieces.try_recv()
        };
        match piece {
            Ok(Ok(Piece::Lines(mut lines))) => {
                let before = usize::try_from(skipped).unwrap_or(usize::MAX).min(lines.len());
                lines.drain(..before);
                skipped -= before as u64;
                send_lines(lines, limits, shape, pipeline, bar)?;
            }
            Ok(Ok(Piece::TooLong)) => {
                pipeline.finish()?;
                return Err(End::TooLong { record_bytes_max: limits.record_bytes });
            }
            Ok(Err(error)) => {
                pipeline.finish()?;
                return Err(End::Input(error));
            }
            // While no input is available, responses are read, so that a failure is noticed before the next line.
            Err(TryRecvError::Empty) => pipeline.settle_one()?,
            Ok(Ok(Piece::End)) | Err(TryRecvError::Disconnected) if skipped > 0 => {
                return Err(End::Shorter { missing: skipped });
            }
            Ok(Ok(Piece::End)) | Err(TryRecvError::Disconnected) => {
                while !pipeline.is_settled() {
                    pipeline.settle_one()?;
                    bar.set_position(pipeline.done().bytes);
                }
                return Ok(pipeline.finish()?);
            }
        }
        bar.set_position(pipeline.done().bytes);
    }
}

/// Reads the input on a separate thread. The thread is not joined, because it may block on a terminal until the
/// process ends.
fn read_ahead<R: Read + Send + 'static>(input: R, line_bytes_max: usize) -> Receiver<io::Result<Piece>> {
    // Holds four pieces of up to 256 KiB. While it is full, the reader waits.
    let (sender, receiver) = bounded(4);
    let mut lines = Lines::new(input, line_bytes_max);
    let body = move || {
        loop {
            let piece = lines.next();
            let last = !matches!(piece, Ok(Piece::Lines(_)));
            if sender.send(piece).is_err() || last {
                return;
            }
        }
    };
    // The closed channel would look like the end of the input, so the error is sent on another one.
    if let Err(error) = std::thread::Builder::new().name("input".into()).spawn(body) {
        let (sender, receiver) = bounded(1);
        let _ = sender.send(Err(error));
        return receiver;
    }
    receiver
}

fn send_lines(
    lines: Vec<bytes::Bytes>,
    limits: &Limits,
    shape: &RecordArgs,
    pipeline: &mut Pipeline<'_>,
    bar: &ProgressBar,
) -> Result<(), End> {
    let (mut records, mut bytes, mut input_bytes) = (Vec::new(), 0, 0);
    let mut end = Ok(());
    for line in lines {
        let line_bytes = line.len() + 1;
        let record = match checked(shape, line, limits) {
            Ok(record) => record,
            Err(error) => {
                end = Err(error);
                break;
            }
        };
        let more = stored_bytes(&record);
        if !records.is_empty() && bytes + more > limits.request_bytes {
            pipeline.send(std::mem::take(&mut records), input_bytes)?;
            bar.set_position(pipeline.done().bytes);
            (bytes, input_bytes) = (0, 0);
        }
        bytes += more;
        input_bytes += line_bytes;
        records.push(record);
    }
    if !records.is_empty() {
        pipeline.send(records, input_bytes)?;
    }
    if end.is_err() {
        pipeline.finish()?;
    }
    end
}

fn checked(shape: &RecordArgs, line: bytes::Bytes, limits: &Limits) -> Result<Record, End> {
    let record = shape.record(line).map_err(|what| End::Invalid { what })?;
    if content_bytes(&record) > limits.record_bytes {
        return Err(End::TooLong { record_bytes_max: limits.record_bytes });
    }
    Ok(record)
}

fn produce_whole(
    input: Box<dyn Read + Send>,
    limits: &Limits,
    shape: &RecordArgs,
    pipeline: &mut Pipeline<'_>,
    interrupted: &Receiver<()>,
) -> Result<(), End> {
    let (sender, read) = bounded(1);
    let bytes_max = limits.record_bytes as u64 + 1;
    let body = move || {
        let mut value = Vec::new();
        let result = input.take(bytes_max).read_to_end(&mut value);
        // After a signal, nothing receives it.
        let _ = sender.send(result.map(|_| value));
    };
    std::thread::Builder::new().name("input".into()).spawn(body).map_err(End::Input)?;
    let value = select! {
        recv(interrupted) -> _ => return Err(End::Interrupted),
        recv(read) -> value => value.unwrap_or_else(|_| Err(io::Error::other("the reader panicked"))),
    };
    let value = value.map_err(End::Input)?;
    let bytes = value.len();
    pipeline.send(vec![checked(shape, value.into(), limits)?], bytes)?;
    Ok(pipeline.finish()?)
}

fn open(file: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        return Ok((Box::new(io::stdin()), None));
    };
    let bad = |e: io::Error| Failure::new(Exit::Failed, format!("{}: {e}; nothing appended", path.display()), "");
    let file = File::open(path).map_err(bad)?;
    let metadata = file.metadata().map_err(bad)?;
    if metadata.is_dir() {
        return Err(bad(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

fn appended(log: &str, done: Done) -> String {
    match done.records {
        0 => format!("nothing appended to log {log}"),
        1 => format!("1 record appended to log {log} at offset {}", done.first_offset),
        n => {
            let others = if done.next_offset - done.first_offset == n {
                ""
            } else {
                ", with records of other clients in between"
            };
            format!(
                "{n} records appended to log {log} at offsets {} to {}{others}",
                done.first_offset,
                done.next_offset - 1
            )
        }
    }
}

/// Explains why not all input was appended. `before` lines were appended by earlier runs.
fn explain(end: End, args: &Args, (log, before): (&str, u64), addr: &str, done: Done) -> Failure {
    let known = appended(log, done);
    let line = before + done.records + 1;
    let what = if args.whole { "the input".to_owned() } else { format!("line {line}") };
    match end {
        End::Input(error) => Failure::new(Exit::Failed, format!("can't read the input: {error}; {known}"), ""),
        End::Interrupted => {
            let next = format!("continue with {}", rest(args, line));
            Failure::new(Exit::Interrupted, format!("interrupted; {known}, nothing else"), next)
        }
        End::TooLong { record_bytes_max } => Failure::new(
            Exit::BadData,
            format!("{what} exceeds record_bytes_max ({record_bytes_max} bytes) of log {log}; {known}"),
            if args.whole {
                "split it into smaller files, or append its lines".to_owned()
            } else {
                after_line(args, line)
            },
        ),
        End::Invalid { what: wrong } => Failure::new(
            Exit::BadData,
            format!("{what} is not a valid record: {wrong}; {known}"),
            after_line(args, line),
        ),
        End::Shorter { missing } => Failure::new(
            Exit::BadData,
            format!(
                "the input has {} lines, and the producer has appended {before}: it is another input",
                before - missing
            ),
            "give each input a producer of its own",
        ),
        End::Failed(failed) => {
            let call = Failure::of_call(addr, &failed.error);
            if failed.unknown_records == 0 {
                let next = format!("{}{}", call.next, resume(args, line));
                let else_nothing = if done.records == 0 { "" } else { ", nothing else" };
                // The outcome of all records is known. A status with an unknown outcome is that of a request which
                // appends nothing.
                let exit = if call.exit == Exit::OutcomeUnknown { Exit::Unavailable } else { call.exit };
                return Failure::new(exit, format!("{}; {known}{else_nothing}", call.message), next);
            }
            let unknown = match (args.whole, failed.unknown_records) {
                (true, _) => "the record".to_owned(),
                (false, n) => format!("lines {line} to {}", line + n - 1),
            };
            let from =
                if done.records == 0 { "the log's end".to_owned() } else { format!("offset {}", done.next_offset) };
            Failure::new(
                Exit::OutcomeUnknown,
                format!("{}; {known}; {unknown} may be appended or not", call.message),
                match &args.producer {
                    Some(_) => format!("run {}", rest(args, line)),
                    None => format!("read the log from {from} with `seriatim consume` before you send {unknown} again"),
                },
            )
        }
    }
}

fn after_line(args: &Args, line: u64) -> String {
    if args.producer.is_some() {
        return "correct that line, and run the same command again".to_owned();
    }
    format!("continue after that line with {}", rest(args, line + 1))
}

/// Returns the command that appends the input from this line on.
fn rest(args: &Args, line: u64) -> String {
    match &args.file {
        _ if args.producer.is_some() => "the same command: it begins where this one has stopped".to_owned(),
        Some(file) if file != Path::new("-") => format!("`tail -n +{line} {} | seriatim produce`", file.display()),
        // Of a pipe, only its writer knows the rest.
        Some(_) | None => format!("`tail -n +{line} FILE | seriatim produce`, if the input was a file"),
    }
}

fn resume(args: &Args, line: u64) -> String {
    if args.whole || line == 1 { String::new() } else { format!("; continue with {}", rest(args, line)) }
}
