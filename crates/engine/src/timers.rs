//! When open windows end: their keys by the time and series.
//!
//! In memory, and in the store as the same lists in a few pieces, so that a start reads some bytes per open window instead of all that the
//! window holds. A snapshot writes what has been added since the last one; a list that is done is deleted.

use crate::error::EngineError;
use crate::keyed::{label, table_prefix};
use crate::layout::{Fields, from_ordered, ordered, put_bytes};
use crate::panes::Series;
use crate::state::{Snapshot, StateStore};
use std::collections::BTreeMap;

/// Keys of an entry: up to about so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// A list of more pieces is written anew as few.
const PIECES_MAX: usize = 256;

pub struct Timers {
    prefix: Vec<u8>,
    lists: BTreeMap<(i64, Series), List>,
    /// The earliest end.
    next_end: i64,
    n: usize,
    /// The number of the next piece: none is used twice, so that one snapshot never deletes what it puts.
    next_piece: u64,
    /// To be deleted with the next snapshot.
    gone: Vec<Vec<u8>>,
    /// The store has lists of this layout.
    is_stored: bool,
    /// The store has lists that are not to be believed.
    is_doubtful: bool,
}

/// The keys of the windows of one series that end together, each once. In the store, one entry per piece: the prefix, end and series (ordered), the
/// piece's number (8 bytes, big endian). Layout, version 1: version byte, then keys, each with its length. Number 0 is no piece but the key up
/// to which the windows are closed, in the order of keys. An entry that is the prefix alone says that there are all of them; its version 1 is not
/// believed: a build that knew nothing of lists would open such a state, and go on without them.
#[derive(Default)]
struct List {
    n: usize,
    /// Keys one behind the other, each with its length: there may be millions.
    bytes: Vec<u8>,
    /// So many of the bytes are in the store.
    stored_bytes: usize,
    pieces: Vec<u64>,
    /// Windows of this list whose keys come no later are closed, though the pieces have them.
    closed_to: Option<Box<[u8]>>,
    is_closed_to_new: bool,
    /// The store has an entry for it.
    has_closed_to: bool,
}

/// Windows whose time has come.
pub struct Due {
    pub end: i64,
    pub series: Series,
    keys: List,
}

impl Due {
    /// In order.
    pub fn keys(&self) -> Vec<&[u8]> {
        self.keys.sorted()
    }
}

const VERSION: u8 = 1;
/// Of the entry that begins them.
const ALL_VERSION: u8 = 2;
const ALL_VERSION_DOUBTFUL: u8 = 1;
/// The number of the entry that says how far a list is closed.
const CLOSED_TO: u64 = 0;

impl Timers {
    pub fn new(operator: &str) -> Self {
        let prefix = table_prefix(operator, "timers");
        Self {
            prefix,
            lists: BTreeMap::new(),
            next_end: i64::MAX,
            n: 0,
            next_piece: 1,
            gone: Vec::new(),
            is_stored: false,
            is_doubtful: false,
        }
    }

    /// Reads the lists. False: the store has none, because an older version wrote it, or none to be believed, which go with the next snapshot.
    pub fn open(&mut self, store: &dyn StateStore) -> Result<bool, EngineError> {
        let mut bad = None;
        let prefix = self.prefix.clone();
        store.scan(&prefix, &mut |key, bytes| {
            bad = self.restore(&key[prefix.len()..], bytes).err();
            bad.is_none()
        })?;
        if bad.is_none() && !self.is_stored && !self.is_doubtful && !self.lists.is_empty() {
            bad = Some("the entry that begins them is missing".to_owned());
        }
        bad.map_or(Ok(self.is_stored), |reason| Err(self.damaged(reason)))
    }

