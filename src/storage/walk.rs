//! A walk over the frames of one file, from a position to another. Recovery, readers and whoever makes an index anew walk.

use std::fmt;

use super::disk::DiskFile;
use super::error::StorageError;
use super::faults::{Fault, broken};
use super::frame::{self, Frame, HEADER_BYTES};
use super::reader::Access;

const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

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
}

impl<'a> Walk<'a> {
    /// From the frame at `at` up to `end`, where a frame has to end too.
    pub fn new(file: &'a DiskFile, salt: u64, at: u64, end: u64, access: Access) -> Walk<'a> {
        Walk { file, salt, access, at, end, buffer: Vec::new(), buffer_at: at, read_bytes: READ_BYTES_MIN }
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
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if wanted > left || wanted == left && broken(Fault::TailCutEarly) {
            return Err(cut_off);
        }
        self.buffer.drain(..(self.at - self.buffer_at) as usize);
        self.buffer_at = self.at;
        let have = self.buffer.len();
        let more = wanted.max(self.read_bytes).max(have).min(left) - have;
        self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        let at = self.at + have as u64;
        match self.access {
            Access::Blocking => self.file.append_at(at, more, &mut self.buffer).map(Some),
            Access::Disk => self.file.append_disk_at(at, more, &mut self.buffer).map(Some),
            Access::Cached => self.file.append_cached_at(at, more, &mut self.buffer),
        }?;
        match self.access {
            _ if self.buffer.len() >= wanted => Ok(()),
            Access::Blocking | Access::Disk => Err(cut_off),
            // It may have stopped anywhere; only a blocking read tells where the file ends.
            Access::Cached => Err(WalkError::NotCached),
        }
    }
    /// Goes on to the next position, behind this one, at which the header of a frame stands; `false` if there is none. For
    /// who has to know what stands behind a bad frame.
    ///
    /// # Errors
    /// [`WalkError::Disk`].
    pub fn skip_bad(&mut self) -> Result<bool, WalkError> {
        let mut buffer = vec![0; READ_BYTES_MAX + HEADER_BYTES];
        self.buffer.clear();
        let mut at = self.at + 8;
        loop {
            let read = self.file.read_at(at, &mut buffer)?;
            for start in (0..READ_BYTES_MAX).step_by(8) {
                let Some(header) = buffer[..read].get(start..).and_then(|b| b.first_chunk()) else { return Ok(false) };
                let position = at + start as u64;
                if frame::peek_bytes(header, self.salt, position).is_ok() {
                    (self.at, self.buffer_at) = (position, position);
                    return Ok(true);
                }
            }
            at += READ_BYTES_MAX as u64;
        }
    }
}
