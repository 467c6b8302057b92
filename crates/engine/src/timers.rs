//! When open windows end: their keys by the time and series.
//!
//! How many there are is in memory, and their keys are in the store, in pieces, until their time comes: a start reads a few bytes per list, however
//! many windows are open. What has been added since the last full piece is in memory, too.

use crate::error::EngineError;
use crate::keyed::{label, table_prefix};
use crate::layout::{Fields, from_ordered, ordered, put_bytes, put_u};
use crate::panes::Series;
use crate::state::{Snapshot, StateStore};
use std::collections::BTreeMap;

/// Keys of a full piece: about so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Numbers of pieces stay far below this.
const PIECE_MAX: u64 = u64::MAX / 2;

pub struct Timers {
    /// Of the pieces, and of the entries that say what lists there are.
    pieces: Vec<u8>,
    heads: Vec<u8>,
    lists: BTreeMap<(i64, Series), List>,
    /// The earliest end.
    next_end: i64,
    n: usize,
    /// The number of the next piece: none is used twice, so that one snapshot never deletes what it puts.
    next_piece: u64,
    /// To be deleted with the next snapshot.
    gone: Vec<Vec<u8>>,
    is_stored: bool,
}

/// The keys of the windows of one series that end together, each once.
///
/// In the store: the pieces, each under the prefix, end and series (ordered), and its number (8 bytes, big endian): version byte, then keys, each with
/// its length. And a head, under its prefix, end and series: version byte, how many windows are open, how many pieces there are and their numbers, and
/// the key up to which the windows are closed, in the order of keys (0 or 1, then the key with its length). An entry that is the pieces' prefix
/// alone says that there are all heads.
#[derive(Default)]
struct List {
    /// Windows that are open.
    n: usize,
    /// In the store, or on their way.
    pieces: Vec<u64>,
    /// Pieces of the last snapshot, which may not be durable yet, and their keys.
    handed: Vec<(u64, Vec<u8>)>,
    /// Keys that no full piece has, each with its length.
    tail: Vec<u8>,
    /// The piece that has the tail as it was, to be replaced by one that has it as it is.
    tail_piece: Option<u64>,
    /// While it is closed in parts: the keys that are left, in order. They are in the pieces, too.
    left: Option<Left>,
    /// Windows whose keys come no later are closed, though the pieces have them.
    closed_to: Option<Box<[u8]>>,
    /// Since the last snapshot: the head, and the tail.
    is_changed: bool,
    has_new: bool,
    /// The store has a head of it.
    is_stored: bool,
}

/// Windows whose time has come.
pub struct Due {
    pub end: i64,
    pub series: Series,
    keys: Vec<u8>,
}

impl Due {
    /// In order.
    pub fn keys(&self) -> Vec<&[u8]> {
        keys_of(&self.keys)
    }
}

const VERSION: u8 = 1;
/// Of the entry that says that there are all. Version 1, of lists without heads, is not believed: a build that knew nothing of lists would open
/// such a state, and go on without them.
const ALL_VERSION: u8 = 2;
const ALL_VERSION_DOUBTFUL: u8 = 1;

impl Timers {
    pub fn new(operator: &str) -> Self {
        let (pieces, heads) = (table_prefix(operator, "timers"), table_prefix(operator, "timers.heads"));
        Self { pieces, heads, lists: BTreeMap::new(), next_end: i64::MAX, n: 0, next_piece: 1, gone: Vec::new(), is_stored: false }
    }

