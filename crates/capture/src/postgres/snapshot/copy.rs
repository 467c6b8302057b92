//! A row of `COPY … TO STDOUT` in text format, taken apart.
//!
//! PostgreSQL documentation, "COPY", File Formats, Text Format: columns are separated by a tab, a row ends with a newline, `\N` alone is null;
//! `\b \f \n \r \t \v` are the control characters, `\` and one to three octal digits or `\x` and one or two hexadecimal digits are that byte,
//! and any other character behind a backslash is itself. "Message Flow", COPY Operations: a server sends one row per CopyData message.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// More columns than a table can have (PostgreSQL documentation, appendix "PostgreSQL Limits": 1,600).
const COLUMNS_MAX: usize = 1_664;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    #[error("a row of COPY has more than {COLUMNS_MAX} columns: the server does not speak PostgreSQL's COPY text format")]
    TooManyColumns,
    #[error("a row of COPY has {found} columns where {expected} were asked for")]
    Columns { found: usize, expected: usize },
    #[error("a row of COPY ends within an escape sequence: the server does not speak PostgreSQL's COPY text format")]
    CutEscape,
}

/// A value of a row of `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Null,
    /// As the row has it, there.
    At(Range<usize>),
    /// Had escapes: what they stand for.
    Unescaped(Bytes),
}

impl Piece {
    /// The bytes that hold the value, and the value.
    pub fn of<'a>(&'a self, row: &'a Bytes) -> Option<(&'a Bytes, &'a [u8])> {
        match self {
            Self::Null => None,
            Self::At(range) => Some((row, row.get(range.clone())?)),
            Self::Unescaped(bytes) => Some((bytes, bytes)),
        }
    }
}

/// Takes rows apart. Values without an escape stay in the message; the others share one buffer, so that nothing is allocated per value.
#[derive(Debug, Default)]
pub struct CopyRows {
    unescaped: BytesMut,
}

impl CopyRows {
    /// Replaces `values` by the values of `row`. Fails unless there are exactly `n_columns`.
    pub fn split(&mut self, row: &Bytes, n_columns: usize, values: &mut Vec<Piece>) -> Result<(), CopyError> {
        values.clear();
        let end = if row.last() == Some(&b'\n') { row.len() - 1 } else { row.len() };
        if n_columns == 0 && end == 0 {
            return Ok(());
        }
        let (mut start, mut has_escape) = (0, false);
        let mut at = 0;
        while let Some(found) = memchr::memchr2(b'\t', b'\\', &row[at..end]) {
            let here = at + found;
            if row[here] == b'\t' {
                self.push(row, start, here, has_escape, values)?;
                (start, has_escape) = (here + 1, false);
                at = here + 1;
            } else {
                has_escape = true;
                // The byte behind a backslash belongs to it, a tab or another backslash too.
                at = (here + 2).min(end);
            }
        }
        self.push(row, start, end, has_escape, values)?;
        if values.len() == n_columns { Ok(()) } else { Err(CopyError::Columns { found: values.len(), expected: n_columns }) }
    }

    fn push(&mut self, row: &Bytes, start: usize, end: usize, has_escape: bool, values: &mut Vec<Piece>) -> Result<(), CopyError> {
        if values.len() == COLUMNS_MAX {
            return Err(CopyError::TooManyColumns);
        }
        let value = if !has_escape {
            Piece::At(start..end)
        } else if &row[start..end] == b"\\N" {
            Piece::Null
        } else {
            unescape(&row[start..end], &mut self.unescaped)?;
            Piece::Unescaped(self.unescaped.split().freeze())
        };
        values.push(value);
        Ok(())
    }
}

