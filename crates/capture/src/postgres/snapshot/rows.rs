//! Rows of `COPY` as values.

use super::copy::CopyRows;
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
    values: Vec<Option<Bytes>>,
}

impl<'a> Rows<'a> {
    pub fn new(plan: &'a TablePlan) -> Self {
        Self { plan, copy: CopyRows::default(), values: Vec::with_capacity(plan.attributes.len()) }
    }

    /// The row, and about how much memory it takes.
    pub fn decode(&mut self, row: &Bytes) -> Result<(Row, usize), SnapshotError> {
        let plan = self.plan;
        self.copy.split(row, plan.attributes.len(), &mut self.values)?;
        let values = plan.forms.iter().zip(&self.values).map(|(form, text)| match text {
            None => Datum::Null,
            Some(text) => values::decode(form, text.clone()),
        });
        Ok((values.collect(), row.len() + plan.attributes.len() * DATUM_BYTES))
    }

    /// The key of the row that was decoded last.
    pub fn key(&self) -> Option<KeyText> {
        if self.plan.key.is_empty() { None } else { self.plan.key_of(&self.values) }
    }
}