    fn restore(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        if key.is_empty() {
            self.is_doubtful = bytes == [ALL_VERSION_DOUBTFUL];
            self.is_stored = !self.is_doubtful;
            return if self.is_doubtful { Ok(()) } else { Fields::open(bytes, ALL_VERSION).map(drop) };
        }
        let number = |at: usize| key.get(at..).and_then(from_ordered).ok_or("its key is damaged");
        let (end, series) = (number(0)?, number(8)?);
        let piece = key.get(16..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes).ok_or("its key is damaged")?;
        self.next_piece = self.next_piece.max(piece.saturating_add(1));
        if self.is_doubtful {
            self.gone.push([&self.prefix, key].concat());
            return Ok(());
        }
        let list = self.lists.entry((end, series)).or_default();
        let mut fields = Fields::open(bytes, VERSION)?;
        if piece == CLOSED_TO {
            (list.closed_to, list.has_closed_to) = (Some(fields.bytes()?.into()), true);
            return fields.end();
        }
        while !fields.is_empty() {
            let key = fields.bytes()?;
            if list.closed_to.as_ref().is_none_or(|to| key > &**to) {
                list.push(key);
                self.n += 1;
            }
        }
        list.pieces.push(piece);
        list.stored_bytes = list.bytes.len();
        self.next_end = self.next_end.min(end);
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
    pub fn take(&mut self, to: i64, at_most: usize) -> Option<Due> {
        let entry = self.lists.first_entry().filter(|list| at_most > 0 && list.key().0 <= to)?;
        let ((end, series), mut keys) = entry.remove_entry();
        if keys.n > at_most {
            let (now, later) = keys.split(at_most);
            if later.pieces.is_empty() {
                self.forget(end, series, &keys);
            }
            self.lists.insert((end, series), later);
            keys = now;
        } else {
            self.forget(end, series, &keys);
        }
        self.n -= keys.n;
        self.next_end = self.lists.first_key_value().map_or(i64::MAX, |((end, _), _)| *end);
        Some(Due { end, series, keys })
    }

    fn forget(&mut self, end: i64, series: Series, list: &List) {
        let closed_to = list.has_closed_to.then_some(CLOSED_TO);
        for piece in list.pieces.iter().copied().chain(closed_to) {
            self.gone.push(entry_key(&self.prefix, end, series, piece));
        }
    }

    pub fn snapshot(&mut self, into: &mut Snapshot) {
        let Self { prefix, lists, next_piece, gone, is_stored, .. } = self;
        if !*is_stored {
            into.put(prefix.clone(), vec![ALL_VERSION]);
            *is_stored = true;
        }
        for (&(end, series), list) in lists.iter_mut() {
            if list.pieces.len() >= PIECES_MAX {
                gone.extend(list.pieces.drain(..).map(|piece| entry_key(prefix, end, series, piece)));
                list.stored_bytes = 0;
            }
            if let Some(to) = list.closed_to.as_ref().filter(|_| list.is_closed_to_new) {
                let mut bytes = vec![VERSION];
                put_bytes(&mut bytes, to);
                into.put(entry_key(prefix, end, series, CLOSED_TO), bytes);
                (list.is_closed_to_new, list.has_closed_to) = (false, true);
            }
            for keys in pieces(&list.bytes[list.stored_bytes..]) {
                into.put(entry_key(prefix, end, series, *next_piece), [&[VERSION], keys].concat());
                list.pieces.push(*next_piece);
                *next_piece += 1;
            }
            list.stored_bytes = list.bytes.len();
        }
        gone.drain(..).for_each(|key| into.delete(key));
    }

    /// Something is not as the lists say.
    pub fn damaged(&self, reason: String) -> EngineError {
        EngineError::State { prefix: label(&self.prefix), reason }
    }
}

impl List {
    fn push(&mut self, key: &[u8]) {
        self.n += 1;
        put_bytes(&mut self.bytes, key);
    }

    fn sorted(&self) -> Vec<&[u8]> {
        let mut fields = Fields::part(&self.bytes);
        let mut keys = Vec::with_capacity(self.n);
        while !fields.is_empty() {
            keys.push(fields.bytes().expect("invariant: whole keys were written"));
        }
        keys.sort_unstable();
        keys
    }

