//! Licences, bans and sources of all dependencies, by the lists in deny.toml and what `cargo metadata` says, offline.

use super::finding::{Finding, report};
use crate::process;
use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Policy {
    graph: Graph,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for crates of the workspace.
    source: Option<String>,
}

pub fn check(deny: &str) -> Result<String> {
    let policy: Policy = toml::from_str(deny).context("read deny.toml")?;
    let mut command = process::command("cargo");
    command.args(["metadata", "--locked", "--format-version", "1"]);
    if let Some(target) = policy.graph.targets.first() {
        command.args(["--filter-platform", target]);
    }
    let metadata: Metadata = serde_json::from_str(&process::read(&mut command)?).context("read the output of cargo metadata")?;
    report(&findings(&policy, &metadata.packages), &format!("{} packages", metadata.packages.len()))
}

fn findings(policy: &Policy, packages: &[Package]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        let mut add = |what: String| found.push(Finding::new("Cargo.lock", 0, format!("{} {}: {what}", package.name, package.version)));
        match package.license.as_deref() {
            None => add("states no licence: replace it, or read its licence file and say so in deny.toml".to_owned()),
            Some(licence) if !allowed(licence, &policy.licenses.allow) => {
                add(format!("licence {licence} is not in licenses.allow of deny.toml: replace the crate, or decide and add it"))
            }
            Some(_) => {}
        }
        if let Some(ban) = policy.bans.deny.iter().find(|b| b.name == package.name) {
            add(format!("banned in deny.toml ({}): `cargo tree -i {}` shows who brings it", ban.reason, ban.name));
        }
        let is_known = |source: &str| policy.sources.allow_registry.iter().any(|r| source.ends_with(r.as_str()));
        if let Some(source) = package.source.as_deref().filter(|s| !is_known(s)) {
            add(format!("comes from {source}, which is not in sources.allow-registry of deny.toml"));
        }
    }
    found
}

/// Evaluates an SPDX expression: some choice of OR must lead to allowed licences only. `/` is the old spelling of OR.
fn allowed(expression: &str, list: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let holds = any_of(&words, &mut at, list);
    holds && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let mut holds = all_of(words, at, list);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= all_of(words, at, list);
    }
    holds
}

fn all_of(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let mut holds = one(words, at, list);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= one(words, at, list);
    }
    holds
}

fn one(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let holds = any_of(words, at, list);
        *at += 1;
        return holds;
    }
    let mut name = (*word).to_owned();
    if let (Some(&"WITH"), Some(exception)) = (words.get(*at), words.get(*at + 1)) {
        name = format!("{word} WITH {exception}");
        *at += 2;
    }
    list.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_evaluated() {
        let list = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"].map(str::to_owned);
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("GPL-2.0 WITH Classpath-exception", false),
            ("(MIT OR GPL-3.0) AND ISC", true),
            ("(MIT AND GPL-3.0) OR (ISC AND Apache-2.0)", true),
            ("(MIT", false),
            ("", false),
        ] {
            assert_eq!(allowed(expression, &list), expected, "{expression}");
        }
    }

    #[test]
    fn bans_sources_and_licences_are_named() {
        let policy: Policy = toml::from_str(
            "graph.targets = []\nlicenses.allow = ['MIT']\nbans.deny = [{ crate = 'openssl-sys', reason = 'rustls' }]\nsources.allow-registry = ['https://crates']",
        )
        .unwrap();
        let package = |name: &str, license: Option<&str>, source: Option<&str>| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
        };
        let packages = [
            package("good", Some("MIT"), Some("registry+https://crates")),
            package("ours", Some("MIT"), None),
            package("openssl-sys", Some("MIT"), Some("registry+https://crates")),
            package("left", Some("GPL-3.0"), Some("registry+https://crates")),
            package("bare", None, Some("git+https://elsewhere")),
        ];
        let found: Vec<String> = findings(&policy, &packages).iter().map(|f| f.what.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(found, ["openssl-sys 1.0.0", "left 1.0.0", "bare 1.0.0", "bare 1.0.0"]);
    }
}
