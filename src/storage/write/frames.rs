//! Frames that go to the disk with one write. What is small is gathered in one buffer; a large payload is written from where
//! it is, without a copy.

use std::ops::Range;

use bytes::Bytes;

use crate::storage::format::frame::{self, Header, frame_bytes};

/// A payload from this size on is not copied: it costs more than one more part of a write.
const SHARED_BYTES_MIN: usize = 4 << 10;
/// What the buffer keeps between writes.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

enum Piece {
    Gathered(Range<usize>),
    Shared(Bytes),
}

/// Frames that follow each other.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    headers: Vec<(Header, u64)>,
}

impl Frames {
    /// Adds a frame that will stand at `position`.
    pub(crate) fn push(&mut self, salt: u64, position: u64, header: &Header, payload: &Bytes) {
        if payload.len() < SHARED_BYTES_MIN {
            return self.push_small(salt, position, header, payload);
        }
        let start = self.buffer.len();
        frame::encode_head(&mut self.buffer, salt, position, header, payload);
        self.gathered(start);
        self.pieces.push(Piece::Shared(payload.clone()));
        let start = self.buffer.len();
        self.buffer.extend_from_slice(frame::padding(payload.len()));
        self.gathered(start);
        self.pushed(position, header, payload.len());
    }

    /// The same for a few bytes.
    pub(crate) fn push_small(&mut self, salt: u64, position: u64, header: &Header, payload: &[u8]) {
        let start = self.buffer.len();
        frame::encode(&mut self.buffer, salt, position, header, payload);
        self.gathered(start);
        self.pushed(position, header, payload.len());
    }

    fn gathered(&mut self, start: usize) {
        let end = self.buffer.len();
        match self.pieces.last_mut() {
            Some(Piece::Gathered(range)) => range.end = end,
            Some(Piece::Shared(_)) | None => self.pieces.push(Piece::Gathered(start..end)),
        }
    }

    fn pushed(&mut self, position: u64, header: &Header, payload_bytes: usize) {
        self.bytes += frame_bytes(payload_bytes);
        self.headers.push((*header, position));
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The headers, and where they stand.
    pub(crate) fn headers(&self) -> &[(Header, u64)] {
        &self.headers
    }

    /// The bytes, in parts.
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        let slice = |piece| match piece {
            &Piece::Gathered(Range { start, end }) => &self.buffer[start..end],
            Piece::Shared(payload) => payload.as_ref(),
        };
        self.pieces.iter().map(slice).collect()
    }

    /// Makes ready for the next ones.
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
    fn the_parts_are_the_frames() {
        let mut frames = Frames::default();
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
        assert!(frames.slices().len() >= 5, "large ones stand alone");
        assert_eq!(frames.headers()[1].1, HEADER_BYTES as u64);
        frames.clear();
        assert_eq!((frames.bytes(), frames.slices().len()), (0, 0));
    }
}
