//! `seriatim log info`, `configure`, `trim`: what is there of a log, how it is kept, and what goes.

use std::fmt::Write as _;

use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::{output, units};
use crate::pb::admin::{ConfigureLogRequest, LogSettings};
use crate::pb::log::GetLogResponse;

/// Show what is there of a log: its id, offsets, times and limits, and how long it is kept.
///
/// OFFSETS are those of the records that can be read. Bytes are those of the log's files on the node that answers.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    /// The log
    #[arg(env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "LOG", default_value = "default")]
    log: String,
    /// One JSON object with all of it, in place of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Change how a log is kept, on every node (needs the action `admin`).
///
/// What is not given stays as it is; without an option it says how the log is kept. A log that nobody configured keeps
/// everything. By size the oldest files go as long as at least so many bytes stay; by age records go, and a file with its
/// last one.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigureArgs {
    /// The log
    #[arg(env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "LOG", default_value = "default")]
    log: String,
    /// Let the oldest records go while at least so many bytes stay (500MiB, 10GiB); `none`: keep all
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| units::or_none(text, units::bytes))]
    retention_bytes: Option<u64>,
    /// Let records go that were appended longer ago (90s, 12h, 30d); `none`: keep them for ever
    #[arg(long, value_name = "AGE", value_parser = |text: &str| units::or_none(text, units::milliseconds))]
    retention_age: Option<u64>,
    /// The largest record, counted in bytes of value, key and headers (1KiB to 4032KiB)
    #[arg(long, value_name = "BYTES", value_parser = small_bytes)]
    record_bytes_max: Option<u32>,
    /// The largest request: the same of all its records (record-bytes-max to 8128KiB)
    #[arg(long, value_name = "BYTES", value_parser = small_bytes)]
    request_bytes_max: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Make old records unreadable, for good and on every node (needs the action `admin`).
///
/// Their files go once no record in them is left.
#[derive(Clone, Debug, clap::Args)]
pub struct TrimArgs {
    /// The log
    #[arg(env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "LOG", default_value = "default")]
    log: String,
    /// Records below this offset go; `latest`: all that are there now
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
        number => number.parse().map(Before::Offset).map_err(|_| "an offset, or `latest`".to_owned()),
    }
}

fn small_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(units::bytes(text)?).map_err(|_| "less than 4GiB".to_owned())
}

/// Runs `log info`.
///
/// # Errors
/// What [`Failure`] says.
pub fn info(args: &InfoArgs) -> Result<(), Failure> {
    let (client, log) = args.connect.ask(|client| client.get_log(&args.log))?;
    let request = ConfigureLogRequest { log: args.log.clone(), ..ConfigureLogRequest::default() };
    // Who may not administer the log sees the rest all the same.
    let settings = client.configure_log(&request).ok();
    if args.json {
        return output::say(&format!("{}\n", to_json(&log, settings.as_ref())));
    }
    output::say(&described(&log, settings.as_ref()))
}

/// Runs `log configure`.
///
/// # Errors
/// What [`Failure`] says.
pub fn configure(args: &ConfigureArgs) -> Result<(), Failure> {
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
    // What it sets is absolute: a second node that is asked to do it too changes nothing more.
    let (_, settings) = args.connect.ask(|client| client.configure_log(&request))?;
    let text = format!("log {}\n{}", args.log, kept(&settings));
    if changes {
        output::confirm(&text);
        return Ok(());
    }
    output::say(&text)
}

/// Runs `log trim`.
///
/// # Errors
/// What [`Failure`] says.
pub fn trim(args: &TrimArgs) -> Result<(), Failure> {
    let offset = match args.before {
        Before::Offset(offset) => offset,
        Before::Latest => args.connect.ask(|client| client.get_log(&args.log))?.1.next_offset,
    };
    // A second node that is asked to do it too changes nothing more.
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
    // Writing to a string does not fail.
    let _ = writeln!(text, "offsets            {}..{} ({records} records)", log.first_offset, log.next_offset);
    if records > 0 {
        let (first, last) = (units::show_moment(log.first_append_time_us), units::show_moment(log.last_append_time_us));
        let _ = writeln!(text, "appended           {first} to {last}");
    }
    let _ = writeln!(text, "stored             {} bytes on this node", log.stored_bytes);
    match settings {
        Some(settings) => text.push_str(&kept(settings)),
        None => {
            let _ = writeln!(text, "largest record     {} bytes", log.record_bytes_max);
            let _ = writeln!(text, "largest request    {} bytes", log.request_bytes_max);
        }
    }
    text
}

/// Retention is null if the caller may not administer the log. Times are null if there is no record.
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

fn kept(settings: &LogSettings) -> String {
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
    fn what_is_said_of_a_log() {
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
