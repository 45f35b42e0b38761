//! `seriatim backup info` and `seriatim backup verify`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::files::{self, Backup, CheckedFile};
use crate::cli::exit::Failure;
use crate::cli::output::OutputArgs;
use crate::cli::progress;
use crate::cli::subcommand::{Process, Subcommand};
use crate::cli::units;
use crate::pb::backup::BackupHeader;

/// Print what a backup file contains, from its beginning
///
/// It prints the log, the offsets, when the file was created, and which file it continues. It reads only the header:
/// `seriatim backup verify` reads everything.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    /// A file that `seriatim backup create` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Check that backup files are complete, and that each continues the one before
///
/// It reads every byte, and needs no connection. The exit code is 65 if a file is cut or damaged.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// All files of a backup, in their order
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Show no progress bar
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for InfoArgs {
    const NAME: &'static str = "info";
    const EXAMPLES: &'static [&'static str] = &["seriatim backup info audit-1.backup"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let reader = files::open(&self.file)?;
        self.output.say(|| described(reader.header()), || to_json(reader.header()))
    }
}

impl Subcommand for VerifyArgs {
    const NAME: &'static str = "verify";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim backup verify audit-1.backup audit-2.backup", "seriatim backup verify -o json audit-1.backup"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let bar = progress::bar(Some(files::size(&self.files)), self.quiet);
        let checked = Backup::check(&self.files, &bar);
        bar.finish_and_clear();
        let backup = checked?;
        self.output.say(|| backup.files.iter().map(line).collect(), || json!({ "files": lines(&backup) }))
    }
}

fn line(file: &CheckedFile) -> String {
    let (header, records) = (&file.header, file.trailer.records);
    format!(
        "{}: complete; log {}, offsets {}..{} ({records} records)\n",
        file.path.display(),
        header.log.name,
        header.first_offset,
        header.end_offset
    )
}

fn lines(backup: &Backup) -> Vec<Value> {
    let object = |file: &CheckedFile| {
        let mut object = to_json(&file.header);
        object["file"] = json!(file.path.display().to_string());
        object["sha256"] = json!(units::hex(&file.trailer.sha256));
        object["bytes"] = json!(file.bytes);
        object
    };
    backup.files.iter().map(object).collect()
}

fn described(header: &BackupHeader) -> String {
    let (first, end) = (header.first_offset, header.end_offset);
    let continues = match &header.previous_sha256[..] {
        [] => String::new(),
        sha256 => format!("continues          the file with SHA-256 {}\n", units::hex(sha256)),
    };
    format!(
        "log                {} ({})\noffsets            {first}..{end} ({} records)\ncreated            {}\n\
         cluster            {} ({})\ncursors            {}\n{continues}",
        header.log.name,
        header.log.log_id,
        end.saturating_sub(first),
        units::show_moment(header.created_us),
        header.cluster_name,
        header.cluster_id,
        header.cursors.len(),
    )
}

fn to_json(header: &BackupHeader) -> Value {
    json!({
        "log": header.log.name,
        "log_id": header.log.log_id,
        "first_offset": header.first_offset,
        "end_offset": header.end_offset,
        "created_us": header.created_us,
        "cluster": header.cluster_name,
        "cluster_id": header.cluster_id,
        "server_version": header.server_version,
        "continues_sha256": match &header.previous_sha256[..] {
            [] => Value::Null,
            sha256 => json!(units::hex(sha256)),
        },
        "cursors": header.cursors.iter().map(|cursor| json!({
            "cursor": cursor.cursor, "next_offset": cursor.next_offset,
        })).collect::<Vec<_>>(),
    })
}
