//! A column's type in the server's words, as `information_schema.columns.column_type` has it: `int(10) unsigned`, `enum('BUY','SELL')`.

use super::table_map::{ColumnKind, MapColumn};
use bytes::Bytes;

/// The words taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native {
    /// In lower case: `int`.
    pub base: String,
    /// What is in the brackets after it.
    pub numbers: Vec<u32>,
    pub is_unsigned: bool,
    /// Of an enum or set.
    pub values: Vec<Bytes>,
}

impl Native {
    pub fn parse(text: &str) -> Self {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let base = text[..end].to_ascii_lowercase();
        let rest = text[end..].trim_start();
        let is_list = matches!(base.as_str(), "enum" | "set");
        let inside = if is_list { None } else { rest.strip_prefix('(').and_then(|r| r.split_once(')')) };
        let (numbers, attributes) = inside.unwrap_or(("", rest));
        let attributes = attributes.to_ascii_lowercase();
        Self {
            is_unsigned: !is_list && attributes.split_whitespace().any(|a| matches!(a, "unsigned" | "zerofill")),
            numbers: numbers.split(',').filter_map(|n| n.trim().parse().ok()).collect(),
            values: if is_list { values(rest) } else { Vec::new() },
            base,
        }
    }

    /// Whether a column of this type could be written as the table map says.
    pub fn fits(&self, column: &MapColumn) -> bool {
        use ColumnKind::*;
        let base = self.base.as_str();
        let is_one_of = |names: &[&str]| names.contains(&base);
        let number = |n: usize, otherwise| self.numbers.get(n).copied().unwrap_or(otherwise);
        let digits = u32::from(column.metadata);
        match column.kind {
            Tiny => is_one_of(&["tinyint", "bool", "boolean"]),
            Short => base == "smallint",
            Int24 => base == "mediumint",
            Long => is_one_of(&["int", "integer"]),
            LongLong => is_one_of(&["bigint", "serial"]),
            Float => base == "float",
            Double => is_one_of(&["double", "real", "float"]),
            NewDecimal | Decimal => is_one_of(&["decimal", "numeric", "dec", "fixed"]) && number(0, 10) << 8 | number(1, 0) == digits,
            Bit => base == "bit",
            Year => base == "year",
            Date | NewDate => base == "date",
            Time => base == "time",
            DateTime => base == "datetime",
            Timestamp => base == "timestamp",
            Time2 => base == "time" && number(0, 0) == digits,
            DateTime2 => base == "datetime" && number(0, 0) == digits,
            Timestamp2 => base == "timestamp" && number(0, 0) == digits,
            Enum => base == "enum",
            Set => base == "set",
            Json => base == "json",
            Vector => base == "vector",
            Geometry => base.contains("geom") || base.ends_with("point") || base.ends_with("linestring") || base.ends_with("polygon"),
            // What is left is kept in strings of one kind or another, and servers add names for it.
            _ => !is_one_of(&[
                "tinyint",
                "smallint",
                "mediumint",
                "int",
                "bigint",
                "float",
                "double",
                "decimal",
                "bit",
                "year",
                "date",
                "time",
            ]),
        }
    }
}

/// The strings of a list, with a quote doubled, and zero, newline, carriage return and the backslash behind a backslash (`append_unescaped`).
fn values(list: &str) -> Vec<Bytes> {
    let mut values = Vec::new();
    let mut chars = list.chars().peekable();
    while chars.any(|c| c == '\'') {
        let mut value = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
                '\'' => break,
                '\\' => value.extend(chars.next().map(|c| match c {
                    '0' => '\0',
                    'n' => '\n',
                    'r' => '\r',
                    c => c,
                })),
                c => value.push(c),
            }
        }
        values.push(value.into());
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words() {
        let numbers = |text: &str| {
            let native = Native::parse(text);
            (native.base, native.numbers, native.is_unsigned)
        };
        assert_eq!(numbers("int"), ("int".into(), vec![], false));
        assert_eq!(numbers("INT(10) unsigned"), ("int".into(), vec![10], true));
        assert_eq!(numbers("int(10) zerofill"), ("int".into(), vec![10], true));
        assert_eq!(numbers("decimal(10,2) unsigned"), ("decimal".into(), vec![10, 2], true));
        assert_eq!(numbers("double"), ("double".into(), vec![], false));
        assert_eq!(numbers("timestamp(6) /* mariadb-5.3 */"), ("timestamp".into(), vec![6], false));
    }

    #[test]
    fn the_strings_of_a_list() {
        let values = |text: &str| Native::parse(text).values.iter().map(|v| String::from_utf8(v.to_vec()).unwrap()).collect::<Vec<_>>();
        assert_eq!(values("enum('BUY','SELL')"), ["BUY", "SELL"]);
        assert_eq!(values("enum('','it''s','a,b','(unsigned)','물길')"), ["", "it's", "a,b", "(unsigned)", "물길"]);
        assert_eq!(values(r"set('a\\b','line\nend','q\'')"), [r"a\b", "line\nend", "q'"]);
        assert!(!Native::parse("enum('x unsigned')").is_unsigned);
        assert_eq!(values("varchar(10)"), [""; 0]);
    }
}
