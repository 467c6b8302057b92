//! Which inputs are worth a place in the repository: those that reach most beyond the seeds and each other, for their bytes.

use anyhow::{Context, Result};
use std::collections::HashSet;
use std::path::PathBuf;

/// Committed inputs of one target at most.
const KEPT_BYTES_MAX: u64 = 64 << 10;
/// The suite runs all of them, unoptimised builds some ten a second.
const KEPT_FILES_MAX: u64 = 40;
/// What an input costs beside its bytes, so that neither limit is used up long before the other.
const FILE_COSTS_BYTES: u64 = KEPT_BYTES_MAX / KEPT_FILES_MAX;

/// An input and what it reaches: edges, and how often each was taken, as libFuzzer numbers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub path: PathBuf,
    pub bytes: u64,
    pub features: HashSet<u64>,
}

/// Reads the control file of a merge (libFuzzer's `FuzzerMerge.h`): two counts, the paths, then for each input by its number `STARTED n bytes`,
/// `FT n feature…` and `COV n edge…`. An input that ended the process has no features.
pub fn inputs(control: &str) -> Result<Vec<Input>> {
    let mut lines = control.lines();
    let n: usize = lines.next().and_then(|l| l.parse().ok()).context("the control file of the merge does not begin with a number")?;
    let paths = lines.by_ref().skip(1).take(n);
    let mut inputs: Vec<Input> = paths.map(|p| Input { path: p.into(), bytes: 0, features: HashSet::new() }).collect();
    for line in lines {
        let mut words = line.split(' ');
        let (kind, index) = (words.next().unwrap_or_default(), words.next().and_then(|w| w.parse::<usize>().ok()));
        let Some(input) = index.and_then(|i| inputs.get_mut(i)) else { continue };
        let mut numbers = words.filter_map(|w| w.parse::<u64>().ok());
        match kind {
            "STARTED" => input.bytes = numbers.next().unwrap_or(0),
            "FT" => input.features = numbers.collect(),
            _ => {}
        }
    }
    Ok(inputs)
}

/// What of `found` to keep, the most useful first; the seeds' features are nothing new.
pub fn chosen(seeds: &[Input], mut found: Vec<Input>) -> Vec<Input> {
    let mut known: HashSet<u64> = seeds.iter().flat_map(|s| s.features.iter().copied()).collect();
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while (kept.len() as u64) < KEPT_FILES_MAX {
        found.iter_mut().for_each(|input| input.features.retain(|f| !known.contains(f)));
        found.retain(|input| !input.features.is_empty() && bytes + input.bytes <= KEPT_BYTES_MAX);
        // The names break ties, so that the same files are chosen the same.
        let worth = |input: &Input| (input.features.len() as u64) * KEPT_BYTES_MAX / (FILE_COSTS_BYTES + input.bytes);
        let Some(best) = (0..found.len()).max_by_key(|i| (worth(&found[*i]), &found[*i].path)) else { break };
        let best = found.swap_remove(best);
        known.extend(&best.features);
        bytes += best.bytes;
        kept.push(best);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(path: &str, bytes: u64, features: std::ops::Range<u64>) -> Input {
        Input { path: path.into(), bytes, features: features.collect() }
    }

    #[test]
    fn a_control_file_is_read() {
        let read = inputs("2\n0\n/a b\n/c\nSTARTED 0 3\nFT 0 1 2\nCOV 0 9\nSTARTED 1 70\n").expect("it is a control file");
        assert_eq!(read, [input("/a b", 3, 1..3), input("/c", 70, 0..0)]);
        assert!(inputs("x").is_err());
    }

    #[test]
    fn what_reaches_most_for_its_bytes_is_kept() {
        let names = |kept: Vec<Input>| kept.into_iter().map(|i| i.path.display().to_string()).collect::<Vec<_>>();
        let seeds = [input("seed", 1, 0..10)];
        let found = vec![
            input("nothing new", 1, 0..10),
            input("huge", KEPT_BYTES_MAX + 1, 0..900),
            input("long", 40_000, 10..60),
            input("short", 10, 20..60),
            input("part of short", 10, 20..30),
        ];
        assert_eq!(names(chosen(&seeds, found)), ["short", "long"]);
        let many = (0..100).map(|n| input("one", 1, 1_000 + n..1_001 + n)).collect();
        assert_eq!(chosen(&seeds, many).len() as u64, KEPT_FILES_MAX);
        let big = (0..9).map(|n| input("big", 30_000, 1_000 + n..1_001 + n)).collect();
        assert_eq!(chosen(&seeds, big).len(), 2, "64 KiB together");
    }
}
