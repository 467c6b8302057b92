//! The journal through its public interface: on a disk in memory that fails on purpose, and on the real one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod accidents;
mod basics;
mod crash;
mod damage;
mod failures;
mod fixture;
mod groups;
mod harness;
mod model;
mod pipeline;
mod retention;
mod salvage;
