//! The table: single requests, each with what is bad about it.

use std::fmt::Write;

pub struct Case {
    pub what: String,
    pub send: Send,
}

#[derive(Clone)]
pub struct Send {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Send {
    /// For a reader of the table: long bodies are cut.
    pub fn shown(&self) -> String {
        const SHOWN: usize = 110;
        let mut shown = format!("{} {}", self.method, self.path.get(..SHOWN).unwrap_or(&self.path));
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "content-type") {
            write!(shown, " {name}: {}", String::from_utf8_lossy(&value[..value.len().min(SHOWN)])).unwrap();
        }
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN)]).replace('\n', "\\n");
        match self.body.len() {
            0 => shown,
            n if n > SHOWN => format!("{shown} {body}… ({n} bytes)"),
            _ => format!("{shown} {body}"),
        }
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn post(path: &str, kind: &'static str, body: impl Into<Vec<u8>>) -> Send {
    Send { method: "POST", path: path.to_owned(), headers: vec![("content-type", kind.into())], body: body.into() }
}

fn ingest(kind: &'static str, body: impl Into<Vec<u8>>) -> Send {
    post("/api/v1/ingest/trades", kind, body)
}

fn get(path: &str) -> Send {
    Send { method: "GET", path: path.to_owned(), headers: vec![], body: vec![] }
}

/// A row with one field as given.
fn row(name: &str, value: &str) -> String {
    let mut fields = vec![("symbol", "\"005930\""), ("event_time", "\"2026-01-05T00:00:00Z\""), ("price", "71500"), ("quantity", "3")];
    match fields.iter_mut().find(|(n, _)| *n == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    let fields: Vec<String> = fields.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
    format!("{{{}}}", fields.join(","))
}

pub fn good_row() -> Send {
    ingest(JSON, row("trade_id", "\"good\""))
}

pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, send) in [bodies(), fields(), times(), requests(), cursors(), queries()].concat() {
        cases.push(Case { what: what.to_owned(), send });
    }
    cases
}