fn unescape(escaped: &[u8], out: &mut BytesMut) -> Result<(), CopyError> {
    out.reserve(escaped.len());
    let mut rest = escaped;
    while let Some(found) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..found]);
        let escape = &rest[found + 1..];
        let (byte, length) = match *escape.first().ok_or(CopyError::CutEscape)? {
            b'b' => (8, 1),
            b'f' => (12, 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'v' => (11, 1),
            b'0'..=b'7' => number(escape, 8, 3),
            b'x' if escape.get(1).is_some_and(u8::is_ascii_hexdigit) => {
                let (byte, length) = number(&escape[1..], 16, 2);
                (byte, length + 1)
            }
            itself => (itself, 1),
        };
        out.extend_from_slice(&[byte]);
        rest = &escape[length..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The number at the start of `digits`, of at most `length_max` digits, and how many it has. `\777` is more than a byte holds: as in the
/// server, the upper bits are cut off.
fn number(digits: &[u8], radix: u32, length_max: usize) -> (u8, usize) {
    let mut value: u32 = 0;
    let mut length = 0;
    while let Some(digit) = digits.get(length).filter(|_| length < length_max).and_then(|d| char::from(*d).to_digit(radix)) {
        value = value * radix + digit;
        length += 1;
    }
    ((value & 0xff) as u8, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(row: &[u8], n_columns: usize) -> Result<Vec<Option<Vec<u8>>>, CopyError> {
        let (row, mut values) = (Bytes::copy_from_slice(row), Vec::new());
        CopyRows::default().split(&row, n_columns, &mut values)?;
        Ok(values.iter().map(|v| v.of(&row).map(|(_, value)| value.to_vec())).collect())
    }

    fn check(row: &[u8], expected: &[Option<&[u8]>]) {
        let found = split(row, expected.len()).unwrap();
        assert_eq!(found, expected.iter().map(|v| v.map(<[u8]>::to_vec)).collect::<Vec<_>>(), "{}", row.escape_ascii());
    }

    #[test]
    fn values_are_separated_by_tabs_and_null_is_backslash_n() {
        check(b"1\tone\t\\N\n", &[Some(b"1"), Some(b"one"), None]);
        check(b"\t\n", &[Some(b""), Some(b"")]);
        check(b"\n", &[Some(b"")]);
        check(b"\n", &[]);
        check(b"\\N\n", &[None]);
        check(b"\\N\t\\N\n", &[None, None]);
        // A text that is `\N` itself comes as `\\N`, and null is nothing but the whole value.
        check(b"\\\\N\tx\\N\n", &[Some(b"\\N"), Some(b"xN")]);
    }

    #[test]
    fn each_escape_of_the_documentation() {
        for (escaped, byte) in [("b", 8u8), ("f", 12), ("n", 10), ("r", 13), ("t", 9), ("v", 11), ("\\", b'\\'), (".", b'.'), ("q", b'q')] {
            check(format!("a\\{escaped}z\n").as_bytes(), &[Some(&[b'a', byte, b'z'])]);
        }
        check(b"\\0\\07\\101\\1012\\777\n", &[Some(&[0, 7, b'A', b'A', b'2', 0xff])]);
        check(b"\\x4\\x41\\x411\\xg\n", &[Some(&[4, b'A', b'A', b'1', b'x', b'g'])]);
        check(b"a\\\tb\tc\n", &[Some(b"a\tb"), Some(b"c")]);
        check(b"\\\\\\\\\t\\\\\n", &[Some(b"\\\\"), Some(b"\\")]);
    }

    #[test]
    fn a_row_that_is_none_is_refused() {
        assert_eq!(split(b"1\t2\n", 3), Err(CopyError::Columns { found: 2, expected: 3 }));
        assert_eq!(split(b"1\t2\n", 1), Err(CopyError::Columns { found: 2, expected: 1 }));
        assert_eq!(split(b"1\\", 1), Err(CopyError::CutEscape));
        assert_eq!(split(b"1\\\n", 1), Err(CopyError::CutEscape));
        assert_eq!(split(&b"\t".repeat(COLUMNS_MAX), COLUMNS_MAX + 1), Err(CopyError::TooManyColumns));
    }

    #[test]
    fn a_value_without_an_escape_stays_in_the_row() {
        let row = Bytes::from_static(b"some text\tmore\\ntext\n");
        let mut values = Vec::new();
        CopyRows::default().split(&row, 2, &mut values).unwrap();
        assert_eq!(values, [Piece::At(0..9), Piece::Unescaped(Bytes::from_static(b"more\ntext"))]);
    }
}
