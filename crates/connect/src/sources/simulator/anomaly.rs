//! What the simulator injects on purpose, with its label.

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

/// The chance that a trade begins an anomaly, so that `share` of all rows are labelled.
pub(crate) fn chance(share: f64) -> f64 {
    let weights: u32 = Anomaly::ALL.iter().map(|a| a.weight()).sum();
    let rows: u32 = Anomaly::ALL.iter().map(|a| a.weight() * a.n_rows()).sum();
    let rows_each = f64::from(rows) / f64::from(weights);
    // A usual trade makes way for each beginning: per beginning, `rows_each` labelled rows stand beside (1 - p) / p usual ones.
    share / (rows_each * (1.0 - share) + share)
}
