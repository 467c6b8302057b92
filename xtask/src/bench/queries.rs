//! Queries: bars of one symbol and of all, and the last ticks, against DuckDB on the same Parquet files, warm; then a page of the search
//! over HTTP, and a question from the start of the process on.

use super::duckdb;
use super::figure::{Aim, Figure};
use super::server::Server;
use super::{Bench, figure::Runs};
use crate::process;
use crate::workload::Workload;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// 30 days of trades, as the aims count them: 1.3 million at one every two seconds.
const N_ROWS: u64 = 1_300_000;
const PER_SECOND: &str = "0.5";
/// Pages that are asked for over HTTP, the first not counted.
const N_PAGES: usize = 40;
/// The newest trades of a ticker, whatever their day.
const PAGE: &str = "/api/v1/stock/search?from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z&limit=1000&ticker=";

/// One question: what mulgil is asked, what DuckDB is asked of the files of which stream.
struct Question {
    row: &'static str,
    mulgil: String,
    stream: &'static str,
    duckdb: String,
}

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("queries")?;
    workload.replay(&[bench.trades(N_ROWS, PER_SECOND)?])?;
    let symbol = first_symbol(&workload)?;
    let mut figures = ask_all(bench, &workload, &symbol, N_ROWS);
    for (row, measure) in [(COLD, cold as fn(&Bench, &Workload, &str) -> Result<Figure>), (SEARCH, search)] {
        figures.push(measure(bench, &workload, &symbol).unwrap_or_else(|error| Figure::missing(row, &error)));
    }
    Ok(figures)
}

/// The same questions over `--rows` generated trades: `cargo xtask bench history --rows 100000000` writes some 4 GB first.
pub fn measure_generated(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("history")?;
    let made = process::read_json(&mut workload.command(&["bench", "fill", "--rows", &bench.n_rows.to_string()]))?;
    eprintln!("filled: {made}");
    let figures = ask_all(bench, &workload, FILLED_SYMBOL, bench.n_rows);
    std::fs::remove_dir_all(&workload.data)?;
    Ok(figures)
}

fn ask_all(bench: &Bench, workload: &Workload, symbol: &str, n_rows: u64) -> Vec<Figure> {
    let questions = questions(symbol);
    questions.iter().map(|q| ask(bench, workload, q, n_rows).unwrap_or_else(|error| Figure::missing(q.row, &error))).collect()
}

const COLD: &str = "`mulgil query`, start to end";
const SEARCH: &str = "search over HTTP, a page of 1,000, p50";
/// The first of the symbols that `mulgil bench fill` makes.
const FILLED_SYMBOL: &str = "000100";

/// A process that answers one question, against a Python that loads DuckDB and asks the same of the same files.
fn cold(bench: &Bench, workload: &Workload, symbol: &str) -> Result<Figure> {
    let sql = |table: &str| format!("SELECT count(*), max(price) FROM {table} WHERE symbol = '{symbol}'");
    let glob = parquet_files(&workload.data, "trades")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.n_runs {
        let started = Instant::now();
        process::read(&mut workload.command(&["query", &sql("trades"), "--format", "csv"]))?;
        ours.push(started.elapsed().as_secs_f64() * 1e3);
        theirs.push(duckdb::measure_cold(&glob, &sql("rows"))? * 1e3);
    }
    let (ours, theirs) = (Runs::new(ours).context("no runs")?, Runs::new(theirs).context("no runs")?);
    let figure = Figure::compared(COLD, "ms", &ours, "Python with DuckDB, same files", theirs.median(), Aim::RatioAtMost(1.0));
    Ok(figure.noted("one symbol's count and highest price, with the start of the process"))
}