    /// The first keys in order, and the others. The others keep the pieces where all of this list is stored, with a note of how far they count;
    /// else they are written anew, and whoever asks forgets the pieces.
    fn split(&self, n: usize) -> (Self, Self) {
        let keys = self.sorted();
        let (mut now, mut later) = (Self::default(), Self::default());
        keys[..n].iter().for_each(|key| now.push(key));
        keys[n..].iter().for_each(|key| later.push(key));
        if self.stored_bytes == self.bytes.len() && !self.pieces.is_empty() {
            (later.stored_bytes, later.pieces) = (later.bytes.len(), self.pieces.clone());
            later.closed_to = keys[..n].last().map(|key| (*key).into());
            (later.is_closed_to_new, later.has_closed_to) = (true, self.has_closed_to);
        }
        (now, later)
    }
}

/// Whole keys, about [`PIECE_BYTES`] of them at a time.
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

fn entry_key(prefix: &[u8], end: i64, series: Series, piece: u64) -> Vec<u8> {
    [prefix, &ordered(end), &ordered(series), &piece.to_be_bytes()].concat()
}

/// The sum, or `max` where it is more.
fn sum_up_to(lengths: impl Iterator<Item = usize>, max: usize) -> usize {
    let mut n = 0;
    for length in lengths {
        n += length;
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
        /// So many microseconds from now, which series, which key.
        Arm(i64, Series, u16),
        /// Time goes on, and windows are closed in parts of so many, at most so often.
        Close(i64, usize, usize),
        Snapshot,
        Restart,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (1i64..6, 0i64..2, 0u16..400).prop_map(|(after, series, key)| Step::Arm(after, series, key)),
            3 => (1i64..3, 1usize..8, 1usize..6).prop_map(|(on, part, times)| Step::Close(on, part, times)),
            2 => Just(Step::Snapshot),
            1 => Just(Step::Restart),
        ]
    }

    fn open(store: &MemStore) -> Timers {
        let mut timers = Timers::new("op");
        assert_eq!(timers.open(store).unwrap(), !store.is_empty());
        timers
    }

    fn close(timers: &mut Timers, model: &mut Model, to: i64, part: usize) -> bool {
        let Some(due) = timers.take(to, part) else { return false };
        let (mut at, wanted) = (model.first_entry().unwrap(), (due.end, due.series));
        assert_eq!(*at.key(), wanted);
        for key in due.keys() {
            assert_eq!(at.get_mut().pop_first().unwrap(), key);
        }
        assert!(due.keys().len() == part || at.get().is_empty());
        if at.get().is_empty() {
            at.remove();
        }
        true
    }

    proptest! {
        #[test]
        fn are_the_open_windows_by_their_ends(steps in prop::collection::vec(any_step(), 0..300)) {
            let (mut store, mut now) = (MemStore::new(), 0);
            let (mut timers, mut model) = (open(&store), Model::new());
            let (mut durable, mut durable_now) = (model.clone(), now);
            for step in steps {
                match step {
                    Step::Arm(after, series, key) => {
                        let key = key.to_string().repeat(1 + usize::from(key % 7)).into_bytes();
                        if model.entry((now + after, series)).or_default().insert(key.clone()) {
                            timers.arm(now + after, series, &key);
                        }
                    }
                    Step::Close(on, part, times) => {
                        // Nothing is armed before all of a moment is closed, as a shard does it.
                        (0..times).for_each(|_| { close(&mut timers, &mut model, now + on, part); });
                        if part % 2 == 0 {
                            let mut into = Snapshot::default();
                            timers.snapshot(&mut into);
                            store.apply(into);
                            (timers, durable, durable_now) = (open(&store), model.clone(), now + on);
                        }
                        while close(&mut timers, &mut model, now + on, 1 << 20) {}
                        now += on;
                    }
                    Step::Snapshot => {
                        let mut into = Snapshot::default();
                        timers.snapshot(&mut into);
                        store.apply(into);
                        (durable, durable_now) = (model.clone(), now);
                    }
                    Step::Restart => {
                        (timers, model, now) = (open(&store), durable.clone(), durable_now);
                        while close(&mut timers, &mut model, now, 1 << 20) {}
                    }
                }
                prop_assert_eq!(timers.n(), model.values().map(BTreeSet::len).sum::<usize>());
                for to in now..now + 6 {
                    let n: usize = model.iter().filter(|((end, _), _)| *end <= to).map(|(_, keys)| keys.len()).sum();
                    prop_assert_eq!((timers.n_due(to, usize::MAX), timers.n_due(to, 3)), (n, n.min(3)));
                }
            }
            while close(&mut timers, &mut model, i64::MAX, 5) {}
            prop_assert!(model.is_empty());
            let mut into = Snapshot::default();
            timers.snapshot(&mut into);
            store.apply(into);
            prop_assert_eq!(store.len(), 1, "nothing stays but the entry that begins them");
        }
    }

