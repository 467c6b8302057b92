//! The values every part of mulgil speaks of: streams and their schemas, rows, decimals, times, positions, trades, bars and alerts.
//! It must never know a clock, a disk, a network or an async runtime: everything here is a pure function of its arguments.

pub mod decimal;
pub mod ids;
pub mod position;
pub mod time;

pub mod schema;
pub mod streams;

pub mod candle;
pub mod columns;
pub mod keys;
pub mod rows;
pub mod search;

pub mod avro;
pub mod json;
pub mod problem;
