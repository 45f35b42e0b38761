//! The log state and its encoding in snapshots.
//!
//! ```text
//!  0  version u32          1, or 2 with tables
//!  4  0 u32
//!  8  first offset u64
//! 16  last append time u64  Unix microseconds
//! 24  tables               `Tables` of proto/seriatim/logstate/v1/log_state.proto; only in version 2
//! ```
//!
//! All numbers are little-endian. Version 1 is written as long as the log has no producers and no cursors. Version 3 is
//! the form in manifests of logs with tables (`stored.rs`).

use std::sync::Arc;

use thiserror::Error;

use super::faults::{Fault, broken};
use super::tables::Tables;
use crate::types::Offset;

/// The state that is derived from applied entries. The index of the last entry that it includes is stored next to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first record that clients may read. Trims raise it.
    pub first_offset: Offset,
    /// The timestamp of the last record, Unix microseconds; 0 without records.
    pub last_append_time_us: u64,
    /// The producers and the cursors.
    pub tables: Arc<Tables>,
}

/// Why bytes are not a log state of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadLogState {
    /// No version wrote them.
    #[error("malformed log state")]
    Malformed,
    /// A newer version wrote them.
    #[error("log state of format {0}, this version reads formats up to {newest}", newest = NEWEST)]
    Newer(u32),
}

/// The newest format of a log state, in snapshots and manifests.
pub(super) const NEWEST: u32 = 3;

/// What all formats begin with.
pub(super) struct Fixed {
    pub(super) first_offset: Offset,
    pub(super) last_append_time_us: u64,
}

impl Fixed {
    const BYTES: usize = 24;

    pub(super) fn encode(&self, version: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Fixed::BYTES);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&self.first_offset.0.to_le_bytes());
        bytes.extend_from_slice(&self.last_append_time_us.to_le_bytes());
        bytes
    }

    /// Decodes the output of [`Fixed::encode`]. Returns the version, and the bytes after it, too.
    ///
    /// # Errors
    /// [`BadLogState`].
    pub(super) fn decode(bytes: &[u8]) -> Result<(u32, Fixed, &[u8]), BadLogState> {
        // Every version starts with its number. Nothing else is known of a newer one.
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or(BadLogState::Malformed)?;
        let version = u32::from_le_bytes(*version);
        if version > NEWEST {
            return Err(BadLogState::Newer(version));
        }
        let rest = rest.strip_prefix(&[0; 4]).ok_or(BadLogState::Malformed)?;
        let (first_offset, rest) = rest.split_first_chunk::<8>().ok_or(BadLogState::Malformed)?;
        let (last, rest) = rest.split_first_chunk::<8>().ok_or(BadLogState::Malformed)?;
        let fixed = Fixed {
            first_offset: Offset(u64::from_le_bytes(*first_offset)),
            last_append_time_us: u64::from_le_bytes(*last),
        };
        Ok((version, fixed, rest))
    }
}

impl LogState {
    /// The newest format that this version knows.
    pub const FORMAT: u32 = NEWEST;

    /// Encodes the state for a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let fixed = Fixed { first_offset: self.first_offset, last_append_time_us: self.last_append_time_us };
        if self.tables.is_empty() || broken(Fault::NotInSnapshot) {
            return fixed.encode(1);
        }
        let mut bytes = fixed.encode(2);
        bytes.extend(self.tables.encode());
        bytes
    }

    /// Decodes the output of [`LogState::encode`].
    ///
    /// # Errors
    /// [`BadLogState`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<LogState, BadLogState> {
        let (version, Fixed { first_offset, last_append_time_us }, rest) = Fixed::decode(bytes)?;
        let tables = match version {
            1 if rest.is_empty() => Tables::default(),
            2 => Tables::decode(rest).map_err(|_| BadLogState::Malformed)?,
            _ => return Err(BadLogState::Malformed),
        };
        if tables.is_empty() != (version == 1) {
            return Err(BadLogState::Malformed);
        }
        Ok(LogState { first_offset, last_append_time_us, tables: Arc::new(tables) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_never_changes() {
        let state = LogState { first_offset: Offset(0x0102), last_append_time_us: 0x0304, ..LogState::default() };
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(state.encode(), bytes);
        assert_eq!(LogState::decode(&bytes), Ok(state));
    }

    #[test]
    fn refuses_a_newer_format_by_its_number_and_any_other_bytes() {
        let mut bytes = LogState::default().encode();
        bytes[0] = 4;
        bytes.extend([7; 100]);
        let newer = LogState::decode(&bytes).expect_err("newer");
        assert_eq!(newer, BadLogState::Newer(4));
        assert_eq!(newer.to_string(), "log state of format 4, this version reads formats up to 3");
        for length in 4..bytes.len() {
            assert_eq!(LogState::decode(&bytes[..length]), Err(BadLogState::Newer(4)), "{length} bytes");
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
