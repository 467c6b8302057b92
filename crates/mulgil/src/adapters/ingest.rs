//! Rows that arrive over HTTP: decoded, checked, committed, and only then answered.

use super::dead_letters;
use super::feed::{AHEAD_OF_CLOCK_MAX_US, log_error};
use super::idempotency::{Given, Remembered, filed, record};
use crate::config::checked::{Checked, StreamPlan};
use crate::pipeline::folder::Folder;
use crate::pipeline::plan::Plan;
use crate::pipeline::recent::{Dealt, Recent};
use crate::pipeline::schemas::Schemas;
use crate::pipeline::writer::StreamWriter;
use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use futures::{FutureExt, future::BoxFuture};
use mulgil_connect::decode::{self, DecodeOptions, Decoded, Format, Limits, Mapping, UnknownFields};
use mulgil_log::{Append, Commit, Log};
use mulgil_model::ids::{Offset, Topic};
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::{AppendTime, ReceiveTime};
use mulgil_serve::ports::{ContentKind, Ingest, IngestAnswer, IngestRequest, PROBLEMS_MAX, Placed, PortError, PortErrorKind};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct LogIngest(Arc<Inner>);

struct Inner {
    log: Arc<dyn Log>,
    schemas: Arc<Schemas>,
    recent: Arc<Recent>,
    streams: BTreeMap<Topic, Door>,
    remembered: Mutex<Remembered>,
    /// Keys of requests that are being worked on.
    under_way: Mutex<HashSet<String>>,
}

/// Kept of each stream for the next requests.
const WRITERS_KEPT_MAX: usize = 8;

/// The way into one stream.
struct Door {
    decode: Arc<decode::Plan>,
    /// Encoding takes about as long as decoding: requests that come together do not wait for each other's. A request takes one, or makes
    /// one, and gives it back.
    writers: Mutex<Vec<StreamWriter>>,
    input: Arc<StreamSchema>,
    n_partitions: u32,
}

impl LogIngest {
    pub fn new(config: &Checked, plan: &Plan, folder: &Folder, now: AppendTime) -> Result<Self> {
        let log = folder.log();
        let mut streams = BTreeMap::new();
        for stream in &config.streams {
            let name = stream.schema.stream.clone();
            let decode = decode_plan(stream, UnknownFields::Refuse)?;
            let (input, n_partitions) = input_of(plan, &name)?;
            // The first one now: what keeps rows from being written is told at the start, not to the first who sends some.
            let writers = Mutex::new(vec![writer_into(plan, &folder.schemas, &name)?]);
            streams.insert(name, Door { decode, writers, input, n_partitions });
        }
        let remembered = Remembered::open(&*log, now)?;
        metrics::gauge!("mulgil_idempotency_keys").set(remembered.n_keys() as f64);
        let (remembered, schemas) = (Mutex::new(remembered), Arc::clone(&folder.schemas));
        Ok(Self(Arc::new(Inner { log, schemas, recent: Arc::clone(&folder.recent), streams, remembered, under_way: Mutex::default() })))
    }

    /// As [`Ingest::ingest`], on the caller's own thread.
    pub fn ingest_here(&self, request: &IngestRequest) -> Result<IngestAnswer, PortError> {
        self.0.ingest(request)
    }
}

/// How rows of a stream are read, whatever brings them.
pub fn decode_plan(stream: &StreamPlan, unknown: UnknownFields) -> Result<Arc<decode::Plan>> {
    let name = &stream.schema.stream;
    let time_zone = jiff::tz::TimeZone::get(&stream.timezone).with_context(|| format!("[stream.{name}] timezone"))?;
    let mapping = Mapping {
        columns: stream.input.columns.clone(),
        constants: stream.input.constants.clone(),
        time_unit: stream.input.time_unit,
        time_zone: Some(time_zone),
        ..Mapping::default()
    };
    let limits = Limits { future_us_max: AHEAD_OF_CLOCK_MAX_US, ..Limits::default() };
    let plan = decode::Plan::new(Arc::clone(&stream.schema), DecodeOptions { mapping, unknown, limits });
    Ok(Arc::new(plan.with_context(|| format!("[stream.{name}]"))?))
}

/// A writer into the topic that the stream's rows enter by.
pub fn writer_into(plan: &Plan, schemas: &Schemas, stream: &Topic) -> Result<StreamWriter> {
    let (input, partitions) = input_of(plan, stream)?;
    StreamWriter::new(schemas, Arc::clone(&input), input.stream.clone(), partitions)
}

fn input_of(plan: &Plan, stream: &Topic) -> Result<(Arc<StreamSchema>, u32)> {
    plan.input_of(stream).with_context(|| format!("there is no stream '{stream}'"))
}

