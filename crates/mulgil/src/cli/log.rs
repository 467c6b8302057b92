//! `mulgil log`: topics, rows and checksums of a data folder, also of one that is in use.

use super::Where;
use crate::capture::debezium::DebeziumReader;
use crate::config::checked::Checked;
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use clap::{Args, Subcommand};
use mulgil_disk::RealDisk;
use mulgil_log::{Journal, JournalConfig, Log, Owner, ReadLimit, RecordRef, Salvage, Salvaged, Seek, Verifying};
use mulgil_model::avro::RowDecoder;
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::json;
use mulgil_model::time::{AppendTime, EpochUnit, parse_micros};
use std::io::Write;
use std::path::{Path, PathBuf};
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
    /// Print rows of a topic as JSON, one a line; changes of a captured table as Debezium writes them, with decimals as text.
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
    /// Copy what can be read of a damaged log to a new folder, and name every row that is lost.
    ///
    /// The old folder is only read. Stop the server first. The new one holds the log alone: history and state are derived from it again.
    Salvage {
        #[command(flatten)]
        at: Where,
        /// The new data folder; must hold no log yet.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

pub fn log(args: &LogArgs) -> Result<()> {
    match &args.command {
        LogCommand::Ls { at, json } => ls(at, *json),
        LogCommand::Cat { topic, at, partition, from, rows } => cat(topic, at, *partition, from.as_deref(), *rows),
        LogCommand::Verify { at } => verify(at),
        LogCommand::Salvage { at, to } => salvage(at, to),
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
    let schemas = Arc::new(Schemas::read(&journal)?);
    let mut printer = Printer::new(&load(at)?, &schemas, &topic)?;
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

/// Prints records as JSON: rows of a stream that the configuration knows, changes of a captured table as Debezium writes them, else the
/// record's value as text.
enum Printer {
    Rows(Box<RowDecoder>),
    Changes(Box<DebeziumReader>),
    Bytes,
}

impl Printer {
    fn new(config: &Checked, schemas: &Arc<Schemas>, topic: &Topic) -> Result<Self> {
        let plan = crate::pipeline::plan::Plan::new(config)?;
        let schema = plan.streams.iter().map(|s| &s.schema).find(|s| s.stream == *topic);
        Ok(match schema {
            Some(schema) => Self::Rows(Box::new(schemas.decoder(schema)?)),
            None if schemas.are_changes(topic) => Self::Changes(Box::new(DebeziumReader::new(Arc::clone(schemas), topic))),
            None => Self::Bytes,
        })
    }

    fn print(&mut self, record: &RecordRef<'_>, partition: Partition) -> Result<()> {
        let head = format!("{{\"_partition\":{partition},\"_offset\":{},\"_append_time\":\"{}\",", record.offset, record.append_time);
        let mut lines = String::new();
        match self {
            Self::Rows(decoder) => {
                let batch: RecordBatch = decoder.decode([record.value])?;
                lines.push_str(&head);
                json::write_fields(&mut lines, &decoder.schema().clone(), &batch, 0);
                lines.push_str("}\n");
            }
            Self::Changes(reader) => {
                let place = || format!("the change at {}", record.offset);
                let change = reader.change(record.value).with_context(place)?;
                let events = reader.events(&change, record.receive_time).with_context(place)?;
                for event in events.iter() {
                    let text = |bytes: Option<&[u8]>| bytes.map_or_else(|| "null".into(), |b| String::from_utf8_lossy(b).into_owned());
                    lines.push_str(&format!("{head}\"key\":{},\"value\":{}}}\n", text(event.key), text(event.value)));
                }
            }
            Self::Bytes => {
                lines.push_str(&head);
                for (name, value) in record.headers() {
                    json::write_text(&mut lines, &format!("_header_{name}"));
                    lines.push(':');
                    json::write_text(&mut lines, &String::from_utf8_lossy(value));
                    lines.push(',');
                }
                lines.push_str("\"_key\":");
                json::write_text(&mut lines, &String::from_utf8_lossy(record.key));
                lines.push_str(",\"_value\":");
                json::write_text(&mut lines, &String::from_utf8_lossy(record.value));
                lines.push_str("}\n");
            }
        }
        Ok(std::io::stdout().lock().write_all(lines.as_bytes())?)
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
        let (n, of) = (verified.damage.len(), verified.n_segments);
        bail!("{n} of {of} segments are damaged: restore them from a copy, or keep what can be read with `mulgil log salvage`");
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

fn salvage(at: &Where, to: &Path) -> Result<()> {
    let dir = load(at)?.log.dir;
    let bar = indicatif::ProgressBar::no_length().with_style(crate::cli::replay::bytes_style());
    let salvaged = salvage_folder(&dir, to, &mut |step| {
        bar.set_length(step.total_bytes);
        bar.set_position(step.done_bytes);
    });
    bar.finish_and_clear();
    print!("{}", report(&dir, to, &salvaged?));
    Ok(())
}

fn salvage_folder(dir: &Path, to: &Path, on_progress: &mut dyn FnMut(Verifying)) -> Result<Salvaged> {
    let from = JournalConfig::new(dir);
    let salvage = Salvage { from: &from, to: JournalConfig::new(to), disk: Arc::new(RealDisk), is_offset };
    salvage.run(on_progress).with_context(|| format!("cannot salvage the log in {}", dir.display()))
}

/// Shards, the replay of dead letters and the notes of captured databases keep an offset; sources keep positions of their own.
fn is_offset(owner: &Owner) -> bool {
    ["shard/", "dlq/", "notes/"].iter().any(|reader| owner.as_str().starts_with(reader))
}

fn report(dir: &Path, to: &Path, salvaged: &Salvaged) -> String {
    let mut lines = Vec::new();
    for damage in &salvaged.damage {
        lines.push(format!("{} at byte {}: {}", damage.file.display(), damage.byte, damage.reason));
    }
    for lost in &salvaged.lost {
        let (n, last) = (lost.to.0 - lost.from.0, lost.to.0 - 1);
        lines.push(format!("lost: {n} rows of {}, offsets {} to {last}", lost.at, lost.from));
    }
    for (at, n) in salvaged.moved() {
        lines.push(format!("rows of {at} behind its lost ones moved down, by {n} at the end"));
    }
    if salvaged.damage.iter().any(|damage| damage.byte > 0) && salvaged.lost.is_empty() {
        lines.push("no row is known to be lost; of the last commit before the damage nothing can be said".to_owned());
    }
    lines.push(format!(
        "{} commits with {} rows from {} segments are in {}; {} is as it was",
        salvaged.n_commits,
        salvaged.n_records,
        salvaged.n_segments,
        to.display(),
        dir.display()
    ));
    lines.push(format!("next: `mulgil log verify --data {0}`, then `mulgil run --data {0}`", to.display()));
    lines.join("\n") + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;
    use expect_test::expect;
    use mulgil_log::{Advance, Append, Commit, RecordsBuilder};
    use mulgil_model::position::Position;
    use mulgil_model::time::{EventTime, ReceiveTime};

    #[test]
    fn a_flipped_bit_costs_its_rows_and_the_report_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let trades = TopicPartition::new(Topic::new("trades").unwrap(), Partition(0));
        let open = |dir: &Path| Journal::open(JournalConfig::new(dir), Arc::new(RealDisk), clock()).unwrap().0;
        let journal = open(&old);
        for i in 0..5 {
            let mut records = RecordsBuilder::new();
            (0..10).for_each(|n| records.push(b"", &[], format!("row {i}.{n}").as_bytes(), EventTime(0), ReceiveTime(0)));
            let shard = Owner::new("shard/trades").unwrap();
            let read = Advance { owner: shard, partition: trades.clone(), position: Position::new((i + 1) * 10, 0) };
            journal
                .commit(Commit { appends: vec![Append { to: trades.clone(), records: records.finish() }], progress: vec![read] })
                .unwrap();
        }
        drop(journal);
        let segment = old.join("journal/00000000000000000000.log");
        let mut bytes = std::fs::read(&segment).unwrap();
        let at = bytes.windows(7).position(|w| w == b"row 2.3").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();

        let salvaged = salvage_folder(&old, &new, &mut |_| {}).unwrap();
        let text = report(&old, &new, &salvaged).replace(&folder.path().display().to_string(), "");
        expect![[r#"
            /old/journal/00000000000000000000.log at byte 510: the checksum of a frame is wrong; 162 bytes are passed over
            lost: 10 rows of trades/0, offsets 20 to 29
            rows of trades/0 behind its lost ones moved down, by 10 at the end
            4 commits with 40 rows from 1 segments are in /new; /old is as it was
            next: `mulgil log verify --data /new`, then `mulgil run --data /new`
        "#]]
        .assert_eq(&text);
        assert_eq!(std::fs::read(&segment).unwrap(), bytes);
        let journal = open(&new);
        assert_eq!(journal.seek(&trades, Seek::Next).unwrap(), Offset(40));
        let position = journal.progress(&Owner::new("shard/trades").unwrap(), &trades).unwrap();
        assert_eq!(position, Some(Position::new(40, 0)), "a shard that had read everything still has");
    }
}
