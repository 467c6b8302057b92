//! The bytes of a change's record key in the log.
//!
//! ```text
//! key = "[" text ("," text)* "]"      the key's columns in the order of the table, as a JSON array of texts: ["005930"]  ["snap","1"]
//!     | nothing                       the table has no key, or the change has no row
//! ```
//!
//! Every value is written as [`super::text::push_text`] does, so that a column that is widened (`int` to `bigint` to `numeric`) keeps its
//! keys, and rows of one key keep their partition. Null is `null`.

use super::text::push_texts;
use crate::change::{Change, Row, What};
use crate::datum::Datum;
use crate::table::Table;

/// Appends the key of a change: of the row as it is afterwards, or as it was where it is gone.
pub fn push_key(out: &mut Vec<u8>, change: &Change) {
    let What::Row { table, before, after } = &change.what else { return };
    if let (true, Some(values)) = (table.key().next().is_some(), key_values(table, before.as_ref(), after.as_ref())) {
        push_texts(out, values.into_iter());
    }
}

/// The key's values; those that the row itself lacks (an unchanged TOAST value) from the row before. None without a row or with a row of
/// another width than its table.
pub(crate) fn key_values<'a>(table: &Table, before: Option<&'a Row>, after: Option<&'a Row>) -> Option<Vec<&'a Datum>> {
    let row = after.or(before)?;
    let value = |i: usize| match row.get(i)? {
        Datum::Unavailable => before.and_then(|b| b.get(i)),
        datum => Some(datum),
    };
    table.key().map(value).collect()
}

/// Whether the row before has another key than the row after: to a consumer that keeps rows by key, a delete and an insert.
pub(crate) fn key_has_changed(table: &Table, before: Option<&Row>, after: Option<&Row>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    table.key().any(|i| match (before.get(i), after.get(i)) {
        (None | Some(Datum::Unavailable), _) | (_, None | Some(Datum::Unavailable)) => false,
        (was, is) => was != is,
    })
}
