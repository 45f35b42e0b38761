//! The log state and its encoding in manifests and snapshots.
//!
//! ```text
//!  0  version u32          1
//!  4  0 u32
//!  8  first offset u64
//! 16  last append time u64  Unix microseconds
//! ```
//!
//! All numbers are little-endian.

use thiserror::Error;

use crate::types::Offset;

/// The state that is derived from applied entries. The index of the last entry that it includes is stored next to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first record that clients may read. Trims raise it.
    pub first_offset: Offset,
    /// The timestamp of the last record, Unix microseconds; 0 without records.
    pub last_append_time_us: u64,
}

/// Why bytes are not a log state of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadLogState {
    /// No version wrote them.
    #[error("malformed log state")]
    Malformed,
    /// A newer version wrote them.
    #[error("log state of format {0}, this version reads formats up to {newest}", newest = LogState::FORMAT)]
    Newer(u32),
}

impl LogState {
    /// The newest format that this version reads, and the one that it writes.
    pub const FORMAT: u32 = 1;
    const BYTES: usize = 24;

    /// Encodes the state for a manifest or a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(&Self::FORMAT.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&self.first_offset.0.to_le_bytes());
        bytes.extend_from_slice(&self.last_append_time_us.to_le_bytes());
        bytes
    }

    /// Decodes the output of [`LogState::encode`].
    ///
    /// # Errors
    /// [`BadLogState`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<LogState, BadLogState> {
        // Every version starts with its number. Nothing else is known of a newer one.
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or(BadLogState::Malformed)?;
        match u32::from_le_bytes(*version) {
            1 => LogState::decode_first(rest).ok_or(BadLogState::Malformed),
            newer if newer > LogState::FORMAT => Err(BadLogState::Newer(newer)),
            _ => Err(BadLogState::Malformed),
        }
    }

    fn decode_first(bytes: &[u8]) -> Option<LogState> {
        let bytes = bytes.strip_prefix(&[0; 4])?;
        let (first_offset, last) = bytes.split_first_chunk::<8>()?;
        let last: &[u8; 8] = last.try_into().ok()?;
        Some(LogState {
            first_offset: Offset(u64::from_le_bytes(*first_offset)),
            last_append_time_us: u64::from_le_bytes(*last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_never_changes() {
        let state = LogState { first_offset: Offset(0x0102), last_append_time_us: 0x0304 };
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(state.encode(), bytes);
        assert_eq!(LogState::decode(&bytes), Ok(state));
    }

    #[test]
    fn refuses_a_newer_format_by_its_number_and_any_other_bytes() {
        let mut bytes = LogState::default().encode();
        bytes[0] = 2;
        bytes.extend([7; 100]);
        let newer = LogState::decode(&bytes).expect_err("newer");
        assert_eq!(newer, BadLogState::Newer(2));
        assert_eq!(newer.to_string(), "log state of format 2, this version reads formats up to 1");
        for length in 4..bytes.len() {
            assert_eq!(LogState::decode(&bytes[..length]), Err(BadLogState::Newer(2)), "{length} bytes");
        }
        let good = LogState::default().encode();
        for length in (0..good.len()).chain([good.len() + 1]) {
            let mut bytes = good.clone();
            bytes.resize(length, 0);
            assert_eq!(LogState::decode(&bytes), Err(BadLogState::Malformed), "{length} bytes");
        }
        for (at, byte) in [(0, 0), (4, 1), (7, 1)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(LogState::decode(&bytes), Err(BadLogState::Malformed), "byte {at}");
        }
    }
}
