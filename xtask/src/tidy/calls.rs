//! Banned calls per crate, as a plain search of the code. Clippy finds the same through each crate's clippy.toml, renamed or not;
//! this check needs no compiler and holds where clippy is not run.

use super::code::{Code, word_positions};
use super::finding::Finding;

/// What is not called, and what to do instead.
struct Ban {
    paths: &'static [&'static str],
    instead: &'static str,
}

const CLOCK: Ban = Ban {
    paths: &["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now"],
    instead: "take the time as an argument: the binary hands in the clock",
};
const FILES: Ban =
    Ban { paths: &["std::fs", "fs::", "File::open", "File::create"], instead: "use the disk trait (mulgil-disk) that the binary hands in" };
const NETWORK: Ban =
    Ban { paths: &["std::net", "TcpStream", "TcpListener", "UdpSocket"], instead: "leave the network to connect and serve" };
const SPAWN: Ban = Ban {
    paths: &["thread::spawn", "thread::Builder", "tokio::spawn", "task::spawn", "Handle::spawn"],
    instead: "return a future or a function: only the binary spawns",
};
const SLEEP: Ban = Ban { paths: &["thread::sleep"], instead: "wait for an event, or take a deadline as an argument" };
const ENVIRONMENT: Ban = Ban {
    paths: &["env::var", "env::var_os", "env::vars", "env::args"],
    instead: "take it as an argument: the binary reads the environment",
};
const UNORDERED: Ban = Ban {
    paths: &["HashMap", "HashSet"],
    instead: "use BTreeMap, or a map with a fixed hasher that is only looked up: unordered maps make two runs differ",
};
const RANDOM: Ban = Ban {
    paths: &["rand::", "thread_rng", "Uuid::new_v4", "Uuid::now_v7"],
    instead: "take randomness as an argument: the binary hands in the seed",
};

const BANS: [(&str, &[&Ban]); 9] = [
    ("crates/model", &[&CLOCK, &FILES, &NETWORK, &SPAWN, &SLEEP, &ENVIRONMENT, &RANDOM]),
    ("crates/engine", &[&CLOCK, &FILES, &NETWORK, &SPAWN, &SLEEP, &ENVIRONMENT, &UNORDERED, &RANDOM]),
    ("crates/detect", &[&CLOCK, &FILES, &NETWORK, &SPAWN, &SLEEP, &ENVIRONMENT, &UNORDERED, &RANDOM]),
    ("crates/log", &[&FILES, &SPAWN, &SLEEP, &ENVIRONMENT]),
    ("crates/history", &[&FILES, &NETWORK, &SPAWN, &SLEEP, &ENVIRONMENT]),
    ("crates/capture", &[&FILES, &SPAWN, &SLEEP, &ENVIRONMENT]),
    ("crates/connect", &[&SPAWN, &SLEEP]),
    ("crates/serve", &[&FILES, &SPAWN, &SLEEP]),
    ("crates/disk", &[&NETWORK, &SPAWN, &SLEEP, &ENVIRONMENT, &CLOCK]),
];

pub fn findings(files: &[Code]) -> Vec<Finding> {
    files.iter().flat_map(findings_of).collect()
}

fn findings_of(file: &Code) -> Vec<Finding> {
    let folder = file.source.crate_folder();
    let bans = BANS.iter().find(|(f, _)| *f == folder).map_or(&[] as &[&Ban], |(_, bans)| bans);
    let mut found = Vec::new();
    for (line, code) in file.lines_of(false) {
        for ban in bans {
            let called = ban.paths.iter().find(|path| stands_in(code, path) && !has_fixed_hasher(code, path));
            if let Some(path) = called {
                found.push(Finding::new(
                    &file.source.path,
                    line,
                    format!("{} has no {path}: {}", folder.trim_start_matches("crates/"), ban.instead),
                ));
            }
        }
    }
    found.extend(baked(file));
    found
}

/// Tests that would look for their files in the checkout they were compiled in. Two checkouts may share a target folder, and cargo takes
/// what was compiled in the other one for fresh.
fn baked(file: &Code) -> Vec<Finding> {
    const NAME: &str = "env!(\"CARGO_MANIFEST_DIR\")";
    const INSTEAD: &str = "a test asks where its files are when it runs: use std::env::var(\"CARGO_MANIFEST_DIR\")";
    let written: Vec<&str> = file.source.text.lines().collect();
    let places = file.lines_of(true).filter(|(line, code)| code.contains("env!(") && written[line - 1].contains(NAME));
    places.map(|(line, _)| Finding::new(&file.source.path, line, INSTEAD.to_owned())).collect()
}

/// Maps with a hasher of their own give the same order in every run; where one is imported or built says nothing about its hasher, its
/// type does.
fn has_fixed_hasher(code: &str, path: &str) -> bool {
    let is_map = UNORDERED.paths.contains(&path);
    is_map && (code.contains("BuildHasherDefault") || code.trim_start().starts_with("use ") || code.contains(&format!("{path}::default()")))
}

/// True where the path stands with whole words at both ends; a path that ends in `::` stands for everything below it.
fn stands_in(code: &str, path: &str) -> bool {
    match path.strip_suffix("::") {
        None => !word_positions(code, path).is_empty(),
        Some(module) => word_positions(code, module).iter().any(|at| code[at + module.len()..].starts_with("::")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{code::code, finding};
    use super::*;

    fn check(path: &str, text: &str, expected: &str) {
        assert_eq!(finding::text(&findings(&[code(path, text)])), expected, "{path}");
    }

    #[test]
    fn calls_are_found_where_they_are_banned() {
        check(
            "crates/engine/src/a.rs",
            "let t = Instant::now();",
            "crates/engine/src/a.rs:1: engine has no Instant::now: take the time as an argument: the binary hands in the clock",
        );
        check("crates/engine/src/a.rs", "// Instant::now()\nlet s = \"std::fs\";", "");
        check("crates/engine/src/a.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}", "");
        check("crates/engine/tests/it.rs", "use std::fs;", "");
        check(
            "crates/log/src/a.rs",
            "\nlet f = fs::read(path);",
            "crates/log/src/a.rs:2: log has no fs::: use the disk trait (mulgil-disk) that the binary hands in",
        );
        check("crates/log/src/a.rs", "let deadline = Instant::now(); offs::x()", "");
        check(
            "crates/serve/src/a.rs",
            "tokio::spawn(run());",
            "crates/serve/src/a.rs:1: serve has no tokio::spawn: return a future or a function: only the binary spawns",
        );
        check("crates/mulgil/src/a.rs", "tokio::spawn(run());", "");
        check(
            "crates/disk/tests/it.rs",
            "// env!(\"CARGO_MANIFEST_DIR\")\nlet here = env!(\"CARGO_MANIFEST_DIR\");",
            "crates/disk/tests/it.rs:2: a test asks where its files are when it runs: use std::env::var(\"CARGO_MANIFEST_DIR\")",
        );
        check(
            "crates/detect/src/a.rs",
            "use std::collections::HashMap;\nlet m: HashMap<u8, u8>;\nlet fixed: HashMap<u8, u8, BuildHasherDefault<Xxh3>> = HashMap::default();",
            "crates/detect/src/a.rs:2: detect has no HashMap: use BTreeMap, or a map with a fixed hasher that is only looked up: unordered maps make two runs differ",
        );
    }
}
