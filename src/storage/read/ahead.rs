//! Reading ahead of a stream, so that the disk works while records are sent.
//!
//! Read-ahead begins when a read of the stream has waited for the disk: that read also asks the system for the next
//! [`AHEAD_BYTES`]. Each time the stream has used half of them, a thread that may block requests another half.
//! Read-ahead stops where the log is still being written, because new records are in the page cache.

use std::sync::Arc;

use super::block::{AHEAD_BYTES, ResumePoint};
use super::segment::Segment;
use super::view::View;
use crate::storage::format::frame::Position;
use crate::storage::format::segment_header::SEGMENT_HEADER_BYTES;
use crate::storage::io::disk::Access;

/// The size of each request after the first one.
const STEP_BYTES: u64 = AHEAD_BYTES / 2;

/// The end of the bytes that a stream has requested; none if none of its reads has waited for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead(Option<Position>);

/// The next bytes of a segment to request for a stream.
pub struct Fetch {
    segment: Arc<Segment>,
    from: u64,
}

impl Ahead {
    /// Begins read-ahead for a stream whose last read waited for the disk and ended at `resume`.
    pub fn of_waited(resume: Option<ResumePoint>) -> Ahead {
        Ahead(resume.map(|ResumePoint { position, .. }| Position { at: position.at + AHEAD_BYTES, ..position }))
    }
}

impl Fetch {
    /// Asks the system to read the bytes. Opening the segment may wait for the disk.
    pub fn run(&self) {
        // If the segment can't be opened, the read that needs it reports the error.
        if let Ok(Some(file)) = self.segment.file(Access::Blocking) {
            file.will_need(self.from, STEP_BYTES);
        }
    }
}

/// Returns the next bytes to request for a stream whose last read ended at `resume`; `None` if enough are requested.
/// Never waits.
pub(super) fn to_fetch(view: &View, resume: ResumePoint, ahead: &mut Ahead) -> Option<Fetch> {
    let start = resume.position;
    let reached = ahead.0?.max(start);
    let index = |file| view.parts.iter().position(|part| part.segment.header.number == file);
    let (here, there) = (index(start.file)?, index(reached.file)?);
    let before: u64 = view.parts[here..there].iter().map(|part| part.end()).sum();
    if before + reached.at > start.at + STEP_BYTES {
        return None;
    }
    let (part, from) = match &view.parts[there..] {
        [part, ..] if reached.at < part.end() => (part, reached.at),
        [_, next, ..] => (next, SEGMENT_HEADER_BYTES),
        _ => return None,
    };
    if part.limit.is_none() && from + STEP_BYTES > part.end() {
        return None;
    }
    ahead.0 = Some(Position { file: part.segment.header.number, at: from + STEP_BYTES });
    Some(Fetch { segment: part.segment.clone(), from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::format::state::Genesis;
    use crate::storage::write::log::GroupLog;
    use crate::storage::write::log::tests::{GROUP, Home, append};
    use crate::storage::write::options::LogOptions;
    use crate::types::{Offset, ReplicaId};

    /// While a stream reads a log of several segments, everything after its first read is requested once and in order,
    /// and never more than 8 MiB before the stream needs it. Bytes that are still being written are not requested.
    #[test]
    fn fetches_everything_once_and_in_time() {
        let home = Home::new(Genesis::founder(ReplicaId(5)));
        let options = LogOptions { segment_bytes: 20 << 20 };
        let (mut log, _) = GroupLog::open(&home.disk, home.dir.path(), GROUP, &options).expect("opened");
        let value = vec![7; 1 << 20];
        for _ in 0..70 {
            append(&mut log, 1, &[&value]);
        }
        let (reader, until) = (log.reader(), log.bounds().next_offset);
        let parts = reader.view().parts.clone();
        assert!(parts.len() > 3, "{}", parts.len());
        let (mut next, mut place, mut ahead) = (Offset(0), None, Ahead::default());
        let mut fetched: Vec<(u64, u64)> = Vec::new();
        while next < until {
            let (slice, behind) = reader.block(next, until, 1 << 20, Access::Blocking, place).expect("records");
            (next, place) = (slice.next, behind);
            let now = place.expect("whole entries");
            let here = now.position;
            if fetched.is_empty() {
                assert!(reader.to_fetch(now, &mut ahead).is_none(), "it has not waited");
                ahead = Ahead::of_waited(Some(now));
                fetched.push((here.file, here.at + AHEAD_BYTES));
            }
            while let Some(fetch) = reader.to_fetch(now, &mut ahead) {
                let file = fetch.segment.header.number;
                let last = fetched.last_mut().expect("the first");
                if last.0 == file {
                    assert_eq!(last.1, fetch.from);
                } else {
                    let end = parts.iter().find(|part| part.segment.header.number == last.0).expect("a part").end();
                    assert!(last.1 >= end && fetch.from == SEGMENT_HEADER_BYTES, "{last:?} of {end}, {}", fetch.from);
                }
                assert!(file > here.file || fetch.from <= here.at + STEP_BYTES);
                *last = (file, fetch.from + STEP_BYTES);
            }
        }
        let newest = parts.last().expect("one");
        let (file, reached) = fetched[0];
        assert_eq!(file, newest.segment.header.number);
        assert!(reached <= newest.end() && newest.end() - reached < STEP_BYTES, "{reached} of {}", newest.end());
    }
}
