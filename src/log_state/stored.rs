//! The log state in manifests: all but the tables, and where the tables come from.
//!
//! ```text
//!  0  version u32          1, or 3 with tables
//!  4  0 u32
//!  8  first offset u64
//! 16  last append time u64  Unix microseconds
//! 24  tables index u64     version 3: the entry after which the tables are those of the state file
//! 32  in file u32          version 3: 1, or 0 if the tables were empty then
//! 36  0 u32                version 3
//! ```

use super::codec::{BadLogState, Fixed, LogState};
use crate::types::{LogIndex, Offset};

/// From where a restart gets the tables: from the state file with this index, or from empty tables. Then it applies the
/// entries after it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablesOrigin {
    /// The last entry that the file includes, or after which the tables were empty.
    pub index: LogIndex,
    /// False if the tables were empty.
    pub in_file: bool,
}

/// The log state as a manifest contains it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredLogState {
    /// The first record that clients may read.
    pub first_offset: Offset,
    /// The timestamp of the last record, Unix microseconds; 0 without records.
    pub last_append_time_us: u64,
    /// `None` if the tables are empty.
    pub tables: Option<TablesOrigin>,
}

impl StoredLogState {
    /// The part of a log state that a manifest contains. `origin` is the newest one that is on the disk.
    pub fn new(log_state: &LogState, origin: TablesOrigin) -> StoredLogState {
        StoredLogState {
            first_offset: log_state.first_offset,
            last_append_time_us: log_state.last_append_time_us,
            tables: (!log_state.tables.is_empty()).then_some(origin),
        }
    }

    /// Returns the index in the name of the state file, if there is one.
    pub fn state_file(&self) -> Option<LogIndex> {
        self.tables.filter(|tables| tables.in_file).map(|tables| tables.index)
    }

    /// Encodes the state for a manifest.
    pub fn encode(&self) -> Vec<u8> {
        let fixed = Fixed { first_offset: self.first_offset, last_append_time_us: self.last_append_time_us };
        let Some(TablesOrigin { index, in_file }) = self.tables else { return fixed.encode(1) };
        let mut bytes = fixed.encode(3);
        bytes.extend_from_slice(&index.0.to_le_bytes());
        bytes.extend_from_slice(&u32::from(in_file).to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes
    }

    /// Decodes the output of [`StoredLogState::encode`].
    ///
    /// # Errors
    /// [`BadLogState`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<StoredLogState, BadLogState> {
        let (version, Fixed { first_offset, last_append_time_us }, rest) = Fixed::decode(bytes)?;
        let tables = match (version, rest) {
            (1, []) => None,
            (3, [index @ .., in_file @ (0 | 1), 0, 0, 0, 0, 0, 0, 0]) => {
                let index = index.try_into().map_err(|_| BadLogState::Malformed)?;
                Some(TablesOrigin { index: LogIndex(u64::from_le_bytes(index)), in_file: *in_file == 1 })
            }
            _ => return Err(BadLogState::Malformed),
        };
        Ok(StoredLogState { first_offset, last_append_time_us, tables })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_state_in_a_manifest_has_these_bytes() {
        let state = StoredLogState { first_offset: Offset(0x0102), last_append_time_us: 0x0304, tables: None };
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(state.encode(), bytes);
        let origin = TablesOrigin { index: LogIndex(0x0506), in_file: true };
        let with_tables = StoredLogState { tables: Some(origin), ..state };
        let mut longer = [&bytes[..], &[6, 5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat();
        longer[0] = 3;
        assert_eq!(with_tables.encode(), longer);
        for (state, bytes) in [(state, &bytes[..]), (with_tables, &longer[..])] {
            assert_eq!(StoredLogState::decode(bytes), Ok(state));
            for length in 0..bytes.len() {
                assert_eq!(StoredLogState::decode(&bytes[..length]), Err(BadLogState::Malformed), "{length} bytes");
            }
            for (at, byte) in [(0, 2), (0, 0), (4, 1), (bytes.len(), 0)] {
                let mut bytes = bytes.to_vec();
                bytes.resize(bytes.len().max(at + 1), 0);
                bytes[at] = byte;
                assert_eq!(StoredLogState::decode(&bytes), Err(BadLogState::Malformed), "byte {at}");
            }
        }
        for (at, byte) in [(32, 2), (33, 1), (36, 1), (39, 9)] {
            let mut bytes = longer.clone();
            bytes[at] = byte;
            assert_eq!(StoredLogState::decode(&bytes), Err(BadLogState::Malformed), "byte {at}");
        }
        longer[0] = 4;
        assert_eq!(StoredLogState::decode(&longer), Err(BadLogState::Newer(4)));
    }
}