    /// Reads the heads. False: the store has none, because an older version wrote it.
    pub fn open(&mut self, store: &dyn StateStore) -> Result<bool, EngineError> {
        match store.get(&self.pieces)? {
            Some(bytes) if bytes == [ALL_VERSION_DOUBTFUL] => self.give_up(store)?,
            Some(bytes) => {
                Fields::open(&bytes, ALL_VERSION).map_err(|reason| self.damaged(reason))?;
                self.is_stored = true;
            }
            None => {}
        }
        let mut bad = None;
        let n_before = self.heads.len();
        let heads = self.heads.clone();
        store.scan(&heads, &mut |key, bytes| {
            bad = self.restore(&key[n_before..], bytes).err();
            bad.is_none()
        })?;
        if bad.is_none() && !self.is_stored && !self.lists.is_empty() {
            bad = Some("the entry that begins them is missing".to_owned());
        }
        bad.map_or(Ok(self.is_stored), |reason| Err(self.damaged(reason)))
    }

    /// Pieces that are not believed go with the next snapshot.
    fn give_up(&mut self, store: &dyn StateStore) -> Result<(), EngineError> {
        store.scan(&self.pieces, &mut |key, _| {
            if key.len() > self.pieces.len() {
                self.gone.push(key.to_vec());
            }
            if let Some(piece) = key.get(self.pieces.len() + 16..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes) {
                self.next_piece = self.next_piece.max(piece.min(PIECE_MAX) + 1);
            }
            true
        })
    }

    fn restore(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        let number = |at: usize| key.get(at..at + 8).and_then(from_ordered).filter(|_| key.len() == 16).ok_or("its key is damaged");
        let (end, series) = (number(0)?, number(8)?);
        let mut fields = Fields::open(bytes, VERSION)?;
        let mut list = List { n: number_of(&mut fields)?, is_stored: true, ..List::default() };
        for _ in 0..fields.count()? {
            let piece = fields.u64()?;
            if piece > PIECE_MAX {
                return Err("a piece has a number that none is given".to_owned());
            }
            list.pieces.push(piece);
            self.next_piece = self.next_piece.max(piece + 1);
        }
        if fields.u8()? != 0 {
            list.closed_to = Some(fields.bytes()?.into());
        }
        fields.end()?;
        // So that those to come can be counted, too.
        let n = self.n.checked_add(list.n).filter(|n| *n <= isize::MAX as usize);
        self.n = n.ok_or("more windows are open than can be counted")?;
        self.next_end = self.next_end.min(end);
        self.lists.insert((end, series), list);
        Ok(())
    }

    /// Windows that are open.
    pub fn n(&self) -> usize {
        self.n
    }

    #[inline]
    pub fn next_end(&self) -> i64 {
        self.next_end
    }

    /// A window has been opened.
    pub fn arm(&mut self, end: i64, series: Series, key: &[u8]) {
        self.n += 1;
        self.next_end = self.next_end.min(end);
        self.lists.entry((end, series)).or_default().push(key);
    }

    /// Windows that end at `to` or before, counted up to `max`.
    pub fn n_due(&self, to: i64, max: usize) -> usize {
        if to < self.next_end { 0 } else { sum_up_to(self.lists.range(..=(to, Series::MAX)).map(|(_, list)| list.n), max) }
    }

    /// The next windows that end at `to` or before, at most so many: they are closed now.
    pub fn take(&mut self, to: i64, at_most: usize, store: &dyn StateStore) -> Result<Option<Due>, EngineError> {
        let Some(mut entry) = self.lists.first_entry().filter(|list| at_most > 0 && list.key().0 <= to) else { return Ok(None) };
        let (end, series) = *entry.key();
        let list = entry.get_mut();
        let mut left = match list.left.take() {
            Some(left) => left,
            None => {
                let read = list.read(|piece| store.get(&entry_key(&self.pieces, end, series, Some(piece))))?;
                Left { keys: read.map_err(|reason| EngineError::State { prefix: label(&self.pieces), reason })?, at: 0 }
            }
        };
        let n = list.n.min(at_most);
        let keys = left.next(n);
        if list.n > n {
            list.n -= n;
            list.closed_to = keys_of(&keys).last().map(|key| (*key).into());
            (list.left, list.is_changed) = (Some(left), true);
        } else {
            let list = entry.remove();
            let pieces = list.pieces.iter().copied().chain(list.tail_piece);
            self.gone.extend(pieces.map(|piece| entry_key(&self.pieces, end, series, Some(piece))));
            self.gone.extend(list.is_stored.then(|| entry_key(&self.heads, end, series, None)));
        }
        self.n -= n;
        self.next_end = self.lists.first_key_value().map_or(i64::MAX, |((end, _), _)| *end);
        Ok(Some(Due { end, series, keys }))
    }

