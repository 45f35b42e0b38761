//! `seriatim log info`, `set` and `trim`: offsets and limits of a log, its retention, and the removal of old
//! records.

use std::fmt::Write as _;
use std::time::Duration;

use grpcio::RpcStatusCode;
use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::log_name::LogOperand;
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use super::units::{self, ms_of_duration};
use crate::pb::v1::{LogConfig, LogInfo, UpdateLogRequest};

/// Print a log's id, offsets, timestamps, limits and retention
///
/// The offsets are those of the records that can be read. Stored bytes are those of the log's files on the node that
/// answers.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    #[command(flatten)]
    log: LogOperand,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Change a log's retention and limits, on every node
///
/// It requires the action `admin`. Settings that are not given stay as they are; without any option it prints them. By default, a
/// log keeps all records. Retention by size removes the oldest files as long as at least the given bytes remain; retention by age
/// removes records, and a file once its last record is removed.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    log: LogOperand,
    #[command(flatten)]
    output: OutputArgs,
    /// Remove the oldest records while at least this many bytes remain (500MiB, 10GiB); `none` keeps all
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| units::or_none(text, units::bytes))]
    retention_bytes: Option<u64>,
    /// Remove records older than this (90s, 12h, 30d); `none` keeps all
    #[arg(long, value_name = "AGE", value_parser = |text: &str| units::or_none(text, units::milliseconds))]
    retention_age: Option<u64>,
    /// Largest record, in bytes of value, key and headers (1KiB to 4032KiB)
    #[arg(long, alias = "record-bytes-max", value_name = "BYTES", value_parser = small_bytes)]
    max_record_bytes: Option<u32>,
    /// Largest request: the bytes of all its records (max-record-bytes to 8128KiB)
    #[arg(long, alias = "request-bytes-max", value_name = "BYTES", value_parser = small_bytes)]
    max_request_bytes: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Remove old records permanently, on every node
///
/// It requires the action `admin`. The records become unreadable at once; a file is deleted when all of its records
/// are trimmed.
#[derive(Clone, Debug, clap::Args)]
pub struct TrimArgs {
    #[command(flatten)]
    log: LogOperand,
    #[command(flatten)]
    output: OutputArgs,
    /// Remove records below this offset; `latest` removes all records stored now
    #[arg(long, value_name = "OFFSET", value_parser = parse_before)]
    before: Before,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Offset(u64),
    Latest,
}

fn parse_before(text: &str) -> Result<Before, String> {
    match text {
        "latest" => Ok(Before::Latest),
        number => number.parse().map(Before::Offset).map_err(|_| "expected an offset, or `latest`".to_owned()),
    }
}

fn small_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(units::bytes(text)?).map_err(|_| "must be less than 4GiB".to_owned())
}

impl Subcommand for InfoArgs {
    const NAME: &'static str = "info";
    const EXAMPLES: &'static [&'static str] = &["seriatim log info --certs certs default"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        info(self)
    }
}

impl Subcommand for SetArgs {
    const NAME: &'static str = "set";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim log set --certs certs --retention-age 30d --retention-bytes 10GiB default"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        set(self)
    }
}

impl Subcommand for TrimArgs {
    const NAME: &'static str = "trim";
    const EXAMPLES: &'static [&'static str] = &["seriatim log trim --certs certs --before 1000 default"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        trim(self)
    }
}

fn info(args: &InfoArgs) -> Result<(), Failure> {
    let dialer = args.connect.resolve()?;
    let name = args.log.name(&dialer)?;
    let (_, log) = dialer.ask(|client| client.get_log(&name))?;
    args.output.say(|| described(&log), || to_json(&log))
}

fn set(args: &SetArgs) -> Result<(), Failure> {
    let dialer = args.connect.resolve()?;
    let name = args.log.name(&dialer)?;
    let config = LogConfig {
        retention_age: args.retention_age.map(|ms| Duration::from_millis(ms).into()).into(),
        min_retained_bytes: args.retention_bytes,
        max_record_bytes: args.max_record_bytes,
        max_request_bytes: args.max_request_bytes,
        ..LogConfig::default()
    };
    if config == LogConfig::default() {
        let (_, log) = dialer.ask(|client| client.get_log(&name))?;
        return args.output.say(|| settings_of(&log), || to_json(&log));
    }
    let request = UpdateLogRequest { log: name, config: Some(config).into(), ..UpdateLogRequest::default() };
    // `ask` may send the request to several nodes, which is safe because it is idempotent.
    let (_, log) = dialer.ask(|client| client.update_log(&request))?;
    args.output.confirm(|| settings_of(&log), || to_json(&log));
    Ok(())
}

