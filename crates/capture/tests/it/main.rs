//! The tests of change capture that need no access to its inside.
#![allow(clippy::unwrap_used)]

mod envelope_debezium;
mod envelope_rows;
