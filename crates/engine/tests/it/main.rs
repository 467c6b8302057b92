//! What a shard promises, shown on whole shards.
#![allow(clippy::unwrap_used)]

mod market;

mod bars;
mod dedupe;
mod layouts;
mod recovery;
mod shards;
mod summaries;
