//! The pipeline at work, from the log outwards: rows in, shards, history. Reading order is the way of a row.

pub mod folder;
pub mod schemas;

pub mod writer;

pub mod reader;
pub mod recent;

pub mod plan;
pub mod shard;
pub mod state;
pub mod worker;

pub mod archive;

pub mod running;
pub mod stop;
pub mod tasks;

use mulgil_log::Clock;
use mulgil_model::time::AppendTime;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The one place where the wall clock is read; everything else is handed it.
pub fn clock() -> Clock {
    Arc::new(|| AppendTime(now_micros()))
}

pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