    pub fn snapshot(&mut self, into: &mut Snapshot) {
        if !self.is_stored {
            into.put(self.pieces.clone(), vec![ALL_VERSION]);
            self.is_stored = true;
        }
        for (&(end, series), list) in &mut self.lists {
            // What the last snapshot had is durable by now.
            list.handed.clear();
            if !list.is_changed {
                continue;
            }
            list.write_tail(&mut self.next_piece, |piece, keys| {
                let key = entry_key(&self.pieces, end, series, Some(piece));
                match keys {
                    Some(keys) => into.put(key, [&[VERSION], keys].concat()),
                    None => into.delete(key),
                }
            });
            into.put(entry_key(&self.heads, end, series, None), list.head());
            (list.is_changed, list.is_stored) = (false, true);
        }
        self.gone.drain(..).for_each(|key| into.delete(key));
    }

    /// Something is not as the lists say.
    pub fn damaged(&self, reason: String) -> EngineError {
        EngineError::State { prefix: label(&self.pieces), reason }
    }
}

/// Keys that are left of a list, in order, from a place on.
struct Left {
    keys: Vec<u8>,
    at: usize,
}

impl Left {
    /// The next keys, of which there are as many.
    fn next(&mut self, n: usize) -> Vec<u8> {
        let mut fields = Fields::part(&self.keys[self.at..]);
        for _ in 0..n {
            fields.bytes().expect("invariant: as many keys as the list counts were read");
        }
        let end = self.keys.len() - fields.left();
        self.keys[std::mem::replace(&mut self.at, end)..end].to_vec()
    }
}

impl List {
    fn push(&mut self, key: &[u8]) {
        self.n += 1;
        put_bytes(&mut self.tail, key);
        // What is left is read again, with this one.
        (self.is_changed, self.has_new, self.left) = (true, true, None);
    }

    /// The keys of all windows that are open, in order, each with its length.
    fn read(&self, stored: impl Fn(u64) -> Result<Option<Vec<u8>>, EngineError>) -> Result<Result<Vec<u8>, String>, EngineError> {
        let mut all = Vec::new();
        for &piece in &self.pieces {
            match self.handed.iter().find(|(handed, _)| *handed == piece) {
                Some((_, keys)) => all.extend_from_slice(keys),
                None => {
                    let Some(bytes) = stored(piece)? else { return Ok(Err("a piece of them is missing".to_owned())) };
                    match Fields::open(&bytes, VERSION) {
                        Ok(fields) => all.extend_from_slice(&bytes[bytes.len() - fields.left()..]),
                        Err(reason) => return Ok(Err(reason)),
                    }
                }
            }
        }
        all.extend_from_slice(&self.tail);
        Ok(self.sorted(&all))
    }

    fn sorted(&self, all: &[u8]) -> Result<Vec<u8>, String> {
        let (mut fields, mut keys) = (Fields::part(all), Vec::with_capacity(self.n.min(all.len())));
        while !fields.is_empty() {
            let key = fields.bytes()?;
            if self.closed_to.as_ref().is_none_or(|to| key > &**to) {
                keys.push(key);
            }
        }
        if keys.len() != self.n {
            return Err(format!("they count {} windows and name {}", self.n, keys.len()));
        }
        keys.sort_unstable();
        let mut sorted = Vec::with_capacity(all.len());
        keys.iter().for_each(|key| put_bytes(&mut sorted, key));
        Ok(sorted)
    }

