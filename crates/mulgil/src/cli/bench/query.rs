//! SQL over a data folder: one statement again and again in one process, or many once with their answers kept.

use crate::cli::Where;
use crate::cli::query::on_query_threads;
use crate::config::load;
use crate::pipeline::folder::{open_history, query_limits};
use crate::pipeline::plan::Plan;
use anyhow::{Context, Result};
use futures::StreamExt;
use mulgil_disk::RealDisk;
use mulgil_history::{History, HistoryError, QueryLimits};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// The statement; with --answers a file with one on each line.
    sql: String,
    #[command(flatten)]
    at: Where,
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Write the answer to the statement of line N, counted from 0, to DIR/N.parquet
    #[arg(long, value_name = "DIR")]
    answers: Option<PathBuf>,
}

pub fn query(args: &QueryArgs) -> Result<serde_json::Value> {
    let config = load(&args.at)?;
    // A folder that `mulgil bench fill` made has no log.
    let history = match config.log.dir.join("journal").exists() {
        true => crate::cli::query::open_history(&config)?,
        false => open_history(&config, &Plan::new(&config)?, Arc::new(RealDisk))?,
    };
    history.flush()?;
    let (limits, sql, n_runs) = (query_limits(&config), args.sql.clone(), args.runs);
    match args.answers.clone() {
        Some(dir) => on_query_threads(async move { answer_all(&history, &limits, Path::new(&sql), &dir).await }),
        None => on_query_threads(async move { again_and_again(&history, &limits, &sql, n_runs).await }),
    }
}

async fn again_and_again(history: &Arc<History>, limits: &QueryLimits, sql: &str, n_runs: usize) -> Result<serde_json::Value> {
    let (mut seconds, mut rows) = (Vec::new(), 0);
    for run in 0..=n_runs {
        let started = Instant::now();
        let mut answer = history.query(sql, Some(limits.clone())).await?;
        rows = 0;
        while let Some(batch) = answer.next().await {
            rows += batch?.num_rows();
        }
        if run > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(serde_json::json!({ "rows": rows, "seconds": seconds }))
}

async fn answer_all(history: &Arc<History>, limits: &QueryLimits, statements: &Path, dir: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(statements).with_context(|| format!("read {}", statements.display()))?;
    let started = Instant::now();
    let mut rows = 0;
    for (n, sql) in text.lines().enumerate() {
        match answer(history, limits, sql, &dir.join(format!("{n}.parquet"))).await {
            Ok(n_rows) => rows += n_rows,
            // A limit was kept: that is an answer, too.
            Err(error) if matches!(error.downcast_ref(), Some(HistoryError::Limit(_) | HistoryError::Time(_))) => {
                std::fs::write(dir.join(format!("{n}.refused")), format!("{error:#}"))?;
            }
            Err(error) => return Err(error.context(sql.to_owned())),
        }
    }
    Ok(serde_json::json!({ "statements": text.lines().count(), "rows": rows, "seconds": started.elapsed().as_secs_f64() }))
}

async fn answer(history: &Arc<History>, limits: &QueryLimits, sql: &str, path: &Path) -> Result<usize> {
    let mut answer = history.query(sql, Some(limits.clone())).await?;
    let file = std::fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, Arc::clone(answer.schema()), None)?;
    let mut rows = 0;
    while let Some(batch) = answer.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(rows)
}
