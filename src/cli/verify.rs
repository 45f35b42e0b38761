//! `seriatim data verify`: checks the data directory of a stopped node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::receipt::{Compared, Receipt, TAMPERED, check_receipt, compare, read_receipts};
use super::subcommand::{Process, Subcommand};
use crate::catalog::LogMeta;
use crate::lost_quorum::survey::catalog_of;
use crate::pb::v1::ReceiptStatement;
use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::verify::{Finding, GroupReport, Report, Severity, Unreadable, verify};
use crate::types::GroupId;

/// The next steps after damage. The order matters: the directory must be copied first.
const AFTER_DAMAGE: &str = "keep a copy of the directory and check the disk. If a majority of the log's replicas is intact: \
                            move the directory away, start the node again, and run `seriatim node replace NODE`. If this is \
                            the only copy: a sealed segment (any but the newest) can be replaced by a copy of it from \
                            this directory. Restore no other file, because its copy may be older (node.toml, the \
                            manifest, the newest segment). `seriatim data dump --skip-damage` prints what is left";

/// Check every byte of a stopped node's data directory
///
/// It reads node.toml and, for every log on the node, the manifest, all segments frame by frame, and the index files,
/// by the same rules as a start of the node. It changes nothing.
///
/// It prints one line per finding. DAMAGE: the file, the damaged bytes, and the entries and records that can't be read
/// because of it, as far as the rest of the directory shows them. FORMAT: written by another version, and not checked.
/// torn: the end of a file, not known to be synced; the next start cuts it off. note: harmless, for example an index
/// file that is rebuilt.
///
/// With --receipts, it also compares a log that has a hash chain with receipts from before (`seriatim log receipt`), and
/// finds records that were changed, removed or moved since, even if all checksums and hashes were computed again.
///
/// The exit code is 65 if anything is damaged or does not fit a receipt, otherwise 78 if another version wrote a file or a part of one.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Data directory; no node may run on it
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR", default_value = "/var/lib/seriatim")]
    data_dir: PathBuf,
    /// File of receipts; can be repeated
    #[arg(long, value_name = "FILE", requires = "peer_ca_file")]
    receipts: Vec<PathBuf>,
    /// CA of the cluster's peers (PEM), which must have issued the certificates of the receipts
    #[arg(long, value_name = "FILE", requires = "receipts")]
    peer_ca_file: Option<PathBuf>,
    /// Group of the log to compare with the receipts [default: the one that the catalog names]
    #[arg(long, value_name = "N", requires = "receipts")]
    group: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "verify";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim data verify --data-dir /var/lib/seriatim", "seriatim data verify --data-dir /mnt/copy -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let receipts = receipts_of(args)?;
    let report = verify(&Disk::real(), &args.data_dir).map_err(|error| failure(&error))?;
    let compared = compare_all(args, &report, receipts)?;
    let text = args.output.format(
        || to_text(&report, &compared),
        || {
            let mut object = to_json(&report);
            object["receipts"] = compared.to_json();
            object
        },
    );
    // The exit code reports the findings even if writing to standard output fails.
    let written = output::say(&text);
    match report.worst() {
        Some(Severity::Damage) => {
            let places = match findings(&report, Severity::Damage).count() as u64 + report.more {
                1 => "1 place".to_owned(),
                places => format!("{places} places"),
            };
            let message = format!("{} is damaged in {places}; nothing was changed", args.data_dir.display());
            Err(Failure::new(Exit::BadData, message, AFTER_DAMAGE))
        }
        Some(Severity::Format | Severity::Torn | Severity::Note) | None if compared.not_good() > 0 => {
            let (dir, bad) = (args.data_dir.display(), compared.not_good());
            let receipts = if bad == 1 { "a receipt".to_owned() } else { format!("{bad} receipts") };
            let message = format!("{dir} does not confirm {receipts}; nothing was changed");
            let next = if compared.is_changed() { TAMPERED } else { "verify the directories of the other nodes, too" };
            Err(Failure::new(Exit::BadData, message, next))
        }
        Some(Severity::Format) => {
            let first = findings(&report, Severity::Format).next();
            let message = first.map(|f| format!("{} has {}", f.file.display(), f.what)).unwrap_or_default();
            Err(Failure::new(Exit::BadConfig, message, "what this version can read was checked: no damage"))
        }
        Some(Severity::Torn | Severity::Note) | None => written,
    }
}

