//! Finds the name that somebody probably meant.

/// The longest part of a user's word that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// `: did you mean 'quantity'?` for the nearest of `known`, or nothing when none is near.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |name| format!(": did you mean '{name}'?"))
}

/// The known name most like `word`, if it is like it at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LIKENESS_MIN: f64 = 0.7;
    let word = shown(word).to_lowercase();
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(&word, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

/// Cuts a quoted word, so that a long one does not become a long error.
pub fn shown(text: &str) -> String {
    shown_within(text, SHOWN_CHARS_MAX)
}

/// As [`shown`], with another limit.
pub fn shown_within(text: &str, n_chars: usize) -> String {
    if text.chars().count() <= n_chars { text.to_owned() } else { text.chars().take(n_chars).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = ["price", "quantity", "count_10s"];
        assert_eq!(nearest("quantiy", known), Some("quantity"));
        assert_eq!(nearest("Price", known), Some("price"));
        assert_eq!(nearest("count_10", known), Some("count_10s"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(hint("prize", known), ": did you mean 'price'?");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), SHOWN_CHARS_MAX + 1);
    }
}
