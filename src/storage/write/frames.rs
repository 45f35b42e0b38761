//! Frames that are written with one system call. Small payloads are copied to one buffer; a large payload is written
//! from its own.

use std::ops::Range;

use bytes::Bytes;

use crate::storage::format::frame::{self, Header, frame_bytes};

/// A payload of this size or more is not copied, because the copy would cost more than an additional slice of the
/// write.
const SHARED_BYTES_MIN: usize = 4 << 10;
/// The capacity that the buffer keeps between writes.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

enum Piece {
    Copied(Range<usize>),
    Shared(Bytes),
}

/// Consecutive frames.
#[derive(Default)]
pub(crate) struct FrameBatch {
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    headers: Vec<(Header, u64)>,
}

impl FrameBatch {
    /// Adds a frame to be written at `position`.
    pub(crate) fn push(&mut self, salt: u64, position: u64, header: &Header, payload: &Bytes) {
        if payload.len() < SHARED_BYTES_MIN {
            return self.push_small(salt, position, header, payload);
        }
        let start = self.buffer.len();
        frame::encode_head(&mut self.buffer, salt, position, header, payload);
        self.copied(start);
        self.pieces.push(Piece::Shared(payload.clone()));
        let start = self.buffer.len();
        self.buffer.extend_from_slice(frame::padding(payload.len()));
        self.copied(start);
        self.pushed(position, header, payload.len());
    }

    /// As [`FrameBatch::push`], for a few bytes.
    pub(crate) fn push_small(&mut self, salt: u64, position: u64, header: &Header, payload: &[u8]) {
        let start = self.buffer.len();
        frame::encode(&mut self.buffer, salt, position, header, payload);
        self.copied(start);
        self.pushed(position, header, payload.len());
    }

    fn copied(&mut self, start: usize) {
        let end = self.buffer.len();
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) => range.end = end,
            Some(Piece::Shared(_)) | None => self.pieces.push(Piece::Copied(start..end)),
        }
    }

    fn pushed(&mut self, position: u64, header: &Header, payload_bytes: usize) {
        self.bytes += frame_bytes(payload_bytes);
        self.headers.push((*header, position));
    }

    /// The length of all frames.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The headers and their positions.
    pub(crate) fn headers(&self) -> &[(Header, u64)] {
        &self.headers
    }

    /// The bytes, as parts of one write.
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        let slice = |piece| match piece {
            &Piece::Copied(Range { start, end }) => &self.buffer[start..end],
            Piece::Shared(payload) => payload.as_ref(),
        };
        self.pieces.iter().map(slice).collect()
    }

    /// Removes the frames, for the next write.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.pieces.clear();
        self.bytes = 0;
        self.headers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::format::frame::{HEADER_BYTES, NoteKind, Position};

    #[test]
    fn parts_are_the_encoded_frames() {
        let mut frames = FrameBatch::default();
        let mut whole = Vec::new();
        let header = Header::of_note(NoteKind::Filler, Position::default());
        for length in [0, 1, SHARED_BYTES_MIN - 1, SHARED_BYTES_MIN, SHARED_BYTES_MIN + 1, 7, 100_003, 0] {
            let payload = Bytes::from(vec![9; length]);
            let position = whole.len() as u64;
            frame::encode(&mut whole, 5, position, &header, &payload);
            frames.push(5, position, &header, &payload);
        }
        let parts: Vec<u8> = frames.slices().concat();
        assert_eq!((parts.len(), frames.bytes(), frames.headers().len()), (whole.len(), whole.len(), 8));
        assert!(parts == whole);
        assert!(frames.slices().len() >= 5, "large ones are parts of their own");
        assert_eq!(frames.headers()[1].1, HEADER_BYTES as u64);
        frames.clear();
        assert_eq!((frames.bytes(), frames.slices().len()), (0, 0));
    }
}
