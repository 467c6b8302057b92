//! Fuzz targets: every decoder and opener of mulgil as a function of bytes, with the property that it must keep and the memory it may take.
//! It must never know who brings the bytes: libFuzzer, the suite and a person with one file call the same functions.
//!
//! A target is one function and one line in [`TARGETS`]. Its seeds are made by our own encoders (`seeds`), what fuzzing found beyond them
//! is in `corpus/<target>`, and every input that once broke something is in `regressions/<target>`: both run in the ordinary suite.

pub mod memory;
pub mod runner;
pub mod targets;

mod trades;

pub use targets::{TARGETS, Target, target};
