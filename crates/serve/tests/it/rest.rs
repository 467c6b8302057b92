//! Request and answer.

use crate::market::*;
use expect_test::{expect, expect_file};
use mulgil_serve::config::Limits;
use mulgil_serve::ports::{PortError, PortErrorKind};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;

pub async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

impl Running {
    pub fn get(&self, path: &str) -> RequestBuilder {
        Client::new().get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        Client::new().post(self.url(path))
    }
}

#[tokio::test]
async fn search_pages_through_everything_once() {
    let server = start(2).await;
    server.market.commit((0..25).map(|i| trade(["A", "BRK.B"][i % 2], (i / 3) as i64 * SECOND, 7150, 300, i)));
    for path in ["/api/v1/stock/search", "/api/v1/stock"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, page) = answer(server.get(&format!("{path}?from=2026-11-21T00:00:00Z&limit=4{cursor}"))).await;
            assert_eq!(status, 200, "{page}");
            assert_eq!(page["count"], page["data"].as_array().unwrap().len());
            seen.extend(page["data"].as_array().unwrap().iter().map(|r| r["trade_id"].as_str().unwrap().parse::<usize>().unwrap()));
            match page["cursor"].as_str() {
                Some(c) => cursor = format!("&cursor={c}"),
                None => break,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
    }
    let (_, page) =
        answer(server.get("/api/v1/stock/search?ticker=BRK.B&tradeType=buy&marketCode=KRX&duration=60&limit=1&interval=tick")).await;
    expect![[r#"
        {
          "count": 1,
          "cursor": "…",
          "data": [
            {
              "currency_code": "KRW",
              "event_id": null,
              "event_time": "2026-11-21T00:00:07Z",
              "market_code": "KRX",
              "price": 71.5,
              "ticker": "BRK.B",
              "trade_id": "23",
              "trade_type": "BUY",
              "volume": 3
            }
          ],
          "filters": {
            "from": "2026-11-21T00:00:00.000001Z",
            "interval": "tick",
            "limit": 1,
            "marketCode": "KRX",
            "ticker": "BRK.B",
            "to": "2026-11-21T01:00:00.000001Z",
            "tradeType": "BUY"
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&with(page, "cursor", "…")).unwrap());
    server.stop().await;
}

fn with(mut value: Value, field: &str, text: &str) -> Value {
    value[field] = json!(text);
    value
}

#[tokio::test]
async fn ingest_tells_what_was_good_and_what_not() {
    let server = start(1).await;
    let post = |body: &'static str| server.post("/api/v1/ingest/trades").header("content-type", "application/x-ndjson").body(body);
    let (status, report) = answer(post("{\"symbol\":\"A\"}\n{}\n{\"symbol\":\"B\"}")).await;
    assert_eq!(status, 200);
    assert_eq!(
        report,
        json!({"stream": "trades", "accepted": 2, "rejected": 1, "replayed": false, "offsets": [{"partition": 0, "first": 0, "last": 1}],
            "problems": [{"row": 1, "line": 2, "column": 1, "field": "symbol", "reason": "symbol is missing"}]})
    );
    let (status, problem) = answer(post("{}")).await;
    assert_eq!((status, &problem["type"], &problem["problems"][0]["line"]), (422, &json!("urn:mulgil:problem:rows"), &json!(1)));
    let (_, report) = answer(post("{\"symbol\":\"A\"}").header("Idempotency-Key", "known")).await;
    assert_eq!(report["replayed"], json!(true));
    let check = async |request: RequestBuilder, want: u16| assert_eq!(answer(request).await.0, want);
    check(post("{\"symbol\":\"A\"}").header("Idempotency-Key", "two words"), 400).await;
    check(post(""), 400).await;
    check(server.post("/api/v1/ingest/trades").body("{}"), 415).await;
    check(server.post("/api/v1/ingest/trades").header("content-type", "text/html").body("{}"), 415).await;
    check(server.post("/api/v1/ingest/nope").header("content-type", "application/json").body("{}"), 404).await;
    check(server.post("/api/v1/ingest/Not%20A%20Name").header("content-type", "application/json").body("{}"), 404).await;
    server.stop().await;
}

#[tokio::test]
async fn every_kind_of_port_error_has_its_problem() {
    use PortErrorKind::*;
    let server = start(1).await;
    let mut table = String::new();
    for kind in [NotFound, Invalid, Forbidden, Conflict, Busy, TooLarge, Full, Timeout, Internal] {
        *server.market.ingest_fails.lock() = Some(PortError::new(kind, "secret or not"));
        let response = server.post("/api/v1/ingest/trades").header("content-type", "application/json").body("{}").send().await.unwrap();
        let wait = response.headers().get("retry-after").map_or("-".to_owned(), |v| v.to_str().unwrap().to_owned());
        let problem: Value = response.json().await.unwrap();
        table += &format!(
            "{kind:?} {} {} {wait} {}\n",
            problem["status"],
            problem["type"].as_str().unwrap(),
            problem["detail"].as_str().unwrap()
        );
    }
    expect![[r#"
        NotFound 404 urn:mulgil:problem:not-found - secret or not
        Invalid 422 urn:mulgil:problem:invalid - secret or not
        Forbidden 403 urn:mulgil:problem:not-allowed - secret or not
        Conflict 409 urn:mulgil:problem:conflict - secret or not
        Busy 503 urn:mulgil:problem:busy 1 secret or not
        TooLarge 413 urn:mulgil:problem:too-large - secret or not
        Full 503 urn:mulgil:problem:disk-full 30 secret or not
        Timeout 504 urn:mulgil:problem:timeout - secret or not
        Internal 500 urn:mulgil:problem:internal - the server could not answer: its log says why
    "#]]
    .assert_eq(&table);
    server.stop().await;
}

#[tokio::test]
async fn problems_of_requests() {
    let limits = Limits {
        body_bytes_max: 1000,
        request_timeout: Duration::from_millis(300),
        sql_timeout: Duration::from_millis(10),
        ..Limits::default()
    };
    let server = start_limited(1, limits).await;
    let mut table = String::new();
    let large = json!({"sql": "x".repeat(2000)});
    let requests = [
        (Method::GET, "/nothing", None),
        (Method::POST, "/nothing", None),
        (Method::PUT, "/api/v1/sql", None),
        (Method::POST, "/api/v1/sql", None),
        (Method::POST, "/api/v1/sql", Some(json!({"query": "x"}))),
        (Method::POST, "/api/v1/sql", Some(json!({"sql": "drop table trades"}))),
        (Method::POST, "/api/v1/sql", Some(large)),
        (Method::GET, "/api/v1/stock?interval=year", None),
        (Method::GET, "/api/v1/stock?limit=0", None),
        (Method::GET, "/api/v1/stock?cursor=AAAA", None),
        (Method::GET, "/api/v1/stock?tradeType=HOLD", None),
        (Method::GET, "/api/v1/stock?tikcer=A", None),
        (Method::GET, "/api/v1/stock/realtime", None),
        (Method::POST, "/api/v1/stock/generate", Some(json!({"rate": -1}))),
        (Method::POST, "/api/v1/stock/generate", Some(json!({"duration": "soon"}))),
        (Method::POST, "/api/v1/stock/generate", Some(json!({"into": ""}))),
        (Method::GET, "/api/v1/stock/generate", None),
    ];
    for (method, path, body) in requests {
        let mut request = Client::new().request(method.clone(), server.url(path));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let (status, problem) = answer(request).await;
        assert_eq!((&problem["status"], problem["title"].is_string()), (&json!(status), true));
        table += &format!(
            "{method} {path} -> {status} {}: {}\n",
            problem["type"].as_str().unwrap().trim_start_matches("urn:mulgil:problem:"),
            problem["detail"].as_str().unwrap()
        );
    }
    expect![[r#"
        GET /nothing -> 404 not-found: there is nothing at /nothing: see /openapi.json
        POST /nothing -> 404 not-found: there is nothing here: see /openapi.json
        PUT /api/v1/sql -> 405 method: this address does not take this method: see the Allow header
        POST /api/v1/sql -> 415 media-type: send JSON with Content-Type: application/json
        POST /api/v1/sql -> 400 invalid: the JSON body cannot be read: unknown field `query`, expected one of `sql`, `format`, `limit`, `timeout_seconds` at line 1 column 8
        POST /api/v1/sql -> 422 invalid: only 'rows N' and 'fail N' are understood
        POST /api/v1/sql -> 413 too-large: the body has more than 1000 bytes: send it in parts
        GET /api/v1/stock?interval=year -> 400 invalid: interval is tick, minute, hour or day
        GET /api/v1/stock?limit=0 -> 400 invalid: limit is a whole number from 1 to 10000
        GET /api/v1/stock?cursor=AAAA -> 400 invalid: the cursor is damaged or not from this server: search again without it
        GET /api/v1/stock?tradeType=HOLD -> 400 invalid: tradeType is BUY or SELL
        GET /api/v1/stock?tikcer=A -> 400 invalid: the query cannot be read: tikcer: unknown field `tikcer`, expected one of `ticker`, `tradeType`, `marketCode`, `duration`, `from`, `to`, `interval`, `limit`, `cursor`
        GET /api/v1/stock/realtime -> 426 websocket: this address speaks WebSocket: Connection header did not include 'upgrade'
        POST /api/v1/stock/generate -> 400 invalid: rate is a number of trades per second, above 0 and at most 10000000
        POST /api/v1/stock/generate -> 400 invalid: duration is a number of seconds above 0, or a text such as "10m"
        POST /api/v1/stock/generate -> 400 invalid: into names a captured database, such as "exchange", or one of its tables
        GET /api/v1/stock/generate -> 404 not-found: the generator was never started
    "#]].assert_eq(&table);
    // A body that never ends is given up on.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut raw = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    raw.write_all(b"POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        .await
        .unwrap();
    let mut text = vec![0; 4096];
    let n = raw.read(&mut text).await.unwrap();
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("application/problem+json"), "{text}");
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn sql_in_three_formats() {
    let server = start(1).await;
    let ask = |body: Value| server.post("/api/v1/sql").json(&body);
    let (status, result) = answer(ask(json!({"sql": "rows 5", "limit": 3}))).await;
    assert_eq!((status, &result["count"], &result["truncated"]), (200, &json!(3), &json!(true)));
    assert_eq!(result["columns"][2], json!({"name": "price", "type": "decimal(18, 8)"}));
    assert_eq!((&result["data"][2]["price"], &result["data"][2]["symbol"]), (&json!(1.02), &json!("A,1")));
    let (_, result) = answer(ask(json!({"sql": "rows 3", "limit": 3}))).await;
    assert_eq!((&result["count"], &result["truncated"]), (&json!(3), &json!(false)));
    let (_, result) = answer(ask(json!({"sql": "rows 0"}))).await;
    assert_eq!((&result["data"], &result["count"]), (&json!([]), &json!(0)));
    let (_, result) = answer(ask(json!({"sql": "fail 2"}))).await;
    assert_eq!((&result["count"], &result["error"]["status"], &result["truncated"]), (&json!(2), &json!(504), &json!(true)));
    assert_eq!(answer(ask(json!({"sql": "fail 0"}))).await.0, 504, "what fails at once has a status of its own");
    let csv = ask(json!({"sql": "rows 2", "format": "csv"})).send().await.unwrap().text().await.unwrap();
    expect![[r#"
        symbol,event_time,price,quantity,side,trade_id,market,currency
        "A,1",2026-11-21T00:00:00Z,1,0.01,BUY,0,KRX,KRW
        "A,1",2026-11-21T00:00:00Z,1.01,0.01,BUY,1,KRX,KRW
    "#]]
    .assert_eq(&csv.replace("\r\n", "\n"));
    for n in [0, 3] {
        let bytes = ask(json!({"sql": format!("rows {n}"), "format": "arrow"})).send().await.unwrap().bytes().await.unwrap();
        let reader = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap();
        assert_eq!(reader.schema(), *server.market.schema("trades").arrow());
        assert_eq!(reader.map(|b| b.unwrap().num_rows()).sum::<usize>(), n);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_generator_starts_once() {
    let server = start(1).await;
    let body = json!({"symbols": ["A"], "rate": 50, "duration": "10m", "anomaly_share": 0.01, "seed": 7, "into": "exchange"});
    let (status, run) = answer(server.post("/api/v1/stock/generate").json(&body)).await;
    assert_eq!(
        (status, &run["state"], &run["already_running"], &run["seed"], &run["into"], &run["detail"]),
        (202, &json!("running"), &json!(false), &json!(7), &json!("exchange"), &json!("for 600 s"))
    );
    let (status, run) = answer(server.post("/api/v1/stock/generate")).await;
    assert_eq!((status, &run["already_running"], &run["id"]), (202, &json!(true), &json!("g1")));
    assert_eq!(answer(server.get("/api/v1/stock/generate")).await.1["state"], json!("running"));
    assert_eq!(answer(server.post("/api/v1/stock/generate/stop")).await.1["state"], json!("stopped"));
    let (status, run) = answer(Client::new().delete(server.url("/api/v1/stock/generate"))).await;
    assert_eq!((status, &run["ended"]), (200, &json!("2026-11-21T00:00:01Z")));
    server.stop().await;
}

#[tokio::test]
async fn streams_alerts_health_and_metrics() {
    let server = start(2).await;
    server.market.commit([trade("A", 0, 100, 1, 0)]);
    let (_, list) = answer(server.get("/api/v1/streams")).await;
    assert_eq!(
        (&list["epoch"], &list["streams"][1]["name"], &list["streams"][1]["kind"]),
        (&json!("e1"), &json!("trades"), &json!("trade"))
    );
    assert_eq!(list["streams"][1]["columns"][2], json!({"name": "price", "type": "decimal(18, 8)", "nullable": false}));
    let next = |p: usize| list["streams"][1]["partitions"][p]["next"].as_u64().unwrap();
    assert_eq!(next(0) + next(1), 1);
    for i in 0..2500 {
        server.market.alert(["A", "B"][i % 2], i, "r", if i % 100 == 0 { "high" } else { "low" }, "live");
    }
    let (_, alerts) = answer(server.get("/api/v1/alerts?limit=3")).await;
    let ids = |v: &Value| v["data"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&alerts), ["a2499", "a2498", "a2497"]);
    let (_, alerts) = answer(server.get("/api/v1/alerts?severity=high&symbol=A&from=2026-11-21T00:20:00Z")).await;
    assert_eq!((ids(&alerts).first().unwrap().as_str(), alerts["count"].as_u64()), ("a2400", Some(13)));
    assert_eq!(answer(server.get("/health/live")).await, (200, json!({"status": "live"})));
    let (status, ready) = answer(server.get("/health/ready")).await;
    assert_eq!(
        (status, &ready["status"], &ready["lag"][0]),
        (200, &json!("ready"), &json!({"stream": "trades", "hop": "log", "seconds": 0.25}))
    );
    *server.market.ready.lock() = false;
    assert_eq!(server.get("/health/ready").send().await.unwrap().status(), 503);
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "mulgil_lag_seconds{stream=\"trades\",hop=\"log\"} 0.25",
        "mulgil_http_requests_total{method=\"GET\",route=\"/api/v1/alerts\",status=\"200\"}",
        "mulgil_ready 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_and_their_headers() {
    let server = start(1).await;
    let response = server.get("/").send().await.unwrap();
    let header = |r: &reqwest::Response, name: &str| r.headers().get(name).map_or(String::new(), |v| v.to_str().unwrap().to_owned());
    assert_eq!(
        (response.status().as_u16(), header(&response, "content-type").as_str(), header(&response, "cache-control").as_str()),
        (200, "text/html; charset=utf-8", "no-cache")
    );
    assert!(header(&response, "content-security-policy").contains("script-src 'self'"));
    assert_eq!(
        (header(&response, "x-content-type-options"), header(&response, "referrer-policy")),
        ("nosniff".into(), "no-referrer".into())
    );
    let tag = header(&response, "etag");
    assert_eq!(server.get("/").header("if-none-match", &tag).send().await.unwrap().status(), 304);
    let html = response.text().await.unwrap();
    let script = html.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(".js")).expect("the page loads a script");
    let response = server.get(script).send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "cache-control").as_str()), (200, "public, max-age=31536000, immutable"));
    assert_eq!(server.get("/assets/../../Cargo.toml").send().await.unwrap().status(), 404);
    server.stop().await;
}

/// `UPDATE_EXPECT=1 cargo test -p mulgil-serve` writes the file anew.
#[tokio::test]
async fn the_committed_openapi_document_is_the_one_served() {
    let server = start(1).await;
    let text = server.get("/openapi.json").send().await.unwrap().text().await.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    expect_file!["../../../../docs/openapi.json"].assert_eq(&text);
    server.stop().await;
}
