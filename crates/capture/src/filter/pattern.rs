//! Names of tables and columns with holes: `public.*_log`, `shop.orders.card_*`, `*.*.password`.

use crate::table::TableId;

/// `schema.table` or `schema.table.column`; of MySQL the database stands first. `*` is any run of characters and `?` any one, both within
/// their part; a backslash takes a dot, a star or a backslash as it is. Upper and lower case differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Char(char),
    One,
    Many,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' names no {what}: write {wanted}, with * for any characters")]
pub struct PatternError {
    text: String,
    what: &'static str,
    wanted: &'static str,
}

/// The longest pattern, in bytes: three names of 64 characters, escaped.
const PATTERN_BYTES_MAX: usize = 2_048;

impl Pattern {
    pub fn table(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError { text: text.chars().take(100).collect(), what: "table", wanted: "schema.table" };
        parse(text).filter(|p| p.parts.len() == 2).ok_or_else(error)
    }

    pub fn column(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError { text: text.chars().take(100).collect(), what: "column", wanted: "schema.table.column" };
        parse(text).filter(|p| p.parts.len() == 3).ok_or_else(error)
    }

    pub fn names_table(&self, id: &TableId) -> bool {
        let first = if id.schema.is_empty() { &id.database } else { &id.schema };
        matches!(self.parts.as_slice(), [schema, table, ..] if matches_part(schema, first) && matches_part(table, &id.table))
    }

    pub fn names_column(&self, id: &TableId, column: &str) -> bool {
        self.names_table(id) && matches!(self.parts.as_slice(), [_, _, last] if matches_part(last, column))
    }
}

fn parse(text: &str) -> Option<Pattern> {
    let (mut parts, mut chars) = (vec![Vec::new()], text.chars());
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '.' => parts.push(Vec::new()),
            '*' => part.push(Piece::Many),
            '?' => part.push(Piece::One),
            '\\' => part.push(Piece::Char(chars.next()?)),
            c => part.push(Piece::Char(c)),
        }
    }
    (text.len() <= PATTERN_BYTES_MAX && parts.iter().all(|p| !p.is_empty())).then_some(Pattern { parts })
}

/// Goes back to the last star only: what an earlier one took need never be taken again. At most pattern times text steps.
fn matches_part(pattern: &[Piece], text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < chars.len() {
        match pattern.get(p) {
            Some(Piece::Char(c)) if *c == chars[t] => (p, t) = (p + 1, t + 1),
            Some(Piece::One) => (p, t) = (p + 1, t + 1),
            Some(Piece::Many) => {
                back = Some((p + 1, t));
                p += 1;
            }
            _ => {
                let Some((after, from)) = back else { return false };
                back = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|piece| *piece == Piece::Many)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let id = |schema: &str, table: &str| TableId { database: "shop".into(), schema: schema.into(), table: table.into() };
        let check = |pattern: &str, schema: &str, table: &str, want: bool| {
            assert_eq!(Pattern::table(pattern).unwrap().names_table(&id(schema, table)), want, "{pattern} {schema}.{table}");
        };
        check("public.orders", "public", "orders", true);
        check("public.orders", "public", "order", false);
        check("public.Orders", "public", "orders", false);
        check("*.o?d*rs", "public", "orders", true);
        check("*.*", "public", "any.thing", true);
        check("public.a\\.b", "public", "a.b", true);
        check("public.a\\*", "public", "ab", false);
        check("shop.orders", "", "orders", true);
        check("shop.orders", "public", "orders", false);
        check("*.*a*a*a*a*a*a*b", "public", &"a".repeat(60), false);
        check("*.물*", "public", "물길", true);
        let column = |pattern: &str| Pattern::column(pattern).unwrap().names_column(&id("public", "users"), "card_number");
        assert!(column("public.users.card_*") && column("*.*.*") && !column("public.users.card") && !column("public.orders.card_*"));
        for bad in ["", "orders", "a.b.c", "a.", ".b", "a..b", "a.b\\", &format!("a.{}", "b".repeat(3_000))] {
            assert!(Pattern::table(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Pattern::column("a.b").unwrap_err().to_string(),
            "'a.b' names no column: write schema.table.column, with * for any characters"
        );
    }
}
