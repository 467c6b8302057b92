//! Shards: the pure function from rows and state to rows and state, with watermarks, windows, keyed state and snapshots.
//! It must never know a clock, a disk, a network, an async runtime or randomness: the same rows give the same bytes, however they were batched.

pub mod operator;
pub mod output;

pub mod keyed;
pub mod state;

pub mod error;