fn trim(args: &TrimArgs) -> Result<(), Failure> {
    let dialer = args.connect.resolve()?;
    let log = args.log.name(&dialer)?;
    let offset = match args.before {
        Before::Offset(offset) => offset,
        Before::Latest => dialer.ask(|client| client.get_log(&log))?.1.position.get_or_default().next_offset,
    };
    // `ask` may send the request to several nodes, which is safe because it is idempotent.
    let (_, trimmed) = dialer.ask(|client| client.trim(&log, offset)).map_err(|unanswered| {
        let past_end = unanswered.statuses().any(|(_, status)| status.code == RpcStatusCode::OUT_OF_RANGE);
        let failure = Failure::from(unanswered);
        if past_end { Failure { exit: Exit::BadData, ..failure } } else { failure }
    })?;
    let (first, records) =
        (trimmed.log.get_or_default().position.get_or_default().first_offset, trimmed.trimmed_records);
    args.output.confirm(
        || format!("log {log} begins at offset {first}\n"),
        || json!({ "log": log, "first_offset": first, "trimmed_records": records }),
    );
    Ok(())
}

fn described(log: &LogInfo) -> String {
    let position = log.position.get_or_default();
    let mut text = format!("log {} ({})\n", log.name, log.log_id);
    let records = position.next_offset.saturating_sub(position.first_offset);
    // Writing to a string can't fail.
    let _ =
        writeln!(text, "offsets            {}..{} ({records} records)", position.first_offset, position.next_offset);
    if records > 0 {
        let (first, last) = (position.first_append_time_us, position.last_append_time_us);
        let _ = writeln!(text, "appended           {} to {}", units::show_moment(first), units::show_moment(last));
    }
    let _ = writeln!(text, "stored             {} bytes on this node", position.stored_bytes);
    text + settings_text(log.config.get_or_default()).as_str()
}

/// Returns the JSON object. Timestamps are null if the log is empty.
fn to_json(log: &LogInfo) -> serde_json::Value {
    let (position, config) = (log.position.get_or_default(), log.config.get_or_default());
    let time = |time_us: u64| (position.next_offset > position.first_offset).then_some(time_us);
    json!({
        "log": log.name,
        "log_id": log.log_id,
        "first_offset": position.first_offset,
        "next_offset": position.next_offset,
        "first_append_time_us": time(position.first_append_time_us),
        "last_append_time_us": time(position.last_append_time_us),
        "stored_bytes": position.stored_bytes,
        "max_record_bytes": config.max_record_bytes.unwrap_or_default(),
        "max_request_bytes": config.max_request_bytes.unwrap_or_default(),
        "min_retained_bytes": config.min_retained_bytes.unwrap_or_default(),
        "retention_ms": ms_of_duration(&config.retention_age),
    })
}

fn settings_of(log: &LogInfo) -> String {
    format!("log {}\n{}", log.name, settings_text(log.config.get_or_default()))
}

fn settings_text(config: &LogConfig) -> String {
    let bytes = match config.min_retained_bytes.unwrap_or_default() {
        0 => "all".to_owned(),
        bytes => format!("at least {bytes} bytes"),
    };
    let age = match ms_of_duration(&config.retention_age) {
        0 => "for ever".to_owned(),
        ms => format!("{} s", ms as f64 / 1000.0),
    };
    format!(
        "kept by size       {bytes}\nkept by age        {age}\nlargest record     {} bytes\nlargest request    {} bytes\n",
        config.max_record_bytes.unwrap_or_default(),
        config.max_request_bytes.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1::LogPosition;

    #[test]
    fn describes_a_log() {
        let position = LogPosition {
            first_offset: 3,
            next_offset: 5,
            first_append_time_us: 951_827_415_250_000,
            last_append_time_us: 951_827_415_250_001,
            stored_bytes: 4096,
            ..LogPosition::default()
        };
        let config = LogConfig {
            retention_age: Some(Duration::from_millis(1500).into()).into(),
            max_record_bytes: Some(1024),
            ..LogConfig::default()
        };
        let log = LogInfo {
            name: "default".into(),
            log_id: "0000000000c0ffee".into(),
            position: Some(position).into(),
            config: Some(config).into(),
            ..LogInfo::default()
        };
        assert_eq!(
            described(&log),
            "log default (0000000000c0ffee)\n\
             offsets            3..5 (2 records)\n\
             appended           2000-02-29T12:30:15.250000Z to 2000-02-29T12:30:15.250001Z\n\
             stored             4096 bytes on this node\n\
             kept by size       all\n\
             kept by age        1.5 s\n\
             largest record     1024 bytes\n\
             largest request    0 bytes\n"
        );
        assert_eq!((parse_before("latest"), parse_before("7")), (Ok(Before::Latest), Ok(Before::Offset(7))));
        assert!(parse_before("x").is_err());
    }
}
