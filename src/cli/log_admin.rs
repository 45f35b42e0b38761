//! `seriatim log info`, `set` and `trim`: offsets and limits of a log, its retention, and the removal of old
//! records.

use grpcio::RpcStatusCode;
use protobuf::well_known_types::field_mask::FieldMask;
use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::log_name::LogOperand;
use super::log_settings::{Setting, SettingsArgs};
use super::log_show::{described, settings_of, to_json};
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use crate::pb::v1::UpdateLogRequest;

/// Print a log's id, state, offsets, timestamps and settings
///
/// The offsets are those of the records that can be read. Stored bytes are those of the log's files on the node that
/// answers. A deleted log is printed with the time until which it can be undeleted.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    #[command(flatten)]
    log: LogOperand,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Change a log's retention, limits and labels, on every node
///
/// It requires the action `admin`. Settings that are not given stay as they are; without any option it prints them. By
/// default, a log keeps all records. Retention by size removes the oldest files as long as at least the given bytes
/// remain; retention by age removes records, and a file once its last record is removed. A setting that was never
/// given, or is given back with --default, follows the cluster's default (`seriatim cluster set`).
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    log: LogOperand,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Let a setting follow the cluster's default again, or remove a label (`label.NAME`) or all of them (`labels`);
    /// can be repeated
    #[arg(long = "default", value_name = "SETTING", value_parser = default_path)]
    defaults: Vec<String>,
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

/// Returns the path of a setting in a request.
fn default_path(name: &str) -> Result<String, String> {
    match name.strip_prefix("label.") {
        Some("") => Err("expected label.NAME".to_owned()),
        Some(label) => Ok(format!("labels.{label}")),
        None if name == "labels" => Ok(name.to_owned()),
        None => Setting::named(name)
            .map(|setting| setting.field.to_owned())
            .map_err(|e| format!("{e}, labels or label.NAME")),
    }
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
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log set --certs certs --retention-age 30d --retention-bytes 10GiB default",
        "seriatim log set --certs certs --label team=billing --default retention-age audit",
    ];

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
    let paths: Vec<String> = args.settings.paths().into_iter().chain(args.defaults.iter().cloned()).collect();
    if paths.is_empty() {
        let (_, log) = dialer.ask(|client| client.get_log(&name))?;
        return args.output.say(|| settings_of(&log), || to_json(&log));
    }
    let request = UpdateLogRequest {
        log: name,
        config: Some(args.settings.config()).into(),
        update_mask: Some(FieldMask { paths, ..FieldMask::default() }).into(),
        ..UpdateLogRequest::default()
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trim_ends_at_an_offset_or_at_the_end() {
        assert_eq!((parse_before("latest"), parse_before("7")), (Ok(Before::Latest), Ok(Before::Offset(7))));
        assert!(parse_before("x").is_err());
    }

    #[test]
    fn settings_and_labels_return_to_their_defaults_by_name() {
        assert_eq!(default_path("retention-age"), Ok("retention_age".to_owned()));
        assert_eq!(default_path("retention-bytes"), Ok("min_retained_bytes".to_owned()));
        assert_eq!(default_path("labels"), Ok("labels".to_owned()));
        assert_eq!(default_path("label.team"), Ok("labels.team".to_owned()));
        assert!(default_path("x").is_err() && default_path("label.").is_err());
    }
}
