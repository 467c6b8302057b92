//! What a shard promises, shown on whole shards.
#![allow(clippy::unwrap_used)]

mod market;

mod bars;
mod dedupe;
mod recovery;
mod summaries;
