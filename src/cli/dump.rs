//! `seriatim data dump`: prints the records in the data directory of a stopped node.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use super::encode::{self, Format};
use super::exit::{Exit, Failure};
use super::output;
use super::subcommand::{Process, Subcommand};
use super::verify::failure;
use crate::pb::v1::ConsumeResponse;
use crate::storage::disk::Disk;
use crate::storage::dump::{Dumped, dump, groups};
use crate::storage::error::StorageError;
use crate::storage::verify::Severity;
use crate::types::GroupId;

/// Print the records in a stopped node's data directory
///
/// It ends at the first damage, with exit code 65, and at what a newer version wrote, with 78; it prints the records
/// before that. With --skip-damage it also prints the records after it, and the files and records that are missing
/// (`seriatim data verify` names all damage). It changes nothing.
///
/// It prints the records that this node knows as committed, including those that a trim or retention has made
/// unreadable, as long as their file exists. After a crash, the node may not know that its last records are
/// committed; it prints their number on stderr.
///
/// With --output json, `seriatim produce --format json` appends the records to another log.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Data directory; no node may run on it
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR", default_value = "/var/lib/seriatim")]
    data_dir: PathBuf,
    /// Group of the log; `seriatim data verify` lists the groups of a directory
    #[arg(long, value_name = "N", default_value_t = 1)]
    group: u64,
    /// Continue after damage, also if the node does not start because of it
    #[arg(long)]
    skip_damage: bool,
    /// Output format
    #[arg(long = "output", short = 'o', alias = "format", value_enum, value_name = "FORMAT", default_value_t = Format::Lines)]
    format: Format,
}

enum Stop {
    Storage(StorageError),
    Output(io::Error),
    Payload(String),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Storage(error)
    }
}

impl Subcommand for Args {
    const NAME: &'static str = "dump";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim data dump --data-dir /var/lib/seriatim -o json > copy.jsonl",
        "seriatim data dump --data-dir /mnt/copy --skip-damage -o json > rest.jsonl",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let disk = Disk::real();
    let groups = groups(&disk, &args.data_dir).map_err(|error| failure(&error))?;
    check_group(args, &groups)?;
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let dumped = dump(&disk, &args.data_dir, GroupId(args.group), args.skip_damage, |frame| {
        // The encoding of the records is that of the field `records` of this message.
        let entry = crate::pb::parse::<ConsumeResponse>(frame.records()).map_err(|e| Stop::Payload(e.to_string()))?;
        let mut records = entry.records.iter();
        records.try_for_each(|record| encode::write(&mut out, args.format, record)).map_err(Stop::Output)
    });
    // All records before the error are complete.
    let flushed = out.flush();
    match dumped {
        Ok(dumped) => {
            output::written(flushed)?;
            if dumped.uncommitted > 0 {
                output::tell(&format!(
                    "seriatim: {} entries at the end are left out: this node does not know that they are committed",
                    dumped.uncommitted
                ));
            }
            left_out(args, &dumped)
        }
        Err(Stop::Output(error)) => output::written(Err(error)),
        Err(Stop::Payload(what)) => {
            Err(Failure::new(Exit::BadData, format!("a stored record can't be decoded: {what}"), ""))
        }
        Err(Stop::Storage(error)) => {
            let failure = failure(&error);
            let next = if failure.exit == Exit::BadData { SKIP } else { failure.next.as_str() };
            Err(Failure { next: next.to_owned(), ..failure })
        }
    }
}

/// The next step after damage.
const SKIP: &str = "--skip-damage prints all records that can be read; `seriatim data verify` names all damage";

/// Fails if the directory does not contain the group, or the group has no records of clients.
fn check_group(args: &Args, groups: &BTreeSet<GroupId>) -> Result<(), Failure> {
    let dir = args.data_dir.display();
    let name =
        |group: &GroupId| if *group == GroupId::CATALOG { format!("{group} (catalog)") } else { group.to_string() };
    let message = if groups.is_empty() {
        format!("{dir} is blank: no node has used it")
    } else if !groups.contains(&GroupId(args.group)) {
        let groups: Vec<String> = groups.iter().map(name).collect();
        format!("{dir} has no group {}; its groups are: {}", args.group, groups.join(", "))
    } else if GroupId(args.group) == GroupId::CATALOG {
        "group 0 is the catalog, which has no records of clients".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Failed, message, ""))
}

/// Fails if damage, or what another version wrote, was left out.
fn left_out(args: &Args, dumped: &Dumped) -> Result<(), Failure> {
    let Some(worst) = dumped.findings.iter().max_by_key(|finding| finding.severity) else { return Ok(()) };
    let ended = match dumped.next_offset {
        _ if args.skip_damage => String::new(),
        Some(next) => format!("; the dump ends before record {next}"),
        None => "; no record was printed".to_owned(),
    };
    let (exit, next) = match worst.severity {
        Severity::Format => (Exit::BadConfig, "read it with the version that wrote it"),
        Severity::Damage | Severity::Torn | Severity::Note if args.skip_damage => {
            (Exit::BadData, "the lines above name what is missing")
        }
        Severity::Damage | Severity::Torn | Severity::Note => (Exit::BadData, SKIP),
    };
    if args.skip_damage {
        for finding in &dumped.findings {
            output::tell(&format!("seriatim: {}: {finding}", finding.file.display()));
        }
        if dumped.more > 0 {
            output::tell(&format!("seriatim: ... and {} more", dumped.more));
        }
    }
    let is = if exit == Exit::BadData { "is damaged at" } else { "can't be read by this version:" };
    Err(Failure::new(exit, format!("{} {is} {worst}{ended}", worst.file.display()), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &std::path::Path, group: u64) -> Args {
        Args { data_dir: dir.to_owned(), group, skip_damage: false, format: Format::Lines }
    }

    /// An empty directory and an unknown group were reported as damage (exit code 65), with the advice to restore the
    /// node.
    #[test]
    fn a_blank_directory_and_an_unknown_group_are_not_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        let blank = run(&args(dir.path(), 1)).expect_err("blank");
        assert_eq!(blank.exit, Exit::Failed);
        assert!(blank.message.ends_with(" is blank: no node has used it"), "{blank}");
        let groups = BTreeSet::from([GroupId(0), GroupId(1)]);
        let refused = |group| check_group(&args(dir.path(), group), &groups).expect_err("refused");
        assert!(refused(7).message.ends_with(" has no group 7; its groups are: 0 (catalog), 1"), "{}", refused(7));
        assert!(refused(0).message.starts_with("group 0 is the catalog"), "{}", refused(0));
        check_group(&args(dir.path(), 1), &groups).expect("a group with records");
        std::fs::write(dir.path().join("other"), "").expect("written");
        let other = run(&args(dir.path(), 1)).expect_err("another directory");
        assert!(other.exit == Exit::BadConfig && other.next.contains("--data-dir"), "{other}");
        assert!(!other.message.contains("empty or a new directory"), "{other}");
        let missing = run(&args(&dir.path().join("none"), 1)).expect_err("no directory");
        assert!(missing.exit == Exit::Failed && missing.message.contains("No such file or directory"), "{missing}");
    }
}
