//! Input bytes to Arrow rows of a declared stream. One bad row never spoils the others: it becomes a [`RowProblem`] with its place.

mod options;
mod plan;

mod place;
mod table;
mod value;

mod avro;
mod columns;
mod container;
mod csv;
mod json;
mod pages;
mod parquet;
mod stream;

pub use options::{DecodeOptions, Limits, Mapping, OptionsError, Side, UnknownFields};
pub use plan::Plan;
pub use stream::{Decoder, ReadError};

pub(crate) use options::nearest;
pub(crate) use parquet::ParquetRows;

use arrow::array::RecordBatch;
use mulgil_model::problem::RowProblem;
use mulgil_model::time::ReceiveTime;
use std::sync::Arc;

/// How the rows are written. Closed: a new format is a file here and a line in each match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One object, or one array of objects.
    Json,
    /// One object per line.
    Ndjson,
    /// With a header line.
    Csv,
    /// Messages in the Confluent wire format one after the other, or an object container file.
    Avro,
    Parquet,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Json, Self::Ndjson, Self::Csv, Self::Avro, Self::Parquet];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Avro => "avro",
            Self::Parquet => "parquet",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == text)
    }

    /// The format that an HTTP `Content-Type` names, whatever its parameters.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        Some(match kind.as_str() {
            "application/json" | "text/json" => Self::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Self::Ndjson,
            "text/csv" | "application/csv" => Self::Csv,
            "avro/binary" | "application/avro" | "application/vnd.apache.avro" | "application/vnd.apache.avro+binary" => Self::Avro,
            "application/vnd.apache.parquet" | "application/parquet" => Self::Parquet,
            _ => return None,
        })
    }
}

/// What came of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub batch: RecordBatch,
    /// The ordinal in the input of each row of the batch, ascending.
    pub rows: Vec<u64>,
    /// The 1-based line that each row of the batch begins on; for formats without lines, its ordinal plus one.
    pub lines: Vec<u64>,
    /// The rows that were refused, with ascending ordinals.
    pub problems: Vec<RowProblem>,
}

impl Decoded {
    /// Good and bad rows together.
    pub fn n_rows(&self) -> usize {
        self.rows.len() + self.problems.len()
    }
}

/// Decodes a whole input held in memory. It gives at most `limits.rows_max` rows; what is behind them is one last problem that holds
/// the rest of the input.
pub fn decode(plan: &Arc<Plan>, format: Format, bytes: &[u8], received: ReceiveTime) -> Decoded {
    let mut table = table::Table::new(plan, received);
    match format {
        Format::Json => json::decode_document(&mut table, bytes),
        Format::Ndjson => stream::decode_text(&mut table, stream::Text::ndjson(), bytes),
        Format::Csv => stream::decode_text(&mut table, stream::Text::csv(), bytes),
        Format::Avro => avro::decode(&mut table, bytes),
        Format::Parquet => parquet::decode(&mut table, bytes),
    }
    table.take()
}
