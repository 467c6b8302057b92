//! Which rows of its streams a subscription is sent.

use super::chunk::Chunk;
use super::hub::Hub;
use mulgil_model::time::EventTime;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::ops::Range;

pub struct Filter {
    /// By the hub's hash of the key: it is seeded at random already, so that hashing it again for each row of each client buys nothing.
    keys: Option<HashMap<u64, Box<str>, BuildHasherDefault<Hashed>>>,
    /// Where a key's hash finds its bit unset, the key is not among `keys`.
    marks: Marks,
    /// Of changes.
    ops: Option<Vec<String>>,
    pub from: Option<i64>,
}

/// A bit for each of some hashes, and by chance for some others.
struct Marks(Box<[u64]>);

impl Marks {
    /// So many bits for each key, so that one in thirty other keys at most is looked at in vain.
    const BITS_PER_KEY: usize = 32;

    fn all() -> Self {
        Self([u64::MAX].into())
    }

    fn of(n_keys: usize, hashes: impl Iterator<Item = u64>) -> Self {
        let n_words = (n_keys * Self::BITS_PER_KEY).div_ceil(64).next_power_of_two();
        let mut marks = Self(vec![0; n_words].into());
        for hash in hashes {
            let word = marks.word(hash);
            marks.0[word] |= 1 << (hash & 63);
        }
        marks
    }

    /// The low bits choose the bit, those above them the word.
    fn word(&self, hash: u64) -> usize {
        (hash >> 6) as usize & (self.0.len() - 1)
    }

    fn has(&self, hash: u64) -> bool {
        self.0[self.word(hash)] >> (hash & 63) & 1 == 1
    }
}

/// Takes a hash as it is.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only `write_u64` is called; anything else is still a hash.
        self.0 = bytes.iter().fold(self.0, |hash, b| hash.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Filter {
    pub fn new(hub: &Hub, symbols: Option<&[String]>, ops: Option<Vec<String>>, from: Option<EventTime>) -> Self {
        let keys = symbols.map(|list| list.iter().map(|s| (hub.hasher().hash_one(s.as_str()), s.as_str().into())).collect());
        let marks = keys.as_ref().map_or_else(Marks::all, |keys: &HashMap<_, _, _>| Marks::of(keys.len(), keys.keys().copied()));
        Self { keys, marks, ops, from: from.map(EventTime::micros) }
    }

    pub fn symbols(&self) -> Option<Vec<&str>> {
        self.keys.as_ref().map(|keys| {
            let mut list: Vec<&str> = keys.values().map(AsRef::as_ref).collect();
            list.sort_unstable();
            list
        })
    }

    pub fn ops(&self) -> Option<&[String]> {
        self.ops.as_deref()
    }

    /// The rows of a range that are taken, in their order.
    pub fn pick(&self, chunk: &Chunk, range: Range<usize>, mut take: impl FnMut(usize)) {
        let hashes = &chunk.key_hashes[..range.end];
        // A row is looked at once for each client. Most are not wanted, and one bit tells.
        let (mut row, may_move) = (range.start, chunk.has_old_keys());
        while row < hashes.len() {
            if (self.marks.has(hashes[row]) || may_move) && self.takes(chunk, row) {
                take(row);
            }
            row += 1;
        }
    }

    fn takes(&self, chunk: &Chunk, row: usize) -> bool {
        self.takes_key(chunk, row) && self.from.is_none_or(|from| chunk.event_time(row) >= from) && self.takes_op(chunk, row)
    }

    /// One that could not be read has none: whoever listens is told of it.
    fn takes_op(&self, chunk: &Chunk, row: usize) -> bool {
        let Some(ops) = &self.ops else { return true };
        chunk.op(row).is_none_or(|op| op.is_empty() || ops.iter().any(|o| o == op))
    }

    /// A change of the key is for those who follow the old one, too: for them the row is gone.
    fn takes_key(&self, chunk: &Chunk, row: usize) -> bool {
        let Some(keys) = &self.keys else { return true };
        let is_present = keys.get(&chunk.key_hashes[row]).is_some_and(|k| k.as_ref() == chunk.key(row));
        is_present || chunk.old_key(row).is_some_and(|old| keys.values().any(|k| k.as_ref() == old))
    }
}
