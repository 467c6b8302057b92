//! A market that does not exist: seeded, so that the same config gives the same rows, byte for byte, however they are asked for.
//! (On one platform: the mathematical functions of another may differ in the last bit.)

mod anomaly;
mod arrival;
mod columns;
mod config;
mod market;
mod walk;

pub use anomaly::Anomaly;
pub use config::{Hours, SimulatorConfig, SimulatorError};
pub use market::{INSTRUMENTS, Instrument, Market};

use anomaly::{BURST_US_MAX, Beginnings, PENDING_ROWS_MAX, RAPID_ROWS, RAPID_US, RUSH_GAP_US, RUSH_GROUP_ROWS, RUSH_GROUPS};
use arrival::{Arrivals, MarketShare};
use arrow::array::RecordBatch;
use columns::{RowColumns, Trade};
use mulgil_model::ids::Topic;
use mulgil_model::position::Position;
use mulgil_model::schema::{Column, ColumnType, SchemaError, StreamSchema};
use mulgil_model::streams::{TradeDecimals, trades};
use mulgil_model::time::EventTime;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use walk::{Taker, Walk};

/// Columns that the simulator fills beside those of every trade.
pub fn extra_columns() -> Vec<Column> {
    vec![Column::optional("event_id", ColumnType::Text), Column::optional("label", ColumnType::Text)]
}

/// A trade stream with every column that the simulator fills.
pub fn schema(stream: Topic, decimals: TradeDecimals) -> Result<StreamSchema, SchemaError> {
    trades(stream, decimals, extra_columns())
}

/// Rows are drawn one after the other from one generator, so their sequence does not depend on how many are asked for at a time.
pub struct Simulator {
    rng: ChaCha8Rng,
    identity: u64,
    arrivals: Arrivals,
    /// Per market: its walks and the running sum of their weights.
    markets: Vec<(Vec<usize>, Vec<f64>)>,
    walks: Vec<Walk>,
    beginnings: Beginnings,
    /// The usual trade that comes next.
    next_usual: (i64, usize),
    pending: BinaryHeap<Reverse<Pending>>,
    n_scheduled: u64,
    n_rows: u64,
    columns: RowColumns,
}

/// A trade of a burst, waiting for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    us: i64,
    /// Keeps trades of the same microsecond in the order they were planned.
    number: u64,
    walk: usize,
    anomaly: Anomaly,
    /// How much it lifts the price, in millionths.
    lift_ppm: i64,
}

