//! Splits a file or a pipe into lines.
//!
//! A line consists of the bytes before a `\n`. It may be empty, and a `\r` is part of it. Bytes after the last `\n`
//! are a line too. A line that exceeds the limit is an error. Available lines are returned at once, without waiting
//! for a full batch, so that lines of a slow pipe are not delayed.

use std::io::{self, Read};

use bytes::Bytes;

const READ_BYTES: usize = 256 * 1024;

/// Splits its input into lines.
pub struct Lines<R> {
    input: R,
    /// The buffer of one read. Lines are copied out of it, because otherwise a short line would keep the whole buffer
    /// alive until it is appended.
    buffer: Box<[u8]>,
    line_bytes_max: usize,
    /// The start of a line whose end is not read yet.
    partial: Vec<u8>,
    ended: bool,
    too_long: bool,
}

/// The next part of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// One or more lines, without their `\n`.
    Lines(Vec<Bytes>),
    /// The next line exceeds the limit.
    TooLong,
    /// The end of the input.
    End,
}

impl<R: Read> Lines<R> {
    /// Splits `input` into lines of at most `line_bytes_max` bytes, not counting `\n`.
    pub fn new(input: R, line_bytes_max: usize) -> Lines<R> {
        Lines {
            input,
            buffer: vec![0; READ_BYTES].into(),
            line_bytes_max,
            partial: Vec::new(),
            ended: false,
            too_long: false,
        }
    }

    /// Returns the available lines. Blocks until at least one is available.
    ///
    /// # Errors
    /// If the input can't be read.
    pub fn next(&mut self) -> io::Result<Piece> {
        loop {
            if self.too_long {
                return Ok(Piece::TooLong);
            }
            if self.ended {
                return Ok(Piece::End);
            }
            let read = loop {
                match self.input.read(&mut self.buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    result => break &self.buffer[..result?],
                }
            };
            self.ended = read.is_empty();
            let ends = read.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
            let (end, rest) = read.split_at(ends.unwrap_or(read.len()));
            self.partial.extend_from_slice(end);
            let lines = if ends.is_some() || self.ended {
                let whole = std::mem::replace(&mut self.partial, rest.to_vec());
                self.cut(Bytes::from(whole))
            } else {
                Vec::new()
            };
            self.too_long |= self.partial.len() > self.line_bytes_max;
            if !lines.is_empty() {
                return Ok(Piece::Lines(lines));
            }
        }
    }

    fn cut(&mut self, whole: Bytes) -> Vec<Bytes> {
        let mut lines = Vec::new();
        let mut begin = 0;
        while begin < whole.len() {
            let end = whole[begin..].iter().position(|b| *b == b'\n').map_or(whole.len(), |at| begin + at);
            if end - begin > self.line_bytes_max {
                self.too_long = true;
                break;
            }
            lines.push(whole.slice(begin..end));
            begin = end + 1;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input that returns one piece per read.
    struct Pieces(Vec<&'static str>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    fn cut(pieces: &[&'static str], max: usize) -> (Vec<String>, Piece) {
        let mut lines = Lines::new(Pieces(pieces.to_vec()), max);
        let mut all = Vec::new();
        loop {
            match lines.next().expect("reads") {
                Piece::Lines(some) => all.extend(some.iter().map(|l| String::from_utf8_lossy(l).into_owned())),
                last => return (all, last),
            }
        }
    }

    #[test]
    fn splits_at_newlines() {
        assert_eq!(cut(&[], 9), (vec![], Piece::End));
        assert_eq!(cut(&["a\n"], 9), (vec!["a".into()], Piece::End));
        assert_eq!(cut(&["a\n\n", "\nb"], 9).0, ["a", "", "", "b"]);
        assert_eq!(cut(&["a\r\n\n"], 9).0, ["a\r", ""]);
        assert_eq!(cut(&["ab", "cd", "e\nf", "\n"], 9).0, ["abcde", "f"]);
    }

    #[test]
    fn returns_the_lines_before_one_that_exceeds_the_limit() {
        assert_eq!(cut(&["a\nlong\nb\n"], 3), (vec!["a".into()], Piece::TooLong));
        assert_eq!(cut(&["abc\n"], 3), (vec!["abc".into()], Piece::End));
        assert_eq!(cut(&["a\nlo", "ng"], 3), (vec!["a".into()], Piece::TooLong));
        assert_eq!(cut(&["long"], 3), (vec![], Piece::TooLong));
    }

    /// Once a line that waited to be appended kept the whole read buffer alive.
    #[test]
    fn lines_of_a_slow_pipe_use_little_memory() {
        let mut lines = Lines::new(Pieces(vec!["one\n", "two\n"]), 9);
        let Ok(Piece::Lines(mut first)) = lines.next() else { panic!("a line") };
        let Ok(Piece::Lines(_)) = lines.next() else { panic!("another") };
        let first = first.remove(0).try_into_mut().expect("the only owner");
        assert!(first.capacity() < 100, "{}", first.capacity());
    }
}
