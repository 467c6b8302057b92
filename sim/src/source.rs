//! Who sends rows: clients of `POST /ingest` whose requests and answers get lost on the way, and the replay of a file.

use crate::market::{Market, Row};
use crate::oracle::{Oracle, Sent};
use crate::program::Program;
use crate::random::Random;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mulgil::adapters::ingest::{decode_plan, writer_into};
use mulgil::pipeline::writer::StreamWriter;
use mulgil_connect::decode::UnknownFields;
use mulgil_connect::sources::file::{Replay, ReplayOptions};
use mulgil_log::{Advance, Commit, Log, LogError, Owner};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::keys::partition_of;
use mulgil_model::position::Position;
use mulgil_model::streams::DEAD_LETTERS;
use mulgil_model::time::ReceiveTime;
use mulgil_serve::ports::{ContentKind, IngestRequest, PortErrorKind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The partitions of a stream and the topic by which its rows enter, as the configuration of the scenario has them.
fn entry(stream: &str) -> (&'static str, u32) {
    if stream == "trades" { ("trades", 3) } else { ("orders.in", 2) }
}

fn place(stream: &str, rows: &[Row]) -> Sent {
    let (topic, n) = entry(stream);
    let mut sent = Sent::new();
    for row in rows {
        let at = TopicPartition::new(Topic::new(topic).expect("the name is valid"), partition_of(row.symbol.as_bytes(), n));
        sent.entry(at).or_default().push(row.canonical());
    }
    sent
}

/// What came of a step of a source.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    Nothing,
    Committed,
    /// The disk is full: not committed.
    Full,
    /// The program had stopped taking rows before.
    Refused(String),
    /// The program is dying: nobody knows.
    Doubt(String),
}

pub struct Poster {
    number: usize,
    next: u64,
    outstanding: Option<Request>,
    /// Names of requests whose rows are in the log, answered or found there.
    applied: BTreeSet<String>,
    /// Rows of the de-duplicated stream that may be sent once more.
    recent: Vec<Row>,
}

struct Request {
    name: String,
    stream: &'static str,
    keyed: bool,
    body: String,
    sent: Sent,
    n_rows: u64,
    n_bad: u64,
}

impl Poster {
    pub fn new(number: usize) -> Self {
        Self { number, next: 0, outstanding: None, applied: BTreeSet::new(), recent: Vec::new() }
    }

    pub fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    pub fn found(&mut self, name: &str) {
        if name.starts_with(&format!("poster {} ", self.number)) {
            self.applied.insert(name.to_owned());
        }
    }

