//! `seriatim log list`: the logs of the cluster.

use std::time::Duration;

use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::Failure;
use super::log_show::{deleted_text, listed_json, state, state_name};
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::client::{Client, ClientError};
use crate::pb::v1::{ListLogsRequest, LogInfo, LogState};

/// Print the logs of the cluster
///
/// It prints the logs to which the access policy grants you an action, in the order of their names; with a prefix, only
/// those whose name begins with it. `seriatim log info` prints the offsets of one log. With --deleted, it also prints
/// deleted logs, and how long they can be undeleted (`seriatim log undelete`).
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// How the names begin
    prefix: Option<String>,
    /// Also print deleted logs that are not purged yet
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for ListArgs {
    const NAME: &'static str = "list";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log list --certs certs",
        "seriatim log list --certs certs audit- -o json",
        "seriatim log list --certs certs --deleted",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let (_, logs) = self.connect.resolve()?.ask(|client| logs(client, prefix, self.deleted))?;
        let json = || json!({ "logs": logs.iter().map(listed_json).collect::<Vec<_>>() });
        let has_states = self.deleted || logs.iter().any(|log| state(log) == LogState::LOG_STATE_RESTORING);
        self.output.say(|| if has_states { table_with_states(&logs) } else { table(&logs) }, json)
    }
}

/// Returns all logs that the client may see and whose name begins with the prefix.
///
/// # Errors
/// The status of the server.
pub fn logs(client: &Client, prefix: &str, show_deleted: bool) -> Result<Vec<LogInfo>, ClientError> {
    // Set only if needed: an older node refuses a field that it does not know.
    let mut request = ListLogsRequest { prefix: prefix.to_owned(), show_deleted, ..ListLogsRequest::default() };
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
    let mut rows = vec![["LOG", "ID", "REPLICAS", "KEPT BY AGE", "KEPT BY SIZE"].map(str::to_owned)];
    rows.extend(logs.iter().map(row));
    output::columns(&rows)
}

/// Formats the logs with their settings and states.
fn table_with_states(logs: &[LogInfo]) -> String {
    let mut rows = vec![["LOG", "ID", "REPLICAS", "KEPT BY AGE", "KEPT BY SIZE", "STATE"].map(str::to_owned)];
    rows.extend(logs.iter().map(|log| {
        let [name, id, replicas, age, size] = row(log);
        let state = match state(log) {
            LogState::LOG_STATE_DELETED => deleted_text(log),
            LogState::LOG_STATE_UNSPECIFIED
            | LogState::LOG_STATE_CREATING
            | LogState::LOG_STATE_ACTIVE
            | LogState::LOG_STATE_RESTORING => state_name(log).to_owned(),
        };
        [name, id, replicas, age, size, state]
    }));
    output::columns(&rows)
}

fn row(log: &LogInfo) -> [String; 5] {
    let config = log.config.get_or_default();
    let age = match units::ms_of_duration(&config.retention_age) {
        0 => "for ever".to_owned(),
        ms => units::rough(Duration::from_millis(ms)),
    };
    let size = match config.min_retained_bytes.unwrap_or_default() {
        0 => "all".to_owned(),
        bytes => format!("at least {bytes} bytes"),
    };
    let replicas = config.replicas.map_or_else(|| "-".to_owned(), |replicas| replicas.to_string());
    [log.name.clone(), log.log_id.clone(), replicas, age, size]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1::LogConfig;

    fn log(name: &str, ms: u64, bytes: u64) -> LogInfo {
        let config = LogConfig {
            retention_age: Some(Duration::from_millis(ms).into()).into(),
            min_retained_bytes: Some(bytes),
            replicas: Some(3),
            ..LogConfig::default()
        };
        LogInfo {
            name: name.into(),
            log_id: "00000000000000ff".into(),
            config: Some(config).into(),
            state: LogState::LOG_STATE_ACTIVE.into(),
            ..LogInfo::default()
        }
    }

    #[test]
    fn lists_logs_with_their_retention() {
        assert_eq!(
            table(&[log("a", 0, 0), log("audit", 12 * 3_600_000, 7)]),
            "LOG    ID                REPLICAS  KEPT BY AGE  KEPT BY SIZE\n\
             a      00000000000000ff  3         for ever     all\n\
             audit  00000000000000ff  3         12 h         at least 7 bytes\n"
        );
        assert_eq!(listed_json(&log("a", 5, 0))["retention_ms"], 5);
    }

    #[test]
    fn lists_deleted_logs_with_their_ends() {
        let deleted = LogInfo { state: LogState::LOG_STATE_DELETED.into(), ..log("b", 0, 0) };
        let text = table_with_states(&[log("a", 0, 0), deleted]);
        assert!(text.lines().next().is_some_and(|line| line.ends_with("STATE")), "{text}");
        assert!(text.contains("all           active\n") && text.contains("all           deleted for good\n"), "{text}");
    }
}
