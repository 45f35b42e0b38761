//! The logs that this node carries and can serve, by name.
//!
//! `consensus` opens them as the catalog says; `api` looks them up. A log is here only once its group is founded.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::storage::reader::GroupReader;
use crate::types::{GroupId, LogId, LogName};
use crate::watermark::Watermark;

/// One log on this node: what a gRPC thread needs to serve it.
pub struct OpenLog {
    /// Its name.
    pub name: LogName,
    /// Its Raft group.
    pub group: GroupId,
    /// Its id: another log of the same name has another one.
    pub log_id: LogId,
    /// The largest record, in bytes of value, key and headers.
    pub record_bytes_max: u32,
    /// The largest request, in bytes of all its records.
    pub request_bytes_max: u32,
    /// How far it is applied here.
    pub watermark: Watermark,
    /// Its stored bytes.
    pub reader: GroupReader,
}

/// All logs of this node; a clone is the same map.
#[derive(Clone, Default)]
pub struct Logs(Arc<RwLock<HashMap<LogName, Arc<OpenLog>>>>);

impl Logs {
    /// The log of that name, if this node carries it. "No" is this node's knowledge only: see `ReadIndex` of the catalog.
    pub fn get(&self, name: &LogName) -> Option<Arc<OpenLog>> {
        self.0.read().get(name).cloned()
    }

    /// Every log of this node.
    pub fn all(&self) -> Vec<Arc<OpenLog>> {
        self.0.read().values().cloned().collect()
    }

    /// Opens a log for clients.
    pub fn insert(&self, log: OpenLog) {
        self.0.write().insert(log.name.clone(), Arc::new(log));
    }
}
