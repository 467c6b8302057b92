//! A server ends with the process that started it, also when that one is killed.

use mulgil_servers::{Postgres, Settings, wait_until};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const ROLE: &str = "MULGIL_SERVERS_TEST_ROLE";
const GONE_MAX: Duration = Duration::from_secs(60);

#[test]
fn no_server_outlives_a_killed_process() {
    if std::env::var_os(ROLE).is_some() {
        let server = Postgres::start(&Settings::default()).unwrap();
        println!("\ndata {}", server.data().display());
        std::thread::park();
    }
    let mut starter = Command::new(std::env::current_exe().unwrap());
    starter.args(["--exact", "orphans::no_server_outlives_a_killed_process", "--nocapture"]).env(ROLE, "starter").stdout(Stdio::piped());
    let mut starter = starter.spawn().unwrap();
    let lines = BufReader::new(starter.stdout.take().unwrap()).lines();
    let data = lines.map_while(Result::ok).find_map(|line| Some(PathBuf::from(line.strip_prefix("data ")?))).unwrap();
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap().lines().next().unwrap().to_owned();
    assert!(PathBuf::from(format!("/proc/{pid}")).exists());
    starter.kill().unwrap();
    starter.wait().unwrap();
    // A process that nobody has waited for yet keeps its number, but has no working directory any more.
    let is_gone = || Ok(!data.exists() && std::fs::read_link(format!("/proc/{pid}/cwd")).is_err());
    wait_until("the server and its folder are gone", GONE_MAX, is_gone).unwrap();
}
