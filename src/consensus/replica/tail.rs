//! The entries that are read when a replica starts.

use crate::consensus::error::HostError;
use crate::consensus::group::FETCH_BYTES;
use crate::storage::entry::Entry;
use crate::storage::log::Recovered;
use crate::storage::reader::{Access, GroupReader};
use crate::types::GroupId;

/// Reads every entry after the applied one.
pub fn read_tail(id: GroupId, reader: &GroupReader, recovered: &Recovered) -> Result<Vec<Entry>, HostError> {
    let mut tail: Vec<Entry> = Vec::new();
    let end = recovered.last_index.next();
    let mut low = recovered.applied.next();
    while low < end {
        let more = reader.entries(low, end, FETCH_BYTES, Access::Blocking).map_err(|e| HostError::Read(id, e))?;
        let Some(last) = more.last() else {
            return Err(HostError::State(
                id,
                format!("entry {low} is missing, the last one is {}", recovered.last_index),
            ));
        };
        low = last.index.next();
        tail.extend(more);
    }
    Ok(tail)
}
