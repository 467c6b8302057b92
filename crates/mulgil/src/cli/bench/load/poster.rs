//! Posts trades at a steady rate. Each poster has symbols of its own and waits for one answer before it sends the next batch, so that the
//! rows of a symbol enter the log in the order of their places.

use super::trades::Trades;
use crate::pipeline::now_micros;
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::time::Instant;

/// What is posted, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    pub url: String,
    pub stream: String,
    /// Rows a second.
    pub rate: u64,
    pub seconds: u64,
    pub n_symbols: u32,
}

/// A batch is due so often, from one poster after the other.
pub const BEAT: Duration = Duration::from_millis(10);

/// Each has this many beats to get its answer before its next batch is late; a late batch keeps the instant at which it was due.
const POSTERS: u32 = 4;

impl Load {
    /// Posts everything; how many trades of each symbol there were.
    pub async fn post(self) -> Result<Vec<u64>> {
        // A fresh process has work of its own at first: connections, code that is read from disk.
        let client = reqwest::Client::new();
        let (start, start_us) = (Instant::now() + BEAT, now_micros() + BEAT.as_micros() as i64);
        let share = self.n_symbols / POSTERS;
        let posters: Vec<_> = (0..POSTERS)
            .map(|p| {
                let end = if p + 1 == POSTERS { self.n_symbols } else { (p + 1) * share };
                let (client, load) = (client.clone(), self.clone());
                tokio::spawn(async move { load.post_part(&client, p, Trades::of(p * share..end), start, start_us).await })
            })
            .collect();
        let mut made = Vec::new();
        for poster in posters {
            made.extend(poster.await??);
        }
        Ok(made)
    }

    async fn post_part(self, client: &reqwest::Client, poster: u32, mut trades: Trades, start: Instant, start_us: i64) -> Result<Vec<u64>> {
        let url = format!("{}/api/v1/ingest/{}", self.url, self.stream);
        let n_beats = u32::try_from(self.seconds * 1_000 / BEAT.as_millis() as u64)?;
        let mut due_rows = 0;
        for beat in (poster..n_beats).step_by(POSTERS as usize) {
            let after = BEAT * beat;
            tokio::time::sleep_until(start + after).await;
            // What the rate asks of this poster up to now, less what it has sent: a rate that beats do not divide is met on average.
            let wanted = self.rate * u64::from(beat - poster + POSTERS) * BEAT.as_millis() as u64 / 1_000 / u64::from(POSTERS);
            let rows = wanted - due_rows;
            due_rows = wanted;
            if rows == 0 {
                continue;
            }
            let body = trades.batch(rows, start_us + after.as_micros() as i64);
            let answer = client.post(&url).header("content-type", "application/x-ndjson").body(body).send().await;
            let answer = answer.and_then(reqwest::Response::error_for_status).with_context(|| format!("post to {url}"))?;
            answer.bytes().await?;
        }
        Ok(trades.made().to_vec())
    }
}
