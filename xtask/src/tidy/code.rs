//! Rust source as code: comments, strings and characters blanked out, so that a plain search finds only calls and names;
//! test parts marked; functions with their lengths. A few hundred lines of lexing instead of a parser keep xtask quick to build.

use crate::house::Source;

/// One Rust file. `lines` has as many lines as the text, with everything that is not code replaced by spaces.
pub struct Code {
    pub source: Source,
    pub lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub code: String,
    pub is_test: bool,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub n_lines: usize,
}

impl Code {
    pub fn new(source: Source) -> Self {
        let blank = blanked(&source.text);
        let tests = if source.is_test() { std::iter::once(0..usize::MAX).collect() } else { test_parts(&blank) };
        let in_tests = |n: usize| tests.iter().any(|part: &std::ops::Range<usize>| part.contains(&n));
        let lines = blank.lines().enumerate().map(|(n, l)| Line { code: l.to_owned(), is_test: in_tests(n) }).collect();
        Self { source, lines }
    }

    /// Lines outside tests (or inside), with their numbers counted from 1.
    pub fn lines_of(&self, tests: bool) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().filter(move |(_, l)| l.is_test == tests).map(|(n, l)| (n + 1, l.code.as_str()))
    }

    pub fn functions(&self) -> Vec<Function> {
        let text = self.lines.iter().map(|l| l.code.as_str()).collect::<Vec<_>>().join("\n");
        let starts = word_positions(&text, "fn");
        starts.into_iter().filter_map(|at| function(&text, at)).collect()
    }
}

fn function(text: &str, at: usize) -> Option<Function> {
    let rest = text[at + 2..].trim_start();
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let close = body_end(text, at)?;
    let line = text[..at].matches('\n').count();
    (!name.is_empty()).then(|| Function { name, line: line + 1, n_lines: text[at..close].matches('\n').count() + 1 })
}

/// The closing brace of the item that starts at `at`: None when a `;` ends it first (a declaration in a trait). Brackets and parentheses
/// are skipped as wholes, because `[u8; 4]` has a `;` of its own.
fn body_end(text: &str, at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    let mut nested = 0_i32;
    for (i, c) in text[at..].char_indices() {
        match c {
            '(' | '[' if depth == 0 => nested += 1,
            ')' | ']' if depth == 0 => nested -= 1,
            ';' if depth == 0 && nested == 0 => return None,
            '{' if depth > 0 || nested == 0 => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Where `word` stands as a whole word.
pub fn word_positions(text: &str, word: &str) -> Vec<usize> {
    let is_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let alone = |at: &usize| !is_name(text[..*at].chars().next_back()) && !is_name(text[at + word.len()..].chars().next());
    text.match_indices(word).map(|(at, _)| at).filter(alone).collect()
}

/// Line ranges (from 0) of items behind `#[cfg(test)]` or `#[test]`.
fn test_parts(text: &str) -> Vec<std::ops::Range<usize>> {
    let line_of = |at: usize| text[..at].matches('\n').count();
    let attributes = text.match_indices("#[").filter(|(at, _)| is_test_attribute(&text[*at..]));
    attributes
        .filter_map(|(at, _)| {
            let end_of_attribute = at + text[at..].find(']')? + 1;
            let end =
                body_end(text, end_of_attribute).unwrap_or_else(|| end_of_attribute + text[end_of_attribute..].find(';').unwrap_or(0));
            Some(line_of(at)..line_of(end) + 1)
        })
        .collect()
}

fn is_test_attribute(text: &str) -> bool {
    let attribute = &text[..text.find(']').unwrap_or(text.len())];
    let inner = attribute.trim_start_matches("#[").trim();
    inner == "test"
        || inner.ends_with("::test")
        || inner.starts_with("tokio::test")
        || (inner.starts_with("cfg(") && !word_positions(inner, "test").is_empty() && !inner.contains("not(test)"))
}

/// The text with comments, strings and character literals replaced by spaces; line ends stay.
pub fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = skipped(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// The end of the comment, string or character literal that starts at `i`; `i` itself when none does.
fn skipped(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let in_name = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
    match (at(i), at(i + 1)) {
        ('/', '/') => (i..chars.len()).find(|k| at(*k) == '\n').unwrap_or(chars.len()),
        ('/', '*') => end_of_block_comment(chars, i),
        ('"', _) => end_of_string(chars, i + 1),
        ('r', '"' | '#') if !in_name => end_of_raw_string(chars, i).unwrap_or(i),
        ('b' | 'c', 'r') if !in_name => end_of_raw_string(chars, i + 1).unwrap_or(i),
        ('\'', '\\') => (i + 3..chars.len()).find(|k| at(*k) == '\'').map_or(chars.len(), |k| k + 1),
        ('\'', _) if at(i + 2) == '\'' => i + 3,
        _ => i,
    }
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`; None for a raw identifier such as `r#type`.
fn end_of_raw_string(chars: &[char], r: usize) -> Option<usize> {
    let n_hashes = chars[r + 1..].iter().take_while(|c| **c == '#').count();
    let open = r + 1 + n_hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |k: &usize| chars[*k] == '"' && chars[k + 1..].iter().take(n_hashes).filter(|c| **c == '#').count() == n_hashes;
    Some((open + 1..chars.len()).find(closes).map_or(chars.len(), |k| k + 1 + n_hashes))
}

#[cfg(test)]
pub fn code(path: &str, text: &str) -> Code {
    Code::new(Source { path: path.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked_and_lines_stay() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c\n*/ */ d", "a          \n      d"),
            (r#"f("x\"y", 'z', '\'', 'a)"#, "f(      ,    ,     , 'a)"),
            ("r#\"a\"b\"# + r#type", "         + r#type"),
            ("br\"x\" + bar", "      + bar"),
            ("&'static str", "&'static str"),
        ] {
            assert_eq!(blanked(text), expected, "{text}");
        }
    }

    #[test]
    fn test_parts_are_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nuse x;\nfn d() {}\n#[cfg(not(test))]\nfn e() {}";
        let tests: Vec<usize> = code("crates/a/src/lib.rs", text).lines_of(true).map(|(n, _)| n).collect();
        assert_eq!(tests, [2, 3, 4, 5, 7, 8]);
        assert_eq!(code("crates/a/tests/it.rs", "fn a() {}").lines_of(true).count(), 1);
    }

    #[test]
    fn functions_have_their_lengths() {
        let text = "trait T {\n    fn declared(&self, b: [u8; 4]);\n}\nfn one() {}\npub fn three(x: impl Fn(u8) -> u8) -> u8 {\n    match x { _ => \"}\".len() as u8 }\n}\n";
        let found: Vec<(String, usize, usize)> = code("a.rs", text).functions().into_iter().map(|f| (f.name, f.line, f.n_lines)).collect();
        assert_eq!(found, [("one".to_owned(), 4, 1), ("three".to_owned(), 5, 3)]);
    }
}
