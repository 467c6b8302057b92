//! Bars and summaries of random trades, through the real binary, against DuckDB. The trades are around days on which clocks change.
//! Prices and quantities are above zero: what is not is refused on the way in.
//!
//! `MULGIL_SEED=7 cargo test -p mulgil bars_duckdb` repeats one case; `MULGIL_PYTHON` names the Python that has DuckDB (`cargo xtask test`
//! sets it).

use crate::program::{mulgil, ok, text};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

/// Cases of one run; `cargo xtask verify` runs more with other seeds.
const SEEDS: std::ops::Range<u64> = 1..5;

const BARS: [&str; 6] = ["1s", "1m", "15m", "1h", "4h", "1d"];

/// Zones whose offsets are whole hours, and instants at which their clocks change.
const PLACES: [(&str, i64); 6] = [
    ("America/New_York", 1_710_054_000),
    ("America/New_York", 1_730_613_600),
    ("Europe/London", 1_711_846_800),
    ("Europe/London", 1_729_990_800),
    ("Asia/Seoul", 547_578_000),
    ("UTC", 0),
];

/// Marsaglia's xorshift: the same trades from the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

struct Case {
    zone: &'static str,
    lateness: &'static str,
    lateness_us: i64,
    trades: String,
}

fn case(seed: u64) -> Case {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..9 {
        dice.roll(2);
    }
    let (zone, change) = dice.pick(&PLACES);
    let (lateness, lateness_us) = dice.pick(&[("0s", 0), ("90s", 90 * SECOND), ("3h", 3 * HOUR)]);
    let (n_symbols, stride) = (dice.pick(&[1, 7, 150]), dice.pick(&[SECOND / 2, 20 * SECOND, 400 * SECOND]));
    let (decimals, largest) = (dice.pick(&[0, 2, 8]), dice.pick(&[90, 100_000, 1_000_000_000]));
    let mut trades = "event_time,symbol,price,quantity,side\n".to_owned();
    let mut now = change * SECOND - 700 * stride - dice.roll(86_400) as i64;
    for _ in 0..1_500 {
        let back = dice.pick(&[0, 0, 0, 0, 4 * SECOND, 80 * SECOND, 2 * HOUR, 30 * HOUR]);
        now += match dice.roll(40) {
            0 => dice.roll(3 * HOUR.unsigned_abs()) as i64,
            1..12 => 0,
            _ => dice.roll(2 * stride.unsigned_abs()) as i64,
        };
        // Ties on the second, where windows end.
        let at = if dice.roll(4) == 0 { now - dice.roll(back.unsigned_abs() + 1) as i64 } else { now.div_euclid(SECOND) * SECOND };
        let fraction =
            |dice: &mut Dice| if decimals == 0 { String::new() } else { format!(".{:0decimals$}", dice.roll(10u64.pow(decimals as u32))) };
        let (price, quantity) =
            (format!("{}{}", 1 + dice.roll(largest), fraction(&mut dice)), format!("{}{}", 1 + dice.roll(100_000), fraction(&mut dice)));
        let side = dice.pick(&["BUY", "SELL", ""]);
        writeln!(trades, "{at},S{},{price},{quantity},{side}", dice.roll(n_symbols)).unwrap();
    }
    Case { zone, lateness, lateness_us, trades }
}

fn config(case: &Case) -> String {
    let summary = |name: &str, group: &str, window: &str| {
        format!(
            "[summary.{name}]\nallowed_lateness = \"{}\"\nstream = \"trades\"\ngroup_by = [{group}]\nwindow = {{ {window} }}\naggregates = {{ n = \"count\", n_sides = \"count(side)\", \
             volume = \"sum(quantity)\", mean = \"avg(price)\", low = \"min(price)\", high = \"max(price)\", first_price = \"first(price)\", \
             last_price = \"last(price)\", last_side = \"last(side)\", spread = \"stddev(price)\" }}\n",
            case.lateness
        )
    };
    format!(
        "[stream.trades]\nkind = \"trade\"\ntime_unit = \"us\"\ndecimals = {{ price = 8, quantity = 8 }}\nbars = {BARS:?}\ntimezone = \"{}\"\npartitions = 1\n\
         out_of_orderness = \"5s\"\nallowed_lateness = \"{}\"\n{}{}{}",
        case.zone,
        case.lateness,
        summary("by_hour", "\"symbol\", \"side\"", "tumbling = \"1h\""),
        summary("by_hop", "\"symbol\"", "hopping = \"90s\", every = \"30s\""),
        summary("by_session", "\"symbol\"", "session = \"10m\""),
    )
}

/// A Python with DuckDB: that of `cargo xtask test`, or the system's.
fn python() -> PathBuf {
    let python = std::env::var_os("MULGIL_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let mut check = Command::new(&python);
    let has_duckdb = check.args(["-c", "import duckdb"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    assert!(has_duckdb, "{} has no DuckDB: set MULGIL_PYTHON to one that has it, or run `cargo xtask test`", python.display());
    python
}

/// Replays the trades in batches of a random size, asks for everything, and lets DuckDB judge.
fn check(seed: u64, dir: &Path) {
    let case = case(seed);
    let (trades, toml, data) = (dir.join("trades.csv"), dir.join("mulgil.toml"), dir.join("data"));
    std::fs::write(&trades, &case.trades).unwrap();
    std::fs::write(&toml, config(&case)).unwrap();
    let batch = Dice(seed | 1 << 40).pick(&["1000", "64", "7"]);
    let mut replay = mulgil();
    replay.args(["replay", text(&trades), "-c", text(&toml), "--data", text(&data), "--finish", "--tolerance", "400d", "--batch", batch]);
    let out = replay.output().unwrap();
    assert!(out.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&out.stderr));
    let tables = BARS.iter().map(|i| format!("bars.{i}")).chain(["by_hour", "by_hop", "by_session", "late"].map(str::to_owned));
    for table in tables {
        let times = if table == "late" { "" } else { ", CAST(start AS BIGINT) AS start" };
        let sql = format!(
            "SELECT * EXCEPT (event_time{}), CAST(event_time AS BIGINT) AS event_time{times} FROM \"trades.{table}\"",
            if times.is_empty() { "" } else { ", start" }
        );
        let got = dir.join(format!("{table}.csv"));
        ok(&["query", &sql, "-c", text(&toml), "--data", text(&data), "--format", "csv", "--out", text(&got)]);
    }
    let script = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/it/bars_duckdb.py");
    let mut judge = Command::new(python());
    judge.arg(script).arg(&trades).args([case.zone, "5000000", &case.lateness_us.to_string()]).arg(dir);
    let out = judge.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    let agrees = serde_json::from_str::<serde_json::Value>(said.trim()).is_ok_and(|verdict| verdict["ok"] == true);
    assert!(
        agrees,
        "repeat with MULGIL_SEED={seed} cargo test -p mulgil bars_duckdb\n{} {} batch {batch}\n{said}",
        case.zone, case.lateness
    );
}

#[test]
fn random_trades_give_the_bars_and_summaries_of_duckdb() {
    let named = std::env::var("MULGIL_SEED").ok().map(|s| s.parse().unwrap());
    for seed in named.map_or(SEEDS, |seed| seed..seed + 1) {
        let dir = tempfile::tempdir().unwrap();
        check(seed, dir.path());
    }
}
