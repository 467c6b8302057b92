//! The history's files read by hand: the manifest as JSON, the files it names as Parquet, and each row compared with the log's.

use crate::mirror::Mirror;
use anyhow::{Context, Result, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use mulgil::pipeline::plan::Plan;
use mulgil_disk::{Disk, read_whole};
use mulgil_history::{OFFSET, PARTITION};
use mulgil_model::ids::{Offset, Partition, TopicPartition};
use mulgil_model::json;
use mulgil_model::schema::StreamSchema;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 64 << 20;

/// Rows by offset, as JSON.
pub type Held = BTreeMap<TopicPartition, BTreeMap<u64, String>>;

/// Every row of the history is the log's row of that offset, once, and up to the covered offset none is missing. Returns the rows
/// compared; with `whole` everything must be covered.
pub fn compare(disk: &dyn Disk, dir: &Path, plan: &Plan, mirror: &Mirror, whole: bool) -> Result<usize> {
    let (held, covered) = read(disk, dir, plan)?;
    let mut n_rows = 0;
    for stream in &plan.streams {
        for partition in (0..stream.partitions).map(Partition) {
            let at = TopicPartition::new(stream.schema.stream.clone(), partition);
            let rows = mirror.rows(&stream.schema, &at, Offset::ZERO, usize::MAX)?;
            let empty = BTreeMap::new();
            let (held, covered) = (held.get(&at).unwrap_or(&empty), covered.get(&at).copied().unwrap_or(0));
            ensure!(held.len() as u64 == covered, "the history has {} rows of {at}, but says it covers {covered}", held.len());
            ensure!(!whole || covered == rows.len() as u64, "the history covers {covered} rows of {at}, the log has {}", rows.len());
            for (offset, row) in held {
                ensure!(*offset < rows.len() as u64, "the history has offset {offset} of {at}, which was never in the log");
                let mut want = String::new();
                json::write_row(&mut want, &stream.schema, &rows.batch, *offset as usize);
                ensure!(*row == want, "the history has {row} at offset {offset} of {at}, the log has {want}");
            }
            n_rows += held.len();
        }
    }
    Ok(n_rows)
}

/// All rows of all files that the manifest names, and how far each partition is covered.
pub fn read(disk: &dyn Disk, dir: &Path, plan: &Plan) -> Result<(Held, BTreeMap<TopicPartition, u64>)> {
    let (mut held, mut covered) = (Held::new(), BTreeMap::new());
    let manifest = match read_whole(disk, &dir.join("manifest.json"), FILE_BYTES_MAX) {
        Err(error) if error.is_missing() => return Ok((held, covered)),
        bytes => serde_json::from_slice::<Value>(&bytes?).context("manifest.json")?,
    };
    for stream in &plan.streams {
        let name = stream.schema.stream.as_str();
        let of = &manifest["streams"][name];
        for cover in of["partitions"].as_array().into_iter().flatten() {
            let partition = Partition(cover["partition"].as_u64().context("partition")? as u32);
            covered.insert(TopicPartition::new(stream.schema.stream.clone(), partition), cover["covered"].as_u64().context("covered")?);
        }
        for file in of["files"].as_array().into_iter().flatten() {
            let (day, file) = (file["day"].as_str().context("day")?, file["name"].as_str().context("name")?);
            let path = dir.join(name).join(day).join(file);
            let bytes = read_whole(disk, &path, FILE_BYTES_MAX)?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).and_then(|b| b.build());
            for batch in reader.with_context(|| path.display().to_string())? {
                take(&batch.with_context(|| path.display().to_string())?, &stream.schema, &mut held)
                    .with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok((held, covered))
}

fn take(batch: &RecordBatch, schema: &StreamSchema, held: &mut Held) -> Result<()> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("there is no column {name}"));
    let number = |name: &str, i: usize| -> Result<u64> {
        let array = arrow::compute::cast(column(name)?, &DataType::Int64)?;
        Ok(array.as_primitive::<Int64Type>().value(i) as u64)
    };
    let columns = schema.columns.iter().map(|c| Ok(arrow::compute::cast(column(&c.name)?, &c.kind.arrow())?));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let fields: Vec<_> =
        schema.columns.iter().zip(&columns).map(|(c, a)| arrow::datatypes::Field::new(&c.name, a.data_type().clone(), true)).collect();
    let rows = RecordBatch::try_new(std::sync::Arc::new(arrow::datatypes::Schema::new(fields)), columns)?;
    for i in 0..rows.num_rows() {
        let at = TopicPartition::new(schema.stream.clone(), Partition(number(PARTITION, i)? as u32));
        let mut text = String::new();
        json::write_row(&mut text, schema, &rows, i);
        let offset = number(OFFSET, i)?;
        ensure!(held.entry(at.clone()).or_default().insert(offset, text).is_none(), "offset {offset} of {at} is there twice");
    }
    Ok(())
}
