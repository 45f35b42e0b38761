//! `seriatim log info`, `configure` and `trim`: offsets and limits of a log, its retention, and the removal of old
//! records.

use std::fmt::Write as _;

use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::subcommand::{Process, Subcommand};
use super::{output, units};
use crate::pb::admin::{ConfigureLogRequest, LogSettings};
use crate::pb::log::GetLogResponse;

/// Print a log's id, offsets, timestamps, limits and retention
///
/// The offsets are those of the records that can be read. Stored bytes are those of the log's files on the node that
/// answers. Without the right to administer the log, its retention is left out.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    /// Name of the log
    #[arg(env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "LOG", default_value = "default")]
    log: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Change a log's retention and limits, on every node
///
/// It requires the action `admin`. Settings that are not given stay as they are; without any option it prints them. By default, a
/// log keeps all records. Retention by size removes the oldest files as long as at least the given bytes remain; retention by age
/// removes records, and a file once its last record is removed.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigureArgs {
    /// Name of the log
    #[arg(env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "LOG", default_value = "default")]
    log: String,
    /// Remove the oldest records while at least this many bytes remain (500MiB, 10GiB); `none` keeps all
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| units::or_none(text, units::bytes))]
    retention_bytes: Option<u64>,
    /// Remove records older than this (90s, 12h, 30d); `none` keeps all
    #[arg(long, value_name = "AGE", value_parser = |text: &str| units::or_none(text, units::milliseconds))]
    retention_age: Option<u64>,
    /// Largest record, in bytes of value, key and headers (1KiB to 4032KiB)
    #[arg(long, value_name = "BYTES", value_parser = small_bytes)]
    record_bytes_max: Option<u32>,
    /// Largest request: the bytes of all its records (record-bytes-max to 8128KiB)
    #[arg(long, value_name = "BYTES", value_parser = small_bytes)]
    request_bytes_max: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Remove old records permanently, on every node
///
/// It requires the action `admin`. The records become unreadable at once; a file is deleted when all of its records
/// are trimmed.
#[derive(Clone, Debug, clap::Args)]
pub struct TrimArgs {
    /// Name of the log
    #[arg(env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "LOG", default_value = "default")]
    log: String,
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

impl Subcommand for ConfigureArgs {
    const NAME: &'static str = "configure";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim log configure --certs certs --retention-age 30d --retention-bytes 10GiB default"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        configure(self)
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
    let (client, log) = args.connect.ask(|client| client.get_log(&args.log))?;
    let request = ConfigureLogRequest { log: args.log.clone(), ..ConfigureLogRequest::default() };
    // A client without the permission `admin` gets no settings, but the rest is still printed.
    let settings = client.configure_log(&request).ok();
    if args.json {
        return output::say(&format!("{}\n", to_json(&log, settings.as_ref())));
    }
    output::say(&described(&log, settings.as_ref()))
}

fn configure(args: &ConfigureArgs) -> Result<(), Failure> {
    let request = ConfigureLogRequest {
        log: args.log.clone(),
        retention_bytes: args.retention_bytes,
        retention_ms: args.retention_age,
        record_bytes_max: args.record_bytes_max,
        request_bytes_max: args.request_bytes_max,
        ..ConfigureLogRequest::default()
    };
    let unchanged = ConfigureLogRequest { log: args.log.clone(), ..ConfigureLogRequest::default() };
    let changes = request != unchanged;
    // `ask` may send the request to several nodes, which is safe because it is idempotent.
    let (_, settings) = args.connect.ask(|client| client.configure_log(&request))?;
    let text = format!("log {}\n{}", args.log, settings_text(&settings));
    if changes {
        output::confirm(&text);
        return Ok(());
    }
    output::say(&text)
}

fn trim(args: &TrimArgs) -> Result<(), Failure> {
    let offset = match args.before {
        Before::Offset(offset) => offset,
        Before::Latest => args.connect.ask(|client| client.get_log(&args.log))?.1.next_offset,
    };
    // `ask` may send the request to several nodes, which is safe because it is idempotent.
    let (_, trimmed) = args.connect.ask(|client| client.trim(&args.log, offset)).map_err(|unanswered| {
        let past_end = unanswered.statuses().any(|(_, status)| status.reason == "OFFSET_PAST_END");
        let failure = Failure::from(unanswered);
        if past_end { Failure { exit: Exit::BadData, ..failure } } else { failure }
    })?;
    output::confirm(&format!("log {} begins at offset {}\n", args.log, trimmed.first_offset));
    Ok(())
}

fn described(log: &GetLogResponse, settings: Option<&LogSettings>) -> String {
    let mut text = format!("log {} ({:016x})\n", log.log, log.log_id);
    let records = log.next_offset - log.first_offset;
    // Writing to a string can't fail.
    let _ = writeln!(text, "offsets            {}..{} ({records} records)", log.first_offset, log.next_offset);
    if records > 0 {
        let (first, last) = (units::show_moment(log.first_append_time_us), units::show_moment(log.last_append_time_us));
        let _ = writeln!(text, "appended           {first} to {last}");
    }
    let _ = writeln!(text, "stored             {} bytes on this node", log.stored_bytes);
    match settings {
        Some(settings) => text.push_str(&settings_text(settings)),
        None => {
            let _ = writeln!(text, "largest record     {} bytes", log.record_bytes_max);
            let _ = writeln!(text, "largest request    {} bytes", log.request_bytes_max);
        }
    }
    text
}

/// Returns the JSON object. Retention is null if the client lacks the permission `admin`, and timestamps are null if
/// the log is empty.
fn to_json(log: &GetLogResponse, settings: Option<&LogSettings>) -> serde_json::Value {
    let time = |time_us: u64| (log.next_offset > log.first_offset).then_some(time_us);
    json!({
        "log": log.log,
        "log_id": format!("{:016x}", log.log_id),
        "first_offset": log.first_offset,
        "next_offset": log.next_offset,
        "first_append_time_us": time(log.first_append_time_us),
        "last_append_time_us": time(log.last_append_time_us),
        "stored_bytes": log.stored_bytes,
        "record_bytes_max": log.record_bytes_max,
        "request_bytes_max": log.request_bytes_max,
        "retention_bytes": settings.map(|settings| settings.retention_bytes),
        "retention_ms": settings.map(|settings| settings.retention_ms),
    })
}

fn settings_text(settings: &LogSettings) -> String {
    let bytes = match settings.retention_bytes {
        0 => "all".to_owned(),
        bytes => format!("at least {bytes} bytes"),
    };
    let age = match settings.retention_ms {
        0 => "for ever".to_owned(),
        ms => format!("{} s", ms as f64 / 1000.0),
    };
    format!(
        "kept by size       {bytes}\nkept by age        {age}\nlargest record     {} bytes\nlargest request    {} bytes\n",
        settings.record_bytes_max, settings.request_bytes_max
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_a_log() {
        let log = GetLogResponse {
            log: "default".into(),
            log_id: 0xc0ffee,
            first_offset: 3,
            next_offset: 5,
            first_append_time_us: 951_827_415_250_000,
            last_append_time_us: 951_827_415_250_001,
            stored_bytes: 4096,
            ..GetLogResponse::default()
        };
        let settings = LogSettings { retention_ms: 1500, record_bytes_max: 1024, ..LogSettings::default() };
        assert_eq!(
            described(&log, Some(&settings)),
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
