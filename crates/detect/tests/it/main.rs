#![allow(clippy::unwrap_used)]

mod batches;
mod definition;
mod detectors;
mod expressions;
mod features;
mod harness;
mod reference;
mod rules;
mod rush_order;
