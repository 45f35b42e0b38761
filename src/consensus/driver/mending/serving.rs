//! Serves the requests of peers that repair their disks (`driver/mending.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::consensus::replica::Replica;
use crate::consensus::sinks::Sinks;
use crate::consensus::wire::stored_entries_to_pb;
use crate::pb::peer::{RaftMessage, RepairAnswer, RepairRequest};
use crate::storage::reader::{Access, ReadError};
use crate::types::{LogIndex, NodeId};

/// The maximum size of the entries in an answer, but at least one entry is sent.
const ANSWER_BYTES: u64 = 1 << 20;

/// The maximum number of requests of peers that are served at the same time.
const SERVED_MAX: usize = 2;

/// The requests of peers that are being served. Clones share the number.
#[derive(Clone, Default)]
pub struct Serving(Arc<AtomicUsize>);

impl Serving {
    fn begin(&self) -> bool {
        let more = |serving: usize| (serving < SERVED_MAX).then_some(serving + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn end(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sends stored entries to a peer that repairs its disk: those that are committed here and can be read.
pub fn serve(
    from: NodeId,
    message: &RaftMessage,
    request: &RepairRequest,
    replica: &Replica,
    serving: &Serving,
    sinks: &Sinks,
) {
    let commit = replica.group.commit_index();
    let (low, high) = (LogIndex(request.low), LogIndex(request.high).min(commit.next()));
    let answer = RaftMessage {
        group: message.group,
        from: message.to,
        to: message.from,
        index: low.0,
        repair_answer: Some(RepairAnswer::default()).into(),
        bulk: true,
        ..RaftMessage::default()
    };
    if replica.group.differs() || replica.group.suspect().is_some() {
        return sinks.outbound.send(from, answer);
    }
    // If too many requests are served, or all reader threads are busy, the peer asks another one.
    if !serving.begin() {
        return;
    }
    // A damaged replica may be replaced, and can't be a part of a majority without the peer.
    let is_sound = !replica.group.is_damaged();
    let (reader, outbound, served) = (replica.reader.clone(), sinks.outbound.clone(), serving.clone());
    let queued = sinks.readers.run_own(Box::new(move || {
        let read = reader.entries(low, high, ANSWER_BYTES, Access::Blocking);
        let trimmed = is_sound && matches!(read, Err(ReadError::Trimmed { .. }));
        let entries = stored_entries_to_pb(&read.unwrap_or_default()).unwrap_or_default();
        let repair_answer = Some(RepairAnswer { trimmed, ..RepairAnswer::default() }).into();
        outbound.send(from, RaftMessage { entries, repair_answer, ..answer });
        served.end();
    }));
    if queued.is_err() {
        serving.end();
    }
}
