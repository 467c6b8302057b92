//! The parse-only rate: what a replay is measured against.

use anyhow::{Context, Result};
use mulgil_connect::decode::{DecodeOptions, Decoder, Format, Plan};
use mulgil_model::time::ReceiveTime;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct ParseArgs {
    file: PathBuf,
}

const BATCH_ROWS: usize = 65_536;

pub fn parse(args: &ParseArgs) -> Result<serde_json::Value> {
    let config = crate::config::parse(crate::config::STOCKS)?;
    let stream = config.streams.first().context("the stocks example has a stream")?;
    let plan = Arc::new(Plan::new(Arc::clone(&stream.schema), DecodeOptions::default())?);
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let started = Instant::now();
    let mut decoder = Decoder::new(&plan, Format::Ndjson, bytes.as_slice(), ReceiveTime(i64::MAX / 2))?;
    let mut rows = 0;
    while let Some(decoded) = decoder.next(BATCH_ROWS)? {
        rows += decoded.batch.num_rows();
        anyhow::ensure!(
            decoded.problems.is_empty(),
            "{} is not a clean file of trades: {:?}",
            args.file.display(),
            decoded.problems.first()
        );
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(serde_json::json!({ "rows": rows, "bytes": bytes.len(), "seconds": seconds }))
}
