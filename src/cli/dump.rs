//! `seriatim log dump`: prints the records in the data directory of a stopped node.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use super::encode::{self, Format};
use super::exit::{Exit, Failure};
use super::output;
use super::subcommand::{Process, Subcommand};
use crate::pb::log::ConsumeResponse;
use crate::storage::disk::Disk;
use crate::storage::dump::dump;
use crate::storage::error::StorageError;
use crate::types::GroupId;

/// Print the records in a stopped node's data directory
///
/// The directory must be intact: at the first damage it fails with exit code 65 (`seriatim log verify` names all
/// damage), and at what a newer version wrote with 78. It changes nothing.
///
/// It prints the records that this node knows as committed, including those that a trim or retention has made
/// unreadable, as long as their file exists. After a crash, the node may not know that its last records are
/// committed; it prints their number on stderr.
///
/// With --format json, `seriatim produce --format json` appends the records to another log.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Data directory; no node may run on it
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR", default_value = "/var/lib/seriatim")]
    data_dir: PathBuf,
    /// Group of the log; `seriatim log verify` lists the groups of a directory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    group: u64,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Lines)]
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
    const EXAMPLES: &'static [&'static str] =
        &["seriatim log dump --data-dir /var/lib/seriatim --format json > copy.jsonl"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let dumped = dump(&Disk::real(), &args.data_dir, GroupId(args.group), |payload| {
        // The encoding of a payload is that of the field `records` of this message.
        let entry = crate::pb::parse::<ConsumeResponse>(payload).map_err(|e| Stop::Payload(e.to_string()))?;
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
            Ok(())
        }
        Err(Stop::Output(error)) => output::written(Err(error)),
        Err(Stop::Payload(what)) => {
            Err(Failure::new(Exit::BadData, format!("a stored record can't be decoded: {what}"), ""))
        }
        Err(Stop::Storage(error)) => {
            let exit = if error.is_damage() || error.is_unreadable() {
                Exit::BadData
            } else if error.is_config() || error.is_unusable_path() {
                Exit::BadConfig
            } else {
                Exit::Failed
            };
            let next = if exit == Exit::BadData { "`seriatim log verify` names all damage" } else { "" };
            Err(Failure::new(exit, error.to_string(), next))
        }
    }
}
