//! How wide a query may become, judged by its words before it is planned.
//!
//! A name of WITH stands in the plan as often as it is used: thirty names, each the union of the one before with itself, are a billion
//! steps, and planners walk them all without a pause.

use crate::error::HistoryError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::collections::BTreeMap;

/// Of how many parts the names of WITH may make a query: the product of how often each is used.
const PARTS_MAX: u64 = 2_000;

pub(crate) fn check(sql: &str) -> Result<(), HistoryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_err(|e| HistoryError::User(format!("sql parser error: {e}")))?;
    let words: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let mut n_uses: BTreeMap<String, u64> = BTreeMap::new();
    for defined in words.windows(3).filter(|w| is(&w[1], Keyword::AS) && w[2] == Token::LParen) {
        n_uses.extend(name(&defined[0]).map(|name| (name, 0)));
    }
    let is_behind = |token: &Token| is(token, Keyword::FROM) || is(token, Keyword::JOIN) || *token == Token::Comma;
    for used in words.windows(2).filter(|w| is_behind(&w[0])) {
        if let Some(n) = name(&used[1]).and_then(|name| n_uses.get_mut(&name)) {
            *n += 1;
        }
    }
    let n_parts = n_uses.values().fold(1, |product: u64, n| product.saturating_mul((*n).max(1)));
    if n_parts <= PARTS_MAX {
        return Ok(());
    }
    Err(HistoryError::Limit(format!("the names of WITH make more than {PARTS_MAX} parts of the query: use each of them fewer times")))
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
