//! Every crate's first lines: two sentences, what it is and what it must never know.

use super::code::Code;
use super::finding::Finding;

const WHAT: &str = "must open with two //! sentences: what this crate is, and what it must never know";

pub fn findings(files: &[Code]) -> Vec<Finding> {
    let is_door = |file: &&Code| {
        let inside = file.source.path[file.source.crate_folder().len()..].to_owned();
        inside == "/src/lib.rs" || inside == "/src/main.rs"
    };
    files.iter().filter(is_door).filter(|f| !opens_well(&f.source.text)).map(|f| Finding::new(&f.source.path, 1, WHAT)).collect()
}

fn opens_well(text: &str) -> bool {
    let door: Vec<&str> = text.lines().map_while(|l| l.strip_prefix("//!")).take_while(|l| !l.trim().is_empty()).collect();
    let door = door.join(" ");
    let n_sentences = door.split(['.', ':']).filter(|s| s.trim().contains(' ')).count();
    n_sentences >= 2 && door.contains("must never")
}

#[cfg(test)]
mod tests {
    use super::super::{code::code, finding};
    use super::*;

    #[test]
    fn a_crate_says_what_it_must_never_know() {
        let good = "//! The log: topics and one verb.\n//! It must never know payloads: they are bytes.\n\nmod a;";
        let check = |path: &str, text: &str| finding::text(&findings(&[code(path, text)]));
        assert_eq!(check("crates/log/src/lib.rs", good), "");
        assert_eq!(check("crates/log/src/deep/lib.rs", "mod a;"), "");
        assert_eq!(check("crates/log/src/lib.rs", "//! The log."), format!("crates/log/src/lib.rs:1: {WHAT}"));
        assert_eq!(check("crates/mulgil/src/main.rs", "fn main() {}"), format!("crates/mulgil/src/main.rs:1: {WHAT}"));
    }
}
