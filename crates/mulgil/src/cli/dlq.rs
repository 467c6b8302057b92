//! `mulgil dlq`: input that could not be read, with its original bytes; and another try once the cause is mended.

use super::Where;
use super::log::open_journal;
use crate::adapters::dead_letters::{self, DeadLetter};
use crate::adapters::ingest::{decode_plan, writer_into};
use crate::config::checked::Checked;
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::folder::journal_config;
use crate::pipeline::plan::Plan;
use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use mulgil_connect::decode::{self, Format, UnknownFields};
use mulgil_disk::RealDisk;
use mulgil_log::{Advance, Append, Commit, Journal, Log, Owner, Seek};
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
        /// Those that were tried again as well.
        #[arg(short, long)]
        all: bool,
    },
    /// Show one with its original bytes.
    Show {
        offset: u64,
        #[command(flatten)]
        at: Where,
    },
    /// Try all again with the present configuration and clock. Each is put in once; what is still bad goes to the end of the list.
    Replay {
        #[command(flatten)]
        at: Where,
    },
}

pub fn dlq(args: &DlqArgs) -> Result<()> {
    match &args.command {
        DlqCommand::List { at, stream, rows, all } => list(at, stream.as_deref(), *rows, *all),
        DlqCommand::Show { offset, at } => show(at, Offset(*offset)),
        DlqCommand::Replay { at } => replay(at),
    }
}

/// Who has tried letters again: up to where is its progress.
fn owner() -> Result<Owner> {
    Ok(Owner::new("dlq/replay")?)
}

/// The first letter that was not tried again.
fn first(journal: &Journal) -> Result<Offset> {
    Ok(journal.progress(&owner()?, &dead_letters::topic())?.map_or(Offset::ZERO, |p| Offset(p.commit)))
}

fn list(at: &Where, stream: Option<&str>, mut left: usize, all: bool) -> Result<()> {
    let journal = open_journal(at)?;
    let from = if all { Offset::ZERO } else { first(&journal)? };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:>8}  {:<27}  {:<16}  {:<24}  reason", "offset", "received", "stream", "source")?;
    dead_letters::scan(&journal, from, |letter| {
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
    // Those that are put at the end now are for the next time.
    let end = journal.seek(&dead_letters::topic(), Seek::Next)?;
    let (mut n_good, mut n_bad) = (0, 0);
    dead_letters::scan(&journal, first(&journal)?, |letter| {
        if letter.offset >= end {
            return Ok(false);
        }
        let appends = match read(&config, &plan, &schemas, &letter) {
            Ok(appends) => {
                n_good += 1;
                appends
            }
            Err(error) => {
                n_bad += 1;
                eprintln!("{}: {error:#}", letter.offset);
                vec![letter.again(&format!("{error:#}"))]
            }
        };
        // With the place behind it, so that it is never put in twice.
        let position = Position::new(letter.offset.0 + 1, 0);
        journal.commit(Commit { appends, progress: vec![Advance { owner: owner()?, partition: dead_letters::topic(), position }] })?;
        Ok(true)
    })?;
    println!("{n_good} put in, {n_bad} still bad (at the end of the list)");
    Ok(())
}

/// The letter's rows, if they can be read now.
fn read(config: &Checked, plan: &Plan, schemas: &Schemas, letter: &DeadLetter) -> Result<Vec<Append>> {
    let stream = Topic::new(&letter.stream)?;
    let found = config.streams.iter().find(|s| s.schema.stream == stream);
    let stream_plan = found.with_context(|| format!("[stream.{stream}] is not configured any more"))?;
    let format = Format::parse(&letter.format).with_context(|| format!("format '{}' is not known", letter.format))?;
    // What was of the future when it came may be of the past by now.
    let received = ReceiveTime((clock())().0);
    let decoded = decode::decode(&decode_plan(stream_plan, UnknownFields::Ignore)?, format, &letter.original, received);
    if let Some(problem) = decoded.problems.first() {
        bail!("{}", problem.reason);
    }
    writer_into(plan, schemas, &stream)?.by_key(&decoded.batch, received)
}
