//! Kafka Connect's schemas of keys and values, as its JsonConverter writes them with `schemas.enable`.

use super::form::{Binaries, Connector, Form};
use super::json::JsonOptions;
use super::text::push_json_string;
use crate::table::Table;

const SNAPSHOT_FIELD: &str = concat!(
    r#"{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"#,
    r#""true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"}"#
);

const TRANSACTION: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},{"type":"int64","optional":false,"field":"total_order"},"#,
    r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"optional":true,"name":"event.block","version":1,"#,
    r#""field":"transaction"}"#
);

pub(crate) const MESSAGE_KEY: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":true,"field":"prefix"}],"optional":false,"#,
    r#""name":"io.debezium.connector.postgresql.MessageKey","version":1}"#
);

fn field(kind: &str, is_optional: bool, name: &str) -> String {
    format!(r#"{{"type":"{kind}","optional":{is_optional},"field":"{name}"}}"#)
}

fn source(connector: Connector) -> String {
    let mut fields = vec![field("string", false, "version"), field("string", false, "connector"), field("string", false, "name")];
    fields.extend([field("int64", false, "ts_ms"), SNAPSHOT_FIELD.to_owned(), field("string", false, "db")]);
    fields.extend([field("string", true, "sequence"), field("int64", true, "ts_us"), field("int64", true, "ts_ns")]);
    let package = match connector {
        Connector::Postgres => {
            fields.extend(["schema", "table"].map(|name| field("string", false, name)));
            fields.extend(["txId", "lsn", "xmin"].map(|name| field("int64", true, name)));
            fields.extend([field("string", true, "origin"), field("int64", true, "origin_lsn")]);
            "postgresql"
        }
        Connector::Mysql | Connector::Mariadb => {
            fields.extend([field("string", true, "table"), field("int64", false, "server_id"), field("string", true, "gtid")]);
            fields.extend([field("string", false, "file"), field("int64", false, "pos"), field("int32", false, "row")]);
            fields.extend([field("int64", true, "thread"), field("string", true, "query")]);
            if connector == Connector::Mysql { "mysql" } else { "mariadb" }
        }
    };
    let fields = fields.join(",");
    format!(
        r#"{{"type":"struct","fields":[{fields}],"optional":false,"name":"io.debezium.connector.{package}.Source","version":1,"field":"source"}}"#
    )
}

pub(crate) fn message(options: &JsonOptions) -> Vec<u8> {
    let content = if options.binaries == Binaries::Bytes { "bytes" } else { "string" };
    let (op, ts_ms, source) = (field("string", false, "op"), field("int64", true, "ts_ms"), source(options.connector));
    let (prefix, content) = (field("string", true, "prefix"), field(content, true, "content"));
    let message = format!(
        r#"{{"type":"struct","fields":[{prefix},{content}],"optional":false,"name":"io.debezium.connector.postgresql.Message","version":1,"field":"message"}}"#
    );
    format!(
        r#"{{"type":"struct","fields":[{op},{ts_ms},{source},{TRANSACTION},{message}],"optional":false,"name":"io.debezium.connector.postgresql.MessageValue","version":1}}"#
    )
    .into_bytes()
}

/// The schemas of the key, of the value, and of the value where columns lack that may not be null.
pub(crate) fn of_table(table: &Table, forms: &[Form], topic: &str, options: &JsonOptions) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    if !options.schemas {
        return Default::default();
    }
    let mut key = b"{\"type\":\"struct\",\"fields\":[".to_vec();
    push_fields(&mut key, table, forms, table.key(), false);
    key.extend_from_slice(b"],\"optional\":false,\"name\":");
    push_json_string(&mut key, format!("{topic}.Key").as_bytes());
    key.push(b'}');
    (key, value(table, forms, topic, options, false), value(table, forms, topic, options, true))
}

fn push_fields(out: &mut Vec<u8>, table: &Table, forms: &[Form], columns: impl Iterator<Item = usize>, is_lenient: bool) {
    for (n, i) in columns.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        forms[i].push_schema(out, &table.columns[i].name, is_lenient || table.columns[i].is_nullable);
    }
}

fn value(table: &Table, forms: &[Form], topic: &str, options: &JsonOptions, is_lenient: bool) -> Vec<u8> {
    let mut out = b"{\"type\":\"struct\",\"fields\":[".to_vec();
    for side in ["before", "after"] {
        out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
        push_fields(&mut out, table, forms, 0..forms.len(), is_lenient);
        out.extend_from_slice(b"],\"optional\":true,\"name\":");
        push_json_string(&mut out, format!("{topic}.Value").as_bytes());
        out.extend_from_slice(format!(",\"field\":\"{side}\"}},").as_bytes());
    }
    let (source, op) = (source(options.connector), field("string", false, "op"));
    let times = ["ts_ms", "ts_us", "ts_ns"].map(|name| field("int64", true, name)).join(",");
    out.extend_from_slice(format!("{source},{TRANSACTION},{op},{times}],\"optional\":false,\"name\":").as_bytes());
    push_json_string(&mut out, format!("{topic}.Envelope").as_bytes());
    out.extend_from_slice(b",\"version\":2}");
    out
}