    fn compose(&mut self, market: &mut Market, r: &mut Random) -> Request {
        market.pass(r);
        let stream = if r.percent(60) { "trades" } else { "orders" };
        let n = r.between(1, 12);
        let (mut rows, mut lines, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n {
            if r.percent(3) {
                let line = format!(r#"{{"event_id":"bad-{}-{}-{i}","price":"much"}}"#, self.number, self.next);
                bad.push(line.clone());
                lines.push(line);
                continue;
            }
            let again = stream == "orders" && !self.recent.is_empty() && r.percent(25);
            let row = if again {
                self.recent[r.below(self.recent.len() as u64) as usize].clone()
            } else {
                market.row(format!("p{}-{}-{i}", self.number, self.next), r)
            };
            lines.push(row.json());
            rows.push(row);
        }
        if stream == "orders" {
            self.recent.extend(rows.iter().take(2).cloned());
            let n_old = self.recent.len().saturating_sub(20);
            self.recent.drain(..n_old);
        }
        let mut sent = place(stream, &rows);
        let n_bad = bad.len() as u64;
        if n_bad > 0 {
            sent.insert(TopicPartition::new(Topic::new(DEAD_LETTERS).expect("the name is valid"), Partition(0)), bad);
        }
        let name = format!("poster {} request {}", self.number, self.next);
        self.next += 1;
        Request { name, stream, keyed: r.percent(70), body: lines.join("\n"), sent, n_rows: rows.len() as u64, n_bad }
    }

    /// Sends a new request, or the one that was not answered once more. `lost` in percent: the request, and the answer.
    pub fn post(
        &mut self,
        program: &Program,
        oracle: &mut Oracle,
        market: &mut Market,
        now_us: i64,
        lost: u64,
        r: &mut Random,
    ) -> Result<Done> {
        let request = match self.outstanding.take() {
            Some(request) => request,
            None => self.compose(market, r),
        };
        let (request_lost, answer_lost) = (r.percent(lost / 2), r.percent(lost / 2));
        if request_lost {
            // Without a key it is not sent again: nobody could tell the two apart.
            self.outstanding = request.keyed.then_some(request);
            return Ok(Done::Nothing);
        }
        let done = self.send(&request, program, oracle, now_us)?;
        let again = request.keyed && (done != Done::Committed || answer_lost);
        self.outstanding = again.then_some(request);
        Ok(done)
    }

    fn send(&mut self, request: &Request, program: &Program, oracle: &mut Oracle, now_us: i64) -> Result<Done> {
        let asked = IngestRequest {
            stream: Topic::new(request.stream)?,
            content: ContentKind::NdJson,
            body: Bytes::from(request.body.clone()),
            idempotency_key: request.keyed.then(|| request.name.replace(' ', "-")),
            received: ReceiveTime(now_us),
        };
        let stopped = program.has_stopped();
        let answer = match program.ingest.ingest_here(&asked) {
            Ok(answer) => answer,
            Err(error) if error.kind == PortErrorKind::Full => return Ok(Done::Full),
            // A journal that had stopped before takes nothing: no doubt about it.
            Err(error) if stopped => return Ok(Done::Refused(error.to_string())),
            Err(error) => return self.doubt(request, oracle, error.to_string()),
        };
        ensure!(!stopped || answer.replayed, "{}: answered by a journal that had stopped", request.name);
        let known = self.applied.contains(&request.name);
        ensure!(answer.replayed == known, "{}: answered as {:?}, but it was written before: {known}", request.name, answer);
        ensure!(answer.accepted == request.n_rows && answer.rejected == request.n_bad, "{}: {answer:?}", request.name);
        if !known {
            for placed in &answer.placed {
                let at = TopicPartition::new(Topic::new(entry(request.stream).0)?, placed.partition);
                let (next, n) = (oracle.next(&at), request.sent.get(&at).map_or(0, Vec::len) as u64);
                ensure!(
                    placed.first == next && placed.last.0 + 1 == next.0 + n,
                    "{}: {n} rows placed at {placed:?}, next is {next}",
                    request.name
                );
            }
            oracle.acknowledged(&request.sent);
            self.applied.insert(request.name.clone());
        }
        Ok(Done::Committed)
    }

    fn doubt(&self, request: &Request, oracle: &mut Oracle, detail: String) -> Result<Done> {
        if !self.applied.contains(&request.name) {
            oracle.in_doubt(&request.name, &request.sent)?;
        }
        Ok(Done::Doubt(detail))
    }
}

/// The replay of a file, as `mulgil replay` does it.
pub struct Player {
    path: PathBuf,
    rows: Vec<Row>,
    batch_rows: usize,
    n_committed: u64,
    life: Option<Life>,
}

/// What belongs to one life of the program.
struct Life {
    files: Replay,
    writer: StreamWriter,
    owner: Owner,
    due: Option<Due>,
    is_over: bool,
}

struct Due {
    commit: Commit,
    sent: Sent,
    n_rows: u64,
}

const REPLAYED: &str = "trades";

impl Player {
    pub fn new(dir: &Path, n_rows: u64, r: &mut Random) -> Result<Self> {
        let market = Market::new();
        let mut time = market.now_us() + r.below(20_000_000) as i64;
        let mut rows = Vec::new();
        for i in 0..n_rows {
            time += r.below(400_000) as i64;
            rows.push(market.row_at(format!("f{i}"), time - r.below(3_000_000) as i64, r));
        }
        let path = dir.join("trades.ndjson");
        std::fs::write(&path, rows.iter().map(|row| row.json() + "\n").collect::<String>())?;
        Ok(Self { path, rows, batch_rows: r.between(1, 30) as usize, n_committed: 0, life: None })
    }

    pub fn is_over(&self) -> bool {
        self.rows.is_empty() || self.n_committed == self.rows.len() as u64
    }

    pub fn program_died(&mut self) {
        self.life = None;
    }

    pub fn found(&mut self, name: &str) {
        if let Some(n) = name.strip_prefix("file up to ").and_then(|n| n.parse().ok()) {
            self.n_committed = n;
        }
    }

    fn open(&self, program: &Program, now_us: i64) -> Result<Life> {
        let plan = program.config.streams.iter().find(|s| s.schema.stream.as_str() == REPLAYED).context("no stream to replay into")?;
        let options = ReplayOptions { batch_rows: self.batch_rows, ..ReplayOptions::default() };
        let mut files = Replay::open(&[&self.path], options, decode_plan(plan, UnknownFields::Ignore)?, ReceiveTime(now_us))?;
        let owner = Owner::new(&format!("replay/{:016x}", files.identity()))?;
        let at = TopicPartition::new(Topic::new(REPLAYED)?, Partition(0));
        let position = program.folder.journal.progress(&owner, &at)?;
        let n_known = position.map_or(0, |p| p.commit + 1);
        ensure!(n_known == self.n_committed, "the log says {n_known} rows of the file are in it, but {} are", self.n_committed);
        if let Some(position) = position {
            files.resume_after(position)?;
        }
        let writer = writer_into(&program.plan, &program.folder.schemas, &Topic::new(REPLAYED)?)?;
        Ok(Life { files, writer, owner, due: None, is_over: false })
    }

    pub fn step(&mut self, program: &Program, oracle: &mut Oracle, now_us: i64) -> Result<Done> {
        if self.is_over() {
            return Ok(Done::Nothing);
        }
        if self.life.is_none() {
            match self.open(program, now_us) {
                Ok(life) => self.life = Some(life),
                Err(error) if error.downcast_ref::<LogError>().is_some() => return Ok(Done::Refused(format!("{error:#}"))),
                Err(error) => return Err(error),
            }
        }
        let Some(life) = &mut self.life else { return Ok(Done::Nothing) };
        if life.due.is_none() {
            life.next(&self.rows, now_us)?;
        }
        let Some(due) = &life.due else { return Ok(Done::Nothing) };
        let stopped = program.has_stopped();
        match program.folder.journal.commit(due.commit.clone()) {
            Ok(_) => {
                ensure!(!stopped, "rows of the file were taken by a journal that had stopped");
                oracle.acknowledged(&due.sent);
                self.n_committed += due.n_rows;
                life.due = None;
                Ok(Done::Committed)
            }
            Err(LogError::DiskFull { .. }) => Ok(Done::Full),
            Err(error @ LogError::AlreadyCommitted { .. }) => Err(error.into()),
            Err(error) if stopped => Ok(Done::Refused(error.to_string())),
            Err(error) => {
                oracle.in_doubt(&format!("file up to {}", self.n_committed + due.n_rows), &due.sent)?;
                Ok(Done::Doubt(error.to_string()))
            }
        }
    }
}

impl Life {
    fn next(&mut self, rows: &[Row], now_us: i64) -> Result<()> {
        let Some(batch) = self.files.next_batch()? else {
            self.is_over = true;
            return Ok(());
        };
        let (Some(first), Some(last)) = (batch.ordinals.first(), batch.ordinals.last()) else { return Ok(()) };
        let rows = &rows[*first as usize..=*last as usize];
        let appends = self.writer.by_key(&batch.batch, ReceiveTime(now_us))?;
        let at = TopicPartition::new(Topic::new(REPLAYED)?, Partition(0));
        let position: Position = batch.position;
        let progress = vec![Advance { owner: self.owner.clone(), partition: at, position }];
        self.due = Some(Due { commit: Commit { appends, progress }, sent: place(REPLAYED, rows), n_rows: rows.len() as u64 });
        Ok(())
    }
}
