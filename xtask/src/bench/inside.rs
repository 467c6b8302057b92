//! The answers of `mulgil bench …`: one JSON object each, whose fields must be there.

use super::Bench;
use crate::process;
use anyhow::{Context, Result};
use serde_json::Value;

pub struct Inside {
    command: String,
    fields: Value,
}

impl Inside {
    pub fn run(bench: &Bench, words: &[&str]) -> Result<Self> {
        let fields = process::read_json(process::command(&bench.binary).arg("bench").args(words))?;
        Ok(Self { command: words.first().copied().unwrap_or_default().to_owned(), fields })
    }

    pub fn number(&self, key: &str) -> Result<f64> {
        self.fields[key].as_f64().with_context(|| format!("`mulgil bench {}` left out {key}", self.command))
    }
}
