//! Events that no server here writes, built from their documentation; and what must hold for any bytes at all.

mod build;
mod events;
mod hostile;
mod json;
mod rows;
