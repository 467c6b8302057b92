//! `mulgil dlq`: input that could not be read, with its original bytes; and another try once the cause is mended.

use super::Where;
use super::log::open_journal;
use crate::adapters::dead_letters::{self, DeadLetter};
use crate::adapters::ingest::{decode_plan, writer_into};
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::folder::journal_config;
use crate::pipeline::plan::Plan;
use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use mulgil_connect::decode::{self, Format, UnknownFields};
use mulgil_disk::RealDisk;
use mulgil_log::{Advance, Commit, Journal, Log, Owner};
use mulgil_model::ids::{Offset, Topic};
use mulgil_model::position::Position;
use mulgil_model::time::ReceiveTime;
use std::io::Write;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List dead letters: offset, when, stream, source, reason.
    List {
        #[command(flatten)]
        at: Where,
        /// Only of this stream.
        #[arg(short, long)]
        stream: Option<String>,
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 100)]
        rows: usize,
    },
    /// Show one with its original bytes.
    Show {
        offset: u64,
        #[command(flatten)]
        at: Where,
    },
    /// Read all that were not tried again yet with the present configuration; what is still bad stays. Each is put in once.
    Replay {
        #[command(flatten)]
        at: Where,
    },
}

pub fn dlq(args: &DlqArgs) -> Result<()> {
    match &args.command {
        DlqCommand::List { at, stream, rows } => list(at, stream.as_deref(), *rows),
        DlqCommand::Show { offset, at } => show(at, Offset(*offset)),
        DlqCommand::Replay { at } => replay(at),
    }
}

fn list(at: &Where, stream: Option<&str>, mut left: usize) -> Result<()> {
    let journal = open_journal(at)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:>8}  {:<27}  {:<16}  {:<24}  reason", "offset", "received", "stream", "source")?;
    dead_letters::scan(&journal, Offset::ZERO, |letter| {
        if stream.is_none_or(|s| s == letter.stream) && left > 0 {
            left -= 1;
            let place = format!("{} row {}", letter.source, letter.position);
            writeln!(
                out,
                "{:>8}  {:<27}  {:<16}  {place:<24}  {}",
                letter.offset.0,
                letter.received.to_string(),
                letter.stream,
                letter.reason
            )?;
        }
        Ok(left > 0)
    })
}

fn show(at: &Where, offset: Offset) -> Result<()> {
    let journal = open_journal(at)?;
    let mut found = None;
    dead_letters::scan(&journal, offset, |letter| {
        found = (letter.offset == offset).then_some(letter);
        Ok(false)
    })?;
    let Some(letter) = found else { bail!("there is no dead letter at offset {offset}: `mulgil dlq list` shows them") };
    let mut out = std::io::stdout().lock();
    let DeadLetter { received, stream, source, position, line, column, field, reason, format, .. } = &letter;
    writeln!(
        out,
        "stream    {stream}\nsource    {source}, row {position} (line {line}, column {column})\nformat    {format}\nreceived  {received}"
    )?;
    if !field.is_empty() {
        writeln!(out, "field     {field}")?;
    }
    writeln!(out, "reason    {reason}\n")?;
    out.write_all(&letter.original)?;
    writeln!(out)?;
    Ok(())
}

fn replay(at: &Where) -> Result<()> {
    let config = load(at)?;
    let plan = Plan::new(&config)?;
    let (journal, _) = Journal::open(journal_config(&config), Arc::new(RealDisk), clock())
        .context("the dead letters are tried again on a folder at rest: stop the running mulgil first")?;
    let inputs: Vec<_> =
        plan.streams.iter().map(|s| Arc::clone(&s.schema)).chain(plan.shards.iter().map(|s| Arc::clone(&s.input))).collect();
    let (schemas, _) = Schemas::open(&journal, &inputs)?;
    let owner = Owner::new("dlq/replay")?;
    let from = journal.progress(&owner, &dead_letters::topic())?.map_or(Offset::ZERO, |p| Offset(p.commit));
    let mut letters = Vec::new();
    dead_letters::scan(&journal, from, |letter| {
        letters.push(letter);
        Ok(true)
    })?;
    let (mut n_good, mut n_bad) = (0, 0);
    for letter in &letters {
        match try_again(&config, &plan, &schemas, &journal, &owner, letter) {
            Ok(()) => n_good += 1,
            Err(error) => {
                n_bad += 1;
                eprintln!("{}: {error:#}", letter.offset);
            }
        }
    }
    println!("{n_good} put in, {n_bad} still bad (they stay in the list)");
    Ok(())
}

/// One letter, committed with the place behind it, so that it is never put in twice.
fn try_again(
    config: &crate::config::checked::Checked,
    plan: &Plan,
    schemas: &Schemas,
    journal: &Journal,
    owner: &Owner,
    letter: &DeadLetter,
) -> Result<()> {
    let stream = Topic::new(&letter.stream)?;
    let stream_plan = config
        .streams
        .iter()
        .find(|s| s.schema.stream == stream)
        .with_context(|| format!("[stream.{stream}] is not configured any more"))?;
    let format = Format::parse(&letter.format).with_context(|| format!("format '{}' is not known", letter.format))?;
    let decoded = decode::decode(&decode_plan(stream_plan, UnknownFields::Ignore)?, format, &letter.original, letter.received);
    let received = ReceiveTime((clock())().0);
    let appends = writer_into(plan, schemas, &stream)?.by_key(&decoded.batch, received)?;
    let position = Position::new(letter.offset.0 + 1, 0);
    let still_bad = decoded.problems.first().map(|p| p.reason.clone());
    let appends = if still_bad.is_some() { vec![] } else { appends };
    journal.commit(Commit { appends, progress: vec![Advance { owner: owner.clone(), partition: dead_letters::topic(), position }] })?;
    still_bad.map_or(Ok(()), |reason| bail!("{reason}"))
}
