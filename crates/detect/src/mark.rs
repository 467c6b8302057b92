//! Rows that are history and not news: a bool column `backfill` or `snapshot` that is true. They update state and raise nothing.

use arrow::array::{Array, AsArray};
use mulgil_model::rows::Rows;
use mulgil_model::schema::{ColumnType, StreamSchema};

const NAMES: [&str; 2] = ["backfill", "snapshot"];

/// Which columns mark rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(Vec<usize>);

impl Marks {
    pub fn of(schema: &StreamSchema) -> Self {
        let columns = schema.columns.iter().enumerate();
        Self(columns.filter(|(_, c)| c.kind == ColumnType::Bool && NAMES.contains(&c.name.as_str())).map(|(i, _)| i).collect())
    }

    pub fn is_marked(&self, rows: &Rows, row: usize) -> bool {
        self.0.iter().any(|&column| {
            let flags = rows.column(column).as_boolean();
            flags.is_valid(row) && flags.value(row)
        })
    }
}
