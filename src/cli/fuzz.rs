//! The fuzz loop of the line splitter.

use std::io::Read;

use super::lines::{Lines, Piece};
use crate::fuzz::Loop;

const LINE_BYTES_MAX: usize = 40;

/// An input that returns its bytes in pieces of a given length.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.1.min(self.0.len()).min(buffer.len());
        let (piece, rest) = self.0.split_at(bytes);
        buffer[..bytes].copy_from_slice(piece);
        self.0 = rest;
        Ok(bytes)
    }
}

#[test]
fn lines() {
    let seeds = vec![b"\x05one\ntwo\n\nfour\r\nfive".to_vec(), [b"\x20ok\n", &[b'x'; 50][..], b"\nno\n"].concat()];
    // The line splitter allocates a buffer of 256 KiB.
    Loop::new("lines", seeds).memory_fixed(4 << 20).run(|bytes| {
        let Some((first, text)) = bytes.split_first() else { return true };
        let mut all: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        // Bytes after the last newline are a line, unless there are none.
        if all.last().is_some_and(|last| last.is_empty()) {
            all.pop();
        }
        let good = all.iter().position(|line| line.len() > LINE_BYTES_MAX);
        let mut lines = Lines::new(Pieces(text, usize::from(*first).max(1)), LINE_BYTES_MAX);
        let mut got = Vec::new();
        let end = loop {
            match lines.next().expect("no error") {
                Piece::Lines(lines) => got.extend(lines),
                end @ (Piece::TooLong | Piece::End) => break end,
            }
        };
        assert_eq!(end, if good.is_some() { Piece::TooLong } else { Piece::End });
        assert!(got.iter().eq(&all[..good.unwrap_or(all.len())]));
        true
    });
}