    /// Puts what has been added into pieces: full ones, and one of the rest that replaces the one before.
    fn write_tail(&mut self, next_piece: &mut u64, mut put: impl FnMut(u64, Option<&[u8]>)) {
        if !std::mem::take(&mut self.has_new) {
            return;
        }
        if let Some(before) = self.tail_piece.take() {
            put(before, None);
        }
        let tail = std::mem::take(&mut self.tail);
        for keys in pieces(&tail) {
            let piece = *next_piece;
            *next_piece += 1;
            put(piece, Some(keys));
            if keys.len() >= PIECE_BYTES {
                self.pieces.push(piece);
                self.handed.push((piece, keys.to_vec()));
            } else {
                (self.tail_piece, self.tail) = (Some(piece), keys.to_vec());
            }
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u(&mut out, self.n as u128);
        put_u(&mut out, (self.pieces.len() + usize::from(self.tail_piece.is_some())) as u128);
        self.pieces.iter().chain(&self.tail_piece).for_each(|piece| put_u(&mut out, (*piece).into()));
        match &self.closed_to {
            Some(key) => {
                out.push(1);
                put_bytes(&mut out, key);
            }
            None => out.push(0),
        }
        out
    }
}

fn keys_of(keys: &[u8]) -> Vec<&[u8]> {
    let (mut fields, mut all) = (Fields::part(keys), Vec::new());
    while !fields.is_empty() {
        all.push(fields.bytes().expect("invariant: whole keys were written"));
    }
    all
}

/// Whole keys, about [`PIECE_BYTES`] of them at a time, the rest in the last.
fn pieces(keys: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = keys;
    std::iter::from_fn(move || {
        let mut fields = Fields::part(rest);
        while !fields.is_empty() && rest.len() - fields.left() < PIECE_BYTES {
            fields.bytes().expect("invariant: whole keys were written");
        }
        let (piece, behind) = rest.split_at(rest.len() - fields.left());
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Of a piece, or of the head.
fn entry_key(prefix: &[u8], end: i64, series: Series, piece: Option<u64>) -> Vec<u8> {
    let mut key = [prefix, &ordered(end), &ordered(series)].concat();
    key.extend(piece.iter().flat_map(|piece| piece.to_be_bytes()));
    key
}

fn number_of(fields: &mut Fields<'_>) -> Result<usize, String> {
    usize::try_from(fields.u64()?).map_err(|_| "more windows are open than can be counted".to_owned())
}

/// The sum, or `max` where it is more.
fn sum_up_to(lengths: impl Iterator<Item = usize>, max: usize) -> usize {
    let mut n: usize = 0;
    for length in lengths {
        n = n.saturating_add(length);
        if n >= max {
            return max;
        }
    }
    n
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::MemStore;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Model = BTreeMap<(i64, Series), BTreeSet<Vec<u8>>>;

    #[derive(Debug, Clone)]
    enum Step {
        /// So many microseconds from now, which series, which keys: all of this length.
        Arm(i64, Series, u16, usize),
        /// Time goes on, and windows are closed in parts of so many, at most so often.
        Close(i64, usize, usize),
        Snapshot,
        /// The last snapshot becomes durable, at the latest before the next one.
        Durable,
        Restart,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let length = prop_oneof![9 => 0usize..20, 1 => 20_000usize..40_000];
        prop_oneof![
            12 => (1i64..6, 0i64..2, 0u16..400, length).prop_map(|(after, series, key, length)| Step::Arm(after, series, key, length)),
            3 => (1i64..3, 1usize..8, 1usize..6).prop_map(|(on, part, times)| Step::Close(on, part, times)),
            2 => Just(Step::Snapshot),
            1 => Just(Step::Durable),
            1 => Just(Step::Restart),
        ]
    }

    fn open(store: &MemStore) -> Timers {
        let mut timers = Timers::new("op");
        assert_eq!(timers.open(store).unwrap(), !store.is_empty());
        timers
    }

    fn take(timers: &mut Timers) -> Snapshot {
        let mut into = Snapshot::default();
        timers.snapshot(&mut into);
        into
    }

    /// What is kept as one works on: the timers, what they should be, and the store with a snapshot on its way to it.
    struct World {
        timers: Timers,
        model: Model,
        now: i64,
        store: MemStore,
        on_its_way: Option<(Snapshot, Model, i64)>,
        durable: (Model, i64),
    }

    impl World {
        fn close(&mut self, to: i64, part: usize) -> bool {
            let Some(due) = self.timers.take(to, part, &self.store).unwrap() else { return false };
            let mut at = self.model.first_entry().unwrap();
            assert_eq!(*at.key(), (due.end, due.series));
            for key in due.keys() {
                assert_eq!(at.get_mut().pop_first().unwrap(), key);
            }
            assert!(due.keys().len() == part || at.get().is_empty());
            if at.get().is_empty() {
                at.remove();
            }
            true
        }

        fn durable(&mut self) {
            if let Some((snapshot, model, now)) = self.on_its_way.take() {
                self.store.apply(snapshot);
                self.durable = (model, now);
            }
        }

        fn snapshot(&mut self, now: i64) {
            self.durable();
            self.on_its_way = Some((take(&mut self.timers), self.model.clone(), now));
        }

        fn restart(&mut self) {
            self.on_its_way = None;
            self.timers = open(&self.store);
            (self.model, self.now) = self.durable.clone();
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Arm(after, series, key, length) => {
                    let key = [key.to_be_bytes().to_vec(), vec![7; length]].concat();
                    if self.model.entry((self.now + after, series)).or_default().insert(key.clone()) {
                        self.timers.arm(self.now + after, series, &key);
                    }
                }
                Step::Close(on, part, times) => {
                    // Nothing is armed before all of a moment is closed, as a shard does it.
                    (0..times).for_each(|_| {
                        self.close(self.now + on, part);
                    });
                    if part % 2 == 0 {
                        self.snapshot(self.now + on);
                        if part % 4 == 0 {
                            self.durable();
                            self.restart();
                            self.now -= on;
                        }
                    }
                    while self.close(self.now + on, 1 << 20) {}
                    self.now += on;
                }
                Step::Snapshot => self.snapshot(self.now),
                Step::Durable => self.durable(),
                Step::Restart => {
                    self.restart();
                    while self.close(self.now, 1 << 20) {}
                }
            }
        }
    }

    proptest! {
        #[test]
        fn are_the_open_windows_by_their_ends(steps in prop::collection::vec(any_step(), 0..300)) {
            let (timers, store) = (Timers::new("op"), MemStore::new());
            let mut world = World { timers, model: Model::new(), now: 0, store, on_its_way: None, durable: (Model::new(), 0) };
            for step in steps {
                world.step(step);
                prop_assert_eq!(world.timers.n(), world.model.values().map(BTreeSet::len).sum::<usize>());
                for to in world.now..world.now + 6 {
                    let n: usize = world.model.iter().filter(|((end, _), _)| *end <= to).map(|(_, keys)| keys.len()).sum();
                    prop_assert_eq!((world.timers.n_due(to, usize::MAX), world.timers.n_due(to, 3)), (n, n.min(3)));
                }
            }
            while world.close(i64::MAX, 5) {}
            prop_assert!(world.model.is_empty());
            world.snapshot(0);
            world.durable();
            prop_assert_eq!(world.store.len(), 1, "nothing stays but the entry that says that there are all");
        }
    }

    #[test]
    fn a_long_list_is_a_few_pieces_and_what_is_full_is_not_in_memory() {
        let (mut timers, mut store) = (Timers::new("op"), MemStore::new());
        (0..100_000u32).for_each(|key| timers.arm(9, 1, &key.to_be_bytes()));
        let first = take(&mut timers);
        assert!((8..11).contains(&(first.entries.len() - 2)), "{} entries for 500,000 bytes", first.entries.len());
        store.apply(first);
        // A list that grows by a little with each snapshot writes only its end again.
        for key in 100_000..120_000u32 {
            timers.arm(9, 1, &key.to_be_bytes());
            if key % 20 == 0 {
                let more = take(&mut timers);
                assert!(more.entries.len() <= 4, "{}", more.entries.len());
                store.apply(more);
            }
        }
        store.apply(take(&mut timers));
        store.apply(take(&mut timers));
        assert!(store.len() < 15, "{}", store.len());
        let list = &timers.lists[&(9, 1)];
        assert!(list.tail.len() < PIECE_BYTES && list.handed.is_empty());
        let mut again = open(&store);
        assert_eq!((again.n(), again.next_end()), (120_000, 9));
        assert_eq!(again.take(9, 7, &store).unwrap().unwrap().keys().len(), 7);
        again.arm(9, 1, b"\xff");
        assert_eq!(again.take(9, usize::MAX, &store).unwrap().unwrap().keys().len(), 119_994);
    }

    /// Of a state that a build without lists may have gone on with.
    #[test]
    fn doubtful_lists_are_deleted() {
        let (mut timers, mut store) = (Timers::new("op"), MemStore::new());
        let mut entries = vec![(timers.pieces.clone(), Some(vec![ALL_VERSION_DOUBTFUL]))];
        entries.extend((1..9).map(|piece| (entry_key(&timers.pieces, 9, 1, Some(piece)), Some(vec![1, 1, 7]))));
        store.apply(Snapshot { entries });
        assert!(!timers.open(&store).unwrap() && timers.n() == 0);
        timers.arm(7, 1, b"key");
        store.apply(take(&mut timers));
        let mut last = open(&store);
        assert_eq!((last.n(), store.len()), (1, 3));
        assert_eq!(last.take(9, 10, &store).unwrap().unwrap().keys(), [b"key"]);
    }

    #[test]
    fn damaged_lists_are_named() {
        let timers = Timers::new("bars");
        let all = (timers.pieces.clone(), Some(vec![2]));
        let head = |bytes: &[u8]| (entry_key(&timers.heads, 9, 1, None), Some(bytes.to_vec()));
        let piece = |bytes: &[u8]| (entry_key(&timers.pieces, 9, 1, Some(5)), Some(bytes.to_vec()));
        let good = head(&[1, 1, 1, 5, 0]);
        for (entries, reason) in [
            (vec![good.clone(), piece(&[1, 1, 7])], "the entry that begins them is missing"),
            (vec![(timers.pieces.clone(), Some(vec![3]))], "its layout version is 3, this build reads 2"),
            (vec![all.clone(), head(&[1, 9])], "it ends too early"),
            (vec![all.clone(), head(&[1, 1, 9, 1])], "a length is beyond the entry's end"),
            (vec![all.clone(), (good.0[..20].to_vec(), good.1.clone())], "its key is damaged"),
            (vec![all.clone(), good.clone()], "a piece of them is missing"),
            (vec![all.clone(), good.clone(), piece(&[1, 9, 7])], "a length is beyond the entry's end"),
            (vec![all.clone(), good.clone(), piece(&[3])], "its layout version is 3, this build reads 1"),
            (vec![all.clone(), good.clone(), piece(&[1, 1, 7, 1, 8])], "they count 1 windows and name 2"),
            (vec![all.clone(), head(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1, 5, 0])], "more windows are open than"),
            (vec![all, head(&[1, 1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0])], "a piece has a number that none is given"),
        ] {
            let mut store = MemStore::new();
            store.apply(Snapshot { entries });
            let mut timers = Timers::new("bars");
            let result = timers.open(&store).and_then(|_| timers.take(9, 5, &store).map(drop));
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(&format!("state entry 'bars/timers' cannot be read: {reason}")), "{error} instead of {reason}");
        }
    }
}
