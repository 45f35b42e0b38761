//! `seriatim backup restore`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use indicatif::ProgressBar;
use serde_json::json;

use super::files::{self, Backup};
use super::upload::{Target, upload};
use crate::cli::connect::ConnectArgs;
use crate::cli::dialer::Dialer;
use crate::cli::exit::{Exit, Failure};
use crate::cli::log_show::{described, state, state_name, to_json};
use crate::cli::output::{self, OutputArgs};
use crate::cli::progress;
use crate::cli::subcommand::{Process, Subcommand};
use crate::cli::units;
use crate::pb::v1::{CommitCursorRequest, CreateLogRequest, Cursor, LogInfo, LogState, Restore};
use crate::reason::ErrorReason;
use crate::types::LogId;

/// The pause before a new log is looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// Create a log from backup files, with the offsets and append times of its records
///
/// First, all files are checked. Then the log is created with the settings of the backup, and gets the records. Until it
/// has all of them it is RESTORING: no client can read it or append to it. If the command is interrupted, run it again
/// with the same files: it continues where it stopped. `seriatim log delete --purge` abandons the
/// restore.
///
/// The log gets a new id, unless --keep-log-id is given. The Raft terms of its records are new. It requires the actions
/// `admin` and `produce` on the log.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// All files of a backup, in their order
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Name of the new log. It must not exist, except from an interrupted restore [default: that in the backup]
    #[arg(long = "as", value_name = "LOG", value_parser = units::log_name)]
    name: Option<String>,
    /// Give it the id that the log had. Only if this cluster never had a log with that id
    #[arg(long)]
    keep_log_id: bool,
    /// Also restore the cursors of the log. Requires the action `commit`
    #[arg(long)]
    with_cursors: bool,
    /// Number of replicas, instead of that in the backup
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Show no progress bar
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for RestoreArgs {
    const NAME: &'static str = "restore";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim backup restore --certs certs audit-1.backup audit-2.backup --as audit-restored",
        "seriatim backup restore --certs certs audit-1.backup --keep-log-id --with-cursors",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        // Read twice: to check, and to send.
        let bar = progress::bar(Some(2 * files::size(&self.files)), self.quiet);
        let result = self.restore(&dialer, &bar);
        bar.finish_and_clear();
        let (log, backup, seconds) = result?;
        let text = || format!("restored {} records in {seconds:.1} s\n{}", backup.records(), described(&log));
        self.output.confirm(text, || json!({ "records": backup.records(), "log": to_json(&log) }));
        Ok(())
    }
}

impl RestoreArgs {
    fn restore(&self, dialer: &Dialer, bar: &ProgressBar) -> Result<(LogInfo, Backup, f64), Failure> {
        let backup = Backup::check(&self.files, bar)?;
        let begin = Instant::now();
        let of_backup = &backup.last().log.name;
        let name = self.name.as_ref().unwrap_or(of_backup);
        let restore = Restore {
            source_log_id: backup.first().log.log_id.clone(),
            first_offset: backup.first().first_offset,
            end_offset: backup.last().end_offset,
            digest: backup.digest().into(),
            ..Restore::default()
        };
        let mut log = self.begin(dialer, name, &backup, &restore)?;
        if state(&log) == LogState::LOG_STATE_RESTORING {
            let next_offset = log.position.next_offset;
            if next_offset > restore.first_offset {
                output::tell(&format!("seriatim: an interrupted restore continues at offset {next_offset}"));
            }
            upload(dialer, &Target::of(&log), &backup, bar)?;
            (_, log) = dialer.ask_until_served(|client| client.finish_restore(name, &log.log_id))?;
        }
        if self.with_cursors {
            for cursor in &backup.last().cursors {
                // A cursor that was committed after the last record of the backup was appended.
                let position = cursor.next_offset.min(restore.end_offset);
                restore_cursor(dialer, &log, cursor, position)?;
            }
        }
        Ok((log, backup, begin.elapsed().as_secs_f64()))
    }

    /// Creates the log, or finds the one of an interrupted restore.
    fn begin(&self, dialer: &Dialer, name: &str, backup: &Backup, restore: &Restore) -> Result<LogInfo, Failure> {
        let mut config = backup.last().log.own_config.get_or_default().clone();
        config.replicas = self.replicas.or(config.replicas);
        let random = LogId::random().map_err(|e| Failure::new(Exit::Failed, format!("no random number: {e}"), ""))?;
        let log_id = match self.keep_log_id {
            true => restore.source_log_id.clone(),
            false => random.to_string(),
        };
        let request = CreateLogRequest {
            log: name.to_owned(),
            config: Some(config).into(),
            log_id: Some(log_id),
            restore: Some(restore.clone()).into(),
            ..CreateLogRequest::default()
        };
        match dialer.ask_until_served(|client| client.create_log(&request)) {
            Ok(_) => self.present(dialer, name, restore),
            Err(unanswered) if unanswered.has_reason(ErrorReason::LogExists) => self.present(dialer, name, restore),
            Err(unanswered) => Err(unanswered.into()),
        }
    }

    /// Returns the log if it is or was restored from this backup.
    fn present(&self, dialer: &Dialer, name: &str, restore: &Restore) -> Result<LogInfo, Failure> {
        let begin = Instant::now();
        let log = loop {
            let (_, log) = dialer.ask_until_served(|client| client.get_log(name))?;
            if state(&log) != LogState::LOG_STATE_CREATING || begin.elapsed() > dialer.timeout {
                break log;
            }
            let _ = after(PAUSE).recv();
        };
        let is_same = log.restore.as_ref() == Some(restore);
        let has_id = !self.keep_log_id || log.log_id == restore.source_log_id;
        match state(&log) {
            LogState::LOG_STATE_RESTORING | LogState::LOG_STATE_ACTIVE if is_same && has_id => Ok(log),
            LogState::LOG_STATE_CREATING => Err(Failure::new(
                Exit::Unavailable,
                format!("log {name} has no leader yet"),
                "run the same command again: it continues where it stopped",
            )),
            LogState::LOG_STATE_RESTORING => Err(Failure::new(
                Exit::Precondition,
                format!("log {name} is being restored from another backup, or with another id"),
                "give the same files and options, or abandon that restore with `seriatim log delete --purge`",
            )),
            _ => Err(Failure::new(
                Exit::Precondition,
                format!("log {name} exists: it is {}", state_name(&log)),
                "--as LOG restores the backup under another name",
            )),
        }
    }
}

/// The reasons for which a cursor that exists already is not changed: a reader has acquired it, or it is further ahead.
const STAYS: [ErrorReason; 2] = [ErrorReason::CursorFenced, ErrorReason::CursorBehind];

/// Creates a cursor. One that is there already and is acquired or further ahead stays as it is: the log may be in use since
/// an earlier run of the command.
fn restore_cursor(dialer: &Dialer, log: &LogInfo, cursor: &Cursor, next_offset: u64) -> Result<(), Failure> {
    let commit = CommitCursorRequest {
        log: log.name.clone(),
        log_id: Some(log.log_id.clone()),
        cursor: cursor.cursor.clone(),
        next_offset,
        metadata: cursor.metadata.clone(),
        ..CommitCursorRequest::default()
    };
    match dialer.ask_until_served(|client| client.commit_cursor(&commit)) {
        Ok(_) => Ok(()),
        Err(unanswered) if STAYS.iter().any(|reason| unanswered.has_reason(*reason)) => {
            output::tell(&format!(
                "seriatim: cursor {} is not changed: a reader uses it, or it is further ahead",
                cursor.cursor
            ));
            Ok(())
        }
        Err(unanswered) => Err(unanswered.into()),
    }
}
