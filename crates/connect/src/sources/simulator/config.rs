//! What the user says about the market to simulate.

use super::market::{INSTRUMENTS, Instrument, Market};
use jiff::tz::TimeZone;
use mulgil_model::time::{EventTime, MICROS_MAX, MICROS_MIN};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hours {
    /// Only in each market's regular hours, busiest at open and close.
    Session,
    /// Around the clock, evenly: a demonstration shows ticks at any hour.
    #[default]
    Always,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SimulatorConfig {
    /// Symbols and sectors to take part; when both are empty, all do.
    pub symbols: Vec<String>,
    pub sectors: Vec<String>,
    /// Trades per second of all symbols together, on average over the open hours.
    pub rate: f64,
    /// The share of all rows that belong to injected anomalies.
    pub anomaly_share: f64,
    pub seed: u64,
    /// No row happens before it.
    pub start: EventTime,
    pub hours: Hours,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            symbols: Vec::new(),
            sectors: Vec::new(),
            rate: 50.0,
            anomaly_share: 0.01,
            seed: 1,
            start: EventTime(0),
            hours: Hours::default(),
        }
    }
}

/// Trades per second that can be asked for.
pub const RATE_MIN: f64 = 0.001;
pub const RATE_MAX: f64 = 10_000_000.0;

/// More labelled rows than this would no longer be anomalies.
pub const ANOMALY_SHARE_MAX: f64 = 0.5;

/// The user's mistake in the config; never worth a retry.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulatorError {
    #[error("the simulator has no symbol '{symbol}'{hint}")]
    NoSymbol { symbol: String, hint: String },
    #[error("the simulator has no sector '{sector}': choose among {known}")]
    NoSector { sector: String, known: String },
    #[error("a rate of {0} trades per second is not possible: use {RATE_MIN} to {RATE_MAX}")]
    Rate(f64),
    #[error("an anomaly share of {0} is not possible: use 0 to {ANOMALY_SHARE_MAX}")]
    AnomalyShare(f64),
    #[error("the start time {0} is outside the years 1900 to 2200")]
    Start(EventTime),
    #[error("column '{column}' of stream '{stream}' is not one that the simulator can fill: {reason}")]
    Column { column: String, stream: String, reason: &'static str },
    #[error("the time zone {0} is missing from this build")]
    Zone(&'static str),
}

impl SimulatorConfig {
    /// The instruments that take part, in the order of [`INSTRUMENTS`].
    pub fn validate(&self) -> Result<Vec<Instrument>, SimulatorError> {
        for symbol in &self.symbols {
            if !INSTRUMENTS.iter().any(|i| i.symbol == symbol) {
                let hint = crate::decode::nearest(symbol, INSTRUMENTS.iter().map(|i| i.symbol));
                return Err(SimulatorError::NoSymbol { symbol: symbol.clone(), hint });
            }
        }
        for sector in &self.sectors {
            if !INSTRUMENTS.iter().any(|i| i.sector == sector) {
                let known: std::collections::BTreeSet<&str> = INSTRUMENTS.iter().map(|i| i.sector).collect();
                return Err(SimulatorError::NoSector { sector: sector.clone(), known: known.into_iter().collect::<Vec<_>>().join(", ") });
            }
        }
        if !(RATE_MIN..=RATE_MAX).contains(&self.rate) {
            return Err(SimulatorError::Rate(self.rate));
        }
        if !(0.0..=ANOMALY_SHARE_MAX).contains(&self.anomaly_share) {
            return Err(SimulatorError::AnomalyShare(self.anomaly_share));
        }
        if !(MICROS_MIN..=MICROS_MAX).contains(&self.start.micros()) {
            return Err(SimulatorError::Start(self.start));
        }
        let all = self.symbols.is_empty() && self.sectors.is_empty();
        let chosen = |i: &&Instrument| all || self.symbols.iter().any(|s| s == i.symbol) || self.sectors.iter().any(|s| s == i.sector);
        Ok(INSTRUMENTS.iter().filter(chosen).copied().collect())
    }

    pub(super) fn identity(&self) -> u64 {
        let bits = (self.rate.to_bits(), self.anomaly_share.to_bits());
        let text =
            format!("simulator 2|{:?}|{:?}|{bits:?}|{}|{}|{:?}", self.symbols, self.sectors, self.seed, self.start.micros(), self.hours);
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}

pub(super) fn zone_of(market: Market) -> Result<TimeZone, SimulatorError> {
    TimeZone::get(market.time_zone()).map_err(|_| SimulatorError::Zone(market.time_zone()))
}
