//! Detection as data: features (aggregates per key), rules (SQL conditions over columns and features), detectors (operators of their own).
//! It must never know a clock, a disk, a network, an async runtime or randomness: the same rows raise the same alerts, byte for byte.

pub mod error;
pub mod spelling;

pub mod mark;
pub mod source;

pub mod aggregate;
pub mod feature;
pub mod key_state;

pub mod expression;
pub mod scope;

pub mod alert;
pub mod message;
pub mod rule;
pub mod rules;

pub mod detectors;
