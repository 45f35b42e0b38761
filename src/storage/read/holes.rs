//! The unreadable ranges between readable entries: damage, and frames of a newer version.

use super::damage::DamagedRange;
use super::error::{NewerRecords, ReadError};
use super::view::{Part, Published};
use super::walk::WalkError;
use crate::storage::error::NewerFrame;
use crate::storage::faults::{Fault, broken};
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// A range that this version can't read, from one readable entry to the next or to the end of the segment, and the
/// records in it. It is unknown which frame of the range contained which record, so one damaged frame makes the whole
/// range damaged.
#[derive(Clone, Debug)]
pub(super) enum Hole {
    Damaged(DamagedRange),
    /// Only valid frames, at least one of them of a newer version.
    Newer(NewerRecords),
}

impl Hole {
    /// The first record in it.
    pub(super) fn first_offset(&self) -> Offset {
        match self {
            Hole::Damaged(range) => range.first_offset,
            Hole::Newer(newer) => newer.first_offset,
        }
    }

    /// The first record after it, if known; equal to the first record if the hole contains none.
    fn next_offset(&self) -> Option<Offset> {
        match self {
            Hole::Damaged(range) => range.next_offset,
            Hole::Newer(newer) => newer.next_offset,
        }
    }

    fn is_damage(&self) -> bool {
        matches!(self, Hole::Damaged(_))
    }

    /// Returns the same hole with these records.
    fn of_records(self, first_offset: Offset, next_offset: Option<Offset>) -> Hole {
        match self {
            Hole::Damaged(range) => Hole::Damaged(DamagedRange { first_offset, next_offset, ..range }),
            Hole::Newer(newer) => Hole::Newer(NewerRecords { first_offset, next_offset, ..newer }),
        }
    }

    /// Returns the hole that contains the record at `from`; `next` is the first record after all `holes`. The result
    /// ends at the first record that is lost for the other reason, so that a client that continues there receives that
    /// error too.
    pub(super) fn at(holes: &[Hole], from: Offset, next: Offset) -> Option<Hole> {
        let has_records = |hole: &Hole| hole.next_offset().is_none_or(|next| next > hole.first_offset());
        let is_passed = |hole: &Hole| hole.next_offset().is_some_and(|next| next <= from);
        let mut holes = holes.iter().filter(|hole| has_records(hole) && !is_passed(hole));
        let first = holes.next()?;
        let other = holes.find(|other| other.is_damage() != first.is_damage()).map(Hole::first_offset);
        Some(first.clone().of_records(from, Some(other.map_or(next, |other| other.min(next)))))
    }
}

impl From<Hole> for ReadError {
    fn from(hole: Hole) -> ReadError {
        match hole {
            Hole::Damaged(range) => ReadError::Damaged(range),
            Hole::Newer(newer) => ReadError::NewerFrame(newer),
        }
    }
}

/// The holes that a walk has found since the last entry.
pub(super) struct Holes<'a> {
    log: &'a Published,
    access: Access,
    /// The damaged byte ranges in this segment, each up to the next entry or frame of a newer version.
    damaged: Vec<DamagedRange>,
    /// True if the end of the last damaged range is not known yet.
    is_open: bool,
    /// The holes, in order. At most one for each segment, because the next segment's base offset shows where it ends.
    pub(super) pending: Vec<Hole>,
}

impl<'a> Holes<'a> {
    pub(super) fn new(log: &'a Published, access: Access) -> Holes<'a> {
        Holes { log, access, damaged: Vec::new(), is_open: false, pending: Vec::new() }
    }

    /// Notes that the bytes at `position` are not a valid frame, or can't be read. `next_offset` is the record that
    /// should be there.
    pub(super) fn damage(
        &mut self,
        part: &Part,
        position: u64,
        next_offset: Offset,
        error: WalkError,
    ) -> Result<(), ReadError> {
        let what = match error {
            WalkError::Bad { what, .. } => what.to_owned(),
            WalkError::Disk(error) if !error.is_shortage() => error.to_string(),
            WalkError::Disk(error) => return Err(ReadError::Shortage(error.to_string())),
            WalkError::NotCached => return Err(ReadError::NotCached),
            WalkError::Newer(newer) => {
                self.newer(part, next_offset, newer);
                return Ok(());
            }
        };
        // Only a read that may wait for the disk can determine what is wrong and where the damage ends.
        if self.access == Access::Cached {
            return Err(ReadError::NotCached);
        }
        let range = DamagedRange { first_offset: next_offset, next_offset: None, ..part.damaged(position, &what) };
        if broken(Fault::NothingAfterDamage) {
            return Err(ReadError::Damaged(range));
        }
        if !self.is_open {
            self.damaged.push(range.clone());
            self.is_open = true;
        }
        match self.pending.last_mut() {
            Some(last) if last.next_offset().is_none() => {
                if !last.is_damage() && !broken(Fault::DamageTakenForNewer) {
                    *last = Hole::Damaged(range);
                }
            }
            Some(_) | None => self.pending.push(Hole::Damaged(range)),
        }
        Ok(())
    }

    /// Notes a frame of a newer version. `next_offset` is the record that should be there.
    pub(super) fn newer(&mut self, part: &Part, next_offset: Offset, frame: NewerFrame) {
        self.close(frame.position);
        if self.log.still_contains(part, frame.position) {
            self.log.damages().report_newer(part.segment.header.group, &frame);
        }
        if self.pending.last().is_none_or(|last| last.next_offset().is_some()) {
            let newer = NewerRecords { frame, first_offset: next_offset, next_offset: None };
            self.pending.push(if broken(Fault::NewerTakenForDamage) {
                Hole::Damaged(DamagedRange { first_offset: next_offset, ..part.damaged(newer.frame.position, "newer") })
            } else {
                Hole::Newer(newer)
            });
        }
    }

    /// Ends the open damaged range at `position`.
    fn close(&mut self, position: u64) {
        if std::mem::take(&mut self.is_open)
            && let Some(range) = self.damaged.last_mut()
        {
            range.bytes = position.saturating_sub(range.position);
        }
    }

    /// Ends the holes at `position`, where an entry begins or the segment ends. `next_offset` is the first record from
    /// there on, if known.
    pub(super) fn end(&mut self, part: &Part, position: u64, next_offset: Option<Offset>) {
        self.close(position);
        if let Some(last) = self.pending.pop() {
            let first_offset = last.first_offset();
            self.pending.push(last.of_records(first_offset, next_offset));
        }
        for mut range in std::mem::take(&mut self.damaged) {
            range.next_offset = next_offset;
            for hole in &mut self.pending {
                if let Hole::Damaged(pending) = hole
                    && pending.is_at(&range)
                {
                    pending.bytes = range.bytes;
                }
            }
            if self.log.still_contains(part, range.position) {
                self.log.damages().report(part.segment.header.group, &range);
            }
        }
    }
}
