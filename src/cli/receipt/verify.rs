//! `seriatim log verify-receipt`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::file::{Receipt, read};
use super::proof::Proof;
use super::prove::TAMPERED;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, OutputArgs};
use crate::cli::subcommand::{Process, Subcommand};
use crate::security::tls::BadSignature;

/// Check receipts, or a proof, without the cluster
///
/// It checks that each receipt was signed by a node whose certificate the authority has issued. Of each line, only the
/// field `receipt` is read; what it says is printed. With --proof, it also checks that the record of the proof was in the
/// log of its receipt, and prints the record. The exit code is 65 if anything does not fit.
///
/// A certificate that has expired since it signed is accepted. So the key of a node can sign receipts with a wrong time:
/// protect the keys, and keep receipts in another place than the nodes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files of receipts (`seriatim log receipt`)
    #[arg(value_name = "FILE", required_unless_present = "proof")]
    receipts: Vec<PathBuf>,
    /// File with a proof (`seriatim log prove`)
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// CA of the cluster's peers (PEM)
    #[arg(long, value_name = "FILE")]
    peer_ca_file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "verify-receipt";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log verify-receipt --peer-ca-file certs/ca.pem receipts.jsonl",
        "seriatim log verify-receipt --peer-ca-file certs/ca.pem --proof proof-1200.json",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let (mut text, mut checked) = (String::new(), Vec::new());
        for file in &self.receipts {
            for receipt in read(file)? {
                check(&receipt, &self.peer_ca_file, file)?;
                text += &format!("good: {}\n", receipt.described());
                checked.push(receipt.to_json());
            }
        }
        let mut object = json!({ "receipts": checked });
        if let Some(file) = &self.proof {
            let proof = read_proof(file)?;
            check(&proof.receipt, &self.peer_ca_file, file)?;
            let record = proof
                .check()
                .map_err(|what| Failure::new(Exit::BadData, format!("{}: {what}", file.display()), TAMPERED))?;
            text += &format!(
                "good: record {} was in the log of this receipt: {}\n{}\n",
                proof.offset,
                proof.receipt.described(),
                output::printable(&String::from_utf8_lossy(&record.value))
            );
            object["proof"] = json!({
                "offset": proof.offset,
                "value": String::from_utf8_lossy(&record.value),
                "append_time_us": record.append_time_us,
                "receipt": proof.receipt.to_json(),
            });
        }
        self.output.say(|| text, || object)
    }
}

fn read_proof(file: &Path) -> Result<Proof, Failure> {
    let failed = |what: String| {
        Failure::new(Exit::Failed, format!("{}: {what}", file.display()), "`seriatim log prove` writes proofs")
    };
    let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let object: Value =
        serde_json::from_str(&text).map_err(|error| failed(format!("not a proof, or an incomplete one ({error})")))?;
    Proof::of_json(&object).map_err(failed)
}

/// Checks the signature of a receipt.
///
/// # Errors
/// If it is not accepted; `file` is the one that contains it.
pub fn check(receipt: &Receipt, ca_file: &Path, file: &Path) -> Result<(), Failure> {
    receipt.check(ca_file).map_err(|bad| {
        if let BadSignature::Authority(error) = bad {
            return Failure::new(Exit::Failed, format!("--peer-ca-file: {error}"), "give the ca.pem of the peers");
        }
        let next = match &bad {
            BadSignature::NotOfAuthority(_) => "--peer-ca-file is the authority that issued the peer certificates",
            _ => "compare the receipt with another copy of it, if there is one",
        };
        // The error repeats names of the receipt.
        let bad = output::printable(&bad.to_string());
        let message = format!("{}: the receipt of {}: {bad}", file.display(), receipt.described());
        Failure::new(Exit::BadData, message, next)
    })
}
