//! A walk over the frames of one file, from a position to another. Recovery, readers and whoever makes an index anew walk.

use std::fmt;

use super::disk::DiskFile;
use super::error::StorageError;
use super::faults::{Fault, broken};
use super::frame::{self, Frame, HEADER_BYTES};
use super::reader::Access;

const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 1 << 20;
/// The unit of unreadable areas of a disk.
const BLOCK_BYTES: u64 = 4096;
/// After this many unreadable bytes in a row, not every block is tried, as each attempt may take seconds.
const UNREADABLE_BYTES: u64 = 1 << 20;

/// Why a walk could not go on.
#[derive(Debug)]
pub enum WalkError {
    /// The next bytes are not in memory.
    NotCached,
    /// The system refused to read.
    Disk(StorageError),
    /// There is no valid frame.
    Bad {
        /// Where.
        position: u64,
        /// Why.
        what: &'static str,
    },
}

impl From<StorageError> for WalkError {
    fn from(error: StorageError) -> WalkError {
        WalkError::Disk(error)
    }
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkError::NotCached => f.write_str("not in memory"),
            WalkError::Disk(error) => error.fmt(f),
            WalkError::Bad { position, what } => write!(f, "byte {position}: {what}"),
        }
    }
}

/// A walk. Every frame that it gives has been checked.
pub struct Walk<'a> {
    file: &'a DiskFile,
    salt: u64,
    access: Access,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    read_bytes: usize,
    unreadable: Option<StorageError>,
}

impl<'a> Walk<'a> {
    /// From the frame at `at` up to `end`, where a frame has to end too.
    pub fn new(file: &'a DiskFile, salt: u64, at: u64, end: u64, access: Access) -> Walk<'a> {
        let (buffer, read_bytes) = (Vec::new(), READ_BYTES_MIN);
        Walk { file, salt, access, at, end, buffer, buffer_at: at, read_bytes, unreadable: None }
    }

    /// Where the next frame begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next frame and its position; `None` at the end.
    ///
    /// # Errors
    /// [`WalkError`]; the walk then stands where it stood.
    #[allow(clippy::should_implement_trait)] // it lends
    pub fn next(&mut self) -> Result<Option<(u64, Frame<'_>)>, WalkError> {
        let at = self.at;
        if at == self.end {
            return Ok(None);
        }
        let head = self.bytes(HEADER_BYTES)?;
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(head);
        let bytes =
            frame::peek_bytes(&header, self.salt, at).map_err(|bad| WalkError::Bad { position: at, what: bad.0 })?;
        self.bytes(bytes)?;
        let salt = self.salt;
        self.at += bytes as u64;
        let start = (at - self.buffer_at) as usize;
        match frame::decode(&self.buffer[start..start + bytes], salt, at) {
            Ok(frame) => Ok(Some((at, frame))),
            Err(bad) => {
                self.at = at;
                Err(WalkError::Bad { position: at, what: bad.0 })
            }
        }
    }

    /// The next `wanted` bytes.
    fn bytes(&mut self, wanted: usize) -> Result<&[u8], WalkError> {
        let start = (self.at - self.buffer_at) as usize;
        if self.buffer.len() < start + wanted {
            self.fill(wanted)?;
        }
        let start = (self.at - self.buffer_at) as usize;
        Ok(&self.buffer[start..start + wanted])
    }

    fn fill(&mut self, wanted: usize) -> Result<(), WalkError> {
        let cut_off = WalkError::Bad { position: self.at, what: "a frame is cut off" };
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if wanted > left || wanted == left && broken(Fault::TailCutEarly) {
            return Err(cut_off);
        }
        self.buffer.drain(..(self.at - self.buffer_at) as usize);
        self.buffer_at = self.at;
        let have = self.buffer.len();
        let more = wanted.max(self.read_bytes).max(have).min(left) - have;
        self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        let read = match self.read_on(more) {
            Err(error) if more > wanted - have && !error.is_shortage() => {
                // The unreadable bytes may be after the wanted ones.
                self.read_bytes = READ_BYTES_MIN;
                self.read_on(wanted - have)
            }
            other => other,
        };
        match (read, self.access) {
            (Ok(()), _) if self.buffer.len() >= wanted => Ok(()),
            (Ok(()), Access::Blocking | Access::Disk) => Err(cut_off),
            // A cached read may end anywhere; only a blocking read shows the file's end, and which bytes are unreadable.
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

    /// Moves to the next position, after this one and before the end, that has a valid frame header; returns `false` and does not
    /// move if there is none. Used to find the frame after a bad one. May wait for the disk, whatever the access. Unreadable bytes
    /// are skipped: [`Walk::unreadable`] returns the error.
    ///
    /// # Errors
    /// [`WalkError::Disk`], but not for unreadable bytes.
    pub fn skip_bad(&mut self) -> Result<bool, WalkError> {
        let mut buffer = Vec::new();
        let mut at = self.at / 8 * 8 + 8;
        let mut step = READ_BYTES_MIN as u64;
        let mut unreadable = 0;
        while at < self.end {
            match self.file.next_data(at)? {
                // A hole is zeros, which are not frames, so it is not read.
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
                    // Perhaps only the next block is unreadable.
                    let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
                    if let Ok(true) = self.headers(at, block_end - at, &mut buffer) {
                        return Ok(true);
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

    /// Moves to the first valid frame header among these bytes, if any.
    fn headers(&mut self, at: u64, bytes: u64, buffer: &mut Vec<u8>) -> Result<bool, StorageError> {
        buffer.clear();
        let wanted = usize::try_from(bytes.min(self.end.saturating_sub(at))).unwrap_or(usize::MAX);
        match self.access {
            Access::Disk => self.file.append_disk_at(at, wanted, buffer),
            Access::Blocking | Access::Cached => self.file.append_at(at, wanted, buffer),
        }?;
        for (i, header) in buffer.windows(HEADER_BYTES).step_by(8).enumerate() {
            let position = at + 8 * i as u64;
            if header.first_chunk().is_some_and(|header| frame::peek_bytes(header, self.salt, position).is_ok()) {
                (self.at, self.buffer_at) = (position, position);
                self.buffer.clear();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the first error of the unreadable bytes that [`Walk::skip_bad`] skipped, once.
    pub fn unreadable(&mut self) -> Option<StorageError> {
        self.unreadable.take()
    }
}

#[cfg(test)]
mod tests;
