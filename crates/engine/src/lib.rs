//! Shards: the pure function from rows and state to rows and state, with watermarks, windows, keyed state and snapshots.
//! It must never know a clock, a disk, a network, an async runtime or randomness: the same rows give the same bytes, however they were batched.

pub mod shard;

pub mod decision;
pub mod operator;
pub mod output;
pub mod watermark;

pub mod calendar;
pub mod window;

pub mod bars;
pub mod summary;

pub mod aggregate;
mod value;

mod closed;
mod pages;
mod panes;
mod sessions;
mod sliding;
mod timers;

pub mod dedupe;
mod late;

pub mod keyed;
pub mod layout;
pub mod state;

pub mod error;
