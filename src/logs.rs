//! The logs that this node can serve, by name.
//!
//! `consensus` adds them as the catalog lists them; `api` looks them up. A log is added when its group has been
//! founded.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::storage::reader::GroupReader;
use crate::types::{GroupId, LogId, LogName};
use crate::watermark::HighWatermark;

/// One log on this node, with everything that a gRPC thread needs to serve it.
pub struct OpenLog {
    /// The name in the catalog.
    pub name: LogName,
    /// The Raft group that replicates it.
    pub group: GroupId,
    /// Distinguishes the log from an earlier or later one of the same name.
    pub log_id: LogId,
    /// The largest record, in bytes of value, key and headers.
    pub record_bytes_max: u32,
    /// The largest request, in bytes of all its records.
    pub request_bytes_max: u32,
    /// The end of the applied entries on this node.
    pub watermark: HighWatermark,
    /// Reads its records from disk.
    pub reader: GroupReader,
}

/// All logs of this node. Clones share the map.
#[derive(Clone, Default)]
pub struct Logs(Arc<RwLock<HashMap<LogName, Arc<OpenLog>>>>);

impl Logs {
    /// Returns the log of this name. `None` means that this node has no replica of it. Whether it exists in the
    /// cluster is decided by a linearizable read of the catalog (`ReadIndex`).
    pub fn get(&self, name: &LogName) -> Option<Arc<OpenLog>> {
        self.0.read().get(name).cloned()
    }

    /// Returns every log of this node.
    pub fn all(&self) -> Vec<Arc<OpenLog>> {
        self.0.read().values().cloned().collect()
    }

    /// Makes a log available to clients.
    pub fn insert(&self, log: OpenLog) {
        self.0.write().insert(log.name.clone(), Arc::new(log));
    }
}
