//! Alerts on their way out: ids, scores, and the columns of the alert stream.

use arrow::array::{ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::error::ArrowError;
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::Severity;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Whether a rule's alerts are meant for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Live,
    /// Raised and stored, but marked, so that a new rule can be watched before it is let loose.
    Shadow,
    Off,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// 0 to 100. The severity gives the band (low 20, medium 40, high 60, critical 80), the weight w >= 0 the place in it:
/// 20 x (1 - 2^-w), so 10 for the default weight of 1. Rises with both; no weight lifts a rule into the band above.
pub fn score(severity: Severity, weight: f64) -> f64 {
    let band = match severity {
        Severity::Low => 20.0,
        Severity::Medium => 40.0,
        Severity::High => 60.0,
        Severity::Critical => 80.0,
    };
    let place = 20.0 * (1.0 - (-weight.max(0.0)).exp2());
    // Three decimals are enough to order alerts, and keep the float's digits short in JSON.
    ((band + place) * 1000.0).round() / 1000.0
}

/// The first eight hex digits of a hash of what the rule means.
pub fn version_of(text: &str) -> String {
    format!("{:016x}", xxh3_64(text.as_bytes()))[..8].to_owned()
}

/// The same alert always has the same id, however often its row is replayed.
pub fn id_of(rule: &str, version: &str, key: &str, partition: Partition, offset: Offset) -> String {
    let mut bytes = Vec::new();
    for part in [rule, version, key] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(&partition.0.to_le_bytes());
    bytes.extend_from_slice(&offset.0.to_le_bytes());
    format!("{:032x}", xxh3_128(&bytes))
}

/// One alert. Texts are as in `mulgil_model::streams::alerts`.
#[derive(Debug, Clone)]
pub struct Alert<'a> {
    pub key: &'a str,
    pub event_time: i64,
    pub rule: &'a str,
    pub version: &'a str,
    pub severity: Severity,
    pub mode: Mode,
    pub state: &'a str,
    pub score: f64,
    pub message: String,
    pub condition: &'a str,
    pub evidence: String,
    pub thresholds: &'a str,
    pub offset: Offset,
    pub first_offset: Option<Offset>,
}

/// Builds a batch of the alert stream.
pub struct AlertBatch {
    partition: Partition,
    stream: String,
    texts: [StringBuilder; 11],
    thresholds: StringBuilder,
    event_time: TimestampMicrosecondBuilder,
    score: Float64Builder,
    offsets: [Int64Builder; 3],
    n: usize,
}

impl AlertBatch {
    /// For alerts about rows of `input` in `partition`.
    pub fn new(input: &StreamSchema, partition: Partition) -> Self {
        Self {
            partition,
            stream: input.stream.to_string(),
            texts: Default::default(),
            thresholds: StringBuilder::new(),
            event_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            score: Float64Builder::new(),
            offsets: Default::default(),
            n: 0,
        }
    }

    pub fn push(&mut self, alert: &Alert<'_>) {
        let id = id_of(alert.rule, alert.version, alert.key, self.partition, alert.offset);
        let texts = [
            &id,
            alert.key,
            &self.stream,
            alert.rule,
            alert.version,
            alert.severity.as_str(),
            alert.mode.as_str(),
            alert.state,
            &alert.message,
            alert.condition,
            &alert.evidence,
        ];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_value(text));
        self.event_time.append_value(alert.event_time);
        self.score.append_value(alert.score);
        self.offsets[0].append_value(i64::from(self.partition.0));
        self.offsets[1].append_value(alert.offset.0 as i64);
        self.offsets[2].append_option(alert.first_offset.map(|o| o.0 as i64));
        self.thresholds.append_value(alert.thresholds);
        self.n += 1;
    }

    pub fn len(&self) -> usize {
        self.n
    }

    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// In the column order of `output`.
    pub fn finish(mut self, output: &StreamSchema) -> Result<RecordBatch, ArrowError> {
        let texts = self.texts.each_mut().map(|c| Arc::new(c.finish()) as ArrayRef);
        let [id, key, stream, rule, version, severity, mode, state, message, condition, evidence] = texts;
        let [partition, offset, first] = self.offsets.each_mut().map(|c| Arc::new(c.finish()) as ArrayRef);
        let event_time: ArrayRef = Arc::new(self.event_time.finish());
        let score: ArrayRef = Arc::new(self.score.finish());
        let thresholds: ArrayRef = Arc::new(self.thresholds.finish());
        let columns = vec![
            id, key, event_time, stream, rule, version, severity, mode, state, score, message, condition, evidence, thresholds, partition,
            offset, first,
        ];
        RecordBatch::try_new(Arc::clone(output.arrow()), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_rise_with_severity_and_weight() {
        let mut last = 0.0;
        for severity in Severity::ALL {
            for weight in [0.0, 0.5, 1.0, 2.0, 5.0] {
                let score = score(severity, weight);
                assert!(score > last && score < 100.0, "{severity:?} {weight} {score}");
                last = score;
            }
        }
        assert_eq!(score(Severity::High, 1.0), 70.0);
        assert_eq!(score(Severity::High, 1e9), 80.0);
        assert_eq!(score(Severity::Low, -3.0), 20.0);
    }

    #[test]
    fn ids_depend_on_every_part() {
        let id = |rule, key, partition, offset| id_of(rule, "v", key, Partition(partition), Offset(offset));
        let ids = [id("a", "k", 0, 1), id("b", "k", 0, 1), id("a", "l", 0, 1), id("a", "k", 1, 1), id("a", "k", 0, 2)];
        for (i, one) in ids.iter().enumerate() {
            assert_eq!(one.len(), 32);
            assert!(!ids[i + 1..].contains(one));
        }
    }
}
