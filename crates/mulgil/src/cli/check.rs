//! `mulgil check`: reads the configuration back and looks at what it will meet: port, disk, permissions.

use super::Where;
use crate::adapters::targets::Target;
use crate::capture::{opening, rows};
use crate::config::captured::CapturePlan;
use crate::config::checked::Checked;
use crate::config::load;
use crate::pipeline::plan::Plan;
use anyhow::{Context, Result, bail};
use clap::Args;
use mulgil_capture::source::Missing;
use mulgil_disk::{Disk, RealDisk};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    at: Where,
}

/// Less free space than this is worth a word: a day of a busy stream.
const FREE_BYTES_GOOD: u64 = 5_000_000_000;

pub fn check(args: &CheckArgs) -> Result<()> {
    let config = load(&args.at)?;
    let plan = Plan::new(&config)?;
    rows::check(&config)?;
    let name = args.at.config.as_ref().map_or_else(|| "the built-in stocks example".to_owned(), |p| p.display().to_string());
    let mut out = std::io::stdout().lock();
    writeln!(out, "ok    {name} is understood")?;
    for stream in &plan.streams {
        writeln!(
            out,
            "      {:<28} {:>3} partitions, {} columns",
            stream.schema.stream.as_str(),
            stream.partitions,
            stream.schema.columns.len()
        )?;
    }
    let checks =
        [("port", port(&config)), ("data folder", folder(&config.log.dir)), ("disk", disk(&config.log.dir)), ("keys", keys(&config))];
    let mut n_failed = 0;
    for (what, result) in checks {
        match result {
            Ok(said) => writeln!(out, "ok    {what}: {said}")?,
            Err(error) => {
                n_failed += 1;
                writeln!(out, "FAIL  {what}: {error:#}")?;
            }
        }
    }
    for plan in &config.captures {
        n_failed += database(&mut out, plan, &config)?;
    }
    if n_failed > 0 {
        bail!("{n_failed} of {} checks failed", 4 + config.captures.len());
    }
    Ok(())
}

/// Looks at a captured database, and prints the statement that puts each shortcoming right. 1 if it cannot be captured as it is.
fn database(out: &mut impl Write, plan: &CapturePlan, config: &Checked) -> Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let name = format!("database of [source.{}]", plan.name);
    let missing = match runtime.block_on(opening::check(plan, &config.log.dir)) {
        Ok(missing) => missing.into_iter().chain(runtime.block_on(generated(plan, config))).collect::<Vec<_>>(),
        Err(error) => {
            writeln!(out, "FAIL  {name}: {error:#}")?;
            return Ok(1);
        }
    };
    let is_broken = missing.iter().any(|m| m.is_fatal);
    let n = missing.len();
    match (n, is_broken) {
        (0, _) => writeln!(out, "ok    {name}: nothing is missing")?,
        (_, false) => writeln!(out, "ok    {name}: works, and could do better")?,
        (_, true) => writeln!(out, "FAIL  {name}: {n} things are missing")?,
    }
    for lack in missing {
        writeln!(out, "      {} {}", if lack.is_fatal { "-" } else { "(better)" }, lack.what)?;
        lack.fix.lines().try_for_each(|line| writeln!(out, "            {line}"))?;
    }
    Ok(usize::from(is_broken))
}

/// What keeps the generator from its tables, where it may have them.
async fn generated(plan: &CapturePlan, config: &Checked) -> Option<Missing> {
    if !plan.allow_generate {
        return None;
    }
    let open = async { Target::find(config, &plan.name)?.open().await };
    let error = match open.await {
        Ok(table) => {
            table.close().await;
            return None;
        }
        Err(error) => error.detail,
    };
    let (what, fix) = match error.split_once(": GRANT ") {
        Some((what, rights)) => (what, format!("GRANT {rights}")),
        None => (&*error, "put that right, or set allow_generate = false".to_owned()),
    };
    Some(Missing { what: format!("made-up rows cannot be put into it: {what}"), fix, is_fatal: false })
}

fn port(config: &Checked) -> Result<String> {
    let bind = config.serve.bind;
    TcpListener::bind(bind)
        .with_context(|| format!("cannot listen on {bind}: is another mulgil running? choose another with [serve] bind or --bind"))?;
    Ok(format!("{bind} is free"))
}

fn folder(dir: &Path) -> Result<String> {
    let existed = dir.exists();
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make {}: give this user the right to, or set [log] dir", dir.display()))?;
    let probe = dir.join(".write-check");
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    written.with_context(|| format!("cannot write into {}: give this user the right to", dir.display()))?;
    let lock = RealDisk.lock(&dir.join("lock"));
    let said = format!("{} is writable{}", dir.display(), if existed { "" } else { " (made)" });
    lock.map(|_| said).context("the data folder is in use")
}

fn disk(dir: &Path) -> Result<String> {
    let free = RealDisk.free_bytes(dir)?;
    if free < FREE_BYTES_GOOD {
        bail!("only {} MB are free: set [log] retention and [history] disk_budget, or free some space", free / 1_000_000);
    }
    Ok(format!("{} GB free", free / 1_000_000_000))
}

fn keys(config: &Checked) -> Result<String> {
    super::run::ServerSetup::new(config)?;
    let serve = &config.serve;
    Ok(if serve.keys.is_empty() { "none needed on this address".to_owned() } else { format!("{} configured", serve.keys.len()) })
}
