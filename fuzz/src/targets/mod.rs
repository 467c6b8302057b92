//! The targets, one line each, and what each may take.

mod captured;
mod codec;
mod config;
mod debezium;
mod file;
mod history;
mod idempotency;
mod ingest;
mod journal;
mod mysql;
mod mysql_binlog;
mod postgres;
mod rules;
mod state;
mod values;
mod wire;

/// A decoder or opener under test.
pub struct Target {
    pub name: &'static str,
    /// Panics when the property does not hold.
    pub run: fn(&[u8]),
    /// Good inputs, made by our own encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Memory that any input may take, and what each of its bytes may add.
    pub base_bytes: usize,
    pub bytes_per_byte: usize,
}

const MIB: usize = 1 << 20;

const fn of(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds, base_bytes: 4 * MIB, bytes_per_byte: 512 }
}

/// Every target. The name is what `cargo xtask fuzz` takes, and that of its folders.
pub const TARGETS: [Target; 33] = [
    of("json", ingest::json, ingest::json_seeds),
    of("ndjson", ingest::ndjson, ingest::ndjson_seeds),
    of("csv", ingest::csv, ingest::csv_seeds),
    Target { base_bytes: 64 * MIB, ..of("avro", ingest::avro, ingest::avro_seeds) },
    Target { base_bytes: 192 * MIB, ..of("parquet", ingest::parquet, ingest::parquet_seeds) },
    Target { base_bytes: 192 * MIB, ..of("file", file::run, file::seeds) },
    Target { base_bytes: 16 * MIB, ..of("codec", codec::run, codec::seeds) },
    Target { base_bytes: 32 * MIB, ..of("journal", journal::run, journal::seeds) },
    Target { base_bytes: 32 * MIB, ..of("journal_sealed", journal::run_sealed, journal::sealed_seeds) },
    Target { base_bytes: 32 * MIB, ..of("state", state::run, state::seeds) },
    of("key_state", state::key_state, state::key_state_seeds),
    Target { base_bytes: 64 * MIB, ..of("manifest", history::manifest, history::manifest_seeds) },
    Target { base_bytes: 192 * MIB, ..of("history", history::file, history::file_seeds) },
    of("cursor", wire::cursor, wire::cursor_seeds),
    of("token", wire::token, wire::token_seeds),
    of("message", wire::message, wire::message_seeds),
    Target { base_bytes: 32 * MIB, ..of("config", config::run, config::seeds) },
    Target { base_bytes: 32 * MIB, ..of("expression", rules::expression, rules::expression_seeds) },
    Target { base_bytes: 32 * MIB, ..of("rules", rules::rules, rules::rules_seeds) },
    of("values", values::run, values::seeds),
    Target { base_bytes: 64 * MIB, ..of("schema", codec::schema, codec::schema_seeds) },
    Target { base_bytes: 32 * MIB, ..of("idempotency", idempotency::run, idempotency::seeds) },
    Target { base_bytes: 16 * MIB, ..of("mysql_server", mysql::server, mysql::server_seeds) },
    Target { base_bytes: 64 * MIB, ..of("mysql_binlog", mysql_binlog::run, mysql_binlog::seeds) },
    of("mysql_gtid", mysql::gtid, mysql::gtid_seeds),
    of("mysql_json", mysql::json, mysql::json_seeds),
    of("mysql_ddl", mysql::ddl, mysql::ddl_seeds),
    Target { base_bytes: 16 * MIB, ..of("postgres_server", postgres::server, postgres::server_seeds) },
    of("postgres_messages", postgres::messages, postgres::messages_seeds),
    of("postgres_values", postgres::values, postgres::values_seeds),
    of("change", captured::change, captured::change_seeds),
    of("change_schema", captured::schema, captured::schema_seeds),
    of("debezium", debezium::run, debezium::seeds),
];

pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
