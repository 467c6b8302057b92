//! Length of functions and files, as a ratchet: nothing new above the wall, and what is above it today may only shrink.

use super::code::{Code, Function};
use super::finding::Finding;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FUNCTION_LINES_MAX: usize = 70;
/// Tests are tables: a new case is a new line, so a table may be longer than a story.
const TEST_LINES_MAX: usize = 120;
const FILE_LINES_MAX: usize = 800;
const FILE: &str = "xtask/ratchet.toml";

/// What is longer than the wall today, with its length. Keys: `path` and `path::function`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratchet {
    #[serde(default)]
    function_lines: BTreeMap<String, usize>,
    #[serde(default)]
    file_lines: BTreeMap<String, usize>,
}

impl Ratchet {
    pub fn read(root: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).with_context(|| format!("read {FILE}"))?;
        toml::from_str(&text).with_context(|| format!("read {FILE}"))
    }
}

/// One thing that has a length, and the longest it may be.
struct Measured {
    key: String,
    path: String,
    line: usize,
    n_lines: usize,
    max: usize,
}

fn functions(files: &[Code]) -> Vec<Measured> {
    files.iter().flat_map(functions_of).collect()
}

fn functions_of(file: &Code) -> Vec<Measured> {
    let path = &file.source.path;
    let measure = |f: Function| {
        let max = if file.lines[f.line - 1].is_test { TEST_LINES_MAX } else { FUNCTION_LINES_MAX };
        Measured { key: format!("{path}::{}", f.name), path: path.clone(), line: f.line, n_lines: f.n_lines, max }
    };
    file.functions().into_iter().map(measure).collect()
}

fn whole_files(files: &[Code]) -> Vec<Measured> {
    let measure = |f: &Code| Measured {
        key: f.source.path.clone(),
        path: f.source.path.clone(),
        line: 0,
        n_lines: f.lines.len(),
        max: FILE_LINES_MAX,
    };
    files.iter().map(measure).collect()
}

pub fn findings(ratchet: &Ratchet, files: &[Code]) -> Vec<Finding> {
    let mut found = over(&functions(files), &ratchet.function_lines);
    found.extend(over(&whole_files(files), &ratchet.file_lines));
    found
}

fn over(measured: &[Measured], allowed: &BTreeMap<String, usize>) -> Vec<Finding> {
    let mut found = Vec::new();
    let longest = longest(measured);
    for m in measured.iter().filter(|m| m.n_lines > m.max) {
        let what = match allowed.get(&m.key) {
            None => format!("{} is {} lines long, the wall is {}: split the story where it has a name", m.key, m.n_lines, m.max),
            Some(was) if m.n_lines > *was => {
                format!("{} grew from {was} to {} lines, the wall is {}: it may only shrink", m.key, m.n_lines, m.max)
            }
            Some(_) => continue,
        };
        found.push(Finding::new(&m.path, m.line, what));
    }
    for (key, was) in allowed {
        let now = longest.get(key.as_str()).copied().unwrap_or(0);
        if now < *was {
            found.push(Finding::new(
                FILE,
                0,
                format!("{key} is down from {was} to {now} lines: run `cargo xtask tidy --bless` to lower the ratchet"),
            ));
        }
    }
    found
}

/// The longest of each key: two functions of a file may share a name.
fn longest(measured: &[Measured]) -> BTreeMap<&str, usize> {
    let mut longest = BTreeMap::new();
    for m in measured {
        let known = longest.entry(m.key.as_str()).or_insert(0);
        *known = m.n_lines.max(*known);
    }
    longest
}

/// Writes the ratchet with today's lengths where they are lower, without what has come below the wall.
pub fn bless(root: &Path, files: &[Code]) -> Result<()> {
    let old = Ratchet::read(root)?;
    let new = Ratchet {
        function_lines: lowered(&old.function_lines, &functions(files)),
        file_lines: lowered(&old.file_lines, &whole_files(files)),
    };
    let text = format!(
        "# What is longer than the wall today. Entries may only shrink: `cargo xtask tidy --bless` lowers them.\n{}",
        toml::to_string(&new)?
    );
    std::fs::write(root.join(FILE), text).with_context(|| format!("write {FILE}"))
}

fn lowered(old: &BTreeMap<String, usize>, measured: &[Measured]) -> BTreeMap<String, usize> {
    let over: Vec<&Measured> = measured.iter().filter(|m| m.n_lines > m.max).collect();
    let now = |key: &str| over.iter().filter(|m| m.key == key).map(|m| m.n_lines).max();
    old.iter().filter_map(|(key, was)| Some((key.clone(), now(key)?.min(*was)))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{code::code, finding};
    use super::*;

    fn long(n_lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    work();\n".repeat(n_lines - 2))
    }

    fn check(n_lines: usize, allowed: Option<usize>, expected: &str) {
        let function_lines = allowed.map(|n| ("a.rs::long".to_owned(), n)).into_iter().collect();
        let ratchet = Ratchet { function_lines, ..Ratchet::default() };
        assert_eq!(finding::text(&findings(&ratchet, &[code("a.rs", &long(n_lines))])), expected);
    }

    #[test]
    fn functions_may_only_shrink() {
        check(70, None, "");
        check(71, None, "a.rs:1: a.rs::long is 71 lines long, the wall is 70: split the story where it has a name");
        check(80, Some(80), "");
        check(81, Some(80), "a.rs:1: a.rs::long grew from 80 to 81 lines, the wall is 70: it may only shrink");
        check(
            75,
            Some(80),
            "xtask/ratchet.toml: a.rs::long is down from 80 to 75 lines: run `cargo xtask tidy --bless` to lower the ratchet",
        );
    }

    #[test]
    fn tables_of_tests_may_be_longer() {
        let check = |n: usize| findings(&Ratchet::default(), &[code("crates/a/tests/it.rs", &long(n))]).len();
        assert_eq!((check(120), check(121)), (0, 1));
    }

    #[test]
    fn files_have_a_wall() {
        let found = findings(&Ratchet::default(), &[code("a.rs", &"use x;\n".repeat(801))]);
        assert_eq!(finding::text(&found), "a.rs: a.rs is 801 lines long, the wall is 800: split the story where it has a name");
    }

    #[test]
    fn blessing_lowers_and_forgets_but_never_raises() {
        let old = BTreeMap::from([("a.rs::long".to_owned(), 80), ("b.rs::gone".to_owned(), 90)]);
        let bless = |n: usize| lowered(&old, &functions(&[code("a.rs", &long(n))])).into_values().collect::<Vec<_>>();
        assert_eq!((bless(75), bless(95), bless(60)), (vec![75], vec![80], vec![]));
    }
}
