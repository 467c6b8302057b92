//! The dependency walls of design.md section 7: who may use whom, and which outside crates would break a crate's promise.

use super::finding::Finding;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// What one crate may use of mulgil, and what it must not use of others. Dev-dependencies keep to the first, not to the second: a test of
/// a pure crate may use an impure tool.
struct Wall {
    folder: &'static str,
    uses: &'static [&'static str],
    never: &'static [&'static str],
}

const WALLS: [Wall; 13] = [
    Wall {
        folder: "crates/model",
        uses: &[],
        never: &["tokio", "futures", "rand", "rand_chacha", "fjall", "reqwest", "axum", "datafusion", "parquet", "tracing"],
    },
    Wall { folder: "crates/disk", uses: &[], never: &["arrow", "bytes", "tokio", "futures", "serde", "parquet", "datafusion", "fjall"] },
    Wall {
        folder: "crates/log",
        uses: &["mulgil-model", "mulgil-disk"],
        never: &["arrow", "arrow-avro", "parquet", "datafusion", "serde_json", "sonic-rs", "axum", "reqwest", "rand", "fjall"],
    },
    Wall {
        folder: "crates/engine",
        uses: &["mulgil-model"],
        never: &["tokio", "futures", "rand", "rand_chacha", "fjall", "reqwest", "axum", "parquet", "datafusion", "uuid", "tracing"],
    },
    Wall {
        folder: "crates/detect",
        uses: &["mulgil-model", "mulgil-engine"],
        never: &["tokio", "futures", "rand", "rand_chacha", "fjall", "reqwest", "axum", "parquet", "datafusion", "uuid", "tracing"],
    },
    Wall {
        folder: "crates/capture",
        // Its tests start real servers; the crate itself must not.
        uses: &["mulgil-model", "mulgil-disk", "mulgil-servers"],
        never: &["mulgil-servers", "axum", "datafusion", "parquet", "fjall", "rand", "reqwest"],
    },
    Wall { folder: "crates/connect", uses: &["mulgil-model"], never: &["axum", "datafusion", "fjall"] },
    Wall {
        folder: "crates/history",
        uses: &["mulgil-model", "mulgil-disk"],
        never: &["axum", "tower", "tower-http", "reqwest", "fjall", "rand"],
    },
    Wall { folder: "crates/serve", uses: &["mulgil-model"], never: &["parquet", "datafusion", "fjall", "rand"] },
    Wall {
        folder: "crates/mulgil",
        uses: &[
            "mulgil-model",
            "mulgil-disk",
            "mulgil-log",
            "mulgil-engine",
            "mulgil-detect",
            "mulgil-capture",
            "mulgil-connect",
            "mulgil-history",
            "mulgil-serve",
            "mulgil-servers",
        ],
        never: &["mulgil-servers"],
    },
    Wall {
        folder: "sim",
        uses: &["mulgil", "mulgil-model", "mulgil-disk", "mulgil-log", "mulgil-engine", "mulgil-connect", "mulgil-history", "mulgil-serve"],
        never: &["rand", "fjall", "reqwest"],
    },
    Wall { folder: "servers", uses: &[], never: &["tokio", "reqwest", "serde", "libc", "rustix"] },
    Wall { folder: "xtask", uses: &["mulgil-servers"], never: &["arrow", "parquet", "datafusion", "tokio", "reqwest"] },
];

pub fn findings(manifests: &BTreeMap<String, String>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (folder, text) in manifests {
        let path = format!("{folder}/Cargo.toml");
        let Some(wall) = WALLS.iter().find(|w| w.folder == folder) else {
            found.push(Finding::new(
                &path,
                0,
                "this crate has no wall: add a line to WALLS in xtask/src/tidy/walls.rs and to ARCHITECTURE.md",
            ));
            continue;
        };
        let manifest: toml::Table = text.parse().with_context(|| format!("read {path}"))?;
        for (name, is_dev) in dependencies(&manifest) {
            let what = if (name == "mulgil" || name.starts_with("mulgil-") || name == "xtask") && !wall.uses.contains(&name.as_str()) {
                format!("must not use {name}; it may use {}: move the code to where the knowledge is, or pass it in", may_use(wall))
            } else if !is_dev && wall.never.contains(&name.as_str()) {
                format!("must not depend on {name} (design.md section 7): let the binary hand in what it is needed for")
            } else {
                continue;
            };
            found.push(Finding::new(&path, line_of(text, &name), what));
        }
    }
    Ok(found)
}

fn may_use(wall: &Wall) -> String {
    if wall.uses.is_empty() { "no crate of mulgil".to_owned() } else { wall.uses.join(", ") }
}

/// Every declared dependency by its package name, for all targets, and whether only tests use it.
fn dependencies(manifest: &toml::Table) -> Vec<(String, bool)> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(|t| t.as_table()) {
        tables.extend(targets.values().filter_map(|t| t.as_table()));
    }
    let kinds = [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
    let mut found = Vec::new();
    for table in tables {
        for (kind, is_dev) in kinds {
            for (key, value) in table.get(kind).and_then(|d| d.as_table()).into_iter().flatten() {
                let package = value.get("package").and_then(|p| p.as_str()).unwrap_or(key);
                found.push((package.to_owned(), is_dev));
            }
        }
    }
    found
}

fn line_of(text: &str, name: &str) -> usize {
    text.lines().position(|l| l.trim_start().starts_with(name)).map_or(0, |n| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folder: &str, manifest: &str, expected: &str) {
        let manifests = BTreeMap::from([(folder.to_owned(), manifest.to_owned())]);
        let found = super::super::finding::text(&findings(&manifests).unwrap());
        assert!(
            if expected.is_empty() { found.is_empty() } else { found.contains(expected) },
            "{folder}: {found:?} should hold {expected:?}"
        );
    }

    #[test]
    fn walls_hold() {
        check("crates/engine", "[dependencies]\nmulgil-model = { workspace = true }\n", "");
        check(
            "crates/engine",
            "[dependencies]\n\nmulgil-log = { workspace = true }\n",
            "crates/engine/Cargo.toml:3: must not use mulgil-log; it may use mulgil-model",
        );
        check("crates/engine", "[dev-dependencies]\nmulgil-log = { workspace = true }\n", "must not use mulgil-log");
        check("crates/engine", "[dependencies]\ntokio = \"1\"\n", "must not depend on tokio");
        check("crates/engine", "[dev-dependencies]\ntokio = \"1\"\n", "");
        check("crates/model", "[dependencies]\nclock = { package = \"tokio\", version = \"1\" }\n", "must not depend on tokio");
        check("crates/log", "[target.'cfg(unix)'.dependencies]\narrow = \"59\"\n", "must not depend on arrow");
        check("crates/serve", "[dependencies]\nmulgil = { path = \"../mulgil\" }\n", "must not use mulgil;");
        check("crates/gossip", "[dependencies]\n", "this crate has no wall");
    }
}
