//! "Did you mean …": the nearest known name for one that is not known.

/// The candidate closest to `word`, if it is close enough to be a typing error.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let scored = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(word, c), c));
    scored.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
}

/// Turns serde's "unknown field `x`, expected one of `a`, `b`" into a sentence with the nearest name. Other messages stay as they are.
pub fn explain(message: &str) -> String {
    let Some((_, tail)) = message.split_once("unknown field `") else { return message.to_owned() };
    let Some((word, rest)) = tail.split_once('`') else { return message.to_owned() };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    match nearest(word, known.iter().copied()) {
        Some(name) => format!("unknown key '{word}': did you mean '{name}'?"),
        None => format!("unknown key '{word}': known here are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors() {
        assert_eq!(
            explain("unknown field `tiemzone`, expected one of `kind`, `timezone`"),
            "unknown key 'tiemzone': did you mean 'timezone'?"
        );
        assert_eq!(explain("unknown field `zzz`, expected `kind`"), "unknown key 'zzz': known here are kind");
        assert_eq!(explain("invalid type: integer"), "invalid type: integer");
    }
}
