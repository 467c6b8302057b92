//! Rows that are sent, and how they look as text: the simulator's own idea of them, apart from the program's.

use crate::random::Random;

/// 2025-11-30T23:59:30Z, microseconds: half a minute before a day ends. Always before the server's clock, however that jumps.
const START_US: i64 = 1_764_547_170_000_000;

const SYMBOLS: [&str; 5] = ["AAPL", "005930", "TSLA", "KRW-BTC", "NVDA"];

#[derive(Debug, Clone)]
pub struct Row {
    pub id: String,
    pub symbol: &'static str,
    pub time_us: i64,
    cents: u64,
    quantity: u64,
    is_buy: bool,
}

impl Row {
    /// What identifies the row and all that was said about it.
    pub fn canonical(&self) -> String {
        canonical(&self.id, self.symbol, self.time_us, &self.price(), &self.quantity.to_string(), self.side())
    }

    pub fn json(&self) -> String {
        let (id, symbol, time, price, quantity, side) = (&self.id, self.symbol, self.time_us, self.price(), self.quantity, self.side());
        format!(r#"{{"event_id":"{id}","symbol":"{symbol}","event_time":{time},"price":{price},"quantity":{quantity},"side":"{side}"}}"#)
    }

    fn price(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }

    fn side(&self) -> &'static str {
        if self.is_buy { "BUY" } else { "SELL" }
    }
}

pub fn canonical(id: &str, symbol: &str, time_us: i64, price: &str, quantity: &str, side: &str) -> String {
    format!("{id} {symbol} {time_us} {price} {quantity} {side}")
}

/// Makes rows; its time goes on as they are made.
#[derive(Debug)]
pub struct Market {
    time_us: i64,
}

impl Market {
    pub fn new() -> Self {
        Self { time_us: START_US }
    }

    pub fn pass(&mut self, r: &mut Random) {
        self.time_us += match r.below(40) {
            0 => 90_000_000,
            1..10 => r.below(3_000_000) as i64,
            _ => r.below(300_000) as i64,
        };
    }

    /// A row of about now: mostly in order, sometimes late, sometimes far too late.
    pub fn row(&mut self, id: String, r: &mut Random) -> Row {
        let off_us = match r.below(20) {
            0 => -60_000_000,
            1 => -(r.below(12_000_000) as i64),
            _ => r.below(1_000_000) as i64,
        };
        self.row_at(id, self.time_us + off_us, r)
    }

    pub fn row_at(&self, id: String, time_us: i64, r: &mut Random) -> Row {
        Row { id, symbol: r.pick(&SYMBOLS), time_us, cents: r.between(9_000, 11_000), quantity: r.between(1, 2000), is_buy: r.percent(50) }
    }

    pub fn now_us(&self) -> i64 {
        self.time_us
    }
}

impl Default for Market {
    fn default() -> Self {
        Self::new()
    }
}
