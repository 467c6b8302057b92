//! `mulgil query`: SQL over a data folder, or, when a running mulgil holds the folder, over its HTTP interface.

use super::Where;
use crate::config::load;
use crate::pipeline::archive::Archivist;
use crate::pipeline::clock;
use crate::pipeline::folder::{Folder, query_limits};
use crate::pipeline::plan::Plan;
use crate::pipeline::state::{Entries, StateFolder};
use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use mulgil_disk::RealDisk;
use mulgil_history::History;
use mulgil_model::json::write_text;
use std::fs::File;
use std::io::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// For example: `SELECT symbol, count(*) FROM trades GROUP BY symbol`. Streams are tables; a name with dots is quoted
    /// ("trades.bars.1m") or written with underscores (trades_bars_1m).
    sql: String,
    #[command(flatten)]
    at: Where,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write to a file instead of the terminal (needed for parquet).
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print how long it took, to standard error.
    #[arg(long)]
    timing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    /// One JSON object per row.
    Json,
    Parquet,
}

pub fn query(args: QueryArgs) -> Result<()> {
    let args = Arc::new(args);
    let started = Instant::now();
    let opened = open(&args.at)?;
    let ready = started.elapsed();
    let asked = Instant::now();
    let n_rows = match opened {
        Source::Folder(history, limits) => on_query_threads(answer(history, limits, Arc::clone(&args)))?,
        Source::Running(url) => {
            let (args, format) = (Arc::clone(&args), args.format.of_remote()?);
            on_query_threads(async move { super::remote::query(&url, &args.sql, format, args.out.as_deref()).await })?
        }
    };
    if args.timing {
        eprintln!("{n_rows} rows in {:.3} s (folder opened in {:.3} s)", asked.elapsed().as_secs_f64(), ready.as_secs_f64());
    }
    Ok(())
}

/// Asks from threads that have the stack for it, not from the caller's.
pub fn on_query_threads<T: Send + 'static>(asking: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let threads = super::run::runtime("query", super::run::THREADS)?;
    let asked = threads.spawn(asking);
    threads.block_on(asked).context("the query broke")?
}

impl Format {
    fn of_remote(self) -> Result<&'static str> {
        Ok(match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => bail!(
                "mulgil is running on this folder, and parquet is only written from a folder at rest: its history/ folder already is Parquet"
            ),
        })
    }
}

enum Source {
    Folder(Arc<History>, mulgil_history::QueryLimits),
    Running(String),
}

fn open(at: &Where) -> Result<Source> {
    let config = load(at)?;
    let dir = &config.log.dir;
    if !dir.join("journal").exists() {
        bail!("{} holds no data: name the folder with --data, or start with `mulgil run`", dir.display());
    }
    if let Some(url) = super::remote::running_at(dir) {
        return Ok(Source::Running(url));
    }
    Ok(Source::Folder(open_history(&config)?, query_limits(&config)))
}

/// The history of a folder at rest, with the rows that only the log has yet. The shards' state is left alone: opening it takes longer than
/// most questions do.
pub fn open_history(config: &crate::config::checked::Checked) -> Result<Arc<History>> {
    let clock = clock();
    let plan = Plan::new(config)?;
    let state = || Ok(StateFolder::over(Arc::new(Unopened)));
    let identity = || uuid::Uuid::new_v4().simple().to_string();
    let folder = Folder::open_on(Arc::new(RealDisk), state, identity, config, &plan, &clock)?;
    let archivist = Archivist::new(folder.log(), Arc::clone(&folder.history), folder.readers.clone());
    while archivist.step()? > 0 {}
    Ok(folder.history)
}

/// The state of shards that do not run.
struct Unopened;

impl Entries for Unopened {
    fn apply(&self, _: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        bail!("a question writes no state")
    }

    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>> {
        bail!("a question reads no state")
    }

    fn range(&self, _: Bound<&[u8]>, _: Bound<Vec<u8>>, _: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        bail!("a question reads no state")
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

async fn answer(history: Arc<History>, limits: mulgil_history::QueryLimits, args: Arc<QueryArgs>) -> Result<u64> {
    let mut batches = history.query(&args.sql, Some(limits)).await?;
    let schema = Arc::clone(batches.schema());
    let mut sink = Sink::open(args.format, args.out.as_deref(), &schema)?;
    let mut n_rows = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        n_rows += batch.num_rows() as u64;
        sink.write(&batch)?;
    }
    sink.finish()?;
    Ok(n_rows)
}

enum Sink {
    Table { schema: SchemaRef, rows: Vec<RecordBatch>, out: Box<dyn Write + Send> },
    Csv(Box<arrow::csv::Writer<Box<dyn Write + Send>>>),
    Json(Box<dyn Write + Send>),
    Parquet(Box<parquet::arrow::ArrowWriter<File>>),
}

impl Sink {
    fn open(format: Format, path: Option<&Path>, schema: &SchemaRef) -> Result<Self> {
        let create = |p: &Path| File::create(p).with_context(|| format!("cannot write {}", p.display()));
        let text = || -> Result<Box<dyn Write + Send>> {
            Ok(match path {
                Some(p) => Box::new(std::io::BufWriter::new(create(p)?)),
                None => Box::new(std::io::BufWriter::new(std::io::stdout())),
            })
        };
        Ok(match format {
            Format::Table => Self::Table { schema: Arc::clone(schema), rows: Vec::new(), out: text()? },
            Format::Csv => Self::Csv(Box::new(arrow::csv::WriterBuilder::new().with_header(true).build(text()?))),
            Format::Json => Self::Json(text()?),
            Format::Parquet => {
                let path = path.context("--format parquet needs --out FILE")?;
                Self::Parquet(Box::new(parquet::arrow::ArrowWriter::try_new(create(path)?, Arc::clone(schema), None)?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Table { rows, .. } => rows.push(batch.clone()),
            Self::Csv(writer) => writer.write(batch)?,
            Self::Json(out) => write_json(out, batch)?,
            Self::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Table { schema, rows, mut out } => {
                let table = arrow::util::pretty::pretty_format_batches_with_schema(schema, &rows)?;
                writeln!(out, "{table}")?;
                out.flush()?;
            }
            Self::Csv(writer) => writer.into_inner().flush()?,
            Self::Json(mut out) => out.flush()?,
            Self::Parquet(writer) => drop(writer.close()?),
        }
        Ok(())
    }
}

/// One object per row; numbers, decimals among them, with their exact digits.
fn write_json(out: &mut dyn Write, batch: &RecordBatch) -> Result<()> {
    let schema = batch.schema();
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
    let mut line = String::new();
    for row in 0..batch.num_rows() {
        line.clear();
        for (i, (field, column)) in schema.fields().iter().zip(&columns).enumerate() {
            line.push(if i == 0 { '{' } else { ',' });
            write_text(&mut line, field.name());
            line.push(':');
            let text = column.value(row).to_string();
            let kind = field.data_type();
            let finite = !kind.is_floating() || text.parse::<f64>().is_ok_and(f64::is_finite);
            if batch.column(i).is_null(row) || !finite {
                line.push_str("null");
            } else if kind.is_numeric() || *kind == DataType::Boolean {
                line.push_str(&text);
            } else {
                write_text(&mut line, &text);
            }
        }
        line.push_str("}\n");
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}
