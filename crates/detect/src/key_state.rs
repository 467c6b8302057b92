//! Everything that features and rules keep for one key, as one entry: one look-up per row.

use crate::feature::FeatureState;
use mulgil_engine::layout::{Fields, put_i64, put_u64};
use mulgil_engine::state::StateValue;

/// The version of the layout below.
const LAYOUT: u8 = 1;

/// What a rule remembers for one key. Layout: flags (1: has alerted, 2: holds), event time of the last alert, level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleState {
    /// Event time of the last alert.
    pub alerted: Option<i64>,
    /// Transitions: whether the condition held when last known.
    pub holds: bool,
    /// Levels: the level last reported.
    pub level: i32,
}

/// Layout: version byte; latest event time; number of features, then per feature its id (8 bytes) and state; number of rules, then per
/// rule its id (8 bytes) and state. Entries are found by id, so that a reload keeps what did not change.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyState {
    /// The latest event time seen.
    pub latest: i64,
    pub features: Vec<(u64, FeatureState)>,
    /// None while no rule has anything to remember, as for most keys.
    pub rules: Vec<(u64, RuleState)>,
    /// The generation of definitions that `features` and `rules` are arranged for; 0 straight from the store.
    pub arranged: u32,
}

impl StateValue for KeyState {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(LAYOUT);
        put_i64(out, self.latest);
        put_u64(out, self.features.len() as u64);
        for (id, state) in &self.features {
            out.extend_from_slice(&id.to_le_bytes());
            state.write(out);
        }
        put_u64(out, self.rules.len() as u64);
        for (id, state) in &self.rules {
            out.extend_from_slice(&id.to_le_bytes());
            state.write(out);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let bytes = &mut Fields::open(bytes, LAYOUT)?;
        let latest = bytes.i64()?;
        let features = (0..bytes.count()?).map(|_| Ok((bytes.id()?, FeatureState::read(bytes)?))).collect::<Result<_, String>>()?;
        let rules = (0..bytes.count()?).map(|_| Ok((bytes.id()?, RuleState::read(bytes)?))).collect::<Result<_, String>>()?;
        bytes.end()?;
        Ok(Self { latest, features, rules, arranged: 0 })
    }
}

impl RuleState {
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self.alerted.is_some()) | u8::from(self.holds) << 1);
        put_i64(out, self.alerted.unwrap_or(0));
        put_i64(out, i64::from(self.level));
    }

    fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let flags = bytes.u8()?;
        let alerted = bytes.i64()?;
        let level = i32::try_from(bytes.i64()?).map_err(|_| "a level is too large")?;
        Ok(Self { alerted: (flags & 1 != 0).then_some(alerted), holds: flags & 2 != 0, level })
    }
}
