//! How wide a query may become, judged by its words before it is planned.
//!
//! A name of WITH stands in the plan as often as it is used: thirty names, each the union of the one before with itself, are a billion
//! steps, and planners walk them all without a pause.

use crate::error::HistoryError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::collections::{BTreeMap, BTreeSet};

/// Of how many parts the names of WITH may make a query: the product of how often each is used.
const PARTS_MAX: u64 = 2_000;

pub(crate) fn check(sql: &str) -> Result<(), HistoryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_err(|e| HistoryError::User(format!("sql parser error: {e}")))?;
    let words: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let mut n_uses: BTreeMap<String, u64> = BTreeMap::new();
    let defined: BTreeSet<usize> = (0..words.len()).filter_map(|at| defined_at(&words, at)).collect();
    n_uses.extend(defined.iter().filter_map(|at| Some((name(&words[*at])?, 0))));
    let is_behind = |token: &Token| is(token, Keyword::FROM) || is(token, Keyword::JOIN) || *token == Token::Comma;
    for at in (1..words.len()).filter(|at| is_behind(&words[at - 1]) && !defined.contains(at)) {
        if let Some(n) = name(&words[at]).and_then(|name| n_uses.get_mut(&name)) {
            *n += 1;
        }
    }
    let n_parts = n_uses.values().fold(1, |product: u64, n| product.saturating_mul((*n).max(1)));
    if n_parts <= PARTS_MAX {
        return Ok(());
    }
    Err(HistoryError::Limit(format!("the names of WITH make more than {PARTS_MAX} parts of the query: use each of them fewer times")))
}

/// Where the name stands that is defined by the `AS` at `at`: `name AS (`, `name (columns) AS MATERIALIZED (`.
fn defined_at(words: &[Token], at: usize) -> Option<usize> {
    let is_hint = |token: &&Token| is(token, Keyword::MATERIALIZED) || is(token, Keyword::NOT);
    if !is(&words[at], Keyword::AS) || words[at + 1..].iter().find(|token| !is_hint(token)) != Some(&Token::LParen) {
        return None;
    }
    let before = at.checked_sub(1)?;
    if words[before] != Token::RParen {
        return Some(before);
    }
    words[..before].iter().rposition(|token| *token == Token::LParen)?.checked_sub(1)
}

fn is(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword)
}

fn name(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Thirty names, each made of `used` of the one before.
    fn chain(head: &str, used: &str) -> String {
        let names: Vec<String> =
            (1..30).map(|i| head.replace('#', &i.to_string()) + &used.replace('#', &(i - 1).to_string()) + ")").collect();
        format!("WITH v0 AS (SELECT 1 AS a), {} SELECT * FROM v29", names.join(", "))
    }

    #[test]
    fn names_count_as_often_as_they_are_used() {
        for head in ["v# AS (", "v# (a) AS (", "v#(a) AS NOT MATERIALIZED ("] {
            check(&chain(head, "SELECT a FROM v#")).unwrap();
            check(&chain(head, "SELECT a FROM v# UNION ALL SELECT a FROM v#")).unwrap_err();
            check(&chain(head, "SELECT x.a FROM v# x, v# y")).unwrap_err();
        }
    }
}
