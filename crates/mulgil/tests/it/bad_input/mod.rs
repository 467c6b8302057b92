//! Everything bad that a client can send, against the real binary. Every answer stands in `testdata/bad-input.txt`, as data
//! (`UPDATE_EXPECT=1` writes it anew). After each case a good row must be taken at once, and the process must be within its memory.
//!
//! `MULGIL_KEYS=1000000` sends as many distinct keys as issue 3 names; by default it is fewer.

mod attacks;
mod cases;

use crate::program::{PATIENCE, Server, file, repository};
use cases::{Case, Send};
use expect_test::expect_file;
use serde_json::Value;
use std::fmt::Write;
use std::time::Instant;

/// Resident memory that nothing here may exceed: the budget of issue 3 for unthrottled load.
const MEMORY_BYTES_MAX: u64 = 600 << 20;

/// Small limits, so that reaching them takes moments.
const CONFIG: &str = r#"
[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { note = "text?" }
bars = ["1m"]

[feature.n]
stream = "trades"
agg = "count"
window = "10s"

[rule.busy]
stream = "trades"
severity = "low"
when = "n > 1000000"

[state]
hot_keys_max = 2000
snapshot_every = "1s"

[history]
query_timeout = "2s"
query_memory = "32MB"
query_rows_max = 100000

[serve]
bind = "127.0.0.1:0"
body_bytes_max = "2MB"
bodies_bytes_max = "8MB"
requests_max = 16
request_timeout = "5s"
header_timeout = "2s"
"#;

/// The server under attack, and a client that behaves.
pub struct Victim {
    pub server: Server,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Victim {
    fn start(dir: &std::path::Path) -> Self {
        let server = Server::start(&file(dir, "mulgil.toml", CONFIG), &dir.join("data"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
        Self { server, client, runtime }
    }

    /// Status, problem and detail of the answer, on one line.
    fn answer(&self, send: &Send) -> String {
        let url = format!("{}{}", self.server.url, send.path);
        let mut request = self.client.request(send.method.parse().unwrap(), url);
        for (name, value) in &send.headers {
            request = request.header(*name, value.as_slice());
        }
        self.runtime.block_on(async {
            let answer = request.body(send.body.clone()).send().await.unwrap();
            let status = answer.status().as_u16();
            told(status, &answer.bytes().await.unwrap_or_default())
        })
    }

    /// Ingest goes on, and memory is within its budget.
    fn is_well(&self, after: &str) {
        let began = Instant::now();
        let said = self.answer(&cases::good_row());
        assert!(said.starts_with("200 accepted 1"), "after '{after}' a good row was not taken, but: {said}");
        assert!(began.elapsed() < PATIENCE / 4, "after '{after}' a good row took {:?}", began.elapsed());
        let bytes = self.memory("VmRSS");
        assert!(bytes < MEMORY_BYTES_MAX, "after '{after}' the process holds {} MB", bytes >> 20);
    }

    /// `VmRSS` or `VmHWM`, in bytes.
    pub fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

/// An answer in a few words, without what differs from run to run.
fn told(status: u16, body: &[u8]) -> String {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return format!("{status} {}", String::from_utf8_lossy(&body[..body.len().min(200)]).replace("\r\n", " ").trim_end());
    };
    let mut said = match (json["type"].as_str(), json["accepted"].as_u64(), json["error"].as_object()) {
        (Some(kind), ..) => {
            format!("{status} {}: {}", kind.trim_start_matches("urn:mulgil:problem:"), json["detail"].as_str().unwrap_or_default())
        }
        (_, Some(accepted), _) => format!("{status} accepted {accepted}, rejected {}", json["rejected"]),
        (.., Some(error)) => format!("{status} broke off: {}", error["detail"].as_str().unwrap_or_default()),
        _ => format!("{status} {json:.200}"),
    };
    // Which of the two a query meets first is a matter of the machine.
    for (words, own) in [("the query took longer than its limit", 504), ("the query needs more memory than its limit", 422)] {
        if said.contains(words) {
            assert_eq!(status, own, "{said}");
            return "a limit of time or memory".to_owned();
        }
    }
    for problem in json["problems"].as_array().into_iter().flatten().take(3) {
        write!(said, " | {}:{} {}", problem["line"], problem["column"], without_lead(problem["reason"].as_str().unwrap())).unwrap();
    }
    said
}

/// How far a time lies ahead changes while we speak.
fn without_lead(reason: &str) -> String {
    match (reason.find(" lies "), reason.find(" s in the future")) {
        (Some(from), Some(to)) => format!("{} lies …{}", &reason[..from], &reason[to..]),
        _ => reason.to_owned(),
    }
}

#[test]
fn bad_input_gets_a_clear_answer_and_ingest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let victim = Victim::start(dir.path());
    victim.is_well("the start");
    let mut table = String::new();
    for Case { what, send } in cases::all() {
        let said = victim.answer(&send);
        writeln!(table, "{what}\n  > {}\n  < {said}", send.shown()).unwrap();
        victim.is_well(&what);
    }
    for (what, attack) in attacks::ALL {
        let said = attack(&victim);
        writeln!(table, "{what}\n  < {}", said.replace('\n', "\n  < ")).unwrap();
        victim.is_well(what);
    }
    expect_file![repository("testdata/bad-input.txt")].assert_eq(&table);
    let peak = victim.memory("VmHWM");
    eprintln!("peak memory {} MB", peak >> 20);
    assert!(peak < MEMORY_BYTES_MAX, "the process held {} MB at its peak", peak >> 20);
    victim.server.stop();
}
