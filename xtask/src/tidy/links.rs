//! Links in Markdown pages lead somewhere: every relative target exists in the checkout.

use super::finding::Finding;
use crate::house::Source;
use std::path::Path;

pub fn findings(root: &Path, pages: &[Source]) -> Vec<Finding> {
    pages.iter().flat_map(|page| findings_of(page, |target| root.join(target).exists())).collect()
}

fn findings_of(page: &Source, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = Path::new(&page.path).parent().unwrap_or(Path::new("")).to_path_buf();
    let mut found = Vec::new();
    let mut in_fence = false;
    for (n, line) in page.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        for target in targets(line).filter(|_| !in_fence) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !exists(&folder.join(file)) {
                found.push(Finding::new(
                    &page.path,
                    n + 1,
                    format!("link to {target}, which does not exist: correct the path from {}", page.path),
                ));
            }
        }
    }
    found
}

/// Relative targets of `[text](target)` and `<img src="target">` in one line, outside inline code.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let after = |opening: &'static str, closing: &'static [char]| {
        let outside_code = move |at: &usize| line[..*at].matches('`').count().is_multiple_of(2);
        let starts = line.match_indices(opening).map(move |(at, _)| at + opening.len()).filter(outside_code);
        starts.filter_map(move |at| line[at..].split(closing).next())
    };
    let is_relative = |t: &&str| !t.contains("://") && !t.starts_with("mailto:") && !t.starts_with('/');
    after("](", &[')', ' ']).chain(after("src=\"", &['"'])).filter(is_relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_targets_are_named() {
        let text = "[a](b.md) [c](https://d) [e](#f)\n[g](../h.md#i) `[x](y)`\n```\n[j](k.md)\n```\n<img src=\"l.png\">";
        let page = Source { path: "docs/a.md".to_owned(), text: text.to_owned() };
        let found = findings_of(&page, |target| target == Path::new("docs/b.md"));
        let lines: Vec<(usize, &str)> = found.iter().map(|f| (f.line, f.what.split(',').next().unwrap())).collect();
        assert_eq!(lines, [(2, "link to ../h.md#i"), (6, "link to l.png")]);
    }
}
