//! A walk over the frames of one file, from one position to another. This is how frames are read: by recovery, reads,
//! streams, `data verify`, the scrub, and the rebuild of an index.

use thiserror::Error;

use crate::storage::error::{NewerFrame, StorageError};
use crate::storage::faults::{Fault, broken};
use crate::storage::format::frame::{self, BadFrame, Frame, HEADER_BYTES};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::DiskFile;

const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 1 << 20;
/// The granularity in which unreadable bytes are skipped.
const BLOCK_BYTES: u64 = 4096;
/// After this many consecutive unreadable bytes, not every block is tried, because each attempt may take seconds.
const UNREADABLE_BYTES: u64 = 1 << 20;

/// Why a walk did not return a frame.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The next bytes are not in memory.
    #[error("not in memory")]
    NotCached,
    /// The system refused to read.
    #[error(transparent)]
    Disk(#[from] StorageError),
    /// A valid frame of a newer version; [`Walk::skip_newer`] continues after it.
    #[error(transparent)]
    Newer(#[from] NewerFrame),
    /// Not a valid frame.
    #[error("byte {position}: {what}")]
    Bad { position: u64, what: &'static str },
}

/// A walk. The checksums of every frame that it returns are right.
pub struct Walk<'a> {
    file: &'a DiskFile,
    salt: u64,
    access: Access,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    read_bytes: usize,
    read_bytes_max: usize,
    /// Below this position some block is unreadable, so reads up to it are one block each.
    careful_until: u64,
    unreadable: Option<StorageError>,
    /// Payloads at the front of the buffer ([`Walk::keep_payload`]).
    kept_bytes: usize,
}

impl<'a> Walk<'a> {
    /// A walk from the frame at `at` to `end`, which has to be the end of a frame.
    pub fn new(file: &'a DiskFile, salt: u64, at: u64, end: u64, access: Access) -> Walk<'a> {
        let (buffer, read_bytes) = (Vec::new(), READ_BYTES_MIN);
        Walk {
            file,
            salt,
            access,
            at,
            end,
            buffer,
            buffer_at: at,
            read_bytes,
            read_bytes_max: READ_BYTES_MAX,
            careful_until: 0,
            unreadable: None,
            kept_bytes: 0,
        }
    }

    /// Sets the size of the first read. After it, only the bytes of one frame at a time are read.
    #[must_use]
    pub fn with_first_read(self, bytes: usize) -> Walk<'a> {
        Walk { read_bytes: bytes, read_bytes_max: 0, ..self }
    }

    /// True if this many bytes after the current position are in memory.
    pub fn has_buffered(&self, bytes: usize) -> bool {
        self.buffer.len() >= (self.at - self.buffer_at) as usize + bytes
    }

    /// Returns the length of the next frame according to its header; `None` at the end.
    ///
    /// # Errors
    /// [`WalkError`].
    pub fn next_frame_bytes(&mut self) -> Result<Option<usize>, WalkError> {
        let at = self.at;
        if at == self.end {
            return Ok(None);
        }
        let salt = self.salt;
        let header = self.bytes(HEADER_BYTES)?.first_chunk::<HEADER_BYTES>();
        let bytes = header.map_or(Err("not a whole frame"), |header| frame::peek_bytes(header, salt, at));
        bytes.map(Some).map_err(|what| WalkError::Bad { position: at, what })
    }

    /// Keeps the payload of the frame at `position`, which [`Walk::next`] has returned, by appending it to the payloads
    /// kept so far. From now on, only frames in the buffer are returned.
    pub fn keep_payload(&mut self, position: u64, payload_bytes: usize) {
        let from = (position - self.buffer_at) as usize + HEADER_BYTES;
        debug_assert!(from >= self.kept_bytes);
        self.buffer.copy_within(from..from + payload_bytes, self.kept_bytes);
        self.kept_bytes += payload_bytes;
    }

    /// Returns the payloads that were kept.
    pub fn into_kept(mut self) -> Vec<u8> {
        self.buffer.truncate(self.kept_bytes);
        self.buffer
    }

    /// The position of the next frame.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns the next frame and its position; `None` at the end.
    ///
    /// # Errors
    /// [`WalkError`]; the position is unchanged then.
    #[allow(clippy::should_implement_trait)] // The frame borrows from the walk.
    pub fn next(&mut self) -> Result<Option<(u64, Frame<'_>)>, WalkError> {
        let at = self.at;
        let Some(bytes) = self.next_frame_bytes()? else { return Ok(None) };
        self.bytes(bytes)?;
        let salt = self.salt;
        self.at += bytes as u64;
        let start = (at - self.buffer_at) as usize;
        match frame::decode(&self.buffer[start..start + bytes], salt, at) {
            Ok(frame) => Ok(Some((at, frame))),
            Err(bad) => {
                self.at = at;
                Err(match bad {
                    BadFrame::Invalid(what) => WalkError::Bad { position: at, what },
                    BadFrame::Newer(kind) => {
                        let (file, end) = (self.file.path().to_owned(), at + bytes as u64);
                        WalkError::Newer(NewerFrame { file, position: at, end, kind })
                    }
                })
            }
        }
    }

    /// Returns the next `wanted` bytes without advancing.
    fn bytes(&mut self, wanted: usize) -> Result<&[u8], WalkError> {
        let start = (self.at - self.buffer_at) as usize;
        if self.buffer.len() < start + wanted {
            self.fill(wanted)?;
        }
        let start = (self.at - self.buffer_at) as usize;
        Ok(&self.buffer[start..start + wanted])
    }

    fn fill(&mut self, wanted: usize) -> Result<(), WalkError> {
        if self.kept_bytes > 0 {
            return Err(WalkError::NotCached);
        }
        let cut_off = WalkError::Bad { position: self.at, what: "a frame is cut off" };
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if wanted > left || wanted == left && broken(Fault::TailCutEarly) {
            return Err(cut_off);
        }
        self.buffer.drain(..(self.at - self.buffer_at) as usize);
        self.buffer_at = self.at;
        let have = self.buffer.len();
        let from = self.at + have as u64;
        let mut more = wanted.max(self.read_bytes).max(have).min(left) - have;
        // Up to the end of the block that contains the last wanted byte.
        let in_block = ((self.at + wanted as u64).next_multiple_of(BLOCK_BYTES).min(self.end) - from) as usize;
        if from < self.careful_until {
            more = more.min(in_block);
        }
        self.read_bytes = (self.read_bytes * 2).min(self.read_bytes_max);
        let mut read = self.read_on(more);
        // The unreadable bytes may be after the wanted ones. A disk may take seconds to report them, so they are not
        // read again for each frame.
        for less in [in_block, wanted - have] {
            if more > less && matches!(&read, Err(error) if !error.is_shortage()) {
                self.careful_until = self.careful_until.max(from + more as u64);
                self.read_bytes = READ_BYTES_MIN;
                more = less;
                read = self.read_on(more);
            }
        }
        match (read, self.access) {
            (Ok(()), _) if self.buffer.len() >= wanted => Ok(()),
            (Ok(()), Access::Blocking | Access::Disk) => Err(cut_off),
            // A cached read may end anywhere; only a blocking read shows the file's end, and which bytes are
            // unreadable.
            (Ok(()) | Err(_), Access::Cached) => Err(WalkError::NotCached),
            (Err(error), Access::Blocking | Access::Disk) => Err(error.into()),
        }
    }

    /// Appends up to `bytes` bytes to the buffer.
    fn read_on(&mut self, bytes: usize) -> Result<(), StorageError> {
        let at = self.buffer_at + self.buffer.len() as u64;
        match self.access {
            Access::Blocking => self.file.append_at(at, bytes, &mut self.buffer).map(drop),
            Access::Disk => self.file.append_disk_at(at, bytes, &mut self.buffer).map(drop),
            Access::Cached => self.file.append_cached_at(at, bytes, &mut self.buffer).map(drop),
        }
    }

    /// Continues after a frame of a newer version.
    pub fn skip_newer(&mut self, newer: &NewerFrame) {
        debug_assert_eq!(newer.position, self.at);
        self.at = newer.end;
    }

    /// Advances to the next valid frame header after the current position and before the end; returns `false` and stays
    /// if there is none. This finds the frame after a bad one. May wait for the disk, whatever the access. Unreadable
    /// bytes are skipped: [`Walk::unreadable`] returns their error.
    ///
    /// # Errors
    /// [`WalkError::Disk`], but not for unreadable bytes.
    pub fn skip_bad(&mut self) -> Result<bool, WalkError> {
        let mut at = self.at / 8 * 8 + 8;
        // Search the buffer first, so that many bad frames do not cost one read each.
        let skipped = usize::try_from(at - self.buffer_at).unwrap_or(usize::MAX);
        if let Some(buffered) = self.buffer.get(skipped..) {
            if let Some(found) = header_among(buffered, self.salt, at) {
                self.at = found;
                return Ok(true);
            }
            at += (buffered.len() + 8).saturating_sub(HEADER_BYTES) as u64 / 8 * 8;
        }
        let mut buffer = Vec::new();
        let mut step = READ_BYTES_MIN as u64;
        let mut unreadable = 0;
        while at < self.end {
            match self.file.next_data(at)? {
                // A hole reads as zeros, which are never a frame, so it is skipped.
                Some(data) => at = at.max(data / 8 * 8),
                None => return Ok(false),
            }
            match self.headers(at, step + HEADER_BYTES as u64, &mut buffer) {
                Ok(true) => return Ok(true),
                Ok(false) => {
                    if (buffer.len() as u64) < step + HEADER_BYTES as u64 {
                        return Ok(false);
                    }
                    at += step;
                    step = (step * 2).min(READ_BYTES_MAX as u64);
                    unreadable = 0;
                }
                // Retry with a smaller read.
                Err(_) if step > BLOCK_BYTES => step = BLOCK_BYTES,
                Err(error) => {
                    // Perhaps only a later block is unreadable. A header may cross the end of this one.
                    let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
                    for bytes in [block_end - at + HEADER_BYTES as u64, block_end - at] {
                        if let Ok(true) = self.headers(at, bytes, &mut buffer) {
                            return Ok(true);
                        }
                    }
                    self.unreadable.get_or_insert(error);
                    let skipped = if unreadable < UNREADABLE_BYTES { BLOCK_BYTES } else { READ_BYTES_MAX as u64 };
                    unreadable += skipped;
                    at = block_end + skipped - BLOCK_BYTES;
                }
            }
        }
        Ok(false)
    }

    /// Advances to the first valid frame header among these bytes, if any.
    fn headers(&mut self, at: u64, bytes: u64, buffer: &mut Vec<u8>) -> Result<bool, StorageError> {
        buffer.clear();
        let wanted = usize::try_from(bytes.min(self.end.saturating_sub(at))).unwrap_or(usize::MAX);
        match self.access {
            Access::Disk => self.file.append_disk_at(at, wanted, buffer),
            Access::Blocking | Access::Cached => self.file.append_at(at, wanted, buffer),
        }?;
        let Some(found) = header_among(buffer, self.salt, at) else { return Ok(false) };
        (self.at, self.buffer_at) = (found, at);
        std::mem::swap(&mut self.buffer, buffer);
        self.read_bytes = READ_BYTES_MIN;
        Ok(true)
    }

    /// Returns the first error of the unreadable bytes that [`Walk::skip_bad`] skipped, once.
    pub fn unreadable(&mut self) -> Option<StorageError> {
        self.unreadable.take()
    }
}

/// The position of the first valid frame header among these bytes, which begin at `at`.
fn header_among(bytes: &[u8], salt: u64, at: u64) -> Option<u64> {
    let mut headers = bytes.windows(HEADER_BYTES).step_by(8).zip((at..).step_by(8));
    let valid = |header: &[u8], position| {
        header.first_chunk().is_some_and(|header| frame::peek_bytes(header, salt, position).is_ok())
    };
    headers.find(|(header, position)| valid(header, *position)).map(|(_, position)| position)
}

#[cfg(test)]
mod tests;
