//! `seriatim backup create`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::after;
use indicatif::ProgressBar;
use protobuf::Message as _;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde_json::json;

use super::files::{self, CheckedFile};
use super::format::BackupWriter;
use crate::cli::connect::ConnectArgs;
use crate::cli::dialer::{Dialer, cannot_serve};
use crate::cli::exit::{Exit, Failure};
use crate::cli::log_name::LogOperand;
use crate::cli::log_show::{state, state_name};
use crate::cli::output::OutputArgs;
use crate::cli::progress;
use crate::cli::subcommand::{Process, Subcommand};
use crate::client::{ClientError, Retry};
use crate::clock::wall_us;
use crate::pb::backup::{BackupHeader, BackupTrailer};
use crate::pb::v1::{ConsumeRequest, Cursor, LogInfo, LogState, Record, Start};
use crate::reason::ErrorReason;

/// The interval of signs of life while a stream is idle.
const HEARTBEAT_MS: u32 = 1000;
/// The pause before another node is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// Another node is asked if this one sends no record for this long. It may have lost the connection to the leader, and
/// never get the rest.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// The command fails if no record arrives for this long.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const RECORDS_MAX: u32 = 10_000;
const BUFFER_BYTES: usize = 1 << 20;

/// Write the records of a log into a file
///
/// The file contains the records that were acknowledged before the command began, and the log's settings and cursors. It
/// appears under its name once it is complete and synced. The log is used meanwhile as always.
///
/// With --continue, the file contains only the records after those of an earlier file. Restore needs all of them. The
/// catalog, access policies and certificates are not part of a backup; neither are producers. It requires the action
/// `consume`.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    log: LogOperand,
    /// The new file. It must not exist
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// The last file of an earlier backup of this log
    #[arg(long = "continue", value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Show no progress bar
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for CreateArgs {
    const NAME: &'static str = "create";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim backup create --certs certs audit -f audit-1.backup",
        "seriatim backup create --certs certs audit -f audit-2.backup --continue audit-1.backup",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        if fs::symlink_metadata(&self.file).is_ok() {
            return Err(exists(&self.file));
        }
        // Its name is only used at the end, and a directory can't be replaced by it.
        if self.file.as_os_str().as_encoded_bytes().ends_with(b"/") {
            let what = format!("{} is the name of a directory", self.file.display());
            return Err(Failure::new(Exit::Usage, what, "give the name of a file"));
        }
        let previous = self.previous.as_ref().map(|path| files::check(path, &ProgressBar::hidden())).transpose()?;
        let header = header(&dialer, &log, previous.as_ref())?;
        let (first, end) = (header.first_offset, header.end_offset);
        let bar = progress::bar(None, self.quiet);
        let result = write(&dialer, &self.file, &header, &bar);
        bar.finish_and_clear();
        let (bytes, trailer) = result?;
        let text = || {
            let records = trailer.records;
            format!("{}: log {log}, offsets {first}..{end} ({records} records), {bytes} bytes\n", self.file.display())
        };
        let json = || {
            json!({
                "file": self.file.display().to_string(), "log": log, "log_id": header.log.log_id,
                "first_offset": first, "end_offset": end, "records": trailer.records, "bytes": bytes,
            })
        };
        self.output.confirm(text, json);
        Ok(())
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(Exit::Precondition, format!("{} exists", path.display()), "choose another name, or remove it")
}

/// Asks for the log, and decides which records the file will contain.
fn header(dialer: &Dialer, log: &str, previous: Option<&CheckedFile>) -> Result<BackupHeader, Failure> {
    let created_us = wall_us();
    let (_, servers) = dialer.ask_until_served(|client| client.get_servers(""))?;
    let (_, cluster) = dialer.ask_until_served(|client| client.get_cluster())?;
    // Before the end is determined, so that no cursor is past it.
    let cursors = cursors(dialer, log)?;
    let (_, info) = dialer.ask_until_served(|client| client.get_log(log))?;
    let is_open = state(&info) == LogState::LOG_STATE_ACTIVE;
    let Some(position) = info.position.as_ref().filter(|_| is_open) else {
        let what = format!("log {log} can't be copied: it is {}", state_name(&info));
        return Err(Failure::new(Exit::Precondition, what, "`seriatim log info` shows its state"));
    };
    if let Some(before) = previous.filter(|before| before.header.cluster_id != cluster.cluster_id) {
        // A log that is restored there can have the same id, and then other records from some offset on.
        let what = format!("{} is from another cluster: {}", before.path.display(), before.header.cluster_id);
        return Err(Failure::new(Exit::Precondition, what, "make a full backup, without --continue"));
    }
    let (first_offset, previous_sha256) = match previous {
        None => (position.first_offset, Bytes::new()),
        Some(before) => (continue_at(before, &info)?, before.trailer.sha256.clone()),
    };
    Ok(BackupHeader {
        cluster_name: cluster.name,
        cluster_id: cluster.cluster_id,
        server_version: servers.version,
        created_us,
        first_offset,
        end_offset: position.next_offset,
        previous_sha256,
        cursors,
        log: Some(info).into(),
        ..BackupHeader::default()
    })
}

/// Returns the cursors of a log. A cluster of an older level has none.
fn cursors(dialer: &Dialer, log: &str) -> Result<Vec<Cursor>, Failure> {
    let listed = match dialer.ask_until_served(|client| client.list_cursors(log)) {
        Ok((_, cursors)) => cursors,
        Err(unanswered) if unanswered.has_reason(ErrorReason::FeatureLevelTooLow) => Vec::new(),
        Err(unanswered) => return Err(unanswered.into()),
    };
    let mut cursors = Vec::with_capacity(listed.len());
    for cursor in listed {
        // A list does not contain their metadata.
        match dialer.ask_until_served(|client| client.get_cursor(log, &cursor.cursor)) {
            Ok((_, cursor)) => cursors.push(cursor),
            // It was deleted meanwhile.
            Err(unanswered) if unanswered.has_reason(ErrorReason::NoSuchCursor) => {}
            Err(unanswered) => return Err(unanswered.into()),
        }
    }
    Ok(cursors)
}

