//! `seriatim log dump`: the records of a stopped node's data directory.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use super::encode::{self, Format};
use super::exit::{Exit, Failure};
use super::output;
use crate::pb::log::ConsumeResponse;
use crate::storage::disk::Disk;
use crate::storage::dump::dump;
use crate::storage::error::StorageError;
use crate::types::GroupId;

/// Print the records in a stopped node's data directory, and change nothing
///
/// For a directory that is intact: at the first damage it ends with exit code 65 (`seriatim log verify` names all damage).
/// It prints what this node knows as committed, also records that a trim or retention has made unreadable, as long as their
/// file is there. After a crash, the node may not know that its last records are committed: that is said on stderr.
///
/// With --format json, `seriatim produce --format json` appends the records to another log.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data directory; no node may run on it
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR", default_value = "/var/lib/seriatim")]
    data_dir: PathBuf,
    /// The log's group; `seriatim log verify` lists the groups of a directory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    group: u64,
    /// How a record is written
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

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let dumped = dump(&Disk::real(), &args.data_dir, GroupId(args.group), |payload| {
        // A payload is the field `records` of this message.
        let entry = crate::pb::parse::<ConsumeResponse>(payload).map_err(|e| Stop::Payload(e.to_string()))?;
        let mut records = entry.records.iter();
        records.try_for_each(|record| encode::write(&mut out, args.format, record)).map_err(Stop::Output)
    });
    // The records before the damage are complete.
    let flushed = out.flush();
    match dumped {
        Ok(dumped) => {
            output::written(flushed)?;
            if dumped.uncommitted > 0 {
                output::tell(&format!(
                    "seriatim: {} entries at the end are left out: this node does not know them as committed",
                    dumped.uncommitted
                ));
            }
            Ok(())
        }
        Err(Stop::Output(error)) => output::written(Err(error)),
        Err(Stop::Payload(what)) => Err(Failure::new(Exit::BadData, format!("a stored record is none: {what}"), "")),
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
