//! When the next trade happens: a Poisson process, even around the clock or following the markets' hours.

use super::market::{Market, Session};
use jiff::tz::TimeZone;
use rand::Rng;

const MINUTE_US: i64 = 60_000_000;

/// One market's part in the trades.
#[derive(Debug, Clone)]
pub(crate) struct MarketShare {
    pub market: Market,
    pub zone: TimeZone,
    /// Its trades per microsecond, averaged over its session.
    pub rate_us: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    shares: Vec<MarketShare>,
    follows_hours: bool,
    start_us: i64,
    /// Microseconds since the start, with their fraction.
    passed_us: f64,
    /// The minute whose rates are known, as its first microsecond, and the rate of each market in it.
    minute: Option<i64>,
    rates_us: Vec<f64>,
}

impl Arrivals {
    pub fn new(shares: Vec<MarketShare>, follows_hours: bool, start_us: i64) -> Self {
        let rates_us = shares.iter().map(|s| s.rate_us).collect();
        Self { shares, follows_hours, start_us, passed_us: 0.0, minute: None, rates_us }
    }

    /// The time of the next trade, and the number of its market among the shares.
    pub fn next(&mut self, rng: &mut impl Rng) -> (i64, usize) {
        let mut left = -(1.0 - rng.random::<f64>()).ln();
        loop {
            let end_us = self.enter_minute();
            let total: f64 = self.rates_us.iter().sum();
            let reach = (end_us - self.passed_us) * total;
            if left < reach {
                self.passed_us += left / total;
                break;
            }
            left -= reach;
            self.passed_us = end_us;
        }
        (self.start_us + self.passed_us as i64, self.pick_market(rng))
    }

    /// Whether a market trades at a time, always true around the clock.
    pub fn is_open(&self, share: usize, us: i64) -> bool {
        !self.follows_hours || self.shares[share].market.session(&self.shares[share].zone, us) != Session::Closed
    }

    /// Brings the rates up to the present minute; gives its end in microseconds since the start.
    fn enter_minute(&mut self) -> f64 {
        if !self.follows_hours {
            return f64::INFINITY;
        }
        let now = self.start_us + self.passed_us as i64;
        let minute = now - now.rem_euclid(MINUTE_US);
        if self.minute != Some(minute) {
            self.minute = Some(minute);
            for (rate, share) in self.rates_us.iter_mut().zip(&self.shares) {
                *rate = share.rate_us * shape(share.market.session(&share.zone, minute));
            }
        }
        (minute + MINUTE_US - self.start_us) as f64
    }

    fn pick_market(&self, rng: &mut impl Rng) -> usize {
        let mut at = rng.random::<f64>() * self.rates_us.iter().sum::<f64>();
        let last = self.rates_us.iter().rposition(|r| *r > 0.0).unwrap_or(0);
        for (i, rate) in self.rates_us.iter().enumerate() {
            if at < *rate {
                return i;
            }
            at -= rate;
        }
        last
    }
}

/// The U of a trading day: twice the mean at open and close, half of it in the middle, 1 on average.
fn shape(session: Session) -> f64 {
    match session {
        Session::Closed => 0.0,
        Session::Open(x) => 0.5 + 1.5 * (2.0 * x - 1.0).powi(2),
    }
}
