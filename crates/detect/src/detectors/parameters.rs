//! Reading a detector's parameters, with errors that name the parameter and what it should be.

use super::DetectorConfig;
use crate::spelling;
use mulgil_model::time::parse_duration;
use serde::{Deserialize, Serialize};

/// One value of the config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// Reads parameters by name. The names asked for are the names there are: whatever else is in the config is refused by [`Self::finish`].
pub struct Parameters<'a> {
    config: &'a DetectorConfig,
    known: Vec<&'static str>,
}

impl<'a> Parameters<'a> {
    pub fn new(config: &'a DetectorConfig) -> Self {
        Self { config, known: Vec::new() }
    }

    /// A number above zero.
    pub fn positive(&mut self, name: &'static str, default: f64) -> Result<f64, String> {
        let value = match self.get(name) {
            None => return Ok(default),
            Some(Parameter::Int(n)) => *n as f64,
            Some(Parameter::Float(x)) => *x,
            Some(other) => return Err(wrong(name, "a number above 0", other)),
        };
        if value > 0.0 && value.is_finite() { Ok(value) } else { Err(format!("{name} must be above 0, it is {value}")) }
    }

    pub fn count(&mut self, name: &'static str, default: u64) -> Result<u64, String> {
        match self.get(name) {
            None => Ok(default),
            Some(Parameter::Int(n)) => u64::try_from(*n).map_err(|_| format!("{name} must be 0 or more, it is {n}")),
            Some(other) => Err(wrong(name, "a whole number", other)),
        }
    }

    /// Microseconds.
    pub fn duration(&mut self, name: &'static str, default: &str) -> Result<i64, String> {
        let text = match self.get(name) {
            None => default,
            Some(Parameter::Text(text)) => text,
            Some(other) => return Err(wrong(name, "a duration such as \"60s\"", other)),
        };
        parse_duration(text).map_err(|e| format!("{name}: {e}"))
    }

    /// Refuses parameters that nobody asked for.
    pub fn finish(self) -> Result<(), String> {
        match self.config.parameters.keys().find(|name| !self.known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let hint = spelling::hint(name, self.known.iter().copied());
                Err(format!("there is no parameter '{}'{hint} (there are {})", spelling::shown(name), self.known.join(", ")))
            }
        }
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Parameter> {
        self.known.push(name);
        self.config.parameters.get(name)
    }
}

fn wrong(name: &str, wanted: &str, got: &Parameter) -> String {
    format!("{name} must be {wanted}, it is {got:?}")
}
