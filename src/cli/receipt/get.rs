//! `seriatim log receipt`.

use super::file::Receipt;
use crate::cli::connect::ConnectArgs;
use crate::cli::exit::{Exit, Failure};
use crate::cli::log_name::LogOperand;
use crate::cli::output;
use crate::cli::subcommand::{Process, Subcommand};
use crate::pb::v1::ReadChainRequest;

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
        let position = info.position.unwrap_or_default();
        let last = position.next_offset.checked_sub(1).filter(|last| *last >= position.first_offset);
        let empty = || Failure::new(Exit::NotFound, format!("log {log} has no record"), "append one first");
        let request = ReadChainRequest {
            offset: self.offset.or(last).ok_or_else(empty)?,
            log,
            max_links: 1,
            log_id: Some(info.log_id),
            receipt: true,
            ..ReadChainRequest::default()
        };
        let (client, response) = dialer.ask_until_served(|client| client.read_chain(&request))?;
        let malformed = |what: String| {
            Failure::new(Exit::Failed, format!("{}: the receipt of the node is not usable: {what}", client.addr()), "")
        };
        let receipt = response.receipt.into_option().ok_or_else(|| malformed("it is missing".to_owned()))?;
        let receipt = Receipt::of(receipt).map_err(malformed)?;
        output::say(&format!("{}\n", receipt.to_json()))
    }
}
