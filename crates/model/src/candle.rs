//! The fold that turns trades into a candle: used for bars in the engine and for the live candle a client watches.

/// What one trade adds. Prices and quantities are unscaled integers at the stream's scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Event time in microseconds, then arrival order: what decides about open and close.
    pub at: (i64, u64),
    pub price: i128,
    pub quantity: i128,
    pub side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Buy,
    Sell,
    Unknown,
}

impl Side {
    /// The stored spelling; anything else is unknown.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some(crate::streams::BUY) => Self::Buy,
            Some(crate::streams::SELL) => Self::Sell,
            _ => Self::Unknown,
        }
    }
}

/// Open, high, low, close and sums of a set of trades. The result does not depend on the order in which the trades are added: open is
/// the earliest trade by (event time, arrival), close the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candle {
    pub open_at: (i64, u64),
    pub close_at: (i64, u64),
    pub open: i128,
    pub high: i128,
    pub low: i128,
    pub close: i128,
    pub volume: i128,
    /// Sum of price x quantity, at the sum of both scales.
    pub amount: i128,
    pub count: u64,
    pub buy_volume: i128,
    pub sell_volume: i128,
}

impl Candle {
    pub fn of(tick: &Tick) -> Self {
        let mut candle = Self {
            open_at: tick.at,
            close_at: tick.at,
            open: tick.price,
            high: tick.price,
            low: tick.price,
            close: tick.price,
            volume: 0,
            amount: 0,
            count: 0,
            buy_volume: 0,
            sell_volume: 0,
        };
        candle.add(tick);
        candle
    }

    /// Sums saturate: with the precisions of `TradeDecimals` that takes more than 10^15 trades of the largest size.
    pub fn add(&mut self, tick: &Tick) {
        if tick.at < self.open_at {
            (self.open_at, self.open) = (tick.at, tick.price);
        }
        if tick.at >= self.close_at {
            (self.close_at, self.close) = (tick.at, tick.price);
        }
        self.high = self.high.max(tick.price);
        self.low = self.low.min(tick.price);
        self.volume = self.volume.saturating_add(tick.quantity);
        self.amount = self.amount.saturating_add(tick.price.saturating_mul(tick.quantity));
        self.count += 1;
        match tick.side {
            Side::Buy => self.buy_volume = self.buy_volume.saturating_add(tick.quantity),
            Side::Sell => self.sell_volume = self.sell_volume.saturating_add(tick.quantity),
            Side::Unknown => {}
        }
    }

    /// amount / volume at `price_scale + 4`, half to even; None for a volume of zero.
    pub fn vwap(&self, price_scale: i8, quantity_scale: i8) -> Option<i128> {
        crate::decimal::divide(self.amount, price_scale + quantity_scale, self.volume, quantity_scale, price_scale + 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_arrival_does_not_matter() {
        let ticks = [(5, 0, 100, 2, Side::Buy), (3, 1, 90, 1, Side::Sell), (5, 2, 120, 1, Side::Unknown), (4, 3, 80, 3, Side::Buy)]
            .map(|(t, n, price, quantity, side)| Tick { at: (t, n), price, quantity, side });
        let mut forward = Candle::of(&ticks[0]);
        ticks[1..].iter().for_each(|t| forward.add(t));
        let mut backward = Candle::of(&ticks[3]);
        ticks[..3].iter().rev().for_each(|t| backward.add(t));
        assert_eq!(forward, backward);
        assert_eq!((forward.open, forward.high, forward.low, forward.close), (90, 120, 80, 120));
        assert_eq!((forward.volume, forward.amount, forward.count), (7, 650, 4));
        assert_eq!((forward.buy_volume, forward.sell_volume), (5, 1));
        // 650 / 7 = 92.857142857…
        assert_eq!(forward.vwap(0, 0), Some(928_571));
    }
}