/// Reads the receipts, and checks their signatures.
fn receipts_of(args: &Args) -> Result<Vec<Receipt>, Failure> {
    let mut receipts = Vec::new();
    for file in &args.receipts {
        for receipt in read_receipts(file)? {
            if let Some(ca_file) = &args.peer_ca_file {
                check_receipt(&receipt, ca_file, file)?;
            }
            receipts.push(receipt);
        }
    }
    Ok(receipts)
}

/// Compares each receipt with the log of which it was signed.
fn compare_all(args: &Args, report: &Report, receipts: Vec<Receipt>) -> Result<Compared, Failure> {
    let mut compared = Compared::default();
    if receipts.is_empty() {
        return Ok(compared);
    }
    let disk = Disk::real();
    let mut by_group: BTreeMap<(GroupId, Option<String>), Vec<Receipt>> = BTreeMap::new();
    let mut unknown = Vec::new();
    let catalog = match args.group {
        Some(_) => None,
        None => Some(catalog_of(&disk, &args.data_dir).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("the logs of the node are not known: {error}"),
                "give the group with --group",
            )
        })?),
    };
    for receipt in receipts {
        let log = |meta: &&LogMeta| meta.log_id.to_string() == receipt.statement.log_id;
        let meta = catalog.as_ref().and_then(|catalog| catalog.logs().find(log));
        match args.group.map(GroupId).or(meta.map(|meta| meta.group)) {
            Some(group) => by_group
                .entry((group, meta.and_then(|meta| doubt(meta, &receipt.statement))))
                .or_default()
                .push(receipt),
            None => unknown.push(receipt),
        }
    }
    for ((group, doubt), receipts) in by_group {
        let Some(found) = report.groups.iter().find(|found| found.group == group) else {
            let what =
                format!("because this node has no replica of group {group}: verify the directory of another node");
            compared.extend(Compared::unconfirmed(&receipts, &what));
            continue;
        };
        let one = compare(&disk, &args.data_dir, found, &receipts).map_err(|error| failure(&error))?;
        compared.extend(match doubt {
            Some(doubt) => one.doubted(&doubt),
            None => one,
        });
    }
    compared.extend(Compared::unconfirmed(&unknown, "because the node knows no log with the id of the receipt"));
    Ok(compared)
}

/// Returns why clients do not read the records of a receipt, although the log is stored.
fn doubt(meta: &LogMeta, receipt: &ReceiptStatement) -> Option<String> {
    if meta.deletion.is_some() {
        return Some("because the log is deleted: no client can read it".to_owned());
    }
    let other = meta.name.as_str() != receipt.log;
    other.then(|| format!("because the log is called {} now, and logs are never renamed", meta.name))
}

fn findings(report: &Report, severity: Severity) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(move |finding| finding.severity == severity)
}

/// Converts an error that prevents `data verify` and `data dump` from reading a directory.
pub(super) fn failure(error: &StorageError) -> Failure {
    if let StorageError::ForeignDirectory { path, found } = error {
        let message = format!("{} is not a data directory of seriatim: {found}", path.display());
        return Failure::new(Exit::BadConfig, message, "set --data-dir to the data directory of a node");
    }
    let exit = match (error.is_damage() || error.is_unreadable(), error.is_config() || error.is_unusable_path()) {
        (true, _) => Exit::BadData,
        (false, true) => Exit::BadConfig,
        (false, false) => Exit::Failed,
    };
    Failure::new(exit, error.to_string(), "")
}

