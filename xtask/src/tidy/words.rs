//! What must not stay in the sources: unwraps outside tests, leftovers of unfinished work, tests that are skipped or that sleep.

use super::code::{Code, word_positions};
use super::finding::Finding;
use crate::house::Source;

const UNWRAP: &str = "unwrap() outside tests: return the error, or write expect(\"the invariant that holds\")";
const SLEEPS: &str = "a test must not sleep: wait for the event, or hand in a clock";

/// Leftovers in Rust code, as they stand once strings and comments are gone.
const LEFT_IN_CODE: [(&str, &str); 3] = [
    (concat!("to", "do!"), "unfinished: finish it, or return an error that says what is missing"),
    (concat!("unimple", "mented!"), "unfinished: finish it, or return an error that says what is missing"),
    (concat!("#[ig", "nore"), "a test that is skipped proves nothing: make it run or delete it"),
];

/// Leftovers in any text, comments included.
const LEFT_IN_TEXT: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

pub fn findings(rust: &[Code], texts: &[Source]) -> Vec<Finding> {
    let mut found: Vec<Finding> = rust.iter().flat_map(in_code).collect();
    found.extend(texts.iter().flat_map(in_text));
    found
}

fn in_code(file: &Code) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |line: usize, what: &str| found.push(Finding::new(&file.source.path, line, what));
    for (line, _) in file.lines_of(false).filter(|(_, code)| code.contains(".unwrap()")) {
        add(line, UNWRAP);
    }
    for (line, _) in file.lines_of(true).filter(|(_, code)| word_positions(code, "sleep").iter().any(|at| code[at + 5..].starts_with('(')))
    {
        add(line, SLEEPS);
    }
    for (n, line) in file.lines.iter().enumerate() {
        for (word, what) in LEFT_IN_CODE.iter().filter(|(word, _)| line.code.contains(word)) {
            add(n + 1, &format!("{word}: {what}"));
        }
    }
    found
}

fn in_text(file: &Source) -> Vec<Finding> {
    let left = |line: &str| LEFT_IN_TEXT.iter().find(|word| !word_positions(line, word).is_empty());
    let lines = file.text.lines().enumerate();
    lines
        .filter_map(|(n, l)| {
            left(l).map(|w| Finding::new(&file.path, n + 1, format!("{w}: do it now, or open an issue and delete the note")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{code::code, finding};
    use super::*;

    fn check(path: &str, text: &str, expected: &str) {
        let file = code(path, text);
        let texts = [file.source.clone()];
        let found = finding::text(&findings(&[file], &texts));
        assert!(
            if expected.is_empty() { found.is_empty() } else { found.starts_with(expected) },
            "{text}: {found:?} should start with {expected:?}"
        );
    }

    #[test]
    fn leftovers_are_found() {
        check("a.rs", "let a = b.unwrap();", "a.rs:1: unwrap() outside tests");
        check("a.rs", "let a = b.unwrap_or(1); // .unwrap()", "");
        check("a.rs", "#[test]\nfn f() { b.unwrap(); }", "");
        check("a.rs", "#[test]\nfn f() { sleep(x); }", "a.rs:2: a test must not sleep");
        check("a.rs", "fn f() { sleep(x); }", "");
        check("a.rs", &format!("fn f() {{ {}() }}", LEFT_IN_CODE[0].0), "a.rs:1: to");
        check("a.rs", &format!("{}]", LEFT_IN_CODE[2].0), "a.rs:1: #[ig");
        check("a.rs", &format!("// {}: later", LEFT_IN_TEXT[0]), "a.rs:1: TO");
    }
}
