//! Changes as records of the log: each in its table's topic `SOURCE.schema.table`, as an Avro envelope, and as a row of every stream that
//! is made from the table.
//!
//! Record of a change: key = the row's key (`envelope::key`), value = the envelope (`envelope::avro`) in the Confluent wire format, event
//! time = when the database committed it. One partition per table: the order of its changes is the order of its records. Logical messages
//! are in `SOURCE.message`.

use super::rows::TableRows;
use crate::config::captured::CapturePlan;
use crate::config::checked::Checked;
use crate::config::filtered::FilterPlan;
use crate::pipeline::plan::Plan;
use crate::pipeline::recent::Dealt;
use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result, ensure};
use mulgil_capture::change::{Change, What};
use mulgil_capture::envelope::avro::ChangeEncoder;
use mulgil_capture::envelope::key::push_key;
use mulgil_capture::filter::{Filter, FilterError};
use mulgil_capture::source::SourceError;
use mulgil_capture::table::{Table, TableId};
use mulgil_log::{Append, Commit, Log, RecordsBuilder};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::time::{EventTime, ReceiveTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where logical messages go, behind the source's name. No table can be called so: a table has a schema.
const MESSAGE: &str = "message";

/// What may leave the database.
enum Filtering {
    /// Made with the first changes: what its salt refers to may not be there yet, which is this source's trouble alone.
    Planned(FilterPlan),
    /// None: everything, as it is.
    Made(Option<Box<Filter>>),
}

pub struct ChangeWriter {
    source: String,
    log: Arc<dyn Log>,
    schemas: Arc<Schemas>,
    filter: Filtering,
    encoder: ChangeEncoder,
    tables: BTreeMap<TableId, Topic>,
    messages: Topic,
    rows: Vec<TableRows>,
    /// Schemas that the log has.
    learned: BTreeSet<(Topic, u32)>,
    /// Of all changes of the last commit, encoded: about as much room the next one needs.
    last_bytes: usize,
    /// Room for one record.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl ChangeWriter {
    pub fn new(capture: &CapturePlan, config: &Checked, plan: &Plan, schemas: &Arc<Schemas>, log: Arc<dyn Log>) -> Result<Self> {
        let of_ours = config.streams.iter().filter(|s| s.from.as_ref().is_some_and(|from| from.source == capture.name));
        Ok(Self {
            source: capture.name.clone(),
            log,
            schemas: Arc::clone(schemas),
            filter: Filtering::Planned(capture.filter.clone()),
            encoder: ChangeEncoder::default(),
            tables: BTreeMap::new(),
            messages: Topic::new(&format!("{}.{MESSAGE}", capture.name))?,
            rows: of_ours.filter_map(|stream| TableRows::new(stream, plan, schemas).transpose()).collect::<Result<_>>()?,
            learned: BTreeSet::new(),
            last_bytes: 0,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// The commit of some changes, without its progress, and the rows that it brings to streams, whose appends are its first.
    pub fn commit_of(&mut self, changes: Vec<Change>, received: ReceiveTime) -> Result<(Commit, Vec<Dealt>)> {
        let changes = &*self.filtered(changes)?;
        let mut topics: Vec<(Topic, RecordsBuilder)> = Vec::new();
        // Changes of one shape of a table mostly come many in a row: its topic and schema are looked for once.
        let mut last: Option<(Option<*const Table>, usize)> = None;
        for change in changes {
            let shape = shape(change);
            let at = match last {
                Some((known, at)) if known == shape => at,
                _ => {
                    let topic = self.topic(change)?;
                    self.learn(&topic, change)?;
                    let at = topics.iter().position(|(t, _)| *t == topic).unwrap_or(topics.len());
                    if at == topics.len() {
                        topics.push((topic, RecordsBuilder::with_capacity(if at == 0 { self.last_bytes } else { 0 })));
                    }
                    last = Some((shape, at));
                    at
                }
            };
            self.key.clear();
            self.value.clear();
            push_key(&mut self.key, change);
            self.encoder.encode(change, &mut self.value)?;
            topics[at].1.push(&self.key, &[], &self.value, EventTime(change.origin.committed_us), received);
        }
        self.last_bytes = topics.iter().map(|(_, records)| records.size_bytes()).sum();
        let (mut commit, mut dealt, mut problems) = (Commit::default(), Vec::new(), Vec::new());
        for rows in &mut self.rows {
            let taken = rows.take(changes, received)?;
            commit.appends.extend(taken.appends);
            dealt.extend(taken.dealt);
            problems.extend(taken.dead_letters);
        }
        commit.appends.extend(problems);
        let append =
            |(topic, records): (Topic, RecordsBuilder)| Append { to: TopicPartition::new(topic, Partition(0)), records: records.finish() };
        commit.appends.extend(topics.into_iter().map(append));
        Ok((commit, dealt))
    }

    /// What may leave the database. A mistake in the filter is found when a table is first seen: the source waits until it is mended.
    fn filtered(&mut self, changes: Vec<Change>) -> Result<Vec<Change>> {
        if let Filtering::Planned(plan) = &self.filter {
            let options = plan.options(&self.source).map_err(|e| SourceError::config(format!("{e:#}")))?;
            self.filter = Filtering::Made(options.map(|o| Box::new(Filter::new(o))));
        }
        let Filtering::Made(Some(filter)) = &mut self.filter else { return Ok(changes) };
        let mistake = |error: FilterError| SourceError::config(error.to_string());
        Ok(changes.into_iter().filter_map(|change| filter.apply(change).map_err(mistake).transpose()).collect::<Result<_, _>>()?)
    }

    fn topic(&mut self, change: &Change) -> Result<Topic> {
        let table = match &change.what {
            What::Message { .. } => return Ok(self.messages.clone()),
            What::Row { table, .. } | What::Truncate { table, .. } => &table.id,
        };
        if let Some(topic) = self.tables.get(table) {
            return Ok(topic.clone());
        }
        let topic = CapturePlan::topic(&self.source, &table.to_string())?;
        let other = self.tables.iter().find(|(_, t)| **t == topic).map(|(id, _)| id);
        ensure!(
            other.is_none() && topic != self.messages,
            "{table} and {} would share the topic {topic}: a topic has lower-case letters only; capture them by two sources",
            other.map_or_else(|| "the logical messages".to_owned(), ToString::to_string)
        );
        self.tables.insert(table.clone(), topic.clone());
        Ok(topic)
    }

    /// The log has every schema before the first record that is written with it.
    fn learn(&mut self, topic: &Topic, change: &Change) -> Result<()> {
        let wire = self.encoder.wire(change);
        if !self.learned.contains(&(topic.clone(), wire.id)) {
            self.schemas.learn(&*self.log, topic, wire).with_context(|| format!("the schema of {topic}"))?;
            mulgil_disk::failpoint::here("capture.schema-learned");
            self.learned.insert((topic.clone(), wire.id));
        }
        Ok(())
    }
}

/// The address of the shape that a change's rows have, which lives as long as the change; None for a message.
fn shape(change: &Change) -> Option<*const Table> {
    match &change.what {
        What::Row { table, .. } | What::Truncate { table, .. } => Some(Arc::as_ptr(table)),
        What::Message { .. } => None,
    }
}
