//! What the user says about an input: names, constants, units, spellings and limits.

use jiff::tz::TimeZone;
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::{BUY, SELL};
use mulgil_model::time::EpochUnit;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Buy,
    Sell,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buy => BUY,
            Self::Sell => SELL,
        }
    }
}

/// What to do with a field that the stream does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownFields {
    #[default]
    Ignore,
    /// The row is refused, with the nearest known name.
    Refuse,
}

/// How an input's fields become a stream's columns.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Stream column -> name of the field in the input: `symbol = "ticker"`. Other columns are found under their own name.
    pub columns: BTreeMap<String, String>,
    /// Stream column -> the value that every row gets: `market = "KRX"`. Fields of the input never override it.
    pub constants: BTreeMap<String, String>,
    /// The unit of times written as numbers.
    pub time_unit: EpochUnit,
    /// The zone of times written without an offset, such as `2019-07-05 17:00:00`. Without it they are refused.
    pub time_zone: Option<TimeZone>,
    /// How the input spells the taker's side, in any case of ASCII letters.
    pub sides: BTreeMap<String, Side>,
}

/// `bid` and `ask` name the taker's side here: a `BID` trade was bought by whoever crossed the spread (Upbit's `ask_bid`).
const SIDES: [(&str, Side); 11] = [
    ("buy", Side::Buy),
    ("b", Side::Buy),
    ("bid", Side::Buy),
    ("buyer", Side::Buy),
    ("매수", Side::Buy),
    ("sell", Side::Sell),
    ("s", Side::Sell),
    ("ask", Side::Sell),
    ("a", Side::Sell),
    ("seller", Side::Sell),
    ("매도", Side::Sell),
];

impl Default for Mapping {
    fn default() -> Self {
        Self {
            columns: BTreeMap::new(),
            constants: BTreeMap::new(),
            time_unit: EpochUnit::default(),
            time_zone: None,
            sides: SIDES.into_iter().map(|(text, side)| (text.to_owned(), side)).collect(),
        }
    }
}

impl Mapping {
    /// The field of the input that a stream's column is read from; None when it is a constant.
    pub fn source_of<'a>(&'a self, column: &'a str) -> Option<&'a str> {
        if self.constants.contains_key(column) { None } else { Some(self.columns.get(column).map_or(column, String::as_str)) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest text of one field, in bytes.
    pub field_bytes_max: usize,
    /// The longest row, in bytes.
    pub row_bytes_max: usize,
    /// How deep objects and arrays may be nested, the row itself included.
    pub nesting_max: usize,
    /// The most rows, good and bad together, that one call of [`super::decode`] gives.
    pub rows_max: usize,
    /// How far an event time may lie behind the receive time (in its future).
    pub future_us_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { field_bytes_max: 64 << 10, row_bytes_max: 4 << 20, nesting_max: 32, rows_max: 1_000_000, future_us_max: 300_000_000 }
    }
}

#[derive(Debug, Clone, Default)]
pub struct DecodeOptions {
    pub mapping: Mapping,
    pub unknown: UnknownFields,
    pub limits: Limits,
}

/// The user's mistake in the options; never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("the mapping names the column '{column}', which stream '{stream}' does not have{hint}")]
    NoColumn { column: String, stream: String, hint: String },
    #[error("the mapping reads both '{first}' and '{second}' from the field '{field}': name each field once")]
    FieldTwice { first: String, second: String, field: String },
    #[error("column '{column}' is both a constant and mapped from a field: remove one of them")]
    Both { column: String },
    #[error("the constant of column '{column}' is not valid: {reason}")]
    Constant { column: String, reason: String },
}

/// No field is called by more.
const NAME_COMPARED_BYTES_MAX: usize = 200;

/// `; did you mean 'price'?`, or nothing when no name is near.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // A name that needs more edits than a third of its letters is a different word. So is one of very different length, which is seen
    // without comparing: a name of 50 kB took seconds.
    let edits_max = |k: &str| k.len().max(name.len()) / 3;
    let alike = known.filter(|k| k.len().abs_diff(name.len()) <= edits_max(k) && name.len() <= NAME_COMPARED_BYTES_MAX);
    let near = alike.map(|k| (strsim::damerau_levenshtein(name, k), k)).filter(|(d, k)| *d <= edits_max(k)).min();
    near.map_or_else(String::new, |(_, k)| format!("; did you mean '{k}'?"))
}

pub(crate) fn unknown_column(column: &str, schema: &StreamSchema) -> OptionsError {
    let hint = nearest(column, schema.columns.iter().map(|c| c.name.as_str()));
    OptionsError::NoColumn { column: column.to_owned(), stream: schema.stream.to_string(), hint }
}
