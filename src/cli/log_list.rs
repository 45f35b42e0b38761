//! `seriatim log list`: the logs of the cluster.

use std::time::Duration;

use serde_json::{Value, json};

use super::connect::ConnectArgs;
use super::exit::Failure;
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::client::{Client, ClientError};
use crate::pb::v1::{ListLogsRequest, LogInfo};

/// Print the logs of the cluster
///
/// It prints the logs to which the access policy grants you an action, in the order of their names; with a prefix,
/// only those whose name begins with it. `seriatim log info` prints the offsets of one log.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// How the names begin
    prefix: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for ListArgs {
    const NAME: &'static str = "list";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim log list --certs certs", "seriatim log list --certs certs audit- -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let (_, logs) = self.connect.resolve()?.ask(|client| logs(client, prefix))?;
        self.output.say(|| table(&logs), || json!({ "logs": logs.iter().map(to_json).collect::<Vec<_>>() }))
    }
}

/// Returns all logs that the client may see and whose name begins with the prefix.
///
/// # Errors
/// The status of the server.
pub fn logs(client: &Client, prefix: &str) -> Result<Vec<LogInfo>, ClientError> {
    let mut request = ListLogsRequest { prefix: prefix.to_owned(), ..ListLogsRequest::default() };
    let mut logs = Vec::new();
    loop {
        let page = client.list_logs(&request)?;
        logs.extend(page.logs);
        if page.next_page_token.is_empty() {
            return Ok(logs);
        }
        request.page_token = page.next_page_token;
    }
}

/// Formats the logs with their settings.
fn table(logs: &[LogInfo]) -> String {
    let mut rows = vec![["LOG", "ID", "KEPT BY AGE", "KEPT BY SIZE"].map(str::to_owned)];
    rows.extend(logs.iter().map(|log| {
        let config = log.config.get_or_default();
        let age = match units::ms_of_duration(&config.retention_age) {
            0 => "for ever".to_owned(),
            ms => units::rough(Duration::from_millis(ms)),
        };
        let size = match config.min_retained_bytes.unwrap_or_default() {
            0 => "all".to_owned(),
            bytes => format!("at least {bytes} bytes"),
        };
        [log.name.clone(), log.log_id.clone(), age, size]
    }));
    output::columns(&rows)
}

fn to_json(log: &LogInfo) -> Value {
    let config = log.config.get_or_default();
    json!({
        "log": log.name,
        "log_id": log.log_id,
        "max_record_bytes": config.max_record_bytes.unwrap_or_default(),
        "max_request_bytes": config.max_request_bytes.unwrap_or_default(),
        "min_retained_bytes": config.min_retained_bytes.unwrap_or_default(),
        "retention_ms": units::ms_of_duration(&config.retention_age),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1::LogConfig;

    #[test]
    fn lists_logs_with_their_retention() {
        let log = |name: &str, ms, bytes| LogInfo {
            name: name.into(),
            log_id: "00000000000000ff".into(),
            config: Some(LogConfig {
                retention_age: Some(std::time::Duration::from_millis(ms).into()).into(),
                min_retained_bytes: Some(bytes),
                ..LogConfig::default()
            })
            .into(),
            ..LogInfo::default()
        };
        assert_eq!(
            table(&[log("a", 0, 0), log("audit", 12 * 3_600_000, 7)]),
            "LOG    ID                KEPT BY AGE  KEPT BY SIZE\n\
             a      00000000000000ff  for ever     all\n\
             audit  00000000000000ff  12 h         at least 7 bytes\n"
        );
        assert_eq!(to_json(&log("a", 5, 0))["retention_ms"], 5);
    }
}