/// A page of the newest ticks of one symbol from a running server, one client.
fn search(_: &Bench, workload: &Workload, symbol: &str) -> Result<Figure> {
    let server = Server::start(workload)?;
    let path = format!("{PAGE}{symbol}");
    let mut ms = Vec::new();
    for page in 0..=N_PAGES {
        let started = Instant::now();
        let answer = server.get(&path)?;
        if !answer.starts_with("HTTP/1.1 200") || !answer.contains("\"count\":1000") {
            bail!("{path} answers {:?}", answer.get(..200).unwrap_or(&answer));
        }
        if page > 0 {
            ms.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(Figure::alone(SEARCH, "ms", &Runs::new(ms).context("no pages")?, Aim::AtMost(20.0)))
}

fn first_symbol(workload: &Workload) -> Result<String> {
    let out = workload.data.with_file_name("symbol.csv");
    workload.query("SELECT min(symbol) AS symbol FROM trades", &out)?;
    let text = std::fs::read_to_string(&out)?;
    let symbol = text.lines().nth(1).unwrap_or_default().trim_matches('"').to_owned();
    if symbol.is_empty() || symbol.contains('\'') {
        bail!("the replayed data has no usable symbol: {text:?}");
    }
    Ok(symbol)
}

fn questions(symbol: &str) -> [Question; 3] {
    let minute = "SELECT symbol, start, open, high, low, close, volume, vwap, count FROM";
    // Simulated data has no late rows, so that every bar has one revision and both programs read the same rows.
    [
        Question {
            row: "minute bars of one symbol",
            mulgil: format!("{minute} \"trades.bars.1m\" WHERE symbol = '{symbol}' ORDER BY start"),
            stream: "trades.bars.1m",
            duckdb: format!("{minute} rows WHERE symbol = '{symbol}' ORDER BY start"),
        },
        Question { row: "day bars of all symbols, from trades", mulgil: day_bars("trades"), stream: "trades", duckdb: day_bars("rows") },
        Question {
            row: "last 1,000 ticks of one symbol",
            mulgil: last_ticks("trades", symbol),
            stream: "trades",
            duckdb: last_ticks("rows", symbol),
        },
    ]
}

fn day_bars(table: &str) -> String {
    format!(
        "SELECT symbol, date_trunc('day', event_time) AS day, min(price) AS low, max(price) AS high, sum(quantity) AS volume, count(*) AS n \
         FROM {table} GROUP BY symbol, date_trunc('day', event_time) ORDER BY symbol, day"
    )
}

fn last_ticks(table: &str, symbol: &str) -> String {
    format!("SELECT event_time, price, quantity, side FROM {table} WHERE symbol = '{symbol}' ORDER BY event_time DESC LIMIT 1000")
}

fn ask(bench: &Bench, workload: &Workload, question: &Question, n_rows: u64) -> Result<Figure> {
    let runs = bench.n_runs.to_string();
    let mut command = workload.command(&["bench", "query", &question.mulgil, "--runs", &runs]);
    let (ours, n_ours) = duckdb::seconds_and_rows(&process::read_json(&mut command)?)?;
    let glob = parquet_files(&workload.data, question.stream)?;
    let (theirs, n_theirs) = duckdb::measure(&glob, &question.duckdb, bench.n_runs)?;
    if n_ours != n_theirs {
        bail!("mulgil answers {n_ours} rows, DuckDB {n_theirs}");
    }
    let ms = |runs: &Runs| runs.map(|s| s * 1e3);
    let figure = Figure::compared(question.row, "ms", &ms(&ours), "DuckDB, same files", ms(&theirs).median(), Aim::RatioAtMost(1.0));
    Ok(figure.noted(format!("{n_ours} rows, from 30 days of {n_rows} trades")))
}

/// A glob over the Parquet files of one stream: the folder named for it, wherever history keeps it below the data folder.
fn parquet_files(data: &Path, stream: &str) -> Result<PathBuf> {
    let mut folders = vec![data.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && (name == stream || name == format!("stream={stream}")) && has_parquet(&path) {
                return Ok(path.join("**/*.parquet"));
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    bail!("no Parquet files of {stream} below {}", data.display())
}

fn has_parquet(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path()));
    entries.into_iter().any(|p| p.extension().is_some_and(|x| x == "parquet") || (p.is_dir() && has_parquet(&p)))
}
