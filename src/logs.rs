//! The logs that this node serves, by name.
//!
//! `consensus` adds them as the catalog lists them, and removes those that are deleted; `api` looks them up.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::Shared;
use parking_lot::{Mutex, RwLock};

use crate::log_state::TablesView;
use crate::storage::reader::GroupReader;
use crate::types::{GroupId, LogId, LogName, Offset};
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
    /// Its entries contain a hash chain.
    pub hash_chain: bool,
    /// The end of its backup, until all records of it are restored.
    pub restoring_to: Option<Offset>,
    /// The end of the applied entries on this node.
    pub watermark: HighWatermark,
    /// Its producers and cursors, never older than the watermark.
    pub tables: TablesView,
    /// Reads its records from disk.
    pub reader: GroupReader,
    /// Ends the streams of the log when it is deleted. [`Logs::insert`] sets it, if the log has other limits than
    /// before.
    pub removal: Removal,
}

/// Whether a log was removed from [`Logs`]. Clones share it.
#[derive(Clone)]
pub struct Removal {
    sender: Arc<Mutex<Option<oneshot::Sender<()>>>>,
    removed: Shared<oneshot::Receiver<()>>,
}

impl Default for Removal {
    fn default() -> Removal {
        let (sender, receiver) = oneshot::channel();
        Removal { sender: Arc::new(Mutex::new(Some(sender))), removed: receiver.shared() }
    }
}

impl Removal {
    /// Wakes every future of [`Removal::wait`].
    fn complete(&self) {
        // Dropping the sender wakes the receivers.
        drop(self.sender.lock().take());
    }

    /// Returns true if the log was removed.
    pub fn is_over(&self) -> bool {
        self.sender.lock().is_none()
    }

    /// Resolves when the log is removed.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        self.removed.clone().map(|_| ())
    }
}

#[derive(Default)]
struct Tables {
    served: HashMap<LogName, Arc<OpenLog>>,
    /// Deleted logs, until their files are removed.
    deleted: HashMap<GroupId, Arc<OpenLog>>,
}

/// All logs of this node. Clones share the map.
#[derive(Clone, Default)]
pub struct Logs(Arc<RwLock<Tables>>);

impl Logs {
    /// Returns the log of this name, unless it is deleted. Whether one that is missing exists in the cluster is decided
    /// by a linearizable read of the catalog (`ReadIndex`).
    pub fn get(&self, name: &LogName) -> Option<Arc<OpenLog>> {
        self.0.read().served.get(name).cloned()
    }

    /// Returns every log of this node that is not deleted.
    pub fn all(&self) -> Vec<Arc<OpenLog>> {
        self.0.read().served.values().cloned().collect()
    }

    /// Returns the deleted logs whose files are still on this node.
    pub fn deleted(&self) -> Vec<Arc<OpenLog>> {
        self.0.read().deleted.values().cloned().collect()
    }

    /// Makes a log available to clients.
    pub fn insert(&self, mut log: OpenLog) {
        let mut tables = self.0.write();
        if let Some(open) = tables.served.get(&log.name).filter(|open| open.group == log.group) {
            log.removal = open.removal.clone();
        }
        tables.deleted.remove(&log.group);
        tables.served.insert(log.name.clone(), Arc::new(log));
    }

    /// Makes a log that was deleted unavailable to clients. Its streams end. Its reader is kept, to report the space
    /// that it holds.
    pub fn remove(&self, name: &LogName) {
        let removed = {
            let mut tables = self.0.write();
            let removed = tables.served.remove(name);
            tables.deleted.extend(removed.iter().map(|log| (log.group, Arc::clone(log))));
            removed
        };
        if let Some(log) = removed {
            log.removal.complete();
        }
    }

    /// Adds a log that was deleted before this node started.
    pub fn insert_deleted(&self, log: OpenLog) {
        log.removal.complete();
        self.0.write().deleted.insert(log.group, Arc::new(log));
    }

    /// Forgets the log of a group, whose files are removed.
    pub fn remove_group(&self, group: GroupId) {
        let mut removed = Vec::new();
        {
            let mut tables = self.0.write();
            tables.deleted.remove(&group);
            tables.served.retain(|_, log| {
                let stays = log.group != group;
                if !stays {
                    removed.push(Arc::clone(log));
                }
                stays
            });
        }
        removed.iter().for_each(|log| log.removal.complete());
    }
}
