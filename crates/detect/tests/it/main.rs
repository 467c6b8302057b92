#![allow(clippy::unwrap_used)]

mod batches;
mod detectors;
mod expressions;
mod features;
mod harness;
mod reference;
mod rules;
