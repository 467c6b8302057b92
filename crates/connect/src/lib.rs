//! Sources and the foreign formats they speak: bytes of the outside world in, Arrow rows of a declared stream and named problems out.
//! It must never know the log or the engine, read a clock or spawn a task: times are arguments, and whoever calls decides when.

pub mod decode;
pub mod sources;
