//! What the outside world knows: every row that was sent, and whether it was acknowledged. It looks at the log only to compare.
//!
//! One thing happens at a time, so at most one commit is in doubt: the one during which the process died.

use crate::market::canonical;
use crate::mirror::Mirror;
use anyhow::{Context, Result, bail, ensure};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows that one commit appends, per partition, as [`crate::market::Row::canonical`] or, for dead letters, the original bytes.
pub type Sent = BTreeMap<TopicPartition, Vec<String>>;

#[derive(Debug, Default, Clone)]
pub struct Oracle {
    rows: Sent,
    /// Sent, never answered: with a name by which the sender asks what became of it.
    in_doubt: Option<(String, Sent)>,
    /// Names of commits that turned out to have happened although nobody was told.
    pub found: Vec<String>,
}

impl Oracle {
    pub fn acknowledged(&mut self, sent: &Sent) {
        for (at, rows) in sent {
            self.rows.entry(at.clone()).or_default().extend(rows.iter().cloned());
        }
    }

    pub fn in_doubt(&mut self, name: &str, sent: &Sent) -> Result<()> {
        ensure!(self.in_doubt.is_none(), "two commits in doubt: the process went on after the first");
        self.in_doubt = Some((name.to_owned(), sent.clone()));
        Ok(())
    }

    /// Where the next row of a partition will be.
    pub fn next(&self, at: &TopicPartition) -> Offset {
        Offset(self.rows.get(at).map_or(0, Vec::len) as u64)
    }

    pub fn rows(&self, at: &TopicPartition) -> &[String] {
        self.rows.get(at).map_or(&[], Vec::as_slice)
    }

    /// Every acknowledged row is in the log once and in order, and nothing else is; a commit in doubt happened wholly or not at all.
    pub fn compare(&mut self, mirror: &Mirror, inputs: &BTreeMap<TopicPartition, Option<Arc<StreamSchema>>>) -> Result<()> {
        let mut logged = Sent::new();
        for (at, schema) in inputs {
            let rows = match schema {
                Some(schema) => texts(&mirror.rows(schema, at, Offset::ZERO, usize::MAX)?)?,
                None => mirror.of(at).iter().map(|r| String::from_utf8_lossy(&r.value).into_owned()).collect(),
            };
            logged.insert(at.clone(), rows);
        }
        if let Some((name, sent)) = self.in_doubt.take() {
            let longer = |at: &TopicPartition| logged.get(at).map_or(0, Vec::len) > self.rows(at).len();
            if sent.keys().any(longer) {
                self.acknowledged(&sent);
                self.found.push(name);
            }
        }
        for (at, rows) in &logged {
            compare(at, self.rows(at), rows)?;
        }
        ensure!(self.rows.iter().all(|(at, rows)| rows.is_empty() || logged.contains_key(at)), "rows were sent to a topic nobody looks at");
        Ok(())
    }
}

fn compare(at: &TopicPartition, want: &[String], got: &[String]) -> Result<()> {
    for (i, (want, got)) in want.iter().zip(got).enumerate() {
        ensure!(want == got, "{at} offset {i} should be '{want}', but is '{got}'");
    }
    match (want.get(got.len()), got.get(want.len())) {
        (Some(lost), _) => bail!("{at} ends at {}, but '{lost}' was acknowledged: {} rows are lost", got.len(), want.len() - got.len()),
        (_, Some(extra)) => {
            bail!("{at} has {} rows too many: '{extra}' was sent never, or refused, or is there twice", got.len() - want.len())
        }
        (None, None) => Ok(()),
    }
}

/// Each row of a stream of trades as the market said it.
pub fn texts(rows: &Rows) -> Result<Vec<String>> {
    let column = |name: &str| rows.batch.column_by_name(name).with_context(|| format!("there is no column {name}"));
    let text = |name| Ok::<_, anyhow::Error>(column(name)?.as_string::<i32>());
    let (id, symbol, side) = (text("event_id")?, text("symbol")?, text("side")?);
    let time = column("event_time")?.as_primitive::<TimestampMicrosecondType>();
    let price = column("price")?.as_primitive::<Decimal128Type>();
    let quantity = column("quantity")?.as_primitive::<Decimal128Type>();
    let one = |i| {
        let side = if side.is_valid(i) { side.value(i) } else { "" };
        canonical(id.value(i), symbol.value(i), time.value(i), &price.value_as_string(i), &quantity.value_as_string(i), side)
    };
    Ok((0..rows.len()).map(one).collect())
}
