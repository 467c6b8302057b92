//! Detectors that need more than aggregates: each is an operator of its own. A new one is one file here and one line in [`DETECTORS`].
//!
//! All alerts about a stream go to `<stream>.alerts`, whichever rule or detector raised them.

pub mod rush_order;

mod parameters;

pub use parameters::{Parameter, Parameters};

use crate::alert::Mode;
use crate::error::DetectError;
use crate::spelling;
use mulgil_engine::operator::Operator;
use mulgil_model::schema::StreamSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const DETECTORS: &[DetectorEntry] = &[DetectorEntry {
    name: "rush_order",
    about: "pump onset: a burst of buys that share a millisecond, with a rising price (La Morgia et al. 2020)",
    build: rush_order::build,
}];

/// A detector as it is written in the config: `[detector.pumps]`, `type = "rush_order"`, `stream = "trades"`, and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorConfig {
    /// The section's name: what its alerts give as their rule.
    #[serde(default)]
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub stream: String,
    #[serde(default)]
    pub severity: Option<String>,
    #[serde(default)]
    pub mode: Mode,
    #[serde(flatten)]
    pub parameters: BTreeMap<String, Parameter>,
}

pub type BuildDetector = fn(&DetectorConfig, &Arc<StreamSchema>) -> Result<Box<dyn Operator>, DetectError>;

pub struct DetectorEntry {
    pub name: &'static str,
    /// One line for `mulgil detectors`.
    pub about: &'static str,
    pub build: BuildDetector,
}

/// The detector that `config` asks for, on rows of `schema`'s stream.
pub fn build(config: &DetectorConfig, schema: &Arc<StreamSchema>) -> Result<Box<dyn Operator>, DetectError> {
    let names = || DETECTORS.iter().map(|d| d.name);
    let entry = DETECTORS.iter().find(|d| d.name == config.kind).ok_or_else(|| DetectError::UnknownDetector {
        name: spelling::shown(&config.kind),
        hint: spelling::hint(&config.kind, names()),
        known: names().collect::<Vec<_>>().join(", "),
    })?;
    (entry.build)(config, schema)
}
