//! The real binary on a disk that gets full under load and has room again: nothing that was accepted is lost, and it goes on by itself.
//!
//! The disk is a tmpfs of some megabytes in a mount namespace of the server's own, made by `unshare`, which needs root or user namespaces.

use crate::program::{Server, dump, file, mulgil, text, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DISK: &str = "96m";

/// Much less than the disk, more than what state and history write meanwhile.
const CONFIG: &str = r#"
[log]
segment = "1MB"
reserve = "24MB"

[source.market]
type = "simulator"
stream = "market"
rate = 500
start = true
anomaly_share = 0.01

[stream.market]
kind = "trade"
decimals = { price = 2, quantity = 0 }
bars = ["1s"]

[stream.orders]
kind = "trade"
decimals = { price = 2, quantity = 0 }
bars = ["1m"]
idle_after = "never"

[state]
snapshot_every = "100ms"

[history]
flush_after = "100ms"
upkeep_every = "500ms"

[serve]
bind = "127.0.0.1:0"
"#;

const ROWS: u64 = 2_000;

fn batch(n: u64) -> String {
    let row = |i: u64| {
        let at = jiff::Timestamp::from_second(1_767_600_000 + i as i64).unwrap();
        format!(r#"{{"symbol":"S{}","event_time":"{at}","price":{},"quantity":1,"trade_id":"{i}"}}"#, i % 20, 1 + i % 1_000) + "\n"
    };
    (n * ROWS..(n + 1) * ROWS).map(row).collect()
}

/// Posts a batch once: status, `Retry-After`, and the answer.
fn post(server: &Server, n: u64) -> (u16, Option<String>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = reqwest::Client::new().post(format!("{}/api/v1/ingest/orders", server.url));
        let request = request.header("content-type", "application/x-ndjson").header("idempotency-key", format!("b{n}"));
        let answer = request.body(batch(n)).send().await.unwrap();
        let after = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        (answer.status().as_u16(), after, answer.text().await.unwrap())
    })
}

fn sql(server: &Server, query: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = reqwest::Client::new().post(format!("{}/api/v1/sql", server.url)).header("content-type", "application/json");
        let answer = request.body(serde_json::json!({ "sql": query }).to_string()).send().await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{query}: {text}"))["data"].clone()
    })
}

/// The server with its data folder `data` on a small disk, and that disk's folder as it looks from here while the server lives.
pub fn start_on_small_disk(dir: &Path, config: &Path, env: &[(&str, &str)]) -> (Server, PathBuf) {
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let probe = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs"]).arg(&disk).stderr(Stdio::null()).status();
    assert!(
        probe.is_ok_and(|status| status.success()),
        "this test needs a small disk: run it as root, or where `unshare -rm mount -t tmpfs tmpfs DIR` works (user namespaces)"
    );
    let binary = mulgil().get_program().to_owned();
    let script = format!("mount -t tmpfs -o size={DISK} tmpfs \"$1\" && exec \"$2\" run -c \"$3\" --data \"$1\"/data --bind 127.0.0.1:0");
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", &script, "sh"])
        .arg(&disk)
        .arg(binary)
        .arg(config)
        .env_remove("RUST_LOG")
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    let server = Server::spawn(command);
    let seen = PathBuf::from(format!("/proc/{}/root{}", server.pid(), text(&disk)));
    (server, seen)
}

fn free_bytes(disk: &Path) -> u64 {
    mulgil_disk::Disk::free_bytes(&mulgil_disk::RealDisk, disk).unwrap()
}

/// Takes room until only so much is left; `ballast` in the disk's folder has it.
pub fn fill(disk: &Path, leave_bytes: u64) {
    use std::io::Write;
    let mut ballast = std::fs::OpenOptions::new().create(true).append(true).open(disk.join("ballast")).unwrap();
    let piece = vec![7; 64 << 10];
    while free_bytes(disk) > leave_bytes && ballast.write_all(&piece).is_ok() {}
}

#[test]
fn a_full_disk_is_waited_out_and_nothing_accepted_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (server, disk) = start_on_small_disk(dir.path(), &file(dir.path(), "mulgil.toml", CONFIG), &[]);
    let mut n_accepted = 0;
    // Twice down to the reserve, as load fills a disk, then to the last byte, as somebody else's files do.
    for leave_bytes in [25 << 20, 25 << 20, 0] {
        fill(&disk, leave_bytes);
        let refused = until("the disk to be full", || {
            let answer = post(&server, n_accepted);
            if answer.0 == 200 {
                n_accepted += 1;
                return None;
            }
            Some(answer)
        });
        assert_eq!((refused.0, refused.1.is_some()), (503, true), "{refused:?}");
        assert!(refused.2.contains("disk-full"), "{refused:?}");
        // Still full for some beats of every part, and still answering.
        for _ in 0..20 {
            // Merging and the state's tree give room back at any moment.
            fill(&disk, leave_bytes.min(20 << 20));
            assert_eq!(post(&server, n_accepted).0, 503);
            assert!(sql(&server, "SELECT count(*) AS n FROM orders")[0]["n"].is_u64());
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
        std::fs::remove_file(disk.join("ballast")).unwrap();
        until("the server to take rows again", || {
            let (status, _, said) = post(&server, n_accepted);
            assert!(matches!(status, 200 | 503), "{status} {said}");
            (status == 200).then_some(())
        });
        n_accepted += 1;
    }
    let n = n_accepted * ROWS;
    let want = serde_json::json!([{ "n": n, "ids": n }]);
    until("the history to hold every row", || {
        (sql(&server, "SELECT count(*) AS n, count(DISTINCT trade_id) AS ids FROM orders") == want).then_some(())
    });
    // A watermark follows the last row of its partition by seconds: a minute later all that was before is closed.
    let closed = jiff::Timestamp::from_second((1_767_600_000 + n as i64 - 90) / 60 * 60).unwrap();
    let due = sql(&server, &format!("SELECT count(*) AS n FROM orders WHERE event_time < '{closed}'"));
    let barred = format!("SELECT sum(count) AS n FROM \"orders.bars.1m\" WHERE event_time <= '{closed}'");
    until("the bars to hold every row but those of open windows", || (sql(&server, &barred) == due).then_some(()));
    let log = dump(&disk.join("data"));
    let n_log: usize = log.iter().filter(|(topic, _)| topic.starts_with("orders/")).map(|(_, rows)| rows.len()).sum();
    assert_eq!(n_log as u64, n);
    server.stop();
}
