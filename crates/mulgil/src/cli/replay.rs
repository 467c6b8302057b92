//! `mulgil replay`: recorded rows through the whole pipeline, in event-time order, each exactly once, however often it is interrupted.

use super::Where;
use super::run::{ServerSetup, log_to_stderr};
use crate::adapters::dead_letters;
use crate::adapters::generator::Market;
use crate::adapters::ingest::{decode_plan, writer_into};
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::running::{RunOptions, Running};
use crate::pipeline::stop::Stop;
use crate::pipeline::writer::StreamWriter;
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mulgil_connect::decode::{Format, UnknownFields};
use mulgil_connect::sources::file::{Pace, Replay, ReplayBatch, ReplayOptions};
use mulgil_log::{Advance, Commit, Log as _, LogError, Owner};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::time::{EventTime, ReceiveTime, parse_duration};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// CSV with a header, NDJSON or Parquet; plain, .gz or .zst. Several files are merged by event time.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// The stream to put the rows into; the only one configured when not given. Its `columns` say how the file's columns map to it.
    #[arg(short, long)]
    stream: Option<String>,
    /// `recorded`, a factor such as 10, or `max`.
    #[arg(long, default_value = "max")]
    speed: String,
    /// At the end, close all windows: nothing more will come. Rows that do come later are late.
    #[arg(long)]
    finish: bool,
    /// How far a row of a file may lie before the newest row above it; more, and the replay stops there.
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    tolerance: String,
    /// Rows read and committed at once.
    #[arg(long, default_value_t = 8_192, value_name = "ROWS")]
    batch: usize,
    /// Threads for the shards; as many as there are cores when not given.
    #[arg(long)]
    workers: Option<usize>,
    /// Serve the live page meanwhile, and until Ctrl-C.
    #[arg(long)]
    serve: bool,
}

pub fn replay(args: ReplayArgs) -> Result<()> {
    log_to_stderr();
    let pace = pace(&args.speed)?;
    let config = load(&args.at)?;
    let stream = chosen_stream(&config, args.stream.as_deref())?;
    let plan = config.streams.iter().find(|s| s.schema.stream == stream).with_context(|| format!("[stream.{stream}] is not configured"))?;
    let decode = decode_plan(plan, UnknownFields::Ignore)?;
    // A paced replay takes row by row, to wait before each.
    let batch_rows = if pace == Pace::Unthrottled { args.batch.max(1) } else { 1 };
    let options = ReplayOptions { batch_rows, tolerance_us: parse_duration(&args.tolerance)?, ..ReplayOptions::default() };
    let mut files = Replay::open(&args.files, options, decode, ReceiveTime((clock())().0))?;
    let server = if args.serve { Some(ServerSetup::new(&config)?) } else { None };
    let defaults = RunOptions::default();
    let options = RunOptions {
        never_idle: true,
        workers: args.workers.unwrap_or(defaults.workers),
        batch_rows: args.batch.clamp(1, defaults.batch_rows),
    };
    let running = Arc::new(Running::start(config, &options, clock())?);
    let market = Arc::new(Market::new(Arc::clone(&running)));
    let served = server.map(|s| s.start(&running, &market)).transpose()?;
    let stop = interrupted(&running.ended)?;
    if let Some(served) = &served {
        eprintln!("live page {}", served.url);
    }
    let mut player = Player::new(&running, &stream, &files)?;
    let played = player.play(&mut files, pace, &stop);
    let drained = played.and_then(|()| player.drain(&stop, args.finish));
    if let (Some(served), Ok(_)) = (&served, &drained) {
        eprintln!("done; serving until Ctrl-C");
        while !stop.wait(Duration::from_secs(1)) {
            served.vitals.sample();
        }
    }
    market.stop_all();
    if let Some(served) = served {
        served.stop()?;
    }
    running.stop()?;
    drained?;
    player.report(stop.asked());
    Ok(())
}

