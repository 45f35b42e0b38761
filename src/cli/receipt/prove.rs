//! `seriatim log prove`.

use std::path::PathBuf;

use super::file::{Link, Receipt, read};
use super::proof::Proof;
use crate::cli::connect::ConnectArgs;
use crate::cli::dialer::Dialer;
use crate::cli::exit::{Exit, Failure};
use crate::cli::log_name::LogArg;
use crate::cli::output;
use crate::cli::subcommand::{Process, Subcommand};
use crate::pb::v1::{ConsumeRequest, ReadChainRequest, ReadChainResponse};
use crate::storage::payload::{RecordFields, encode_record, stamp_records};
use crate::types::{Offset, Term};

/// Prove that a record was in a log when a receipt was signed
///
/// It reads the entry of the record and the hashes of all later entries up to that of the receipt, and computes whether they
/// lead to the receipt. If not, a record was changed, removed or moved since, and the exit code is 65. Without --receipt, a
/// node signs a new receipt of the last record, and the proof says that the record is in the log now.
///
/// It prints the proof as one JSON object, which contains the record and the receipt. `seriatim log verify-receipt` checks
/// it again, without the cluster. The log must have been created with --hash-chain. The command requires the action
/// `consume`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArg,
    /// Offset of the record
    #[arg(value_name = "OFFSET")]
    offset: u64,
    /// File with one receipt, of this record or of a later one
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "prove";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log prove --certs certs --log audit 1200 > proof-1200.json",
        "seriatim log prove --certs certs --log audit 1200 --receipt receipt.jsonl > proof-1200.json",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let receipt = self.receipt.as_deref().map(read).transpose()?;
        let receipt = match receipt.as_deref() {
            None => None,
            Some([receipt]) => Some(receipt.clone()),
            Some(many) => {
                let message = format!("the file of --receipt contains {} receipts, and one is needed", many.len());
                let next =
                    "copy one line to a file of its own: `tail -n 1 FILE > receipt.jsonl` selects the latest receipt";
                return Err(Failure::new(Exit::Usage, message, next));
            }
        };
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        let (_, info) = dialer.ask_until_served(|client| client.get_log(&log))?;
        if let Some(receipt) = &receipt {
            check_fits(receipt, &log, &info.log_id, self.offset)?;
            check_end(receipt, &log, info.position.as_ref().map(|position| position.next_offset))?;
        }
        let chain = Chain { dialer: &dialer, log: &log, log_id: &info.log_id };
        let end = match &receipt {
            Some(receipt) => receipt.link.end(),
            None => info.position.get_or_default().next_offset,
        };
        let (mut links, new_receipt) = chain.links(self.offset, end)?;
        if receipt.is_some() {
            // The last response may go on after the receipt.
            links.retain(|(link, ..)| link.offset < end);
        }
        let first = links.first().copied().ok_or_else(|| bad("the node has returned no entry"))?;
        let records = chain.records(first)?;
        let receipt = receipt.or(new_receipt).ok_or_else(|| bad("the node has returned no receipt"))?;
        check_fits(&receipt, &log, &info.log_id, self.offset)?;
        let proof =
            Proof { offset: self.offset, records, links: links.into_iter().map(|(link, ..)| link).collect(), receipt };
        proof.check().map_err(|what| Failure::new(Exit::BadData, format!("log {log}: {what}"), TAMPERED))?;
        output::say(&format!("{}\n", proof.to_json()))
    }
}

/// The next step after a failed proof.
pub const TAMPERED: &str = "keep a copy of the data directory of every node, and compare it with a backup from before";

fn bad(what: &str) -> Failure {
    Failure::new(Exit::Failed, what.to_owned(), "")
}

/// Fails if the receipt can't prove the record.
fn check_fits(receipt: &Receipt, log: &str, log_id: &str, offset: u64) -> Result<(), Failure> {
    let statement = &receipt.statement;
    if statement.log_id != log_id {
        let message = format!(
            "the receipt is of log {} with the id {}, and log {log} has the id {log_id}",
            output::printable(&statement.log),
            output::printable(&statement.log_id)
        );
        let next = "name the log of the receipt with --log; a log that was created again, restored or recovered since has \
                    another id, although its name is the same";
        return Err(Failure::new(Exit::Precondition, message, next));
    }
    if receipt.link.end() <= offset {
        let message = format!(
            "the receipt was signed before record {offset} was appended: its last record is {}",
            receipt.link.end().saturating_sub(1)
        );
        return Err(Failure::new(Exit::Precondition, message, "give a later receipt, or none"));
    }
    Ok(())
}

