//! One SQL statement over a data folder, again and again in one process.

use crate::cli::Where;
use crate::config::load;
use crate::pipeline::folder::query_limits;
use anyhow::Result;
use futures::StreamExt;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    sql: String,
    #[command(flatten)]
    at: Where,
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

pub fn query(args: &QueryArgs) -> Result<serde_json::Value> {
    let config = load(&args.at)?;
    let history = crate::cli::query::open_history(&config)?;
    history.flush()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut seconds, mut rows) = (Vec::new(), 0);
    for run in 0..=args.runs {
        let started = Instant::now();
        rows = runtime.block_on(async {
            let mut answer = history.query(&args.sql, Some(query_limits(&config))).await?;
            let mut rows = 0;
            while let Some(batch) = answer.next().await {
                rows += batch?.num_rows();
            }
            Ok::<_, anyhow::Error>(rows)
        })?;
        if run > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(serde_json::json!({ "rows": rows, "seconds": seconds }))
}