impl Simulator {
    /// The schema must be a trade stream; columns that the simulator does not know stay null.
    pub fn new(config: &SimulatorConfig, schema: Arc<StreamSchema>) -> Result<Self, SimulatorError> {
        let instruments = config.validate()?;
        let columns = RowColumns::new(schema)?;
        let start_us = config.start.micros();
        let walks: Vec<Walk> = instruments.iter().map(|i| Walk::new(*i, start_us)).collect();
        let all: f64 = instruments.iter().map(|i| i.weight).sum();
        let (mut markets, mut shares) = (Vec::new(), Vec::new());
        for market in Market::ALL {
            let members: Vec<usize> = (0..walks.len()).filter(|i| walks[*i].instrument.market == market).collect();
            let Some(sums) = running_sums(members.iter().map(|i| walks[*i].instrument.weight)) else { continue };
            let rate_us = config.rate * sums[sums.len() - 1] / all / 1e6;
            shares.push(MarketShare { market, zone: config::zone_of(market)?, rate_us });
            markets.push((members, sums));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut arrivals = Arrivals::new(shares, config.hours == Hours::Session, start_us);
        let next_usual = arrivals.next(&mut rng);
        let beginnings = Beginnings::new(config.anomaly_share, &mut rng);
        Ok(Self {
            rng,
            identity: config.identity(),
            arrivals,
            markets,
            walks,
            beginnings,
            next_usual,
            pending: BinaryHeap::new(),
            n_scheduled: 0,
            n_rows: 0,
            columns,
        })
    }

    /// The same for the same config: a stored position is worth nothing for any other.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Of the last row given: what to commit with it, and to hand to [`Self::resume_after`].
    pub fn position(&self) -> Option<Position> {
        self.n_rows.checked_sub(1).map(|last| Position::new(last, 0))
    }

    pub fn resume_after(&mut self, position: Position) {
        self.skip_to(position.commit.saturating_add(1));
    }

    /// Passes over rows so that the next one has this ordinal.
    pub fn skip_to(&mut self, ordinal: u64) {
        while self.n_rows < ordinal {
            self.draw();
        }
    }

    /// When the next row will happen.
    pub fn next_time(&self) -> EventTime {
        EventTime(self.pending.peek().map_or(self.next_usual.0, |Reverse(p)| p.us.min(self.next_usual.0)))
    }

    /// The next rows, at most `n_rows_max`, that happen at `until` or before. Empty when there are none yet.
    pub fn next_until(&mut self, until: EventTime, n_rows_max: usize) -> RecordBatch {
        let mut n = 0;
        while n < n_rows_max && self.next_time() <= until {
            let trade = self.draw();
            self.columns.append(&trade, &self.walks[trade.walk].instrument);
            n += 1;
        }
        self.columns.take()
    }

    /// The next `n` rows, whenever they happen.
    pub fn next_rows(&mut self, n: usize) -> RecordBatch {
        self.next_until(EventTime(i64::MAX), n)
    }

    fn draw(&mut self) -> Trade {
        self.n_rows += 1;
        match self.pending.peek() {
            Some(Reverse(p)) if p.us <= self.next_usual.0 => {
                let Reverse(pending) = self.pending.pop().expect("it was peeked at");
                self.draw_pending(pending)
            }
            _ => self.draw_usual(),
        }
    }

    fn draw_usual(&mut self) -> Trade {
        let (us, market) = self.next_usual;
        self.next_usual = self.arrivals.next(&mut self.rng);
        let (members, sums) = &self.markets[market];
        let at = self.rng.random::<f64>() * sums[sums.len() - 1];
        let walk = members[sums.partition_point(|s| *s <= at).min(members.len() - 1)];
        let begins = self.beginnings.next(&mut self.rng);
        self.walks[walk].advance(us, &mut self.rng);
        if let Some(anomaly) = begins {
            return self.begin(anomaly, us, market, walk);
        }
        let taker = self.draw_taker();
        self.trade(us, walk, taker, None)
    }

    fn begin(&mut self, anomaly: Anomaly, us: i64, market: usize, walk: usize) -> Trade {
        let fits = self.pending.len() < PENDING_ROWS_MAX && self.arrivals.is_open(market, us + BURST_US_MAX);
        let taker = self.draw_taker();
        match anomaly {
            Anomaly::LargeQuantity | Anomaly::LargeAmount | Anomaly::VolumeSurge => {
                let mut trade = self.trade(us, walk, taker, Some(anomaly));
                trade.quantity = self.large_size(walk, anomaly, trade.price);
                trade
            }
            Anomaly::PriceJump => self.jump(us, walk),
            Anomaly::RapidTrades if fits => {
                for i in 1..i64::from(RAPID_ROWS) {
                    self.schedule(us + i * RAPID_US / i64::from(RAPID_ROWS), walk, anomaly, 0);
                }
                self.trade(us, walk, taker, Some(anomaly))
            }
            Anomaly::RushOrder if fits => self.begin_rush(us, walk),
            Anomaly::RapidTrades | Anomaly::RushOrder => self.trade(us, walk, taker, None),
        }
    }

    fn large_size(&mut self, walk: usize, anomaly: Anomaly, price: i64) -> i64 {
        let usual = self.walks[walk].instrument.market.usual_amount();
        let size = match anomaly {
            Anomaly::LargeAmount => usual as f64 * self.rng.random_range(100.0..667.0) / price as f64,
            Anomaly::VolumeSurge => self.walks[walk].size_median * self.rng.random_range(100.0..150.0),
            _ => self.rng.random_range(600.0..5_000.0),
        };
        size.ceil() as i64
    }

    /// Moves the price away from the last trade's by 6 to 10 %, on the price grid and never less.
    fn jump(&mut self, us: i64, walk: usize) -> Trade {
        let up = self.rng.random::<bool>();
        let share: f64 = self.rng.random_range(0.065..0.10);
        let w = &mut self.walks[walk];
        let way = w.way_back().unwrap_or(if up { 1.0 } else { -1.0 });
        let (before, middle) = (w.last as f64, w.trade(Taker::Sell) as f64);
        w.shift(before * (1.0 + way * share) / middle - 1.0);
        self.trade(us, walk, if way > 0.0 { Taker::Buy } else { Taker::Sell }, Some(Anomaly::PriceJump))
    }

    fn begin_rush(&mut self, us: i64, walk: usize) -> Trade {
        let lift_ppm = self.rng.random_range(50_000..80_000) / i64::from(RUSH_GROUPS);
        // Whole milliseconds, never before now.
        let first_us = us + (1_000 - us.rem_euclid(1_000)) % 1_000;
        for group in 0..i64::from(RUSH_GROUPS) {
            for row in 0..RUSH_GROUP_ROWS {
                self.schedule(first_us + group * RUSH_GAP_US, walk, Anomaly::RushOrder, if row == 0 { lift_ppm } else { 0 });
            }
        }
        self.trade(us, walk, Taker::Buy, None)
    }

    fn schedule(&mut self, us: i64, walk: usize, anomaly: Anomaly, lift_ppm: i64) {
        self.n_scheduled += 1;
        self.pending.push(Reverse(Pending { us, number: self.n_scheduled, walk, anomaly, lift_ppm }));
    }

    fn draw_pending(&mut self, pending: Pending) -> Trade {
        self.walks[pending.walk].advance(pending.us, &mut self.rng);
        self.walks[pending.walk].shift(pending.lift_ppm as f64 / 1e6);
        let taker = if pending.anomaly == Anomaly::RushOrder { Taker::Buy } else { self.draw_taker() };
        self.trade(pending.us, pending.walk, taker, Some(pending.anomaly))
    }

    fn draw_taker(&mut self) -> Taker {
        if self.rng.random::<bool>() { Taker::Buy } else { Taker::Sell }
    }

    fn trade(&mut self, us: i64, walk: usize, taker: Taker, anomaly: Option<Anomaly>) -> Trade {
        let price = self.walks[walk].trade(taker);
        let quantity = self.walks[walk].size(&mut self.rng);
        let mut random = [0u8; 26];
        self.rng.fill_bytes(&mut random);
        Trade { us, walk, price, quantity, taker, anomaly, random }
    }
}

fn running_sums(weights: impl Iterator<Item = f64>) -> Option<Vec<f64>> {
    let mut sum = 0.0;
    let sums: Vec<f64> = weights
        .map(|w| {
            sum += w;
            sum
        })
        .collect();
    (!sums.is_empty()).then_some(sums)
}
