//! One set of features: `cargo run` and `cargo test --workspace` must ask every shared dependency for the same features, or the second of
//! the README's two commands compiles DataFusion a second time (a feature of a small crate far below is enough).

use super::finding::{Finding, report};
use crate::process;
use anyhow::Result;
use std::collections::BTreeMap;

pub fn check() -> Result<String> {
    let run = tree(&["--package", "mulgil", "--edges", "normal,build"])?;
    let test = tree(&["--workspace", "--edges", "normal,build,dev"])?;
    report(&findings(&run, &test), &format!("{} packages", features(&run).len()))
}

fn tree(selection: &[&str]) -> Result<String> {
    process::read(process::command("cargo").args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{f}"]).args(selection))
}

/// Features by package, one entry for each distinct set: a package may stand several times, for build scripts and for the program.
fn features(tree: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (package, features) in tree.lines().filter_map(|l| l.trim_end_matches(" (*)").split_once('|')) {
        let sets = found.entry(package).or_default();
        if !sets.contains(&features) {
            sets.push(features);
        }
    }
    found
}

fn findings(run: &str, test: &str) -> Vec<Finding> {
    let tested = features(test);
    let mut found = Vec::new();
    for (package, sets) in features(run) {
        let others = tested.get(package).cloned().unwrap_or_default();
        for set in sets.iter().filter(|set| !others.contains(set)) {
            let text = |set: &str| if set.is_empty() { "none".to_owned() } else { set.to_owned() };
            let what = format!(
                "{package} is built with features {} by `cargo run` and {} by `cargo test --workspace`: ask for the larger set in crates/mulgil/Cargo.toml too",
                text(set),
                others.iter().map(|o| text(o)).collect::<Vec<_>>().join(" / ")
            );
            found.push(Finding::new("Cargo.toml", 0, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding;
    use super::*;

    #[test]
    fn a_difference_is_named() {
        assert_eq!(finding::text(&findings("a v1|std\nb v1|\n", "a v1|std (*)\nb v1|\nc v1|x")), "");
        let found = finding::text(&findings("a v1|std\nb v1|\n", "a v1|std\nb v1|sys\n"));
        assert!(found.contains("b v1 is built with features none by `cargo run` and sys by"), "{found}");
    }
}
