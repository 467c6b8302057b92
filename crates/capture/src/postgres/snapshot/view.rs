//! Which transactions a snapshot contains.
//!
//! PostgreSQL documentation, "Transaction ID and Snapshot Information Functions": `pg_current_snapshot()` as text is `xmin:xmax:xip,xip,…`;
//! all below `xmin` have ended, none from `xmax` on had begun to end, and those listed were running. Only top-level transactions are named, and
//! the change stream names top-level transactions too.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub xmin: u64,
    pub xmax: u64,
    /// Ascending.
    pub running: Vec<u64>,
    /// Every transaction that the view contains has its commit below this place in the log.
    pub lsn: u64,
    /// Exported by the creation of the slot: it contains what was committed before the stream begins, so nothing of the stream.
    pub is_of_slot: bool,
}

impl View {
    pub fn parse(text: &str, lsn: u64, is_of_slot: bool) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = parts.next()?.split(',').filter(|x| !x.is_empty()).map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
        running.is_sorted().then_some(Self { xmin, xmax, running, lsn, is_of_slot })
    }

    /// Whether the view contains what the transaction of this number did. Only asked for transactions that did commit.
    pub fn contains(&self, xid: u32) -> bool {
        if self.is_of_slot {
            return false;
        }
        let xid = self.widened(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether this transaction and all with lower numbers had ended.
    pub fn is_ended(&self, xid: u32) -> bool {
        self.widened(xid) < self.xmin
    }

    /// The stream's numbers are the lower 32 bits of the snapshot's: the number within half the circle of `xmax` is meant (PostgreSQL
    /// documentation, "Transactions and Identifiers").
    fn widened(&self, xid: u32) -> u64 {
        let distance = xid.wrapping_sub(self.xmax as u32) as i32;
        self.xmax.saturating_add_signed(i64::from(distance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(view: &str, contained: &[u32], others: &[u32]) {
        let view = View::parse(view, 0, false).unwrap();
        for xid in contained {
            assert!(view.contains(*xid), "{xid}");
        }
        for xid in others {
            assert!(!view.contains(*xid), "{xid}");
        }
    }

    #[test]
    fn a_view_contains_what_had_ended() {
        check("10:20:10,14,15", &[3, 9, 11, 13, 16, 19], &[10, 14, 15, 20, 21, 4_000]);
        check("10:10:", &[9], &[10]);
    }

    #[test]
    fn numbers_go_around_after_32_bits() {
        // xmin 2^32 - 2, xmax 2^32 + 5, running 2^32 + 1.
        check("4294967294:4294967301:4294967297", &[u32::MAX - 2, u32::MAX - 1, u32::MAX, 2, 4], &[1, 5, 6]);
    }

    #[test]
    fn the_slots_own_view_contains_nothing_of_the_stream() {
        assert!(!View::parse("10:20:", 0, true).unwrap().contains(5));
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for text in ["", "1", "1:2", "a:2:", "1:2:x", "1:9:5,3", "-1:2:"] {
            assert_eq!(View::parse(text, 0, false), None, "{text}");
        }
    }
}
