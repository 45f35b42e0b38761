//! `seriatim log receipt`.

use super::file::Receipt;
use crate::cli::connect::ConnectArgs;
use crate::cli::exit::{Exit, Failure};
use crate::cli::log_name::LogOperand;
use crate::cli::log_show::state;
use crate::cli::output;
use crate::cli::subcommand::{Process, Subcommand};
use crate::pb::v1::{LogState, ReadChainRequest};

/// Print a receipt of the records of a log
///
/// A node signs that a record, and every record before it, is in the log with its present content. Keep the receipt in
/// another place than the cluster: with it, `seriatim log prove` and `seriatim data verify --receipts` find any later change
/// of these records, even if all checksums and hashes were computed again. One receipt of the last record covers all
/// records.
///
/// The log must have been created with --hash-chain. The command requires the action `consume`, and prints one line of
/// JSON.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogOperand,
    /// Offset of a record [default: the last one]
    #[arg(long, value_name = "OFFSET")]
    offset: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "receipt";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log receipt --certs certs audit >> receipts.jsonl",
        "seriatim log receipt --certs certs audit --offset 1200 > receipt-1200.jsonl",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        let (_, info) = dialer.ask_until_served(|client| client.get_log(&log))?;
        let position = info.position.get_or_default();
        let last = position.next_offset.checked_sub(1).filter(|last| *last >= position.first_offset);
        let empty = || {
            let (what, next) = match (state(&info), position.next_offset) {
                (LogState::LOG_STATE_DELETED, _) => {
                    ("is deleted", "`seriatim log undelete` restores it while its records are not purged".to_owned())
                }
                (_, 0) => ("has no record yet", "append one first".to_owned()),
                (_, end) => (
                    "contains no record any more",
                    format!("all records before offset {end} are trimmed; append one first"),
                ),
            };
            Failure::new(Exit::NotFound, format!("log {log} {what}"), next)
        };
        let offset = self.offset.or(last).ok_or_else(empty)?;
        let request = ReadChainRequest {
            offset,
            log,
            max_links: 1,
            log_id: Some(info.log_id.clone()),
            receipt: true,
            ..ReadChainRequest::default()
        };
        let (client, response) = dialer.ask_until_served(|client| client.read_chain(&request))?;
        let malformed = |what: String| {
            Failure::new(Exit::Failed, format!("{}: the receipt of the node is not usable: {what}", client.addr()), "")
        };
        let receipt = response.receipt.into_option().ok_or_else(|| malformed("it is missing".to_owned()))?;
        let receipt = Receipt::of(receipt).map_err(malformed)?;
        check_is_of(&receipt, &info.log_id, offset).map_err(malformed)?;
        output::say(&format!("{}\n", receipt.to_json()))
    }
}

/// Checks that a receipt is of the record that was asked for. A node that returns an earlier one could change what follows.
fn check_is_of(receipt: &Receipt, log_id: &str, offset: u64) -> Result<(), String> {
    if receipt.statement.log_id != log_id || !(receipt.link.offset..receipt.link.end()).contains(&offset) {
        let described = receipt.described();
        return Err(format!("it is not of record {offset} of the log with the id {log_id}: {described}"));
    }
    receipt.link.check()
}

#[cfg(test)]
mod tests {
    use super::super::tests::receipt_of;
    use super::*;

    /// Once, a node could return the same old receipt again and again.
    #[test]
    fn a_receipt_of_other_records_is_not_usable() {
        let receipt = receipt_of("7", 3, 2);
        assert_eq!((check_is_of(&receipt, "7", 3), check_is_of(&receipt, "7", 4)), (Ok(()), Ok(())));
        for (log_id, offset) in [("7", 2), ("7", 5), ("8", 3)] {
            let why = check_is_of(&receipt, log_id, offset).expect_err("another one");
            assert!(why.contains(&format!("it is not of record {offset} of the log with the id {log_id}")), "{why}");
        }
    }
}
