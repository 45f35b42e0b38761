//! A model of a log without a disk: only the segments and timestamps that retention uses.

use std::collections::VecDeque;

use crate::catalog::policy::retention::LogContents;
use crate::storage::log::SealAge;
use crate::types::Offset;
use crate::watermark::Visible;

/// A segment is sealed when it has this many bytes.
const SEGMENT_BYTES: u64 = 1000;

struct Segment {
    base: u64,
    begun_us: u64,
    bytes: u64,
}

#[derive(Default)]
pub struct ModelLog {
    segments: Vec<Segment>,
    first: u64,
    /// The timestamps of the records from `first` on.
    stamps: VecDeque<u64>,
    last_stamp_us: u64,
    /// The log's clock.
    local_us: u64,
}

impl ModelLog {
    pub fn next(&self) -> u64 {
        self.first + self.stamps.len() as u64
    }

    pub fn visible(&self) -> Visible {
        Visible {
            first_offset: Offset(self.first),
            next_offset: Offset(self.next()),
            last_append_time_us: self.last_stamp_us,
            ..Visible::default()
        }
    }

    pub fn begun_us(&self) -> u64 {
        self.segments.iter().map(|segment| segment.begun_us).max().unwrap_or(0)
    }

    pub fn append(&mut self, records: u64, bytes: u64, wall_us: u64) {
        for _ in 0..records {
            self.last_stamp_us = self.last_stamp_us.max(wall_us);
            if self.segments.last().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES) {
                self.begin_segment();
            }
            if let Some(segment) = self.segments.last_mut() {
                segment.bytes += bytes;
            }
            self.stamps.push_back(self.last_stamp_us);
        }
    }

    fn begin_segment(&mut self) {
        self.segments.push(Segment { base: self.next(), begun_us: self.local_us, bytes: 0 });
    }

    /// Seals the newest segment if it is old enough. Returns true if the sealed segment contains records; an empty
    /// one only stores the time.
    pub fn keep_time(&mut self, local_us: u64, seal: Option<SealAge>) -> bool {
        self.local_us = local_us;
        let old = self.segments.last().zip(seal).is_some_and(|(newest, age)| {
            let limit = if newest.bytes > 0 { age.used_us } else { age.empty_us };
            local_us.saturating_sub(newest.begun_us) >= limit
        });
        let has_records = self.segments.last().is_some_and(|segment| segment.bytes > 0);
        if old {
            self.begin_segment();
        }
        old && has_records
    }

    pub fn trim(&mut self, first: Offset) {
        while self.first < first.0 {
            self.stamps.pop_front();
            self.first += 1;
        }
        while self.segments.get(1).is_some_and(|second| second.base <= first.0) {
            self.segments.remove(0);
        }
    }
}

impl LogContents for ModelLog {
    fn first_within(&self, bytes: u64) -> Option<Offset> {
        let mut stays: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let mut keep = None;
        for pair in self.segments.windows(2) {
            stays -= pair[0].bytes;
            if stays < bytes {
                break;
            }
            keep = Some(Offset(pair[1].base));
        }
        keep
    }

    fn arrived_by(&self, local_us: u64) -> Option<Offset> {
        let arrived = |segment: &&Segment| segment.begun_us != 0 && segment.begun_us <= local_us;
        self.segments.iter().skip(1).rev().find(arrived).map(|segment| Offset(segment.base))
    }

    fn first_not_before(&self, time_us: u64, from: Offset, below: Offset) -> Offset {
        let newer = |offset: &u64| self.stamps.get((offset - self.first) as usize).is_some_and(|at| *at >= time_us);
        (from.0..below.0).find(newer).map_or(below, Offset)
    }
}
