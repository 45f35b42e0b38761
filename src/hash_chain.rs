//! The hash chain of a log: one value that commits to every chained record up to an offset, and to their order.
//!
//! ```text
//! content  = BLAKE3(the entry's records, as they are stored)
//! chain    = BLAKE3(01 || chain before || offset after the entry, u64 little-endian || content)
//! ```
//!
//! The chain before the first entry is 32 zeros. The leader computes the chain when it appends an entry, and stores in the
//! entry the chain before it and the chain after it. So an entry can be checked although the entries before it were
//! trimmed. The first byte separates the two kinds of input, as in RFC 6962: records begin with 1a (see `payload`), and
//! without a byte before them, BLAKE3 (<https://github.com/BLAKE3-team/BLAKE3-specs>) hashes 100 KiB in two thirds of the
//! time.

use std::fmt;

/// The hash of the records of one entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentHash(pub [u8; 32]);

/// The hash of all chained records up to and including an entry. By default, that of none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 32]);

impl ContentHash {
    /// Hashes the records of an entry, in their stored form.
    pub fn of(records: &[u8]) -> ContentHash {
        ContentHash(blake3::hash(records).into())
    }
}

/// The hash chain in an entry: 32 bytes of each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryChain {
    /// The hash of all chained records before the entry.
    pub before: ChainHash,
    /// The hash of all chained records up to and including the entry.
    pub after: ChainHash,
}

impl EntryChain {
    /// The length of its bytes.
    pub const BYTES: usize = 64;

    /// Returns the chain of an entry with these records. `end_offset` is the offset after the last one.
    pub fn of(before: ChainHash, end_offset: u64, content: ContentHash) -> EntryChain {
        EntryChain { before, after: before.then(end_offset, content) }
    }

    /// Returns whether the hash after the entry follows from the one before it. The arguments are those of
    /// [`EntryChain::of`].
    pub fn fits(&self, end_offset: u64, content: ContentHash) -> bool {
        EntryChain::of(self.before, end_offset, content) == *self
    }

    /// Encodes the chain.
    pub fn encode(&self) -> [u8; EntryChain::BYTES] {
        let mut bytes = [0; EntryChain::BYTES];
        bytes[..32].copy_from_slice(&self.before.0);
        bytes[32..].copy_from_slice(&self.after.0);
        bytes
    }

    /// Decodes the output of [`EntryChain::encode`].
    pub fn decode(bytes: &[u8; EntryChain::BYTES]) -> EntryChain {
        let (mut before, mut after) = (ChainHash::default(), ChainHash::default());
        before.0.copy_from_slice(&bytes[..32]);
        after.0.copy_from_slice(&bytes[32..]);
        EntryChain { before, after }
    }
}

impl ChainHash {
    /// Returns the hash after one more entry. `end_offset` is the offset after its last record.
    #[must_use]
    pub fn then(self, end_offset: u64, content: ContentHash) -> ChainHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[1]).update(&self.0).update(&end_offset.to_le_bytes()).update(&content.0);
        ChainHash(hasher.finalize().into())
    }
}

macro_rules! hexadecimal {
    ($($name:ident)+) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;

            fn try_from(bytes: &[u8]) -> Result<$name, Self::Error> {
                bytes.try_into().map($name)
            }
        }
    )+ };
}

hexadecimal!(ContentHash ChainHash);

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are a stored format, and other languages compute them.
    #[test]
    fn the_hashes_never_change() {
        let content = ContentHash::of(b"abc");
        let chain = ChainHash::default().then(3, content);
        assert_eq!(content.to_string(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(chain.to_string(), "e95045506f6a2e5a5f0ea1d80d612dc4a516d668f7ebd4ebb44b3e76657e7ea5");
        let after = chain.then(4, ContentHash::of(b"d"));
        assert_eq!(after.to_string(), "38370a6ec6823fccdb7ec1564edd302a77231caa6ab126fe4dddbd301b239788");
    }

    #[test]
    fn depends_on_the_content_the_order_and_the_offsets() {
        let [a, b] = [ContentHash::of(b"a"), ContentHash::of(b"b")];
        let start = ChainHash::default();
        assert_ne!(start.then(1, a).then(2, b), start.then(1, b).then(2, a));
        assert_ne!(start.then(1, a).then(2, b), start.then(1, a).then(3, b));
        assert_ne!(start.then(1, a), start.then(1, b));
    }
}
