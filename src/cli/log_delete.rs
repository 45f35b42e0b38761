//! `seriatim log delete` and `undelete`.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::connect::ConnectArgs;
use super::dialer::Dialer;
use super::exit::{Exit, Failure};
use super::log_list::logs;
use super::log_show::{deleted_text, described, listed_json, state, to_json};
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::client::{Client, ClientError};
use crate::pb::v1::{Cluster, DeleteLogRequest, LogInfo, LogState};
use crate::reason::ErrorReason;

/// Delete a log, on every node
///
/// It requires the action `admin`. The records are unreadable at once. The log keeps its name and its disk space, and
/// can be undeleted (`seriatim log undelete`) for 7 days, or as long as the cluster is set to. Then it is purged, and
/// its records are gone for good. The command shows what is deleted and asks first. Without a terminal to ask on, it
/// does nothing unless --yes is given.
#[derive(Clone, Debug, clap::Args)]
pub struct DeleteArgs {
    /// Name of the log
    #[arg(value_name = "LOG", value_parser = units::log_name)]
    log_operand: String,
    /// Purge the log at once: its records are gone for good. Also for a log that is deleted already, to free its space
    #[arg(long, conflicts_with = "purge_after")]
    purge: bool,
    /// Purge the log after this time (12h, 7d)
    #[arg(long, value_name = "AGE", value_parser = units::milliseconds)]
    purge_after: Option<u64>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Bring a deleted log back, on every node
///
/// It requires the action `admin`. The log has the same id and the same records as before. A log can be undeleted until
/// it is purged: `seriatim log list --deleted` prints when.
#[derive(Clone, Debug, clap::Args)]
pub struct UndeleteArgs {
    /// Name of the log
    #[arg(value_name = "LOG", value_parser = units::log_name)]
    log_operand: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for DeleteArgs {
    const NAME: &'static str = "delete";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log delete --certs certs audit",
        "seriatim log delete --certs certs --purge-after 1d --yes audit",
        "seriatim log delete --certs certs --purge audit",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let ask = |client: &Client| Ok((log_of(client, &self.log_operand)?, client.get_cluster()?));
        let (_, (log, cluster)) = dialer.ask(ask)?;
        let purge_after_ms = if self.purge { Some(0) } else { self.purge_after };
        let is_deleted = state(&log) == LogState::LOG_STATE_DELETED;
        if is_deleted && purge_after_ms.is_none() {
            return self.output.say(|| result_text(&log), || result_json(&log));
        }
        if !self.yes {
            confirm(&log, &consequence(&log, purge_after_ms, &cluster))?;
        }
        let request = DeleteLogRequest {
            log: log.name.clone(),
            log_id: log.log_id.clone(),
            purge_after: purge_after_ms.map(|ms| Duration::from_millis(ms).into()).into(),
            ..DeleteLogRequest::default()
        };
        // `ask` may send the request to several nodes, which is safe because it is idempotent.
        let (_, mut deleted) = dialer.ask(|client| client.delete_log(&request))?;
        if purge_after_ms == Some(0) {
            // It may be purged a moment later.
            deleted.purge_time = None.into();
        }
        self.output.confirm(|| result_text(&deleted), || result_json(&deleted));
        Ok(())
    }
}

impl Subcommand for UndeleteArgs {
    const NAME: &'static str = "undelete";
    const EXAMPLES: &'static [&'static str] = &["seriatim log undelete --certs certs audit"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer: Dialer = self.connect.resolve()?;
        let (_, log) = dialer.ask(|client| client.get_log(&self.log_operand))?;
        if state(&log) != LogState::LOG_STATE_DELETED {
            return self.output.say(|| format!("not deleted\n{}", described(&log)), || to_json(&log));
        }
        // `ask` may send the request to several nodes, which is safe because it is idempotent.
        let (_, log) = dialer.ask(|client| client.undelete_log(&log.name, &log.log_id))?;
        self.output.confirm(|| format!("undeleted\n{}", described(&log)), || to_json(&log));
        Ok(())
    }
}

