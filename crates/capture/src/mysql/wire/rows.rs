//! Answers to statements in text: "COM_QUERY Response", "Text Resultset".

use super::error::WireError;
use crate::mysql::binlog::cursor::Cursor;
use bytes::Bytes;

/// `NULL` in a row of text ("Text Resultset Row").
const NULL: u8 = 0xfb;

/// A row of text: slices of its packet.
#[derive(Debug, Clone, PartialEq)]
pub struct TextRow(pub Vec<Option<Bytes>>);

impl TextRow {
    pub(super) fn parse(packet: Bytes, n_columns: usize) -> Result<Self, WireError> {
        let malformed = |_| WireError::Malformed { what: "row" };
        let mut cursor = Cursor::new("row", packet);
        // A value takes a byte at least.
        let mut values = Vec::with_capacity(n_columns.min(cursor.left()));
        for _ in 0..n_columns {
            if cursor.peek() == Some(NULL) {
                cursor.skip(1).map_err(malformed)?;
                values.push(None);
                continue;
            }
            values.push(Some(cursor.lenenc_bytes().map_err(malformed)?));
        }
        if !cursor.is_empty() {
            return Err(WireError::Malformed { what: "row" });
        }
        Ok(Self(values))
    }

    /// A value as text; empty where there is none.
    pub fn text(&self, column: usize) -> String {
        self.0.get(column).and_then(Option::as_ref).map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default()
    }

    pub fn number<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column).parse().ok()
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().flatten().map(Bytes::len).sum()
    }
}

/// A name in a statement.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text in a statement, whatever `sql_mode` says of backslashes.
pub fn literal(text: &[u8]) -> String {
    let mut out = String::with_capacity(4 + 2 * text.len());
    out.push_str("x'");
    for byte in text {
        out.push_str(&format!("{byte:02x}"));
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_values_nulls_and_nothing_more() {
        let row = TextRow::parse(Bytes::from_static(&[1, b'1', 0xfb, 0, 0xfc, 2, 0, b'a', b'b']), 4).expect("row");
        let some = |b: &'static [u8]| Some(Bytes::from_static(b));
        assert_eq!(row.0, [some(b"1"), None, some(b""), some(b"ab")]);
        for bad in [&[2, b'1'][..], &[1, b'1', 0], &[0xff], &[0xfe, 255, 255, 255, 255, 255, 255, 255, 255]] {
            assert!(TextRow::parse(Bytes::copy_from_slice(bad), 1).is_err(), "{bad:?}");
        }
    }
}