/// Fails if the log ends before the receipt. `next_offset` is the end of the log, which a majority has confirmed; `None` if
/// it is not known.
fn check_end(receipt: &Receipt, log: &str, next_offset: Option<u64>) -> Result<(), Failure> {
    let end = receipt.link.end();
    match next_offset.filter(|next_offset| *next_offset < end) {
        None => Ok(()),
        Some(next_offset) => {
            let message = format!(
                "log {log} ends before offset {next_offset}, and the receipt is of records up to {}: records were removed \
                 after the receipt was signed",
                end.saturating_sub(1)
            );
            Err(Failure::new(Exit::BadData, message, TAMPERED))
        }
    }
}

/// The hash chain of a log on the cluster.
struct Chain<'a> {
    dialer: &'a Dialer,
    log: &'a str,
    log_id: &'a str,
}

/// An entry, with the term and the append time of its records.
type Entry = (Link, u64, u64);

impl Chain<'_> {
    /// Returns the entries from that of `offset` on, at least up to `end`, and a receipt of the last one.
    fn links(&self, offset: u64, end: u64) -> Result<(Vec<Entry>, Option<Receipt>), Failure> {
        let (mut links, mut next, mut signed): (Vec<Entry>, u64, Option<Receipt>) = (Vec::new(), offset, None);
        while links.is_empty() || next < end {
            let response = self.read(next)?;
            if response.resume_offset <= next {
                return Err(bad("the node has returned no further entry"));
            }
            next = response.resume_offset;
            for message in &response.links {
                let link = Link::of(message)
                    .and_then(|link| link.check().map(|()| link))
                    .map_err(|what| Failure::new(Exit::BadData, format!("log {}: {what}", self.log), TAMPERED))?;
                links.push((link, message.term, message.append_time_us));
            }
            signed = response.receipt.into_option().map(Receipt::of).transpose().map_err(|what| bad(&what))?;
        }
        Ok((links, signed))
    }

    fn read(&self, offset: u64) -> Result<ReadChainResponse, Failure> {
        let request = ReadChainRequest {
            log: self.log.to_owned(),
            log_id: Some(self.log_id.to_owned()),
            offset,
            receipt: true,
            ..ReadChainRequest::default()
        };
        Ok(self.dialer.ask_until_served(|client| client.read_chain(&request))?.1)
    }

    /// Returns the records of an entry, in their stored form.
    fn records(&self, (link, term, append_time_us): Entry) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut next = link.offset;
        while next < link.end() {
            let request = ConsumeRequest {
                log: self.log.to_owned(),
                log_id: Some(self.log_id.to_owned()),
                offset: next,
                max_records: u32::try_from(link.end() - next).unwrap_or(u32::MAX),
                ..ConsumeRequest::default()
            };
            let (_, response) = self.dialer.ask_until_served(|client| client.consume(&request))?;
            if response.records.is_empty() {
                return Err(bad(&format!("record {next} is missing")));
            }
            for record in &response.records {
                let headers: Vec<(&str, &[u8])> =
                    record.headers.iter().map(|header| (header.name.as_str(), &header.value[..])).collect();
                let fields = RecordFields {
                    value: &record.value,
                    kind: record.type_,
                    key: record.key.as_deref(),
                    headers: &headers,
                    client_time_us: record.client_time_us,
                };
                encode_record(&mut bytes, &fields);
            }
            next += response.records.len() as u64;
        }
        stamp_records(&mut bytes, Offset(link.offset), Term(term), append_time_us)
            .map_err(|malformed| bad(malformed.0))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::receipt_of;
    use super::*;

    /// Once, the end of a log could be cut off, and the command said only that the offset is past the end.
    #[test]
    fn a_log_that_ends_before_the_receipt_was_changed() {
        let receipt = receipt_of("7", 3, 2);
        for end in [None, Some(5), Some(6)] {
            assert_eq!(check_end(&receipt, "audit", end), Ok(()));
        }
        let failure = check_end(&receipt, "audit", Some(4)).expect_err("shorter");
        assert_eq!(failure.exit, Exit::BadData);
        assert!(failure.message.contains("ends before offset 4, and the receipt is of records up to 4"), "{failure}");
    }
}
