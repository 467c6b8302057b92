//! Every source, one folder each: a new one is a folder and a line here.

pub mod file;
pub mod simulator;
