//! The names an expression may use, with their types: the row's columns, `amount` for trades, and the features of the stream.

use crate::feature::Feature;
use crate::source::{AMOUNT, Source};
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use mulgil_model::schema::{ColumnType, StreamSchema};
use std::sync::Arc;

/// Order: columns as in the stream, then `amount` where there is one, then features.
#[derive(Debug, Clone)]
pub struct Scope {
    names: Vec<(String, ColumnType)>,
    amount: Option<(usize, Source)>,
    arrow: SchemaRef,
}

impl Scope {
    /// Without features: what a feature's own filter sees.
    pub fn of_row(schema: &StreamSchema) -> Self {
        Self::new(schema, &[])
    }

    pub fn new(schema: &StreamSchema, features: &[Feature]) -> Self {
        let mut names: Vec<(String, ColumnType)> = schema.columns.iter().map(|c| (c.name.clone(), c.kind)).collect();
        let amount = Source::amount(schema).map(|source| (names.len(), source));
        names.extend(amount.map(|(_, source)| (AMOUNT.to_owned(), source.kind())));
        names.extend(features.iter().map(|f| (f.name.clone(), f.kind)));
        // Everything may be null here: features are before their warm-up, and it costs nothing.
        let fields: Vec<Field> = names.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect();
        Self { names, amount, arrow: Arc::new(Schema::new(fields)) }
    }

    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|(n, _)| n == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(n, _)| n.as_str())
    }

    pub fn name(&self, index: usize) -> &str {
        &self.names[index].0
    }

    pub fn kind(&self, index: usize) -> ColumnType {
        self.names[index].1
    }

    /// Where `amount` stands.
    pub fn amount_index(&self) -> Option<usize> {
        self.amount.map(|(index, _)| index)
    }

    /// Where the features begin.
    pub fn first_feature(&self, schema: &StreamSchema) -> usize {
        schema.columns.len() + usize::from(self.amount.is_some())
    }

    /// Puts the columns of `rows` and the features beside each other. The amount is computed only when somebody needs it.
    pub fn batch(&self, rows: &RecordBatch, needs_amount: bool, features: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
        let mut columns = rows.columns().to_vec();
        if let Some((_, source)) = self.amount {
            columns.push(if needs_amount { source.array(rows)? } else { new_null_array(&source.kind().arrow(), rows.num_rows()) });
        }
        columns.extend(features);
        RecordBatch::try_new(Arc::clone(&self.arrow), columns)
    }
}
