//! The tests of change capture that need no access to its inside.
#![allow(clippy::unwrap_used)]

mod envelope_arbitrary;
mod envelope_avro;
mod envelope_debezium;
mod envelope_rows;
mod filter;
mod mysql_accidents;
mod mysql_binlog;
mod mysql_binlog_golden;
mod mysql_kit;
mod mysql_partitions;
mod mysql_prepared;
mod mysql_snapshot;
mod mysql_stream;
mod postgres_failover;
mod postgres_patterns;
mod postgres_snapshot;
mod postgres_snapshot_incremental;
mod postgres_snapshot_keys;
mod postgres_snapshot_resume;
mod postgres_snapshot_support;
mod postgres_snapshot_window;
mod postgres_stream;
mod postgres_stream_accidents;
mod postgres_stream_kit;
mod postgres_stream_tls;
mod postgres_stream_whole;
mod typed;

/// A file of this crate. Asked when it runs, not when it is compiled: a target folder may be shared by two checkouts.
fn own(path: &str) -> std::path::PathBuf {
    std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path)
}
