//! `mulgil capture`: where captured databases are, tables that are read again, and the decision to begin one anew.

use super::{Where, remote};
use crate::capture::notes::Notes;
use crate::capture::opening::obstacle;
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::folder::journal_config;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use mulgil_disk::RealDisk;
use mulgil_log::{Journal, JournalConfig};
use std::io::Write;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct CaptureArgs {
    #[command(subcommand)]
    command: CaptureCommand,
}

#[derive(Debug, Subcommand)]
enum CaptureCommand {
    /// List the captured databases of the log, and the place behind which each goes on.
    Ls {
        #[command(flatten)]
        at: Where,
    },
    /// Read tables again while a running mulgil captures them: their rows come as changes with op `r`, among the others.
    Snapshot {
        source: String,
        /// With their schema: public.stock_trades.
        #[arg(required = true)]
        tables: Vec<String>,
        /// Only rows that fulfil this condition, in the database's SQL: "price > 10".
        #[arg(long)]
        filter: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// Let a captured database begin anew at the next start: its place is forgotten, what was captured stays.
    ///
    /// For when the database no longer has the changes behind the place (slot dropped, binlog purged, another server). What happened there in
    /// between is then not in the log: with a snapshot, every row is read again as it is now.
    Forget {
        source: String,
        #[command(flatten)]
        at: Where,
    },
}

pub fn capture(args: &CaptureArgs) -> Result<()> {
    match &args.command {
        CaptureCommand::Ls { at } => ls(at),
        CaptureCommand::Snapshot { source, tables, filter, at } => snapshot(source, tables, filter.as_deref(), at),
        CaptureCommand::Forget { source, at } => forget(source, at),
    }
}

fn ls(at: &Where) -> Result<()> {
    let config = load(at)?;
    let dir = &config.log.dir;
    let (journal, _) = Journal::open_read_only(JournalConfig::new(dir), Arc::new(RealDisk), clock())
        .with_context(|| format!("cannot read the log in {}", dir.display()))?;
    let notes = Notes::open(Arc::new(journal))?;
    let mut out = std::io::stdout().lock();
    for source in notes.sources() {
        match notes.resume(&source) {
            Some(resume) => writeln!(out, "{source:<24} behind {}  {}", resume.position, resume.notes)?,
            None => writeln!(out, "{source:<24} begins anew")?,
        }
    }
    for plan in &config.captures {
        if let Some(why) = obstacle(plan, dir) {
            writeln!(out, "{:<24} cannot be opened from here: {why:#}", plan.name)?;
        }
    }
    Ok(())
}

fn snapshot(source: &str, tables: &[String], filter: Option<&str>, at: &Where) -> Result<()> {
    let dir = load(at)?.log.dir;
    let nobody = || format!("no mulgil runs on {}: snapshots are asked for while it captures", dir.display());
    let url = remote::running_at(&dir).with_context(nobody)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")?;
    runtime.block_on(remote::snapshot(&url, source, tables, filter))?;
    println!("{source} reads {} again; {url}/api/v1/captures says how far it has come", tables.join(", "));
    Ok(())
}

fn forget(source: &str, at: &Where) -> Result<()> {
    let config = load(at)?;
    let (journal, _) = Journal::open(journal_config(&config), Arc::new(RealDisk), clock())
        .context("a place is forgotten in a folder at rest: stop the running mulgil first")?;
    Notes::open(Arc::new(journal))?.forget(source)?;
    println!("{source} begins anew at the next start; what was captured stays in the log");
    Ok(())
}
