//! The proof that a record was in a log when a receipt was signed: the entry of the record, and the hash of each later
//! entry up to that of the receipt. A file contains one JSON object, with hashes in hexadecimal.

use openssl::base64::{decode_block, encode_block};
use serde_json::{Value, json};

use super::file::{Link, Receipt};
use crate::hash_chain::{ChainHash, ContentHash};
use crate::pb::{self, v1};

/// The version of the file.
const FORMAT: &str = "seriatim-proof-1";

/// Shows that a record was in the log of a receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// The offset of the record.
    pub offset: u64,
    /// The records of its entry, in their stored form.
    pub records: Vec<u8>,
    /// The entries from that of the record to that of the receipt. At least one.
    pub links: Vec<Link>,
    /// Names the last of these entries.
    pub receipt: Receipt,
}

impl Proof {
    /// Checks that the record was in the log of the receipt, and returns it. The signature of the receipt is not checked.
    ///
    /// # Errors
    /// A text that says what does not fit.
    pub fn check(&self) -> Result<v1::Record, String> {
        self.links.iter().try_for_each(Link::check)?;
        let (first, last) = self.links.first().zip(self.links.last()).ok_or("the proof contains no entry")?;
        if !(first.offset..first.end()).contains(&self.offset) {
            return Err(format!("the proof does not begin with the entry of record {}", self.offset));
        }
        if ContentHash::of(&self.records) != first.content {
            return Err(format!("the records from offset {} on are not those that were hashed", first.offset));
        }
        for pair in self.links.windows(2) {
            if pair[0].end() != pair[1].offset || pair[0].chain.after != pair[1].chain.before {
                return Err(format!("the entry at offset {} does not continue the one before it", pair[1].offset));
            }
        }
        if *last != self.receipt.link {
            return Err(format!(
                "the log up to offset {} is not the one of the receipt: a record was changed, removed or moved after the \
                 receipt was signed",
                self.receipt.link.end().saturating_sub(1)
            ));
        }
        self.record(first)
    }

    /// Returns the record, if the entry contains exactly the records of its offsets.
    fn record(&self, link: &Link) -> Result<v1::Record, String> {
        // The encoding of the records is that of this message's field.
        let entry: v1::ConsumeResponse =
            pb::parse(&self.records).map_err(|_| "the records are malformed".to_owned())?;
        let offsets = entry.records.iter().map(|record| record.offset);
        if !offsets.eq(link.offset..link.end()) {
            return Err("the records do not have the offsets of their entry".to_owned());
        }
        let record = entry.records.into_iter().find(|record| record.offset == self.offset);
        record.ok_or_else(|| format!("record {} is not in the entry", self.offset))
    }

    /// Encodes the proof.
    pub fn to_json(&self) -> Value {
        let link = |link: &Link| {
            json!({
                "offset": link.offset,
                "count": link.count,
                "content_hash": link.content.to_string(),
                "chain_hash": link.chain.after.to_string(),
            })
        };
        json!({
            "format": FORMAT,
            "offset": self.offset,
            "previous_chain_hash": self.links.first().map(|link| link.chain.before.to_string()),
            "records": encode_block(&self.records),
            "links": self.links.iter().map(link).collect::<Vec<_>>(),
            "receipt": self.receipt.encode(),
        })
    }

    /// Decodes the output of [`Proof::to_json`].
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn of_json(object: &Value) -> Result<Proof, String> {
        if object["format"] != FORMAT {
            return Err(format!("it is not a proof of the format {FORMAT}"));
        }
        let number = |object: &Value, key: &str| object[key].as_u64().ok_or_else(|| format!("`{key}` is not a number"));
        let text = |object: &Value, key: &str| {
            object[key].as_str().map(str::to_owned).ok_or_else(|| format!("`{key}` is not a text"))
        };
        let hash = |object: &Value, key: &str| {
            let digits = text(object, key)?;
            decode_hash(&digits).ok_or_else(|| format!("`{key}` is not a hash of 64 hexadecimal digits"))
        };
        let mut before = ChainHash(hash(object, "previous_chain_hash")?);
        let mut links = Vec::new();
        for link in object["links"].as_array().ok_or("`links` is not a list")? {
            let after = ChainHash(hash(link, "chain_hash")?);
            let content = hash(link, "content_hash")?;
            let message = v1::ChainLink {
                offset: number(link, "offset")?,
                count: u32::try_from(number(link, "count")?).map_err(|_| "`count` is too large".to_owned())?,
                content_hash: content.to_vec().into(),
                previous_chain_hash: before.0.to_vec().into(),
                chain_hash: after.0.to_vec().into(),
                ..v1::ChainLink::default()
            };
            links.push(Link::of(&message)?);
            before = after;
        }
        Ok(Proof {
            offset: number(object, "offset")?,
            records: decode_block(&text(object, "records")?).map_err(|_| "`records` is not base64".to_owned())?,
            links,
            receipt: Receipt::decode(&text(object, "receipt")?)?,
        })
    }
}

