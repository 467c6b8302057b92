//! Rows of `COPY` as values.

use super::copy::{CopyRows, Piece};
use super::error::SnapshotError;
use super::notes::KeyText;
use super::plan::TablePlan;
use crate::change::Row;
use crate::datum::Datum;
use crate::postgres::values;
use bytes::Bytes;

/// What a value takes beside its bytes.
const DATUM_BYTES: usize = size_of::<Datum>();

pub(super) struct Rows<'a> {
    plan: &'a TablePlan,
    copy: CopyRows,
    values: Vec<Piece>,
    /// The row that was decoded last: its key is only asked for at the end of a chunk.
    last: Bytes,
}

impl<'a> Rows<'a> {
    pub fn new(plan: &'a TablePlan) -> Self {
        Self { plan, copy: CopyRows::default(), values: Vec::with_capacity(plan.attributes.len()), last: Bytes::new() }
    }

    /// The row, and about how much memory it takes.
    pub fn decode(&mut self, row: Bytes) -> Result<(Row, usize), SnapshotError> {
        let n_columns = self.plan.forms.len();
        self.copy.split(&row, n_columns, &mut self.values)?;
        let values = self.plan.forms.iter().zip(&self.values).map(|(form, piece)| match piece.of(&row) {
            Some((message, text)) => values::decode_part(form, message, text),
            None => Datum::Null,
        });
        let values = values.collect();
        let n_bytes = row.len() + n_columns * DATUM_BYTES;
        self.last = row;
        Ok((values, n_bytes))
    }

    /// The key of the row that was decoded last; `None` for a table without a key.
    pub fn key(&mut self) -> Result<Option<KeyText>, SnapshotError> {
        if self.plan.key.is_empty() {
            return Ok(None);
        }
        self.copy.split(&self.last, self.plan.forms.len(), &mut self.values)?;
        Ok(self.plan.key_of(&self.last, &self.values))
    }
}
