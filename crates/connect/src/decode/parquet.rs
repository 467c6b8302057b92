//! Parquet rows, a batch at a time.

use super::Decoded;
use super::avro::guarded;
use super::columns::Columns;
use super::json::too_many;
use super::pages;
use super::plan::Plan;
use super::stream::ReadError;
use super::table::{Refusal, Table};
use bytes::Bytes;
use mulgil_model::time::ReceiveTime;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;
use std::sync::Arc;

/// What all rows of one input may take as columns: a file of a few bytes can name one long text for every row.
const ROWS_BYTES_MAX: usize = 256 << 20;
/// What the rows read at a time may take, if each had the longest texts of its file.
const BATCH_BYTES_MAX: u64 = 128 << 20;

pub(crate) fn decode(table: &mut Table, bytes: &[u8]) {
    let rows_max = table.plan().options.limits.rows_max;
    let read = open(table.plan(), Bytes::copy_from_slice(bytes), rows_max.min(8_192));
    let mut rows_bytes = 0;
    let refusal = match read {
        Err(refusal) => refusal,
        Ok((columns, mut reader, _)) => loop {
            match guarded(|| reader.next().transpose().map_err(|e| e.to_string())) {
                Ok(None) => return,
                Ok(Some(batch)) if table.n_rows() + batch.num_rows() > rows_max => break Refusal::row(0, too_many(rows_max)),
                Ok(Some(batch)) => {
                    rows_bytes += batch.get_array_memory_size();
                    if rows_bytes > ROWS_BYTES_MAX {
                        break Refusal::row(0, format!("the rows take more than {ROWS_BYTES_MAX} bytes: send fewer in one input"));
                    }
                    if let Err(e) = columns.append(table, &batch) {
                        break unreadable(e.to_string());
                    }
                }
                Err(reason) => break unreadable(reason),
            }
        },
    };
    let line = table.next_row() + 1;
    table.refuse_row(refusal, line, 1, bytes);
}

fn unreadable(reason: impl std::fmt::Display) -> Refusal {
    Refusal::row(0, format!("not a readable parquet file: {reason}"))
}

fn open(plan: &Plan, input: impl ChunkReader + 'static, batch_rows: usize) -> Result<(Columns, ParquetRecordBatchReader, u64), Refusal> {
    let read = || {
        let metadata = ArrowReaderMetadata::load(&input, ArrowReaderOptions::default()).map_err(|e| e.to_string())?;
        let repeated_bytes = pages::check(&input, metadata.metadata())?;
        Ok((ParquetRecordBatchReaderBuilder::new_with_metadata(input, metadata), repeated_bytes))
    };
    let (builder, repeated_bytes) = guarded(read).map_err(unreadable)?;
    let batch_rows = batch_rows.min((BATCH_BYTES_MAX / repeated_bytes.max(1)) as usize).max(1);
    let columns = Columns::of(plan, builder.schema())?;
    let n_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let build = || builder.with_batch_size(batch_rows).build().map_err(|e| e.to_string());
    Ok((columns, guarded(build).map_err(unreadable)?, n_rows))
}

/// A Parquet file read on demand, in place of [`super::Decoder`].
pub(crate) struct ParquetRows {
    table: Table,
    columns: Columns,
    reader: ParquetRecordBatchReader,
    pub n_rows_done: u64,
    pub n_rows: u64,
}

impl ParquetRows {
    pub fn open(plan: &Arc<Plan>, input: impl ChunkReader + 'static, batch_rows: usize, received: ReceiveTime) -> Result<Self, ReadError> {
        let (columns, reader, n_rows) = open(plan, input, batch_rows).map_err(read_error)?;
        Ok(Self { table: Table::new(plan, received), columns, reader, n_rows_done: 0, n_rows })
    }

    pub fn next(&mut self) -> Result<Option<Decoded>, ReadError> {
        let batch = guarded(|| self.reader.next().transpose().map_err(|e| e.to_string())).map_err(|e| read_error(unreadable(e)))?;
        let Some(batch) = batch else { return Ok(None) };
        self.n_rows_done += batch.num_rows() as u64;
        self.columns.append(&mut self.table, &batch).map_err(|e| read_error(unreadable(e)))?;
        Ok(Some(self.table.take()))
    }
}

fn read_error(Refusal { field, reason, .. }: Refusal) -> ReadError {
    ReadError::Schema { field, reason }
}