fn decode_hash(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;
    use crate::hash_chain::EntryChain;
    use crate::storage::payload::{RecordFields, encode_record, stamp_records};
    use crate::types::{Offset, Term};

    fn entry(offset: u64, values: &[&str]) -> Vec<u8> {
        let mut records = Vec::new();
        for value in values {
            encode_record(&mut records, &RecordFields { value: value.as_bytes(), ..RecordFields::default() });
        }
        stamp_records(&mut records, Offset(offset), Term(1), 5).expect("canonical");
        records
    }

    fn link(before: ChainHash, offset: u64, count: u32, records: &[u8]) -> Link {
        let content = ContentHash::of(records);
        Link { offset, count, content, chain: EntryChain::of(before, offset + u64::from(count), content) }
    }

    /// A log of two entries, and the receipt of the second one.
    fn proof() -> Proof {
        let records = [entry(0, &["a", "b"]), entry(2, &["c"])];
        let first = link(ChainHash::default(), 0, 2, &records[0]);
        let second = link(first.chain.after, 2, 1, &records[1]);
        let message = v1::ChainLink {
            offset: 2,
            count: 1,
            content_hash: second.content.0.to_vec().into(),
            previous_chain_hash: second.chain.before.0.to_vec().into(),
            chain_hash: second.chain.after.0.to_vec().into(),
            ..v1::ChainLink::default()
        };
        let statement = v1::ReceiptStatement { link: Some(message).into(), ..v1::ReceiptStatement::default() };
        let receipt =
            v1::Receipt { statement: statement.write_to_bytes().expect("encoded").into(), ..v1::Receipt::default() };
        let [records, _] = records;
        Proof { offset: 1, records, links: vec![first, second], receipt: Receipt::of(receipt).expect("a receipt") }
    }

    #[test]
    fn proves_a_record_and_survives_a_file() {
        let good = proof();
        assert_eq!(good.check().expect("proven").value[..], b"b"[..]);
        assert_eq!(Proof::of_json(&good.to_json()), Ok(good));
    }

    /// After a change, an attacker can compute all hashes again. Then they are not those of the receipt.
    #[test]
    fn finds_each_change_of_the_log() {
        let good = proof();
        let changed = entry(0, &["a", "x"]);
        assert!(Proof { records: changed.clone(), ..good.clone() }.check().is_err(), "another content");
        let first = link(ChainHash::default(), 0, 2, &changed);
        let second = link(first.chain.after, 2, 1, &entry(2, &["c"]));
        let recomputed = Proof { records: changed, links: vec![first, second], ..good.clone() };
        assert!(recomputed.check().expect_err("found").contains("is not the one of the receipt"));
        let swapped = entry(0, &["b", "a"]);
        let first = link(ChainHash::default(), 0, 2, &swapped);
        let second = link(first.chain.after, 2, 1, &entry(2, &["c"]));
        assert!(Proof { records: swapped, links: vec![first, second], ..good.clone() }.check().is_err(), "order");
        assert!(Proof { links: vec![good.links[0]], ..good.clone() }.check().is_err(), "not up to the receipt");
        assert!(Proof { links: vec![good.links[1]], ..good.clone() }.check().is_err(), "not the entry of the record");
        assert!(Proof { offset: 2, ..good.clone() }.check().is_err(), "another record");
        assert!(Proof { links: Vec::new(), ..good }.check().is_err(), "nothing");
    }

    #[test]
    fn rejects_files_that_are_no_proofs() {
        let good = proof().to_json();
        for key in ["format", "offset", "previous_chain_hash", "records", "links", "receipt"] {
            let mut bad = good.clone();
            bad[key] = json!("?");
            assert!(Proof::of_json(&bad).is_err(), "{key}");
        }
        let mut bad = good;
        bad["links"][0]["count"] = json!(0);
        assert!(Proof::of_json(&bad).is_err(), "an entry without records");
    }

    /// Once, `verify-receipt` called such a file unreadable (exit code 1), and not changed (65).
    #[test]
    fn a_proof_whose_numbers_or_hashes_were_changed_can_be_read_and_does_not_fit() {
        let good = proof().to_json();
        let does_not_fit = |changed: &Value| Proof::of_json(changed).expect("a proof").check().is_err();
        let other = ContentHash::of(b"other").to_string();
        for key in ["content_hash", "chain_hash"] {
            let mut changed = good.clone();
            changed["links"][1][key] = json!(other);
            assert!(does_not_fit(&changed), "{key}");
        }
        for (key, value) in [("count", json!(3)), ("offset", json!(1))] {
            let mut changed = good.clone();
            changed["links"][0][key] = value;
            assert!(does_not_fit(&changed), "{key}");
        }
        let changed = good.as_object().cloned().map(|mut object| {
            object.insert("previous_chain_hash".to_owned(), json!(other));
            Value::Object(object)
        });
        assert!(does_not_fit(&changed.expect("an object")), "the hash before all");
    }
}