    #[test]
    fn a_long_list_is_a_few_pieces_of_whole_keys() {
        let (mut timers, mut store) = (Timers::new("op"), MemStore::new());
        let mut snapshot = |timers: &mut Timers| {
            let mut into = Snapshot::default();
            timers.snapshot(&mut into);
            let n_puts = into.entries.iter().filter(|(_, value)| value.is_some()).count();
            store.apply(into);
            (n_puts, store.clone())
        };
        (0..100_000u32).for_each(|key| timers.arm(9, 1, &key.to_be_bytes()));
        let (n_puts, _) = snapshot(&mut timers);
        assert!((8..10).contains(&n_puts), "{n_puts} entries for 500,000 bytes");
        // A list that grows by a little with each snapshot is written anew now and then.
        for key in 100_000..101_000u32 {
            timers.arm(9, 1, &key.to_be_bytes());
            let (n_puts, store) = snapshot(&mut timers);
            assert!(n_puts < 20 && store.len() <= 1 + PIECES_MAX + 10, "{n_puts}, {}", store.len());
        }
        let (_, store) = snapshot(&mut timers);
        let mut again = open(&store);
        assert_eq!(again.take(9, usize::MAX).unwrap().keys().len(), 101_000);
    }

    /// Of a state that a build without lists may have gone on with.
    #[test]
    fn doubtful_lists_are_deleted() {
        let (mut timers, mut store) = (Timers::new("op"), MemStore::new());
        (0..100u32).for_each(|key| timers.arm(9, 1, &key.to_be_bytes()));
        let mut into = Snapshot::default();
        timers.snapshot(&mut into);
        into.put(table_prefix("op", "timers"), vec![ALL_VERSION_DOUBTFUL]);
        store.apply(into);
        let mut again = Timers::new("op");
        assert!(!again.open(&store).unwrap() && again.n() == 0);
        again.arm(7, 1, b"key");
        let mut into = Snapshot::default();
        again.snapshot(&mut into);
        store.apply(into);
        let mut last = open(&store);
        assert_eq!((last.n(), store.len()), (1, 2));
        assert_eq!(last.take(9, 10).unwrap().keys(), [b"key"]);
    }

    #[test]
    fn damaged_lists_are_named() {
        let at = |piece: u64| entry_key(&table_prefix("bars", "timers"), 9, 1, piece);
        let begin = (table_prefix("bars", "timers"), Some(vec![2]));
        for (entries, reason) in [
            (vec![(at(1), Some(vec![1, 1, 7]))], "the entry that begins them is missing"),
            (vec![begin.clone(), (at(1), Some(vec![1, 9, 7]))], "a length is beyond the entry's end"),
            (vec![begin.clone(), (at(1)[..30].to_vec(), Some(vec![1]))], "its key is damaged"),
            (vec![begin, (at(1), Some(vec![3]))], "its layout version is 3, this build reads 1"),
        ] {
            let mut store = MemStore::new();
            store.apply(Snapshot { entries });
            let error = Timers::new("bars").open(&store).unwrap_err().to_string();
            assert!(error.starts_with(&format!("state entry 'bars/timers' cannot be read: {reason}")), "{error}");
        }
    }
}
