//! The change envelope on the outside: Debezium's JSON for its consumers, Avro in the log, and the bytes of a record's key.

pub mod avro;
pub mod json;
pub mod key;

mod avro_read;
mod avro_schema;
mod civil;
mod form;
mod hstore;
mod interval;
mod json_schema;
mod native;
mod spatial;
pub mod text;
pub(crate) mod unscaled;
mod value;
