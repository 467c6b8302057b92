//! `mulgil log`: topics, rows and checksums of a data folder, also of one that is in use.

use super::Where;
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use clap::{Args, Subcommand};
use mulgil_disk::RealDisk;
use mulgil_log::{Journal, JournalConfig, Log, ReadLimit, RecordRef, Seek, Verifying};
use mulgil_model::avro::RowDecoder;
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::json;
use mulgil_model::time::{AppendTime, EpochUnit, parse_micros};
use std::io::Write;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// List the topics: partitions, offsets, bytes.
    Ls {
        #[command(flatten)]
        at: Where,
        #[arg(long)]
        json: bool,
    },
    /// Print rows of a topic as JSON, one a line.
    Cat {
        topic: String,
        #[command(flatten)]
        at: Where,
        /// Only this partition.
        #[arg(short, long)]
        partition: Option<u32>,
        /// From this offset, or from a time of appending (RFC 3339).
        #[arg(long)]
        from: Option<String>,
        /// At most so many rows.
        #[arg(short = 'n', long, default_value_t = 20)]
        rows: u64,
    },
    /// Read everything and check every checksum.
    Verify {
        #[command(flatten)]
        at: Where,
    },
}

pub fn log(args: &LogArgs) -> Result<()> {
    match &args.command {
        LogCommand::Ls { at, json } => ls(at, *json),
        LogCommand::Cat { topic, at, partition, from, rows } => cat(topic, at, *partition, from.as_deref(), *rows),
        LogCommand::Verify { at } => verify(at),
    }
}

pub fn open_journal(at: &Where) -> Result<Journal> {
    let dir = load(at)?.log.dir;
    let (journal, _) = Journal::open_read_only(JournalConfig::new(&dir), Arc::new(RealDisk), clock())
        .with_context(|| format!("cannot read the log in {}", dir.display()))?;
    Ok(journal)
}

fn ls(at: &Where, as_json: bool) -> Result<()> {
    let journal = open_journal(at)?;
    let mut out = std::io::stdout().lock();
    if !as_json {
        writeln!(out, "{:<32} {:>9} {:>12} {:>12} {:>12} {:>14}", "topic", "partition", "first", "next", "rows", "bytes")?;
    }
    for info in journal.topics() {
        let (topic, partition, rows) = (&info.at.topic, info.at.partition, info.next.0 - info.first.0);
        if as_json {
            let line = serde_json::json!({
                "topic": topic.as_str(), "partition": partition.0, "first": info.first.0, "next": info.next.0, "rows": rows, "bytes": info.bytes,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "{:<32} {:>9} {:>12} {:>12} {:>12} {:>14}",
                topic.as_str(),
                partition.0,
                info.first.0,
                info.next.0,
                rows,
                info.bytes
            )?;
        }
    }
    Ok(())
}

fn cat(topic: &str, at: &Where, partition: Option<u32>, from: Option<&str>, n_rows: u64) -> Result<()> {
    let journal = open_journal(at)?;
    let topic = Topic::new(topic)?;
    let mut partitions: Vec<Partition> = journal.topics().iter().filter(|i| i.at.topic == topic).map(|i| i.at.partition).collect();
    if partitions.is_empty() {
        bail!("the log has no topic '{topic}': `mulgil log ls` lists them");
    }
    if let Some(wanted) = partition {
        partitions.retain(|p| p.0 == wanted);
    }
    let printer = Printer::new(&journal, at, &topic)?;
    let mut left = n_rows;
    for partition in partitions {
        let at = TopicPartition::new(topic.clone(), partition);
        let mut offset = start(&journal, &at, from)?;
        while left > 0 {
            let chunk = journal.read(&at, offset, ReadLimit::records(usize::try_from(left.min(1_000)).unwrap_or(1_000)))?;
            if chunk.is_empty() {
                break;
            }
            for record in chunk.iter() {
                printer.print(&record, partition)?;
            }
            left -= chunk.len() as u64;
            offset = chunk.next_offset();
        }
    }
    Ok(())
}

fn start(journal: &Journal, at: &TopicPartition, from: Option<&str>) -> Result<Offset> {
    let seek = match from {
        None => Seek::First,
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            let first = journal.seek(at, Seek::First)?;
            let asked = Offset(text.parse().context("--from is not an offset")?);
            return Ok(asked.max(first));
        }
        Some(text) => Seek::AppendedAt(AppendTime(parse_micros(text, EpochUnit::Millis)?)),
    };
    Ok(journal.seek(at, seek)?)
}

/// Prints a record as JSON: decoded if the configuration knows its stream, else its value as text.
struct Printer {
    decoder: Option<std::cell::RefCell<RowDecoder>>,
}

impl Printer {
    fn new(journal: &Journal, at: &Where, topic: &Topic) -> Result<Self> {
        let plan = crate::pipeline::plan::Plan::new(&load(at)?)?;
        let schema = plan.streams.iter().map(|s| &s.schema).find(|s| s.stream == *topic);
        let decoder = schema.map(|schema| Schemas::read(journal)?.decoder(schema)).transpose()?;
        Ok(Self { decoder: decoder.map(std::cell::RefCell::new) })
    }

    fn print(&self, record: &RecordRef<'_>, partition: Partition) -> Result<()> {
        let mut line = format!("{{\"_partition\":{partition},\"_offset\":{},\"_append_time\":\"{}\",", record.offset, record.append_time);
        match &self.decoder {
            Some(decoder) => {
                let mut decoder = decoder.borrow_mut();
                let batch: RecordBatch = decoder.decode([record.value])?;
                json::write_fields(&mut line, &decoder.schema().clone(), &batch, 0);
            }
            None => {
                for (name, value) in record.headers() {
                    json::write_text(&mut line, &format!("_header_{name}"));
                    line.push(':');
                    json::write_text(&mut line, &String::from_utf8_lossy(value));
                    line.push(',');
                }
                line.push_str("\"_key\":");
                json::write_text(&mut line, &String::from_utf8_lossy(record.key));
                line.push_str(",\"_value\":");
                json::write_text(&mut line, &String::from_utf8_lossy(record.value));
            }
        }
        line.push_str("}\n");
        Ok(std::io::stdout().lock().write_all(line.as_bytes())?)
    }
}

fn verify(at: &Where) -> Result<()> {
    let dir = load(at)?.log.dir;
    let bar = indicatif::ProgressBar::no_length().with_style(crate::cli::replay::bytes_style());
    let verified = mulgil_log::verify(&JournalConfig::new(&dir), &RealDisk, &mut |step: Verifying| {
        bar.set_length(step.total_bytes);
        bar.set_position(step.done_bytes);
    });
    bar.finish_and_clear();
    let verified = verified.with_context(|| format!("the log in {}", dir.display()))?;
    for damage in &verified.damage {
        eprintln!("{} is damaged at byte {}: {}", damage.file.display(), damage.byte, damage.reason);
    }
    if !verified.damage.is_empty() {
        bail!("{} of {} segments are damaged: restore them from a copy", verified.damage.len(), verified.n_segments);
    }
    if let Some(torn) = &verified.torn {
        println!(
            "{}: the last write was cut short at byte {} ({}); it was never acknowledged, and the next start removes it",
            torn.file.display(),
            torn.byte,
            torn.reason
        );
    }
    println!(
        "{}: every checksum is right: {} segments, {} commits, {} records, {} bytes",
        dir.display(),
        verified.n_segments,
        verified.n_commits,
        verified.n_records,
        verified.bytes
    );
    Ok(())
}
