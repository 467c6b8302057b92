//! How much of the journal the system is left to keep in its file cache: the newest bytes, which those who read a little behind read.
//!
//! Without a limit it keeps all that was ever written until memory is short, and takes a fresh page for each page of the log. On a virtual
//! machine whose host takes free memory back that page has to be found first, ten times the cost of writing into one that was just in
//! use (docs/performance.md); and what others read (the history's files, a database beside us) makes room for what nobody reads again.

use std::collections::VecDeque;
use std::ops::Range;

/// The least that is given up at once.
const STEP_BYTES: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct FileCache {
    max_bytes: u64,
    bytes: u64,
    /// Oldest first. Pieces of one segment lie next to each other.
    pieces: VecDeque<Piece>,
}

/// A durable part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub segment: u64,
    pub bytes: Range<u64>,
}

impl FileCache {
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, bytes: 0, pieces: VecDeque::new() }
    }

    /// A part became durable, behind all others.
    pub fn add(&mut self, piece: Piece) {
        self.bytes += piece.bytes.end - piece.bytes.start;
        match self.pieces.back_mut() {
            Some(last) if last.segment == piece.segment && last.bytes.end == piece.bytes.start && last.len() < STEP_BYTES => {
                last.bytes.end = piece.bytes.end;
            }
            _ => self.pieces.push_back(piece),
        }
    }

    /// The oldest piece, when what is behind it is as much as may be kept. The last one still grows.
    pub fn give_up(&mut self) -> Option<Piece> {
        let is_due = self.pieces.len() > 1 && self.bytes - self.pieces[0].len() >= self.max_bytes;
        let oldest = self.pieces.pop_front_if(|_| is_due)?;
        self.bytes -= oldest.len();
        Some(oldest)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Piece {
    fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn piece(segment: u64, from_mb: u64, to_mb: u64) -> Piece {
        Piece { segment, bytes: from_mb * MB..to_mb * MB }
    }

    #[test]
    fn the_newest_bytes_are_kept_and_everything_else_is_given_up_once() {
        let mut cache = FileCache::new(8 * MB);
        let mut given_up = Vec::new();
        for (segment, mb) in [(1, 20), (21, 3), (24, 30)] {
            for at in 0..mb {
                cache.add(piece(segment, at, at + 1));
                given_up.extend(std::iter::from_fn(|| cache.give_up()));
                assert!(cache.bytes() <= 8 * MB + 2 * STEP_BYTES, "{} bytes are kept", cache.bytes());
            }
        }
        let expected = [
            (1, 0, 4),
            (1, 4, 8),
            (1, 8, 12),
            (1, 12, 16),
            (1, 16, 20),
            (21, 0, 3),
            (24, 0, 4),
            (24, 4, 8),
            (24, 8, 12),
            (24, 12, 16),
            (24, 16, 20),
        ];
        assert_eq!(given_up, expected.map(|(segment, from, to)| piece(segment, from, to)));
    }

    #[test]
    fn one_commit_larger_than_all_of_it_goes_with_the_next() {
        let mut cache = FileCache::new(0);
        cache.add(piece(1, 0, 100));
        assert_eq!(cache.give_up(), None);
        cache.add(piece(1, 100, 101));
        assert_eq!(cache.give_up(), Some(piece(1, 0, 100)));
        assert_eq!(cache.give_up(), None);
    }
}
