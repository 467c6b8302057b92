//! Captured databases: their changes into the log, each exactly once. Reading order is the way of a change.

pub mod captures;
pub mod condition;
pub mod opening;
pub mod supervisor;

pub mod rows;
pub mod writer;

pub mod notes;
mod patch;

pub mod debezium;
