//! (being written)
use super::entry::BadEntry;
use crate::types::{Offset, Term};
/// What of a client's record is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordFields<'a> {
    /// Field 1.
    pub value: &'a [u8],
    /// Field 4, `type`.
    pub kind: u32,
    /// Field 6.
    pub key: Option<&'a [u8]>,
    /// Field 7.
    pub headers: &'a [(&'a str, &'a [u8])],
}
/// Appends a record in canonical form, unstamped; gives its bytes, tag and length included.
pub fn encode_record(_out: &mut Vec<u8>, _record: &RecordFields<'_>) -> usize {
    todo!()
}
/// Writes offset, term and time into every record; gives their number.
pub fn stamp_records(_payload: &mut [u8], _base: Offset, _term: Term, _append_time_us: u64) -> Result<u32, BadEntry> {
    todo!()
}
/// Checks that every record is canonical and stamped so.
pub fn check_stamped(
    _payload: &[u8],
    _base: Offset,
    _term: Term,
    _append_time_us: u64,
    _count: u32,
) -> Result<(), BadEntry> {
    todo!()
}
/// The records of a payload, each with tag and length.
pub fn records(_payload: &[u8]) -> impl Iterator<Item = Result<&[u8], BadEntry>> {
    todo!() as std::iter::Empty<_>
}
/// The value of a record.
pub fn record_value(_record: &[u8]) -> Result<&[u8], BadEntry> {
    todo!()
}
/// Turns a record of field `records` = 3 into one of field `record` = 2.
pub fn retag(_record: &mut [u8]) {
    todo!()
}