/// Returns where a file that continues another one begins.
fn continue_at(before: &CheckedFile, info: &LogInfo) -> Result<u64, Failure> {
    let position = info.position.get_or_default();
    let (path, end) = (before.path.display(), before.header.end_offset);
    let full = "make a full backup, without --continue";
    let unfit = |what: String| Err(Failure::new(Exit::Precondition, what, full));
    if before.header.log.log_id != info.log_id {
        return unfit(format!(
            "{path} is from a log with another id: {}, not {}",
            before.header.log.log_id, info.log_id
        ));
    }
    if end < position.first_offset {
        let first = position.first_offset;
        return unfit(format!("{path} ends at offset {end}, and the records below {first} are already trimmed"));
    }
    if end > position.next_offset {
        let next = position.next_offset;
        return unfit(format!("{path} ends at offset {end}, and the log at {next}: records were lost"));
    }
    Ok(end)
}

/// Writes the file under another name, syncs it and renames it. Returns its size and its trailer.
fn write(
    dialer: &Dialer,
    path: &Path,
    header: &BackupHeader,
    bar: &ProgressBar,
) -> Result<(u64, BackupTrailer), Failure> {
    let failed = |error: std::io::Error| Failure::of_file(path, &error);
    let (partial, file) = Partial::create(path)?;
    let mut writer = BackupWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file), header).map_err(failed)?;
    read(dialer, header, |record| {
        bar.inc(record.compute_size());
        writer.add(record).map_err(failed)
    })?;
    let (mut out, trailer) = writer.finish().map_err(failed)?;
    out.flush().map_err(failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    let bytes = out.get_ref().metadata().map_err(failed)?.len();
    // A file that appeared meanwhile is not replaced, where the file system can tell.
    match renameat_with(CWD, partial.path(), CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(exists(path)),
        Err(_) => fs::rename(partial.path(), path).map_err(failed)?,
    }
    partial.renamed();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok((bytes, trailer))
}

/// The file until it is complete. It is removed if the command fails.
pub(super) struct Partial(Option<PathBuf>);

impl Partial {
    /// Creates it, or replaces that of a command that was killed. The lock shows whether one still writes it.
    pub(super) fn create(path: &Path) -> Result<(Partial, File), Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = path.with_file_name(name);
        let failed = |error: std::io::Error| Failure::of_file(&path, &error);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let is_locked = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(error) => return Err(failed(error.into())),
        };
        // The command that had the lock may have renamed the file since it was opened.
        let opened = file.metadata().map_err(failed)?;
        let is_there = |named: fs::Metadata| (named.dev(), named.ino()) == (opened.dev(), opened.ino());
        if !is_locked || !fs::symlink_metadata(&path).is_ok_and(is_there) {
            let what = format!("another command writes {}", path.display());
            return Err(Failure::new(Exit::Precondition, what, "choose another name, or wait"));
        }
        file.set_len(0).map_err(failed)?;
        Ok((Partial(Some(path)), file))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// It has its name.
    fn renamed(mut self) {
        self.0 = None;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Reads the records, from one node after the other if nodes fail.
fn read(
    dialer: &Dialer,
    header: &BackupHeader,
    mut take: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut next = header.first_offset;
    let mut last_addr: Option<String> = None;
    let mut heard = Instant::now();
    while next < header.end_offset {
        let client = dialer.connect_within(dialer.timeout, last_addr.as_deref())?;
        let request = ConsumeRequest {
            log: header.log.name.clone(),
            log_id: Some(header.log.log_id.clone()),
            offset: next,
            start: Start::START_OFFSET.into(),
            max_records: RECORDS_MAX,
            heartbeat_ms: HEARTBEAT_MS,
            ..ConsumeRequest::default()
        };
        let (mut failed, begun): (Option<ClientError>, _) = (None, Instant::now());
        match client.consume_stream(&request, None) {
            Err(error) => failed = Some(error),
            Ok(stream) => {
                for response in stream {
                    let response = match response {
                        Ok(response) => response,
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    };
                    if response.records.is_empty() && heard.max(begun).elapsed() > QUIET_MAX {
                        break;
                    }
                    for record in response.records {
                        if record.offset != next {
                            let what = format!("{} sent offset {} instead of {next}", client.addr(), record.offset);
                            return Err(Failure::new(Exit::Failed, what, "report this: it is a bug"));
                        }
                        take(record)?;
                        (next, heard) = (next + 1, Instant::now());
                        if next == header.end_offset {
                            return Ok(());
                        }
                    }
                }
            }
        }
        let is_silent = heard.elapsed() > SILENCE_MAX;
        match failed {
            Some(error) if is_silent || !continues(&error) => return Err(Failure::of_call(client.addr(), &error)),
            None if is_silent => {
                let seconds = SILENCE_MAX.as_secs();
                let what = format!("{}: no record at offset {next} for {seconds} seconds", client.addr());
                return Err(Failure::new(Exit::Unavailable, what, "`seriatim status` shows which nodes lag"));
            }
            Some(_) | None => {}
        }
        last_addr = Some(client.addr().to_owned());
        let _ = after(PAUSE).recv();
    }
    Ok(())
}

/// Returns true if the same read can succeed, perhaps at another node.
fn continues(error: &ClientError) -> bool {
    cannot_serve(error) || !error.is_answer() || matches!(error.retry(), Retry::Same | Retry::Elsewhere)
}