impl Door {
    /// The rows of a batch as appends, and as they were.
    fn deal(&self, schemas: &Schemas, batch: &RecordBatch, received: ReceiveTime) -> Result<(Vec<Append>, Vec<Dealt>)> {
        let free = lock(&self.writers).pop();
        let mut writer = match free {
            Some(writer) => writer,
            None => StreamWriter::new(schemas, Arc::clone(&self.input), self.input.stream.clone(), self.n_partitions)?,
        };
        let dealt = writer.deal(batch, received);
        let mut writers = lock(&self.writers);
        if writers.len() < WRITERS_KEPT_MAX {
            writers.push(writer);
        }
        dealt
    }
}

impl Ingest for LogIngest {
    fn ingest(&self, request: IngestRequest) -> BoxFuture<'_, Result<IngestAnswer, PortError>> {
        let inner = Arc::clone(&self.0);
        // Decoding takes a core and committing waits for the disk: neither belongs on a thread that serves others.
        let work = tokio::task::spawn_blocking(move || inner.ingest(&request));
        async move { work.await.map_err(|e| internal(&format!("ingest broke: {e}")))? }.boxed()
    }
}

impl Inner {
    fn ingest(&self, request: &IngestRequest) -> Result<IngestAnswer, PortError> {
        let Some(key) = &request.idempotency_key else { return self.take(request, None) };
        let filed = filed(&request.stream, key);
        if !lock(&self.under_way).insert(filed.clone()) {
            return Err(PortError::new(
                PortErrorKind::Conflict,
                "a request with this idempotency key is being worked on: wait for its answer",
            ));
        }
        let result = self.take_once(request, &filed);
        lock(&self.under_way).remove(&filed);
        result
    }

    fn take_once(&self, request: &IngestRequest, filed: &str) -> Result<IngestAnswer, PortError> {
        if let Some(given) = lock(&self.remembered).get(filed) {
            let same = given.is_of(&request.body);
            let conflict = || {
                PortError::new(
                    PortErrorKind::Conflict,
                    "this idempotency key came with another body before: use a new key for a new request",
                )
            };
            return if same { Ok(given.answer()) } else { Err(conflict()) };
        }
        self.take(request, Some(filed))
    }

    fn take(&self, request: &IngestRequest, filed: Option<&str>) -> Result<IngestAnswer, PortError> {
        let no_stream = || {
            PortError::new(
                PortErrorKind::NotFound,
                format!("rows cannot be put into '{}': streams with a door are {}", request.stream, self.names()),
            )
        };
        let door = self.streams.get(&request.stream).ok_or_else(no_stream)?;
        let format = match request.content {
            ContentKind::Json => Format::Json,
            ContentKind::NdJson => Format::Ndjson,
            ContentKind::Avro => Format::Avro,
        };
        let decoded = decode::decode(&door.decode, format, &request.body, request.received);
        let dealt = door.deal(&self.schemas, &decoded.batch, request.received).map_err(|e| internal(&format!("{e:#}")))?;
        self.commit(request, format, &decoded, dealt, filed)
    }

    fn commit(
        &self,
        request: &IngestRequest,
        format: Format,
        decoded: &Decoded,
        (appends, dealt): (Vec<Append>, Vec<Dealt>),
        filed: Option<&str>,
    ) -> Result<IngestAnswer, PortError> {
        let mut answer = IngestAnswer {
            accepted: decoded.rows.len() as u64,
            rejected: decoded.problems.len() as u64,
            problems: decoded.problems.iter().take(PROBLEMS_MAX).cloned().collect(),
            ..IngestAnswer::default()
        };
        let sizes: Vec<_> = appends.iter().map(|a| (a.to.partition, a.records.len())).collect();
        let mut commit = Commit { appends, progress: vec![] };
        commit.appends.extend(dead_letters::append(&request.stream, "http", format, &decoded.problems, request.received));
        // Offsets are known only after the commit; a repeated request is told the counts, which is what it needs.
        let given = filed.map(|_| Given::new(&request.body, &answer));
        if let (Some(filed), Some(given)) = (filed, &given) {
            commit.appends.push(record(filed, given, request.received).map_err(|e| internal(&format!("{e:#}")))?);
        }
        if commit.appends.is_empty() {
            return Ok(answer);
        }
        mulgil_disk::failpoint::here("ingest.before-commit");
        let committed = self.log.commit(commit).map_err(log_error)?;
        self.recent.keep(dealt, &committed);
        mulgil_disk::failpoint::here("ingest.before-answer");
        let bases = sizes.iter().zip(&committed.base_offsets);
        answer.placed =
            bases.map(|((partition, n), base)| Placed { partition: *partition, first: *base, last: Offset(base.0 + n - 1) }).collect();
        if let (Some(filed), Some(given)) = (filed, given) {
            let mut remembered = lock(&self.remembered);
            remembered.insert(filed.to_owned(), given, committed.append_time);
            metrics::gauge!("mulgil_idempotency_keys").set(remembered.n_keys() as f64);
        }
        Ok(answer)
    }

    fn names(&self) -> String {
        self.streams.keys().map(Topic::as_str).collect::<Vec<_>>().join(", ")
    }
}

fn internal(detail: &str) -> PortError {
    PortError::new(PortErrorKind::Internal, detail)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
