//! What a shard promises, shown on whole shards.
#![allow(clippy::unwrap_used)]

mod local_time;
mod market;
mod reference;

mod aggregates;
mod bars;
mod dedupe;
mod definition;
mod layouts;
mod recovery;
mod shards;
mod summaries;