type Table = Vec<(&'static str, Send)>;

fn bodies() -> Table {
    let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    vec![
        ("an empty body", ingest(JSON, "")),
        ("JSON cut short", ingest(JSON, r#"{"symbol":"005930","price""#)),
        ("not JSON at all", ingest(JSON, "hello")),
        ("a number instead of a row", ingest(JSON, "7")),
        ("an empty array", ingest(JSON, "[]")),
        ("rows of which one is bad", ingest(NDJSON, [row("price", "1"), "{oops".to_owned(), row("price", "2")].join("\n"))),
        ("invalid UTF-8", ingest(NDJSON, [b"{\"symbol\":\"00\xff930\"}".as_slice(), b"\n", row("price", "1").as_bytes()].concat())),
        ("a lone surrogate", ingest(JSON, row("trade_id", r#""\ud800""#))),
        ("a NUL in a text", ingest(JSON, row("trade_id", r#""a\u0000b""#))),
        ("brackets 10,000 deep", ingest(JSON, nested(10_000))),
        ("a field 10,000 deep", ingest(JSON, row("trade_id", &nested(10_000)))),
        ("objects a million deep", ingest(JSON, r#"{"a":"#.repeat(200_000))),
        ("a text of 1 MB", ingest(JSON, row("trade_id", &format!("\"{}\"", "x".repeat(1 << 20))))),
        ("a key of 1 MB", ingest(JSON, row("symbol", &format!("\"{}\"", "x".repeat(1 << 20))))),
        ("a field name of 1 MB", ingest(JSON, row(&"x".repeat(1 << 20), "1"))),
        ("a number of 1 MB", ingest(JSON, row("price", &"9".repeat(1 << 20)))),
        ("more than a body may have", ingest(JSON, vec![b' '; (2 << 20) + 1])),
        (
            "100,000 unknown fields",
            ingest(JSON, format!("{{{}}}", (0..100_000).map(|i| format!("\"f{i}\":1")).collect::<Vec<_>>().join(","))),
        ),
        ("the same field twice", ingest(JSON, r#"{"symbol":"A","symbol":"B","event_time":"2026-01-05T00:00:00Z","price":1,"quantity":1}"#)),
        ("100,000 empty rows", ingest(NDJSON, "{}\n".repeat(100_000))),
        ("Avro that is none", ingest("application/avro", "Obj\u{1}nonsense")),
        ("Avro that promises a gigabyte", ingest("application/avro", b"Obj\x01\x04\x14avro.codec\xfe\xff\xff\xff\x0fx".to_vec())),
        ("an unknown media type", ingest("text/plain", "x")),
    ]
}

fn fields() -> Table {
    let one = |name: &str, value: &str| ingest(JSON, row(name, value));
    vec![
        ("NaN", one("price", "NaN")),
        ("NaN as text", one("price", "\"NaN\"")),
        ("infinity", one("price", "Infinity")),
        ("infinity as text", one("price", "\"-inf\"")),
        ("a number beyond any float", one("price", "1e999")),
        ("a price of zero", one("price", "0")),
        ("a negative price", one("price", "-71500")),
        ("a price of minus zero", one("price", "-0.00")),
        ("a quantity of zero", one("quantity", "0")),
        ("a negative quantity", one("quantity", "-1")),
        ("40 digits", one("price", "1234567890123456789012345678901234567890")),
        ("40 decimals", one("price", "0.1234567890123456789012345678901234567890")),
        ("an exponent of a billion", one("price", "1e1000000000")),
        ("a text for a price", one("price", "\"seven\"")),
        ("a boolean for a price", one("price", "true")),
        ("a list for a price", one("price", "[1]")),
        ("null for a price", one("price", "null")),
        ("a number for a symbol", one("symbol", "5930")),
        ("an empty symbol", one("symbol", "\"\"")),
        ("a side that is none", one("side", "\"SIDEWAYS\"")),
        ("an unknown field", one("colour", "\"red\"")),
        ("a symbol that nobody knows", one("symbol", "\"NO-SUCH-SYMBOL\"")),
    ]
}

fn times() -> Table {
    let one = |value: &str| ingest(JSON, row("event_time", value));
    vec![
        ("a time that is none", one("\"yesterday\"")),
        ("a 30th of February", one("\"2026-02-30T00:00:00Z\"")),
        ("a time far in the future", one("\"2199-01-01T00:00:00Z\"")),
        ("a time beyond the years that there are", one("\"9999-12-31T23:59:59Z\"")),
        ("a time far in the past", one("\"1900-01-02T00:00:00Z\"")),
        ("a time before the years that there are", one("\"0001-01-01T00:00:00Z\"")),
        ("a number of milliseconds beyond all years", one("99999999999999999")),
        ("a number beyond 64 bits", one("99999999999999999999999999")),
        ("a negative number", one("-1")),
        ("a fraction", one("1.5")),
        ("a null", one("null")),
    ]
}

fn with(mut send: Send, name: &'static str, value: impl Into<Vec<u8>>) -> Send {
    send.headers.push((name, value.into()));
    send
}

fn requests() -> Table {
    let keyed = |key: &str, body: String| with(ingest(JSON, body), "idempotency-key", key);
    vec![
        ("a stream that does not exist", post("/api/v1/ingest/nosuch", JSON, row("price", "1"))),
        ("a stream that is derived", post("/api/v1/ingest/trades.bars.1m", JSON, row("price", "1"))),
        ("a stream named like a path", post("/api/v1/ingest/..%2f..%2fetc", JSON, row("price", "1"))),
        ("an idempotency key, for the first time", keyed("k", row("price", "1"))),
        ("the same request again", keyed("k", row("price", "1"))),
        ("the same key with another body", keyed("k", row("price", "2"))),
        ("an empty idempotency key", keyed("", row("price", "1"))),
        ("an idempotency key of 300 characters", keyed(&"k".repeat(300), row("price", "1"))),
        ("an idempotency key that is not ASCII", with(ingest(JSON, row("price", "1")), "idempotency-key", "\u{fc}")),
        ("a method that does not fit", Send { method: "PUT", ..get("/api/v1/ingest/trades") }),
        ("an address that does not exist", get("/api/v2/everything")),
        ("an address with .. in it", get("/../../etc/passwd")),
        ("a host that is not ours", with(get("/api/v1/streams"), "host", "evil.example.com")),
        ("an address of 60 KB", get(&format!("/api/v1/stock/search?ticker={}", "x".repeat(60_000)))),
        ("JSON that is no request for SQL", post("/api/v1/sql", JSON, r#"{"query":1}"#)),
        ("a generator of negative rate", post("/api/v1/stock/generate", JSON, r#"{"rate":-1}"#)),
        ("a generator of infinite rate", post("/api/v1/stock/generate", JSON, r#"{"rate":1e300}"#)),
    ]
}

fn cursors() -> Table {
    let search = |query: &str| get(&format!("/api/v1/stock/search?ticker=005930&{query}"));
    vec![
        ("a cursor that is none", search("cursor=nonsense")),
        ("a cursor of bytes", search("cursor=%ff%fe%00")),
        ("a cursor of 10,000 letters", search(&format!("cursor={}", "A".repeat(10_000)))),
        ("an interval that is none", search("interval=fortnight")),
        ("a limit of zero", search("limit=0")),
        ("a limit beyond the limit", search("limit=100000000")),
        ("an unknown parameter", search("nonsense=1")),
        ("an SSE token that is none", with(get("/api/v1/stock/anomaly"), "last-event-id", "nonsense")),
        ("an SSE token of 5,000 letters", with(get("/api/v1/stock/anomaly"), "last-event-id", "A".repeat(5_000))),
        ("an SSE filter that is none", get("/api/v1/stock/anomaly?severity=terrible")),
    ]
}

fn queries() -> Table {
    let sql = |text: &str| post("/api/v1/sql", JSON, serde_json::json!({ "sql": text }).to_string());
    vec![
        ("SQL that is none", sql("SELEKT 1")),
        ("an empty query", sql("")),
        ("two queries", sql("SELECT 1; SELECT 2")),
        ("a table that does not exist", sql("SELECT * FROM nosuch")),
        ("SQL that inserts", sql("INSERT INTO trades SELECT * FROM trades")),
        ("SQL that deletes", sql("DELETE FROM trades")),
        ("SQL that updates", sql("UPDATE trades SET price = 1")),
        ("SQL that drops", sql("DROP TABLE trades")),
        ("SQL that creates a table", sql("CREATE TABLE x AS SELECT 1")),
        ("SQL that creates an outside table", sql("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'")),
        ("SQL that writes a file", sql("COPY (SELECT 1) TO '/tmp/mulgil-should-not-be.csv'")),
        ("SQL that reads a file", sql("SELECT * FROM '/etc/passwd'")),
        ("SQL that changes settings", sql("SET datafusion.execution.target_partitions = 100000")),
        (
            "a cross join that never ends",
            sql(
                "SELECT count(*) FROM generate_series(1,100000) a(x), generate_series(1,100000) b(y), generate_series(1,100000) c(z) WHERE x+y+z = 7",
            ),
        ),
        ("a series that never ends", sql("SELECT sum(value) FROM generate_series(1, 9000000000000000)")),
        ("a recursion that never ends", sql("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t")),
        (
            "a sort that does not fit",
            sql("SELECT value, repeat('x', 200) AS t FROM generate_series(1, 5000000) ORDER BY t, value DESC LIMIT 2000000"),
        ),
        ("groups that do not fit", sql("SELECT value, count(*) FROM generate_series(1, 50000000) GROUP BY value ORDER BY 2 LIMIT 1")),
        ("one enormous text", sql("SELECT length(repeat('x', 2000000000))")),
        ("texts that double", sql("SELECT length(repeat(repeat(repeat('x', 10000), 10000), 100))")),
        ("an array of everything", sql("SELECT array_agg(value) FROM generate_series(1, 900000000)")),
        ("brackets 5,000 deep", sql(&format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)))),
        ("10,000 additions", sql(&format!("SELECT 1{}", "+1".repeat(10_000)))),
        ("a query of 200 KB", sql(&format!("SELECT '{}'", "x".repeat(200_000)))),
        (
            "more rows than an answer may have",
            post("/api/v1/sql", JSON, r#"{"sql":"SELECT count(*) OVER () AS n FROM generate_series(1, 200000) LIMIT 1","limit":0}"#),
        ),
        ("a time limit that is none", post("/api/v1/sql", JSON, r#"{"sql":"SELECT 1","timeout_seconds":-1}"#)),
        ("division by zero", sql("SELECT 1/0")),
        ("a pattern that takes for ever", sql("SELECT regexp_like(repeat('a', 60000), '(a+)+b')")),
    ]
}
