//! Transactions of the stream that a view may not contain yet, although their changes were given.
//!
//! A transaction's commit is in the log, and so in the stream, before it is visible to new snapshots: a moment, or for as long as its
//! connection waits for a synchronous standby. So every transaction that was given is remembered until some view contains it. There is no
//! bound on how many others commit meanwhile; so where more than [`RECENT_MAX`] are remembered, of the oldest only the newest number is kept,
//! and a view is taken for one that contains them only if every transaction up to that number had ended. A transaction that writes for a
//! very long time then holds chunks back until it ends: they come later, never too early.

use super::view::View;
use std::collections::VecDeque;

/// Numbers that are remembered one by one.
pub const RECENT_MAX: usize = 4_096;

#[derive(Debug, Clone, Default)]
pub struct Recent {
    /// In the order of their commits.
    each: VecDeque<u32>,
    /// The newest of those that are no longer remembered one by one.
    others_upto: Option<u32>,
}

impl Recent {
    pub fn push(&mut self, xid: u32) {
        if self.each.len() == RECENT_MAX
            && let Some(oldest) = self.each.pop_front()
        {
            self.others_upto = Some(self.others_upto.map_or(oldest, |upto| newer(upto, oldest)));
        }
        self.each.push_back(xid);
    }

    pub fn is_all_in(&self, view: &View) -> bool {
        self.each.iter().all(|xid| view.contains(*xid)) && self.others_upto.is_none_or(|upto| view.is_ended(upto))
    }

    pub fn forget_those_in(&mut self, view: &View) {
        self.each.retain(|xid| !view.contains(*xid));
        self.others_upto = self.others_upto.filter(|upto| !view.is_ended(*upto));
    }
}

/// Numbers go around: the one that is less than half the circle ahead is newer (PostgreSQL documentation, "Transactions and Identifiers").
fn newer(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a).cast_signed() > 0 { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(xids: impl IntoIterator<Item = u32>) -> Recent {
        let mut recent = Recent::default();
        xids.into_iter().for_each(|xid| recent.push(xid));
        recent
    }

    fn view(text: &str) -> View {
        View::parse(text, 0, false).unwrap()
    }

    #[test]
    fn each_must_be_in_the_view() {
        assert!(recent([5, 9, 7]).is_all_in(&view("10:10:")));
        assert!(!recent([5, 9, 7]).is_all_in(&view("7:10:7")));
        assert!(recent([5, 9, 8]).is_all_in(&view("7:10:7")), "the one that runs was not given");
        let mut some = recent([5, 9, 7]);
        some.forget_those_in(&view("7:9:7"));
        assert!(!some.is_all_in(&view("7:10:7")) && !some.is_all_in(&view("9:9:")) && some.is_all_in(&view("10:10:")));
        some.forget_those_in(&view("10:10:"));
        assert!(some.is_all_in(&view("1:1:")), "nothing is left to be seen");
    }

    /// One more than is remembered: the first stays in force, as the newest of those that all must have ended.
    #[test]
    fn beyond_the_bound_nothing_is_taken_for_seen() {
        let n = RECENT_MAX as u32;
        let just = recent(100..100 + n);
        assert!(just.is_all_in(&view(&format!("99:{}:99", 100 + n))), "an older one runs, and is none of these");
        let mut more = recent(100..=100 + n);
        assert!(!more.is_all_in(&view(&format!("100:{}:100", 101 + n))), "the first is not visible yet");
        assert!(!more.is_all_in(&view(&format!("99:{}:99", 101 + n))), "of older ones nobody knows");
        assert!(more.is_all_in(&view(&format!("101:{}:", 101 + n))));
        more.forget_those_in(&view(&format!("99:{}:99", 101 + n)));
        assert!(!more.is_all_in(&view(&format!("99:{}:99", 101 + n))));
        more.forget_those_in(&view(&format!("101:{}:", 101 + n)));
        assert!(more.is_all_in(&view("99:5000:99")));
    }

    #[test]
    fn the_newest_of_the_forgotten_counts_also_where_numbers_go_around() {
        let n = RECENT_MAX as u32;
        // Committed in another order than numbered.
        let some = recent([u32::MAX, 3, u32::MAX - 1].into_iter().chain(10..10 + n));
        let beyond = 1u64 << 32;
        assert!(!some.is_all_in(&view(&format!("{}:{}:", beyond + 3, beyond + 10 + u64::from(n)))));
        assert!(some.is_all_in(&view(&format!("{}:{}:", beyond + 4, beyond + 10 + u64::from(n)))));
    }
}
