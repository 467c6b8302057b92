//! How deep a query may become, judged by its words before it is parsed.
//!
//! `1+1+1…` is a tree as deep as it is long, and planners, optimisers and even destructors walk trees by recursion: ten thousand additions
//! overflow a thread's stack, which ends the process. The parser bounds brackets only.

use crate::error::HistoryError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Operators, and names behind a comma, which may be tables to join. Lists of literals are flat and may be as long as a query may be.
/// Planning takes up to 30 kB of stack for each in a build without optimisation; the threads that queries run on have room for them.
const STEPS_MAX: usize = 1_000;

/// The stack of a thread that queries are awaited or run on: room for as many steps as are let through. Only what is used of it becomes
/// memory.
pub const STACK_BYTES: usize = 64 << 20;

pub(crate) fn check(sql: &str) -> Result<(), HistoryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_err(|e| HistoryError::User(format!("sql parser error: {e}")))?;
    let words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let (mut n_steps, mut behind_comma) = (0, false);
    for token in words {
        n_steps += usize::from(is_step(token, behind_comma));
        behind_comma = *token == Token::Comma;
    }
    if n_steps <= STEPS_MAX {
        return Ok(());
    }
    Err(HistoryError::User(format!(
        "the query has {n_steps} operators and names to work through one after the other, more than the {STEPS_MAX} allowed: \
         use IN (…) instead of many ORs, or ask in parts"
    )))
}

fn is_step(token: &Token, behind_comma: bool) -> bool {
    match token {
        Token::Word(word) => behind_comma || deepens(word.keyword),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::EOF => false,
        // Every other sign is an operator, an index, or part of a literal that nobody writes a thousand times.
        _ => true,
    }
}

fn deepens(keyword: Keyword) -> bool {
    use Keyword::{
        AND, AT, BETWEEN, CASE, COLLATE, CROSS, DIV, EXCEPT, FROM, ILIKE, IN, INTERSECT, IS, JOIN, LIKE, NATURAL, NOT, OR, OVERLAPS, RLIKE,
        SELECT, SIMILAR, UNION, WHEN, XOR,
    };
    matches!(
        keyword,
        AND | AT
            | BETWEEN
            | CASE
            | COLLATE
            | CROSS
            | DIV
            | EXCEPT
            | FROM
            | ILIKE
            | IN
            | INTERSECT
            | IS
            | JOIN
            | LIKE
            | NATURAL
            | NOT
            | OR
            | OVERLAPS
            | RLIKE
            | SELECT
            | SIMILAR
            | UNION
            | WHEN
            | XOR
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_too_deep(sql: &str) -> bool {
        check(sql).is_err_and(|error| error.to_string().contains("more than the 1000 allowed"))
    }

    #[test]
    fn what_is_deep_is_refused_and_what_is_only_long_is_not() {
        let many = |piece: &str, n: usize| piece.repeat(n);
        for piece in
            ["+1", " OR a = 'x'", "||b", "::text", " UNION ALL SELECT 1", " AND NOT a", ", t", " JOIN t USING (a)", " IS NULL", "[1]"]
        {
            assert!(is_too_deep(&format!("SELECT a {}", many(piece, 1_001))), "{piece}");
            assert!(!is_too_deep(&format!("SELECT a {}", many(piece, 200))), "{piece}");
        }
        assert!(!is_too_deep(&format!("SELECT a FROM t WHERE a IN ('x'{}) AND b IN (1{})", many(",'y'", 9_000), many(", 2", 9_000))));
    }

    #[test]
    fn words_within_texts_and_remarks_do_not_count() {
        let words = "+ OR , t ".repeat(1_000);
        assert!(!is_too_deep(&format!("SELECT '{words}' /* {words} */ -- {words}")));
    }
}
