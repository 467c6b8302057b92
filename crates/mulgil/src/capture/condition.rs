//! Conditions on rows that come from outside and are put into a statement: `WHERE (condition)`.
//!
//! They are the database's own SQL, so whoever may ask for a snapshot may ask what the source's role may read. What is refused here is
//! whatever could end the condition and begin something else, in PostgreSQL's lexical rules and in MySQL's (PostgreSQL documentation,
//! "Lexical Structure"; MySQL manual, "String Literals", "Comments"). Where the two differ both are refused: dollar quotes, backslashes, `#`.

/// What is wrong with the condition.
pub fn check(condition: &str) -> Result<(), &'static str> {
    let (mut depth, mut quote) = (0u32, None::<char>);
    let mut chars = condition.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => return Err("has a backslash: write it without"),
            ('\0', _) => return Err("has a zero byte"),
            // A doubled quote ends the text and begins it again, which is the same.
            (c, Some(q)) => quote = quote.filter(|_| c != q),
            ('\'' | '"' | '`', None) => quote = Some(c),
            (';', None) => return Err("has a semicolon: it is one condition, not a statement"),
            ('$' | '#', None) => return Err("has a $ or # outside of a text: write it without"),
            ('-', None) if chars.peek() == Some(&'-') => return Err("has a comment: write it without"),
            ('/', None) if chars.peek() == Some(&'*') => return Err("has a comment: write it without"),
            ('(', None) => depth += 1,
            (')', None) => depth = depth.checked_sub(1).ok_or("closes a parenthesis that it has not opened")?,
            _ => {}
        }
    }
    match (depth, quote) {
        (0, None) => Ok(()),
        (_, Some(_)) => Err("has a quote that does not end"),
        _ => Err("has a parenthesis that does not close"),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_condition_stays_one() {
        for good in
            ["price > 10", "ticker IN ('A', 'B;C')", "note = 'it''s (' AND \"Odd )\" > 1", "a - -1 > 2 / 3", "`x;y` = 1", "now() > at"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let bad = [
            "true) OR (true",
            "1; DROP TABLE t",
            "true) ; DELETE FROM t WHERE (true",
            "x = 'a",
            "x = 'a\\' OR 1=1 --'",
            "x = 1 -- ",
            "x = 1 /* ",
            "x = 1 # ",
            "x = $$a$$",
            "(x = 1",
            "\"x = 1",
            "x = '\0'",
        ];
        for bad in bad {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
