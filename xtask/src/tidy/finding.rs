//! What a check found: the place, what is there, and what to do.

use anyhow::{Result, bail};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    /// Counted from 1; 0 when the finding is about the whole file.
    pub line: usize,
    pub what: String,
}

impl Finding {
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Findings as the outcome of a check.
pub fn report(findings: &[Finding], detail: &str) -> Result<String> {
    if findings.is_empty() {
        return Ok(detail.to_owned());
    }
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    bail!("{}", lines.join("\n"))
}

/// Findings as text, one a line, for tests.
#[cfg(test)]
pub fn text(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}
