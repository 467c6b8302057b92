//! What the server's ports look like from this side: each file puts one port on top of the pipeline.

pub mod captured;
pub mod changes;
pub mod dead_letters;
pub mod feed;
pub mod generator;
pub mod idempotency;
pub mod ingest;
pub mod inserts;
pub mod orders;
pub mod past;
pub mod producer;
pub mod targets;
pub mod vitals;
