//! The trades of the load. Each carries in `trade_id` its place among those of its symbol and the instant at which it was due, so that
//! whoever receives it can tell what is missing, what came twice, and how long it took.

use memchr::memmem::Finder;
use std::fmt::Write;
use std::ops::Range;

/// Makes trades of some symbols, in turn.
pub struct Trades {
    symbols: Range<u32>,
    turn: u32,
    /// The next place of each symbol.
    next: Vec<u64>,
}

impl Trades {
    pub fn of(symbols: Range<u32>) -> Self {
        Self { turn: symbols.start, next: vec![0; symbols.len()], symbols }
    }

    /// `rows` trades as NDJSON, which happened and were due at `due_us`.
    pub fn batch(&mut self, rows: u64, due_us: i64) -> String {
        let mut body = String::new();
        for _ in 0..rows {
            let place = &mut self.next[(self.turn - self.symbols.start) as usize];
            writeln!(
                body,
                r#"{{"symbol":"{}","event_time":{},"price":100.5,"quantity":1,"side":"BUY","trade_id":"{place}.{due_us}"}}"#,
                symbol(self.turn),
                due_us / 1_000
            )
            .expect("writing to a String cannot fail");
            *place += 1;
            self.turn = if self.turn + 1 == self.symbols.end { self.symbols.start } else { self.turn + 1 };
        }
        body
    }

    /// How many of each symbol were made, from the first symbol on.
    pub fn made(&self) -> &[u64] {
        &self.next
    }
}

pub fn symbol(number: u32) -> String {
    format!("S{number:04}")
}

/// A trade as a client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub symbol: u32,
    pub place: u64,
    pub due_us: i64,
}

/// Finds the load's trades in a frame without reading the rest of it.
pub struct Scanner {
    symbol: Finder<'static>,
    id: Finder<'static>,
}

impl Scanner {
    pub fn new() -> Self {
        Self { symbol: Finder::new(r#""symbol":"S"#), id: Finder::new(r#""trade_id":""#) }
    }

    /// The trades of a frame in its order; their number.
    pub fn each(&self, frame: &[u8], mut visit: impl FnMut(Seen)) -> u64 {
        let (mut rest, mut n) = (frame, 0);
        while let Some(at) = self.symbol.find(rest) {
            let (symbol, behind) = number(&rest[at + self.symbol.needle().len()..]);
            let Some(at) = self.id.find(behind) else { break };
            let (place, behind) = number(&behind[at + self.id.needle().len()..]);
            let (due_us, behind) = number(behind.get(1..).unwrap_or_default());
            visit(Seen { symbol: symbol as u32, place, due_us: due_us as i64 });
            (rest, n) = (behind, n + 1);
        }
        n
    }
}

/// The digits at the front, and what is behind them.
fn number(text: &[u8]) -> (u64, &[u8]) {
    let n = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let value = text[..n].iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    (value, &text[n..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_found_again() {
        let mut trades = Trades::of(3..5);
        let text = trades.batch(3, 1_700_000_000_123_456);
        let mut seen = Vec::new();
        assert_eq!(Scanner::new().each(text.as_bytes(), |s| seen.push((s.symbol, s.place, s.due_us))), 3);
        let due = 1_700_000_000_123_456;
        assert_eq!(seen, [(3, 0, due), (4, 0, due), (3, 1, due)]);
        assert_eq!(trades.made(), [2, 1]);
        assert_eq!(Scanner::new().each(br#"{"type":"subscribed","symbol":"S1"}"#, |_| {}), 0);
    }
}
