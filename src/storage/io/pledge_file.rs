//! `pledge.toml`: the pledge of a node that is not a member of a cluster yet (`crate::forming`).
//!
//! ```text
//! format = 1
//! epoch = 3                           the number of its last pledge
//! candidate = "0123456789abcdef"      the node to which it belongs; zeros: to none
//! address = "10.0.0.1:8401"           where that node was; empty if there is none
//! withdrawing = false                 true: it is not sent any more, and is being withdrawn
//! crc32c = "89abcdef"                 of all earlier lines
//! ```
//!
//! The file is replaced as a whole, and synced before the pledge is sent. A member does not read it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::forming::StoredPledge;
use crate::forming::messages::Candidate;
use crate::storage::error::StorageError;
use crate::types::NodeId;

/// The format that this version reads and writes.
const PLEDGE_FORMAT: u32 = 1;
/// The maximum size of the file.
pub(crate) const PLEDGE_FILE_BYTES_MAX: usize = 4096;
/// The maximum length of an address.
const ADDRESS_BYTES_MAX: usize = 300;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PledgeLines {
    format: u32,
    epoch: u64,
    candidate: String,
    address: String,
    withdrawing: bool,
}

/// Returns the contents of the file. The addresses were checked before they were remembered, so they need no escapes.
pub(crate) fn encode(pledge: &StoredPledge) -> String {
    let none = Candidate { id: NodeId(0), addr: String::new(), is_withdrawing: false };
    let candidate = pledge.candidate.as_ref().unwrap_or(&none);
    let text = format!(
        "format = {PLEDGE_FORMAT}\nepoch = {}\ncandidate = \"{}\"\naddress = {}\nwithdrawing = {}\n",
        pledge.epoch,
        candidate.id,
        toml::Value::String(candidate.addr.clone()),
        candidate.is_withdrawing,
    );
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}crc32c = \"{crc:08x}\"\n")
}

/// Decodes what [`encode`] returned.
///
/// # Errors
/// [`StorageError::OtherFormat`] or [`StorageError::Damaged`].
pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<StoredPledge, StorageError> {
    let damaged = |at: usize, what: String| StorageError::damaged(file, at as u64, what);
    let text = std::str::from_utf8(bytes).map_err(|e| damaged(e.valid_up_to(), "this is not UTF-8".to_owned()))?;
    let first = text.lines().next().and_then(|line| line.strip_prefix("format = "));
    let format: u32 = first
        .and_then(|format| format.parse().ok())
        .ok_or_else(|| damaged(0, "the first line does not say the format".to_owned()))?;
    let end = text.rfind("crc32c = ").ok_or_else(|| damaged(bytes.len(), "the last line is missing".to_owned()))?;
    let (lines, last) = text.split_at(end);
    let is_whole = |lines: &str| last == format!("crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()));
    if format != PLEDGE_FORMAT {
        let known = lines.replacen(&format!("format = {format}\n"), &format!("format = {PLEDGE_FORMAT}\n"), 1);
        if is_whole(&known) {
            return Err(damaged(9, format!("format {format}, but the checksum is the one of format {PLEDGE_FORMAT}")));
        }
        return Err(StorageError::OtherFormat {
            file: file.to_owned(),
            part: "",
            version: format,
            known: PLEDGE_FORMAT,
        });
    }
    if !is_whole(lines) {
        return Err(damaged(end, "the checksum does not match; if it was edited, undo that".to_owned()));
    }
    let lines: PledgeLines = toml::from_str(lines).map_err(|e| damaged(0, e.to_string()))?;
    let id: NodeId =
        lines.candidate.parse().map_err(|e| damaged(0, format!("{} is not an id: {e}", lines.candidate)))?;
    let candidate = Candidate { id, addr: lines.address, is_withdrawing: lines.withdrawing };
    let is_none = id.0 == 0 && candidate.addr.is_empty() && !candidate.is_withdrawing;
    let is_some = id.0 != 0 && (1..=ADDRESS_BYTES_MAX).contains(&candidate.addr.len()) && lines.epoch > 0;
    if !is_none && !is_some {
        return Err(damaged(0, "a candidate has an id, an address and the number of a pledge".to_owned()));
    }
    Ok(StoredPledge { epoch: lines.epoch, candidate: Some(candidate).filter(|_| is_some) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    fn pledge() -> StoredPledge {
        let candidate =
            Candidate { id: NodeId(0x0123_4567_89ab_cdef), addr: "10.0.0.1:8401".to_owned(), is_withdrawing: false };
        StoredPledge { epoch: 3, candidate: Some(candidate) }
    }

    #[test]
    fn the_text_of_a_pledge_never_changes() {
        let text = encode(&pledge());
        assert_golden("pledge-v1.toml", text.as_bytes());
        let withdrawing = pledge().candidate.map(|candidate| Candidate { is_withdrawing: true, ..candidate });
        for stored in [
            pledge(),
            StoredPledge { epoch: 4, candidate: withdrawing },
            StoredPledge { epoch: 4, candidate: None },
            StoredPledge::default(),
        ] {
            assert_eq!(decode(encode(&stored).as_bytes(), Path::new("p")).expect("a pledge"), stored);
        }
    }

    #[test]
    fn refuses_other_text() {
        let good = encode(&pledge());
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            let error = decode(&bytes, Path::new("p")).expect_err("a flipped bit");
            assert!(error.is_damage(), "byte {at}: {error}");
            assert!(decode(&good.as_bytes()[..at], Path::new("p")).is_err(), "cut to {at}");
        }
        let reseal = |text: &str| {
            let (lines, _) = text.split_at(text.rfind("crc32c").expect("the last line"));
            format!("{lines}crc32c = \"{:08x}\"\n", crc32c::crc32c(lines.as_bytes()))
        };
        for bad in [
            good.replace("0123456789abcdef", "0000000000000000"),
            good.replace("10.0.0.1:8401", ""),
            good.replace("10.0.0.1:8401", &"a".repeat(ADDRESS_BYTES_MAX + 1)),
            good.replace("epoch = 3", "epoch = 0"),
            good.replace("withdrawing", "other"),
        ] {
            let error = decode(reseal(&bad).as_bytes(), Path::new("p")).expect_err("unsound");
            assert!(error.is_damage(), "{error}");
        }
        let newer = reseal(&good.replace("format = 1", "format = 2\nnew = 1"));
        let error = decode(newer.as_bytes(), Path::new("p")).expect_err("newer");
        assert!(error.is_config() && error.to_string().contains("format 2"), "{error}");
    }
}
