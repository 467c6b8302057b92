//! The exponentially weighted moving average: m <- m + a (x - m), starting at the first value.
//!
//! With a half-life, a = 1 - 2^(-dt / half-life), where dt is the event time since the latest row before; a row that is not later than
//! that has no weight. Formula: detection.md, section 0.

use mulgil_engine::layout::{Fields, put_f64, put_i64};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    Alpha(f64),
    HalfLife { micros: i64 },
}

/// Layout: 0, or 1, then mean, then latest event time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ewma {
    /// The mean, in units of the column, and the latest event time.
    state: Option<(f64, i64)>,
}

impl Ewma {
    pub fn mean(&self) -> Option<f64> {
        self.state.map(|(mean, _)| mean)
    }

    pub fn add(&mut self, at: i64, x: f64, decay: Decay) {
        let Some((mean, last)) = self.state else {
            self.state = Some((x, at));
            return;
        };
        let alpha = match decay {
            Decay::Alpha(alpha) => alpha,
            Decay::HalfLife { micros } => 1.0 - (-(at.saturating_sub(last).max(0) as f64) / micros as f64).exp2(),
        };
        self.state = Some((mean + alpha * (x - mean), last.max(at)));
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.state.is_some()));
        if let Some((mean, last)) = self.state {
            put_f64(out, mean);
            put_i64(out, last);
        }
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let known = bytes.u8()? != 0;
        Ok(Self { state: if known { Some((bytes.f64()?, bytes.i64()?)) } else { None } })
    }
}
