//! One instrument's price: a log-normal walk that is drawn back a little to where it began (an Ornstein-Uhlenbeck process in the
//! logarithm, stepped exactly), seen through a spread of one price step.

use super::market::{Instrument, Market};
use mulgil_model::streams::{BUY, SELL};
use rand::Rng;

/// Trading seconds of a year: 252 days of 6.5 hours.
const YEAR_S: f64 = 252.0 * 6.5 * 3_600.0;

/// Half of a deviation is gone after four hours.
const REVERSION_S: f64 = std::f64::consts::LN_2 / (4.0 * 3_600.0);

/// Log-normal sizes: the standard deviation of the logarithm, and the cut in medians. The cut keeps usual trades clear of the injected.
const SIZE_SIGMA: f64 = 0.8;
const SIZE_MEDIANS_MAX: f64 = 10.0;
const SIZE_MAX: f64 = 500.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    Buy,
    Sell,
}

impl Taker {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buy => BUY,
            Self::Sell => SELL,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub instrument: Instrument,
    /// Logarithm of the middle price.
    middle: f64,
    base: f64,
    at_us: i64,
    /// The price of the last trade, in hundredths.
    pub last: i64,
    pub size_median: f64,
}

impl Walk {
    pub fn new(instrument: Instrument, start_us: i64) -> Self {
        let base = (instrument.price as f64).ln();
        let size_median = (instrument.market.usual_amount() as f64 / instrument.price as f64).max(2.0);
        Self { instrument, middle: base, base, at_us: start_us, last: instrument.price, size_median }
    }

    /// Lets the time up to `us` pass.
    pub fn advance(&mut self, us: i64, rng: &mut impl Rng) {
        let dt_s = (us - self.at_us) as f64 / 1e6;
        self.at_us = us;
        let sigma = self.instrument.volatility / YEAR_S.sqrt();
        let kept = (-REVERSION_S * dt_s).exp();
        let spread = sigma * (-(-2.0 * REVERSION_S * dt_s).exp_m1() / (2.0 * REVERSION_S)).sqrt();
        self.middle = self.base + (self.middle - self.base) * kept + spread * normal(rng);
    }

    /// Moves the price at once by a share of it.
    pub fn shift(&mut self, share: f64) {
        self.middle += share.ln_1p();
    }

    /// Up when the price stands well below where it began, down when well above.
    pub fn way_back(&self) -> Option<f64> {
        let away = self.middle - self.base;
        (away.abs() > 0.05).then(|| -away.signum())
    }

    /// The price a taker gets now: the bid when selling, the ask when buying.
    pub fn trade(&mut self, taker: Taker) -> i64 {
        let market: Market = self.instrument.market;
        let bid = market.floor(self.middle.exp() as i64);
        self.last = match taker {
            Taker::Sell => bid,
            Taker::Buy => market.ceil(bid + 1),
        };
        self.last
    }

    pub fn size(&self, rng: &mut impl Rng) -> i64 {
        let size = self.size_median * (SIZE_SIGMA * normal(rng)).exp();
        size.min(self.size_median * SIZE_MEDIANS_MAX).min(SIZE_MAX).round().max(1.0) as i64
    }
}

/// A standard normal number (Box and Muller 1958).
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}
