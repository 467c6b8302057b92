//! The command line: one file per command.

pub mod backtest;
pub mod bench;
pub mod capture;
pub mod check;
pub mod completions;
pub mod dlq;
pub mod init;
pub mod log;
pub mod query;
pub mod remote;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod version;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A real-time pipeline for market trades and payments: durable log, bars, anomaly detection, live ticks and history in one binary.
///
/// Without a command it runs the built-in `stocks` example: simulated trades, bars, alerts, and a live page.
#[derive(Debug, Parser)]
#[command(name = "mulgil", version, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipeline (what `mulgil` alone does).
    Run(run::RunArgs),
    /// Write a commented configuration to start from.
    Init(init::InitArgs),
    /// Read a configuration, look at ports, disk and permissions, and say what is wrong.
    Check(check::CheckArgs),
    /// Send recorded trades through the pipeline: CSV, NDJSON or Parquet, plain, .gz or .zst; resumable, exactly once.
    Replay(replay::ReplayArgs),
    /// Ask the history in SQL.
    Query(query::QueryArgs),
    /// Try rules and detectors over the rows the log still has, writing nothing.
    Backtest(backtest::BacktestArgs),
    /// Look into the log.
    Log(log::LogArgs),
    /// Look at input that could not be read, and try it again.
    Dlq(dlq::DlqArgs),
    /// Look at where captured databases are, read tables again, or begin one anew.
    Capture(capture::CaptureArgs),
    /// Write simulated trades to a file.
    Simulate(simulate::SimulateArgs),
    /// Print the version.
    Version,
    /// Print a shell completion script.
    Completions(completions::CompletionsArgs),
    /// Measurements for `cargo xtask bench`.
    #[command(hide = true)]
    Bench(bench::BenchArgs),
}

/// Which configuration, which data.
#[derive(Debug, Clone, Default, Args)]
pub struct Where {
    /// The configuration; the built-in `stocks` example when not given.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data folder, instead of the configuration's [log] dir.
    #[arg(short, long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl Cli {
    pub fn run(self) -> Result<()> {
        match self.command.unwrap_or_else(|| Command::Run(run::RunArgs::default())) {
            Command::Run(args) => run::run(args),
            Command::Init(args) => init::init(&args),
            Command::Check(args) => check::check(&args),
            Command::Replay(args) => replay::replay(args),
            Command::Query(args) => query::query(args),
            Command::Backtest(args) => backtest::backtest(&args),
            Command::Log(args) => log::log(&args),
            Command::Dlq(args) => dlq::dlq(&args),
            Command::Capture(args) => capture::capture(&args),
            Command::Simulate(args) => simulate::simulate(&args),
            Command::Version => version::version(),
            Command::Completions(args) => completions::completions(&args),
            Command::Bench(args) => bench::bench(args),
        }
    }
}