/// Returns the log. If none of its replicas answers, as the catalog has it: such a log can be deleted, too.
fn log_of(client: &Client, name: &str) -> Result<LogInfo, ClientError> {
    let error = match client.get_log(name) {
        Ok(log) => return Ok(log),
        Err(error) => error,
    };
    let reasons = [ErrorReason::ReplicaUnreachable, ErrorReason::NoLeader, ErrorReason::Joining];
    let is_out = error.status().is_some_and(|s| reasons.iter().any(|reason| s.reason == reason.code()));
    if !is_out {
        return Err(error);
    }
    logs(client, name, true)?.into_iter().find(|log| log.name == name).ok_or(error)
}

/// Returns what will become of the log.
fn consequence(log: &LogInfo, purge_after_ms: Option<u64>, cluster: &Cluster) -> String {
    let retention = &cluster.settings.get_or_default().deleted_log_retention;
    match purge_after_ms.unwrap_or_else(|| units::ms_of_duration(retention)) {
        0 => "Its records will be gone for good, at once. This can't be undone.".to_owned(),
        ms => format!(
            "It can be undeleted for {} (`seriatim log undelete {}`). Then its records will be gone for good.",
            units::rough(Duration::from_millis(ms)),
            log.name
        ),
    }
}

/// Shows what will be deleted, and asks.
///
/// # Errors
/// If the answer is not yes, or there is no terminal.
fn confirm(log: &LogInfo, consequence: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let message =
            format!("log {} is not deleted: standard input is not a terminal, so the command cannot ask", log.name);
        return Err(Failure::new(Exit::Usage, message, "give --yes to delete it without a question"));
    }
    output::tell(described(log).trim_end());
    output::tell(consequence);
    let mut prompt = io::stderr().lock();
    // If the prompt can't be written, the answer is read nevertheless.
    let _ = write!(prompt, "Delete log {}? [y/N] ", log.name).and_then(|()| prompt.flush());
    drop(prompt);
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match read.map(|_| is_yes(&answer)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Failure::new(Exit::Failed, format!("log {} is not deleted", log.name), "")),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Returns the command that undoes the deletion; `None` if nothing does.
fn undo(log: &LogInfo) -> Option<String> {
    log.purge_time.is_some().then(|| format!("seriatim log undelete {}", log.name))
}

fn result_text(log: &LogInfo) -> String {
    let undo = undo(log).map(|undo| format!("undo: {undo}\n")).unwrap_or_default();
    format!("log {} ({}) is {}\n{undo}", log.name, log.log_id, deleted_text(log))
}

fn result_json(log: &LogInfo) -> Value {
    let mut object = listed_json(log);
    object["undo"] = json!(undo(log));
    object
}

#[cfg(test)]
mod tests {
    use protobuf::well_known_types::timestamp::Timestamp;

    use super::*;

    #[test]
    fn a_deletion_names_its_consequence_and_the_command_that_undoes_it() {
        let mut log = LogInfo { name: "a".into(), log_id: "0f".into(), ..LogInfo::default() };
        assert_eq!(result_text(&log), "log a (0f) is deleted for good\n");
        assert_eq!(result_json(&log)["undo"], Value::Null);
        log.purge_time = Some(Timestamp { seconds: 951_827_415, ..Timestamp::default() }).into();
        assert_eq!(
            result_text(&log),
            "log a (0f) is deleted; can be undeleted until 2000-02-29T12:30:15.000000Z\nundo: seriatim log undelete a\n"
        );
        let cluster = Cluster::default();
        assert!(consequence(&log, None, &cluster).contains("can't be undone"), "the cluster keeps no deleted log");
        assert!(consequence(&log, Some(0), &cluster).contains("can't be undone"));
        let week = consequence(&log, Some(7 * 86_400_000), &cluster);
        assert!(week.starts_with("It can be undeleted for 7 days (`seriatim log undelete a`)"), "{week}");
    }

    #[test]
    fn only_a_yes_deletes() {
        assert!(["y\n", "YES", " yes \n"].iter().all(|answer| is_yes(answer)));
        assert!(["", "\n", "n", "no", "yeah", "a"].iter().all(|answer| !is_yes(answer)));
    }
}