fn to_text(report: &Report, compared: &Compared) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = match &report.node {
        Some(node) => {
            let cluster =
                node.cluster_id.map_or_else(|| "not in a cluster yet".to_owned(), |id| format!("of cluster {id}"));
            writeln!(text, "{}: node {} ({}) {cluster}", report.data_dir.display(), node.node_name, node.node_id)
        }
        None if report.groups.is_empty() && report.findings.is_empty() => {
            writeln!(text, "{}: blank, nothing to check", report.data_dir.display())
        }
        None => writeln!(text, "{}: node.toml can't be read", report.data_dir.display()),
    };
    for group in &report.groups {
        let _ = writeln!(text, "{}", line(group));
    }
    for severity in [Severity::Damage, Severity::Format, Severity::Torn, Severity::Note] {
        for finding in findings(report, severity) {
            let _ = writeln!(text, "{:6} {} {finding}", word(severity), short(report, &finding.file));
        }
    }
    if report.more > 0 {
        let _ = writeln!(text, "... and {} more", report.more);
    }
    text += &compared.text();
    let _ = match report.worst() {
        _ if compared.not_good() > 0 => Ok(()),
        Some(Severity::Damage | Severity::Format) => Ok(()),
        Some(Severity::Torn | Severity::Note) => {
            writeln!(text, "no damage: the next start repairs the findings above")
        }
        None => writeln!(text, "clean"),
    };
    text
}

fn line(group: &GroupReport) -> String {
    let name = if group.group.0 == 0 { "catalog" } else { "log" };
    let next = group.next_offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
    let count = |n: u64, one: &str, several: &str| format!("{n} {}", if n == 1 { one } else { several });
    format!(
        "group {} ({name}): records {}..{next}, {} up to {}, {}, {} bytes of log, {} bytes of files",
        group.group,
        group.first_offset,
        count(group.entries, "entry", "entries"),
        group.last_index,
        count(group.segments, "segment", "segments"),
        group.log_bytes,
        group.file_bytes
    )
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "DAMAGE",
        Severity::Format => "FORMAT",
        Severity::Torn => "torn",
        Severity::Note => "note",
    }
}

/// Returns the path of a file relative to the data directory.
fn short(report: &Report, file: &Path) -> String {
    file.strip_prefix(&report.data_dir).unwrap_or(file).display().to_string()
}

