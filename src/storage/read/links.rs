//! Reads of the hash chain of a log.

use super::damage::DamagedRange;
use super::error::ReadError;
use super::holes::Hole;
use super::view::Published;
use super::visit::{Visit, visit};
use crate::hash_chain::{ContentHash, EntryChain};
use crate::storage::format::index::Key;
use crate::storage::io::disk::Access;
use crate::types::{Offset, Term};

/// What the hash chain contains for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The offset of the first record.
    pub offset: Offset,
    /// The number of records.
    pub count: u32,
    /// The term of the records.
    pub term: Term,
    /// The append time of the records, Unix microseconds.
    pub append_time_us: u64,
    /// The hash of the records, computed from what is stored.
    pub content: ContentHash,
    /// The hash chain before and after the records, as the entry contains it.
    pub chain: EntryChain,
}

impl Link {
    /// The offset after the last record.
    pub fn end(&self) -> Offset {
        Offset(self.offset.0.saturating_add(u64::from(self.count)))
    }
}

/// Returns the links of the entries from the one that contains `from` on, up to but excluding `until`, the high watermark.
/// Stops before `links_max` is exceeded and once `bytes_max` bytes of records were hashed, but returns at least one link if
/// `from` is below `until`. Also stops before an entry that can't be read.
///
/// # Errors
/// [`ReadError`]; `Damaged` or `NewerFrame` if the first entry can't be read or contains no hash chain.
pub(super) fn links(
    log: &Published,
    from: Offset,
    until: Offset,
    links_max: usize,
    bytes_max: usize,
    access: Access,
) -> Result<Vec<Link>, ReadError> {
    log.read(|view| {
        if from < view.base.offset {
            return Err(ReadError::Trimmed { first_offset: view.base.offset });
        }
        let mut links: Vec<Link> = Vec::new();
        if from >= until || links_max == 0 {
            return Ok(links);
        }
        let (mut next, mut bytes) = (from, 0);
        let ended = visit(log, view, Key::Offset(from), access, |part, at, frame, holes| {
            let go_on = if links.is_empty() { Visit::Next } else { Visit::NextSound };
            let header = &frame.header;
            let end = Offset(header.base_offset.0.saturating_add(u64::from(header.count)));
            if !header.kind.is_records() || end <= next {
                return Ok(go_on);
            }
            if header.base_offset >= until || !links.is_empty() && header.base_offset != next {
                return Ok(Visit::Done);
            }
            if links.is_empty() && header.base_offset > next {
                let missing = || ReadError::Damaged(part.damaged(at, "the record before this one is missing"));
                return Err(Hole::at(holes, from, header.base_offset).map_or_else(missing, ReadError::from));
            }
            let Some(chain) = frame.chain() else {
                if links.is_empty() {
                    return Err(ReadError::Damaged(part.damaged(at, "an entry without a hash chain")));
                }
                return Ok(Visit::Done);
            };
            let records = frame.records();
            links.push(Link {
                offset: header.base_offset,
                count: header.count,
                term: header.term,
                append_time_us: header.append_time_us,
                content: ContentHash::of(records),
                chain,
            });
            (next, bytes) = (end, bytes + records.len());
            let full = links.len() >= links_max || bytes >= bytes_max || next >= until;
            Ok(if full { Visit::Done } else { Visit::NextSound })
        })?;
        if links.is_empty() {
            let last = &view.parts[view.parts.len() - 1];
            let missing = || {
                let range = last.damaged(last.end(), &format!("record {from} is missing"));
                ReadError::Damaged(DamagedRange { first_offset: from, next_offset: Some(until), ..range })
            };
            return Err(Hole::at(&ended, from, until).map_or_else(missing, ReadError::from));
        }
        Ok(links)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_chain::ChainHash;
    use crate::storage::format::entry::{Entry, EntryKind, Stamp};
    use crate::storage::format::payload;
    use crate::storage::format::state::Genesis;
    use crate::storage::read::reader::GroupReader;
    use crate::storage::write::log::GroupLog;
    use crate::storage::write::log::tests::{Home, append, batch, sync};
    use crate::types::ReplicaId;

    /// Appends an entry with a hash chain. Returns the chain after it.
    fn append_chained(log: &mut GroupLog, before: ChainHash, values: &[&[u8]]) -> ChainHash {
        let plain = batch(log, 1, values);
        let stamp = Stamp { kind: EntryKind::ChainedRecords, ..plain.stamp().expect("a stamp") };
        let mut bytes = plain.payload().to_vec();
        let end = stamp.end_offset().expect("an offset");
        let chain = EntryChain::of(before, end.0, ContentHash::of(&bytes));
        bytes.extend_from_slice(&chain.encode());
        log.append(&[Entry::new(plain.index, plain.term, stamp, &bytes)]).expect("appended");
        chain.after
    }

    /// Entries with 1, 2, 3, 1, 2, 3 ... records, with entries without records between them.
    fn filled() -> (Home, GroupLog, Vec<(u64, u32)>) {
        let home = Home::new(Genesis::founder(ReplicaId(5)));
        let (mut log, _) = home.open();
        let (mut chain, mut offset, mut entries) = (ChainHash::default(), 0, Vec::new());
        for i in 0..60u8 {
            append(&mut log, 1, &[]);
            let values: Vec<Vec<u8>> = (0..=i % 3).map(|j| vec![i; 50 + usize::from(j)]).collect();
            chain = append_chained(&mut log, chain, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
            entries.push((offset, u32::from(i % 3) + 1));
            offset += u64::from(i % 3) + 1;
        }
        sync(&mut log, &home);
        (home, log, entries)
    }

    fn read(reader: &GroupReader, from: u64, until: u64, links_max: usize, bytes_max: usize) -> Vec<Link> {
        reader.links(Offset(from), Offset(until), links_max, bytes_max, Access::Blocking).expect("links")
    }

    #[test]
    fn each_link_continues_the_one_before() {
        let (_home, log, entries) = filled();
        let reader = log.reader();
        let all = read(&reader, 0, 120, usize::MAX, usize::MAX);
        assert_eq!(all.iter().map(|link| (link.offset.0, link.count)).collect::<Vec<_>>(), entries);
        let mut chain = ChainHash::default();
        for link in &all {
            assert_eq!(link.chain, EntryChain::of(chain, link.end().0, link.content));
            chain = link.chain.after;
        }
        for from in 0..120 {
            let first = all.iter().position(|link| link.end().0 > from).expect("an entry");
            assert_eq!(read(&reader, from, 120, 2, usize::MAX), all[first..all.len().min(first + 2)], "{from}");
            assert_eq!(read(&reader, from, 120, usize::MAX, 1), all[first..=first], "the first one, however large");
        }
        assert_eq!(read(&reader, 120, 120, 9, 9), Vec::new());
        assert_eq!(read(&reader, 0, 3, usize::MAX, usize::MAX), all[..2], "not beyond the watermark");
    }

    /// What follows the records in an entry is for no client.
    #[test]
    fn records_are_read_without_the_hash_chain() {
        let (_home, log, _) = filled();
        let reader = log.reader();
        for from in 0..120u64 {
            let until = Offset(120);
            let slice = reader.records(Offset(from), until, u32::MAX, usize::MAX, Access::Blocking).expect("records");
            let (mut bytes, mut next) = (Vec::new(), Offset(from));
            while next < until {
                // A block ends with its segment.
                let (block, _) = reader.block(next, until, usize::MAX, Access::Blocking, None).expect("a block");
                bytes.extend_from_slice(&block.bytes);
                next = block.next;
            }
            assert!(slice.bytes == bytes, "{from}");
            let count = payload::records(&slice.bytes).filter_map(Result::ok).count();
            assert_eq!(count as u64, 120 - from);
        }
    }

    #[test]
    fn an_entry_without_a_hash_chain_ends_a_read() {
        let (_home, mut log, entries) = filled();
        append(&mut log, 1, &[b"plain"]);
        let reader = log.reader();
        assert_eq!(read(&reader, 0, 121, usize::MAX, usize::MAX).len(), entries.len());
        let error = reader.links(Offset(120), Offset(121), 1, 1, Access::Blocking).expect_err("none");
        assert!(matches!(error, ReadError::Damaged(_)), "{error:?}");
    }
}