fn chosen_stream(config: &crate::config::checked::Checked, named: Option<&str>) -> Result<Topic> {
    match (named, config.streams.as_slice()) {
        (Some(name), _) => Ok(Topic::new(name)?),
        (None, [only]) => Ok(only.schema.stream.clone()),
        (None, []) => bail!("the configuration has no stream to replay into: add a [stream.…]"),
        (None, many) => bail!(
            "name the stream with --stream: there are {}",
            many.iter().map(|s| s.schema.stream.as_str()).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Rows of a paced replay that are committed together at most.
const DUE_MAX: usize = 10_000;

/// Batches that are decoded before they are taken.
const READ_AHEAD_BATCHES: usize = 2;

/// An unthrottled replay stays so many rows of a partition ahead of shards and history at most: they find their rows in memory then, and
/// the log does not become a queue of all the file.
const AHEAD_ROWS_MAX: u64 = 131_072;
const AHEAD_WAIT: Duration = Duration::from_millis(2);

struct Player<'a> {
    running: &'a Running,
    stream: Topic,
    /// Where its rows enter.
    topic: Topic,
    writer: StreamWriter,
    owner: Owner,
    bar: ProgressBar,
    started: Instant,
    n_rows: u64,
    n_bad: u64,
    resumed: bool,
}

impl<'a> Player<'a> {
    fn new(running: &'a Running, stream: &Topic, files: &Replay) -> Result<Self> {
        let writer = writer_into(&running.plan, &running.folder.schemas, stream)?;
        let topic = running.plan.input_of(stream).map_or_else(|| stream.clone(), |(input, _)| input.stream.clone());
        let owner = Owner::new(&format!("replay/{:016x}", files.identity()))?;
        let bar = ProgressBar::new(files.progress().1).with_style(bytes_style());
        Ok(Self {
            running,
            stream: stream.clone(),
            topic,
            writer,
            owner,
            bar,
            started: Instant::now(),
            n_rows: 0,
            n_bad: 0,
            resumed: false,
        })
    }

    fn at(&self) -> TopicPartition {
        TopicPartition::new(self.stream.clone(), Partition(0))
    }

    fn play(&mut self, files: &mut Replay, pace: Pace, stop: &Stop) -> Result<()> {
        if let Some(position) = self.running.folder.journal.progress(&self.owner, &self.at())? {
            self.bar.set_message("skipping what was replayed before");
            files.resume_after(position)?;
            self.resumed = true;
        }
        std::thread::scope(|scope| {
            let (send, read) = sync_channel(READ_AHEAD_BATCHES);
            let reading = std::thread::Builder::new().name("replay-read".to_owned());
            reading.spawn_scoped(scope, move || read_ahead(files, &send)).context("cannot start the thread replay-read")?;
            self.take(read, pace, stop)
        })
    }

    /// Takes what is read, each batch when it is due.
    fn take(&mut self, read: Receiver<Result<Ahead>>, pace: Pace, stop: &Stop) -> Result<()> {
        let start_us = (self.running.clock)().0;
        let (mut first, mut due) = (None, Vec::new());
        for ahead in read {
            let Ahead { batch, bytes } = ahead?;
            if stop.asked() {
                break;
            }
            let time = event_time(&batch);
            first = first.or(time);
            if let (Some(first), Some(time)) = (first, time) {
                let wait_us = pace.due(first, start_us, time) - (self.running.clock)().0;
                if wait_us > 0 {
                    self.commit(&mut due, stop)?;
                    if stop.wait(Duration::from_micros(wait_us.unsigned_abs())) {
                        return Ok(());
                    }
                }
            }
            due.push(batch);
            if pace == Pace::Unthrottled {
                self.stay_near(stop)?;
            }
            if pace == Pace::Unthrottled || due.len() >= DUE_MAX {
                self.commit(&mut due, stop)?;
            }
            self.bar.set_position(bytes);
            self.bar.set_message(format!("{} rows", self.n_rows));
        }
        self.commit(&mut due, stop)
    }

    /// Waits for shards and history to come near.
    fn stay_near(&self, stop: &Stop) -> Result<()> {
        while self.running.lag(&self.topic)? > AHEAD_ROWS_MAX && !self.running.ended.asked() && !stop.wait(AHEAD_WAIT) {}
        Ok(())
    }

    /// Commits what is due, all at once.
    fn commit(&mut self, due: &mut Vec<ReplayBatch>, stop: &Stop) -> Result<()> {
        let Some(position) = due.last().map(|batch| batch.position) else { return Ok(()) };
        let received = ReceiveTime((self.running.clock)().0);
        let (mut appends, mut dealt, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for batch in due.drain(..) {
            let (rows, parts) = self.writer.deal(&batch.batch, received)?;
            appends.extend(rows);
            dealt.extend(parts);
            for bad in &batch.problems {
                let source = format!("file {}", bad.file.display());
                dead.extend(dead_letters::append(
                    &self.stream,
                    &source,
                    format_of(&bad.problem.original),
                    std::slice::from_ref(&bad.problem),
                    received,
                ));
            }
            self.n_rows += batch.batch.num_rows() as u64;
            self.n_bad += batch.problems.len() as u64;
        }
        appends.append(&mut dead);
        let progress = vec![Advance { owner: self.owner.clone(), partition: self.at(), position }];
        let commit = Commit { appends, progress };
        loop {
            match self.running.folder.journal.commit(commit.clone()) {
                Ok(committed) => {
                    self.running.folder.recent.keep(dealt, &committed);
                    mulgil_disk::failpoint::here("replay.after-commit");
                    return Ok(());
                }
                Err(error @ LogError::DiskFull { .. }) => {
                    self.bar.set_message(error.to_string());
                    if stop.wait(Duration::from_secs(1)) {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn drain(&mut self, stop: &Stop, finish: bool) -> Result<()> {
        if stop.asked() {
            return Ok(());
        }
        let bar = self.bar.clone();
        self.running.drain(finish, |backlog| bar.set_message(format!("{backlog} rows still to compute")))?;
        Ok(())
    }

    fn report(&self, interrupted: bool) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = self.n_rows as f64 / seconds.max(1e-9);
        if self.resumed && self.n_rows == 0 && !interrupted {
            println!("nothing new: these files were replayed into this folder before");
            return;
        }
        println!(
            "{} rows in {seconds:.1} s ({rate:.0} rows/s), {} bad rows{}",
            self.n_rows,
            self.n_bad,
            if self.n_bad > 0 { " (`mulgil dlq list` shows them)" } else { "" }
        );
        if interrupted {
            println!("interrupted: the same command continues where this one stopped");
        }
    }
}

/// What was read, and how far into the files that is.
struct Ahead {
    batch: ReplayBatch,
    bytes: u64,
}

/// Reads and decodes on a thread of its own, which costs as much as all that happens to the rows afterwards; ends when nobody takes it.
fn read_ahead(files: &mut Replay, send: &SyncSender<Result<Ahead>>) {
    loop {
        let next = match files.next_batch() {
            Ok(None) => return,
            Ok(Some(batch)) => Ok(Ahead { batch, bytes: files.progress().0 }),
            Err(error) => Err(error.into()),
        };
        let is_last = next.is_err();
        if send.send(next).is_err() || is_last {
            return;
        }
    }
}

/// `max`, `recorded`, or how many times faster: `10` or `10x`.
fn pace(text: &str) -> Result<Pace> {
    let text = if text == "max" { "unthrottled".to_owned() } else { text.to_owned() };
    let factor = text.parse::<f64>().is_ok();
    Ok(Pace::parse(&if factor { format!("{text}x") } else { text })?)
}

/// What another try will read the row as.
fn format_of(original: &[u8]) -> Format {
    if original.trim_ascii_start().starts_with(b"{") { Format::Ndjson } else { Format::Csv }
}

fn event_time(batch: &ReplayBatch) -> Option<EventTime> {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    let column = batch.batch.column_by_name("event_time")?;
    let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.values().first().map(|t| EventTime(*t))
}

fn interrupted(ended: &Stop) -> Result<Stop> {
    let (stop, ended) = (Stop::default(), ended.clone());
    let asked = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                () = ended.wait_async() => {}
            }
        });
        asked.ask();
    })?;
    Ok(stop)
}

pub fn bytes_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}