fn to_json(report: &Report) -> serde_json::Value {
    let group = |group: &GroupReport| {
        json!({
            "group": group.group.0,
            "first_offset": group.first_offset.0,
            "next_offset": group.next_offset.map(|offset| offset.0),
            "last_index": group.last_index.0,
            "entries": group.entries,
            "segments": group.segments,
            "log_bytes": group.log_bytes,
            "file_bytes": group.file_bytes,
            "torn_bytes": group.torn_bytes,
        })
    };
    let unreadable = |unreadable: &Unreadable| {
        json!({
            "first_index": unreadable.first_index.0,
            "next_index": unreadable.next_index.0,
            "first_offset": unreadable.first_offset.0,
            "next_offset": unreadable.next_offset.0,
            "and_more": unreadable.and_more,
        })
    };
    let finding = |finding: &Finding| {
        json!({
            "severity": word(finding.severity).to_lowercase(),
            "file": short(report, &finding.file),
            "position": finding.position,
            "end": finding.end,
            "what": finding.what,
            "unreadable": finding.unreadable.as_ref().map(unreadable),
        })
    };
    json!({
        "data_dir": report.data_dir.display().to_string(),
        "node_id": report.node.as_ref().map(|node| node.node_id.to_string()),
        "node_name": report.node.as_ref().map(|node| node.node_name.to_string()),
        "cluster_id": report.node.as_ref().and_then(|node| node.cluster_id).map(|id| id.to_string()),
        "damaged": report.worst() == Some(Severity::Damage),
        "groups": report.groups.iter().map(group).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "more_findings": report.more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::LogSettings;
    use crate::catalog::meta::Deletion;
    use crate::storage::log::{Genesis, GroupLog, LogOptions};
    use crate::storage::node::{DataDir, NodeFile};
    use crate::types::{ClusterId, LogName, NodeId, NodeName};

    fn args(dir: &Path) -> Args {
        let data_dir = dir.to_owned();
        Args { data_dir, receipts: Vec::new(), peer_ca_file: None, group: None, output: OutputArgs::default() }
    }

    #[test]
    fn reports_as_text_and_as_json() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::real();
        let blank = verify(&disk, dir.path()).expect("a report");
        assert!(
            to_text(&blank, &Compared::default()).ends_with(": blank, nothing to check\nclean\n"),
            "{}",
            to_text(&blank, &Compared::default())
        );
        let data = DataDir::open(&disk, dir.path()).expect("a data directory");
        let genesis = Genesis::founder(crate::types::ReplicaId(5));
        GroupLog::create(&disk, &data.groups_dir(), GroupId(0), &LogOptions::default(), genesis).expect("a group");
        let node = NodeFile::new(NodeId(5), NodeName::new("n1").expect("a name")).with_group(GroupId(0));
        data.store(&NodeFile { cluster_id: Some(ClusterId(6)), ..node }).expect("stored");
        let args = args(dir.path());
        let refused = run(&args).expect_err("in use");
        assert!(refused.exit == Exit::BadConfig && refused.message.contains("in use"), "{refused}");
        drop(data);
        run(&args).expect("clean");
        let report = verify(&disk, dir.path()).expect("a report");
        let text = to_text(&report, &Compared::default());
        assert!(text.contains("node n1 (0000000000000005) of cluster 0000000000000006\n"), "{text}");
        assert!(
            text.contains("group 0 (catalog): records 0..0, 0 entries up to 1, 1 segment, 0 bytes of log, "),
            "{text}"
        );
        assert!(text.ends_with("clean\n"), "{text}");

        let segment = dir.path().join("groups/0/00000000000000000001.seg");
        let mut bytes = std::fs::read(&segment).expect("a segment");
        bytes[40] ^= 1;
        std::fs::write(&segment, bytes).expect("written");
        let failed = run(&args).expect_err("damaged");
        assert!(failed.exit == Exit::BadData && failed.message.contains("damaged in 1 place;"), "{failed}");
        let json = to_json(&verify(&disk, dir.path()).expect("a report"));
        assert_eq!(json["damaged"], true);
        assert_eq!(json["findings"][0]["file"], "groups/0/00000000000000000001.seg");
        assert_eq!(json["findings"][0]["severity"], "damage");
        assert_eq!((&json["findings"][0]["position"], &json["findings"][0]["end"]), (&json!(0), &json!(128)));
        assert_eq!(json["findings"][0]["unreadable"]["first_index"], 2);
    }

    /// Once, a receipt of a deleted log was called good, although another log of the same name was served.
    #[test]
    fn a_receipt_of_a_log_that_no_client_reads_is_not_good() {
        let statement = |log: &str| crate::pb::v1::ReceiptStatement { log: log.to_owned(), ..Default::default() };
        let name = LogName::new("audit").expect("a name");
        let meta = LogMeta {
            name,
            group: GroupId(2),
            log_id: crate::types::LogId(7),
            first: Vec::new(),
            replicas: Vec::new(),
            leaving: Vec::new(),
            settings: LogSettings::default(),
            revision: 1,
            created_us: 0,
            deletion: None,
            restore: None,
        };
        assert_eq!(doubt(&meta, &statement("audit")), None);
        assert!(doubt(&meta, &statement("other")).is_some_and(|doubt| doubt.contains("is called audit now")));
        let deletion = Some(Deletion { deleted_us: 1, purge_us: 2 });
        let deleted = LogMeta { deletion, ..meta };
        assert!(doubt(&deleted, &statement("audit")).is_some_and(|doubt| doubt.contains("is deleted")));
    }

    /// A file with a newer format leads to exit code 78, and is not reported as damage.
    #[test]
    fn names_a_file_of_a_newer_format() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("node.toml"), "format = 3\nnew = 1\n").expect("written");
        let args = args(dir.path());
        let refused = run(&args).expect_err("newer");
        assert_eq!(refused.exit, Exit::BadConfig);
        let end = "node.toml has format 3, newer than what this version of seriatim reads (format 2): start the newer version";
        assert!(refused.message.ends_with(end), "{refused}");
    }
}
