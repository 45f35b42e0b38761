//! Files of receipts: one JSON object per line.
//!
//! Only the field `receipt`, a `seriatim.v1.Receipt` in base64, is read. The others repeat for people what it says.

use std::fs;
use std::path::Path;

use openssl::base64::{decode_block, encode_block};
use protobuf::Message as _;
use serde_json::{Value, json};

use crate::calendar::rfc3339;
use crate::cli::exit::{Exit, Failure};
use crate::hash_chain::{ChainHash, ContentHash, EntryChain};
use crate::pb::{self, v1};
use crate::security::tls::{BadSignature, Signature, check_signature};

/// The entry that a receipt or a proof names, with its hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The offset of the first record.
    pub offset: u64,
    /// The number of records.
    pub count: u32,
    /// The hash of the records.
    pub content: ContentHash,
    /// The hash chain before and after the records.
    pub chain: EntryChain,
}

impl Link {
    /// Reads a link. [`Link::check`] compares its hashes.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn of(message: &v1::ChainLink) -> Result<Link, String> {
        let hash = |bytes: &[u8]| ChainHash::try_from(bytes).map_err(|_| "a hash is not 32 bytes long".to_owned());
        let content = hash(&message.content_hash).map(|hash| ContentHash(hash.0))?;
        let chain = EntryChain { before: hash(&message.previous_chain_hash)?, after: hash(&message.chain_hash)? };
        let link = Link { offset: message.offset, count: message.count, content, chain };
        let end = link.offset.checked_add(u64::from(link.count)).filter(|_| link.count > 0);
        end.map(|_| link).ok_or_else(|| "the offsets of a link are not valid".to_owned())
    }

    /// Checks that the hash chain after the entry follows from the one before it and the hash of the records.
    ///
    /// # Errors
    /// A text that names the entry.
    pub fn check(&self) -> Result<(), String> {
        match self.chain.fits(self.end(), self.content) {
            true => Ok(()),
            false => Err(format!("the hashes of the entry at offset {} do not fit together", self.offset)),
        }
    }

    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.count))
    }
}

/// A receipt that could be read. Its signature is not checked yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    message: v1::Receipt,
    /// What it says.
    pub statement: v1::ReceiptStatement,
    /// The entry that it names.
    pub link: Link,
}

impl Receipt {
    /// Reads the statement of a receipt.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn of(message: v1::Receipt) -> Result<Receipt, String> {
        let statement: v1::ReceiptStatement =
            pb::parse(&message.statement).map_err(|_| "the statement of the receipt is malformed".to_owned())?;
        let link = Link::of(statement.link.as_ref().ok_or("the receipt names no records")?)?;
        Ok(Receipt { message, statement, link })
    }

    /// Decodes the field `receipt` of a file.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn decode(base64: &str) -> Result<Receipt, String> {
        let bytes = decode_block(base64).map_err(|_| "`receipt` is not base64".to_owned())?;
        Receipt::of(pb::parse(&bytes).map_err(|_| "`receipt` is not a receipt".to_owned())?)
    }

    /// Encodes the receipt for a file.
    pub fn encode(&self) -> String {
        encode_block(&self.message.write_to_bytes().unwrap_or_default())
    }

    /// Checks the signature against the authority of peers.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check(&self, ca_file: &Path) -> Result<(), BadSignature> {
        let signature = Signature {
            signature: self.message.signature.to_vec(),
            certificates: self.message.certificates.iter().map(|bytes| bytes.to_vec()).collect(),
        };
        let v1::ReceiptStatement { node_name, cluster_name, signed_time_us, .. } = &self.statement;
        check_signature(ca_file, &self.message.statement, &signature, (node_name, cluster_name), *signed_time_us)
    }

    /// Returns the object of a line.
    pub fn to_json(&self) -> Value {
        json!({
            "log": self.statement.log,
            "log_id": self.statement.log_id,
            "entry_offset": self.link.offset,
            "last_offset": self.link.end().saturating_sub(1),
            "chain_hash": self.link.chain.after.to_string(),
            "node": self.statement.node_name,
            "cluster": self.statement.cluster_name,
            "signed": rfc3339(self.statement.signed_time_us),
            "receipt": self.encode(),
        })
    }

    /// Describes the receipt in one line.
    pub fn described(&self) -> String {
        let v1::ReceiptStatement { log, node_name, cluster_name, signed_time_us, .. } = &self.statement;
        format!(
            "log {}, records up to offset {}, signed by node {} of cluster {} at {}",
            super::super::output::printable(log),
            self.link.end().saturating_sub(1),
            super::super::output::printable(node_name),
            super::super::output::printable(cluster_name),
            rfc3339(*signed_time_us)
        )
    }
}

/// The next step after an unusable file.
const FILES: &str = "`seriatim log receipt` writes files of receipts";

/// Reads all receipts of a file.
///
/// # Errors
/// If the file can't be read, contains none, or a line is malformed.
pub fn read(file: &Path) -> Result<Vec<Receipt>, Failure> {
    let failed = |what: String| Failure::new(Exit::Failed, format!("{}{what}", file.display()), FILES);
    let text = fs::read_to_string(file).map_err(|error| {
        let next = "name a file of receipts that this user can read";
        Failure::new(Exit::Failed, format!("{}: {error}", file.display()), next)
    })?;
    let mut receipts = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        receipts.push(of_line(line).map_err(|what| failed(format!(", line {number}: {what}")))?);
    }
    if receipts.is_empty() {
        return Err(failed(" contains no receipt".to_owned()));
    }
    Ok(receipts)
}

fn of_line(line: &str) -> Result<Receipt, String> {
    let object: Value =
        serde_json::from_str(line).map_err(|error| format!("not a receipt, or an incomplete one ({error})"))?;
    if object["format"].is_string() {
        return Err("a proof, and not a receipt: `seriatim log verify-receipt --proof` checks it".to_owned());
    }
    Receipt::decode(object["receipt"].as_str().ok_or("the field `receipt` is missing")?)
}
