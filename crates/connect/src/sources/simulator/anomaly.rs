//! What the simulator injects on purpose, with its label.

use rand::Rng;
use rand::seq::SliceRandom;

/// The closed set of injected anomalies; the label column holds [`Self::as_str`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// One trade of 600 to 5,000 pieces, where usual ones have 500 at most.
    LargeQuantity,
    /// One trade worth 150 million to 1 billion KRW, or 150,000 to 1 million USD.
    LargeAmount,
    /// The price moves by 6 to 10 % in one trade.
    PriceJump,
    /// 120 trades of one symbol within 8 s.
    RapidTrades,
    /// One trade of 100 to 150 times the usual size.
    VolumeSurge,
    /// 60 buys within 6 s, five to the same millisecond, that lift the price by 5 to 8 %: the onset of a pump.
    RushOrder,
}

impl Anomaly {
    pub const ALL: [Self; 6] =
        [Self::LargeQuantity, Self::LargeAmount, Self::PriceJump, Self::RapidTrades, Self::VolumeSurge, Self::RushOrder];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::LargeQuantity => "large_quantity",
            Self::LargeAmount => "large_amount",
            Self::PriceJump => "price_jump",
            Self::RapidTrades => "rapid_trades",
            Self::VolumeSurge => "volume_surge",
            Self::RushOrder => "rush_order",
        }
    }

    /// How often it begins, relative to the others: bursts are rarer, as each brings many rows.
    pub(crate) fn weight(self) -> u32 {
        match self {
            Self::RapidTrades | Self::RushOrder => 1,
            _ => 3,
        }
    }

    pub(crate) fn n_rows(self) -> u32 {
        match self {
            Self::RapidTrades => RAPID_ROWS,
            Self::RushOrder => RUSH_GROUPS * RUSH_GROUP_ROWS,
            _ => 1,
        }
    }
}

pub(crate) const RAPID_ROWS: u32 = 120;
pub(crate) const RAPID_US: i64 = 8_000_000;
pub(crate) const RUSH_GROUPS: u32 = 12;
pub(crate) const RUSH_GROUP_ROWS: u32 = 5;
pub(crate) const RUSH_GAP_US: i64 = 500_000;

/// Time that any burst fits into.
pub(crate) const BURST_US_MAX: i64 = 10_000_000;

/// Rows of bursts that wait for their time at once; while there are more, no new burst begins.
pub(crate) const PENDING_ROWS_MAX: usize = 100_000;

/// When anomalies begin, and which. One begins in every stretch of as many usual trades as make `share` of all rows labelled, at a place that
/// is drawn; and of every so many each kind has its part. So nobody waits for one for long, as they would if each trade drew for itself.
pub(super) struct Beginnings {
    /// Usual trades per beginning; infinite when nothing is injected.
    stretch: f64,
    n_stretches: u64,
    n_usual: u64,
    next_at: f64,
    kinds: Vec<Anomaly>,
}

impl Beginnings {
    pub fn new(share: f64, rng: &mut impl Rng) -> Self {
        let mut beginnings = Self { stretch: 1.0 / chance(share), n_stretches: 0, n_usual: 0, next_at: f64::INFINITY, kinds: Vec::new() };
        beginnings.plan(rng);
        beginnings
    }

    /// Asked for each usual trade: the anomaly that begins with it.
    pub fn next(&mut self, rng: &mut impl Rng) -> Option<Anomaly> {
        self.n_usual += 1;
        if (self.n_usual as f64) < self.next_at {
            return None;
        }
        self.plan(rng);
        if self.kinds.is_empty() {
            self.kinds = Anomaly::ALL.iter().flat_map(|a| (0..a.weight()).map(|_| *a)).collect();
            self.kinds.shuffle(rng);
        }
        self.kinds.pop()
    }

    fn plan(&mut self, rng: &mut impl Rng) {
        // Above 0, so that nothing times infinity is never what is asked for.
        let place = 1.0 - rng.random::<f64>();
        self.next_at = (self.n_stretches as f64 + place) * self.stretch;
        self.n_stretches += 1;
    }
}

/// Beginnings per usual trade, so that `share` of all rows are labelled.
fn chance(share: f64) -> f64 {
    let weights: u32 = Anomaly::ALL.iter().map(|a| a.weight()).sum();
    let rows: u32 = Anomaly::ALL.iter().map(|a| a.weight() * a.n_rows()).sum();
    let rows_each = f64::from(rows) / f64::from(weights);
    // A usual trade makes way for each beginning: per beginning, `rows_each` labelled rows stand beside (1 - p) / p usual ones.
    share / (rows_each * (1.0 - share) + share)
}
