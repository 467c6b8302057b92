//! One value of a change as a value of the stream's column, with the checks that every row of the stream passes, whatever its source.

use super::bind::Word;
use super::{FIELD_BYTES_MAX, Mapping, is_of_snapshot};
use crate::change::{Change, Op, Row};
use crate::datum::Datum;
use crate::envelope::text::push_text;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use mulgil_model::columns::Cell;
use mulgil_model::decimal;
use mulgil_model::schema::{ColumnType, StreamKind};
use mulgil_model::streams::{BUY, SELL};
use mulgil_model::time::{EpochUnit, MICROS_MAX, MICROS_MIN, format_micros, parse_micros};
use std::collections::BTreeMap;

pub(super) const NOT_SENT: &str = "the database did not send this value, which has not changed (TOAST or a minimal row image), and the row before \
                                   does not have it: set REPLICA IDENTITY FULL, or binlog_row_image = FULL";

/// The value, or the one from the row before where it was not sent.
pub(super) fn sent<'a>(row: &'a Row, before: Option<&'a Row>, i: usize) -> Option<&'a Datum> {
    [Some(row), before].into_iter().flatten().map(|row| &row[i]).find(|datum| !matches!(datum, Datum::Unavailable))
}

/// What a column means, and so how its values are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Key,
    Symbol,
    Positive,
    Side,
    EventTime,
}

pub(super) struct Checks {
    columns: Vec<(ColumnType, bool, Role)>,
    zone: Option<TimeZone>,
    unit: EpochUnit,
    sides: BTreeMap<String, bool>,
}

type Checked = Result<Cell, String>;

impl Checks {
    pub fn of(mapping: &Mapping) -> Self {
        let stream = &mapping.stream;
        let is_trade = stream.kind == StreamKind::Trade;
        let role = |(i, name): (usize, &str)| match name {
            _ if i == stream.event_time => Role::EventTime,
            _ if i == stream.key && is_trade => Role::Symbol,
            _ if i == stream.key => Role::Key,
            "price" | "quantity" if is_trade => Role::Positive,
            "side" if is_trade => Role::Side,
            _ => Role::Plain,
        };
        let columns = stream.columns.iter().enumerate().map(|(i, c)| (c.kind, c.nullable, role((i, &c.name)))).collect();
        Self { columns, zone: mapping.time_zone.clone(), unit: mapping.time_unit, sides: mapping.sides.clone() }
    }

    pub fn is_nullable(&self, target: usize) -> bool {
        self.columns[target].1
    }

    /// A value as it stands in a config or a text column.
    pub fn text_cell(&self, target: usize, text: &str, latest_us: i64, texts: &mut String) -> Checked {
        if text.len() > FIELD_BYTES_MAX {
            return Err(format!("is {} bytes long; a value may have {FIELD_BYTES_MAX}", text.len()));
        }
        let (kind, _, role) = self.columns[target];
        match kind {
            ColumnType::Text => self.push_text(role, text, texts),
            ColumnType::Int => int_of(text).map(Cell::Int),
            ColumnType::Decimal { precision, scale } => decimal_of(text, precision, scale, role),
            ColumnType::Timestamp => self.moment(role, parse_micros(text, self.unit).map_err(|e| e.to_string())?, latest_us),
            ColumnType::Bool => match text.trim_ascii() {
                "true" | "t" | "1" => Ok(Cell::Bool(true)),
                "false" | "f" | "0" => Ok(Cell::Bool(false)),
                other => Err(format!("'{}' is neither true nor false", shorten(other))),
            },
            ColumnType::Float => float_of(text),
        }
    }

    pub fn cell(&self, target: usize, datum: &Datum, latest_us: i64, texts: &mut String) -> Checked {
        let (kind, _, role) = self.columns[target];
        let refuse = || Err(format!("is {}, which cannot be {kind}", what(datum)));
        match (kind, datum) {
            (_, Datum::Null) => Ok(Cell::Null),
            (_, Datum::Unavailable) => Err(NOT_SENT.to_owned()),
            (_, Datum::Text(text) | Datum::Odd(text)) => {
                let text = std::str::from_utf8(text).map_err(|_| "is not valid UTF-8".to_owned())?;
                self.text_cell(target, text, latest_us, texts)
            }
            (_, Datum::Binary(_) | Datum::Array(_)) => refuse(),
            (ColumnType::Text, datum) => {
                let mut text = Vec::with_capacity(40);
                push_text(&mut text, datum);
                self.text_cell(target, &String::from_utf8_lossy(&text), latest_us, texts)
            }
            (ColumnType::Bool, Datum::Bool(v)) => Ok(Cell::Bool(*v)),
            (ColumnType::Int, Datum::Int(v)) => Ok(Cell::Int(*v)),
            (ColumnType::Float, Datum::Float64(v)) if v.is_finite() => Ok(Cell::Float(*v)),
            (ColumnType::Float, Datum::Float32(v)) if v.is_finite() => Ok(Cell::Float(f64::from(*v))),
            (ColumnType::Timestamp, datum) => self.time_cell(role, datum, latest_us).unwrap_or_else(refuse),
            (_, Datum::Decimal(text)) => self.text_cell(target, &String::from_utf8_lossy(text), latest_us, texts),
            // Floats are taken as the shortest decimal that gives the same float, which is what was once written.
            (_, Datum::Int(_) | Datum::UInt(_) | Datum::Float32(_) | Datum::Float64(_)) => {
                let mut text = Vec::with_capacity(24);
                push_text(&mut text, datum);
                self.text_cell(target, &String::from_utf8_lossy(&text), latest_us, texts)
            }
            _ => refuse(),
        }
    }

    pub fn word_cell(&self, target: usize, word: Word, change: &Change, latest_us: i64, texts: &mut String) -> Checked {
        match word {
            Word::Op => self.text_cell(target, change.op.letter(), latest_us, texts),
            Word::IsDeleted => Ok(Cell::Bool(change.op == Op::Delete)),
            Word::Snapshot => Ok(Cell::Bool(is_of_snapshot(change))),
            Word::Committed => self.moment(self.columns[target].2, change.origin.committed_us, latest_us),
            Word::Position => self.text_cell(target, &change.position.to_string(), latest_us, texts),
        }
    }

    fn push_text(&self, role: Role, text: &str, texts: &mut String) -> Checked {
        let text = match role {
            Role::Symbol => check_symbol(text).map(|()| text)?,
            Role::Key if text.is_empty() => return Err("must not be empty".to_owned()),
            Role::Side => match self.side_of(text)? {
                Some(side) => side,
                None => return Ok(Cell::Null),
            },
            _ => text,
        };
        let start = texts.len();
        texts.push_str(text);
        Ok(Cell::Text(start, texts.len()))
    }

    fn side_of(&self, text: &str) -> Result<Option<&'static str>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(side) = [BUY, SELL].into_iter().find(|side| side.eq_ignore_ascii_case(text)) {
            return Ok(Some(side));
        }
        let known = self.sides.iter().find(|(spelling, _)| spelling.eq_ignore_ascii_case(text));
        let (_, is_buy) =
            known.ok_or_else(|| format!("'{}' is neither BUY nor SELL, nor a spelling that the mapping knows", shorten(text)))?;
        Ok(Some(if *is_buy { BUY } else { SELL }))
    }

    /// None if the value is no time.
    fn time_cell(&self, role: Role, datum: &Datum, latest_us: i64) -> Option<Checked> {
        let us = match datum {
            Datum::TimestampTz(us) => Ok(*us),
            Datum::Timestamp(us) => self.zoned(*us),
            Datum::Date(days) => self.zoned(i64::from(*days).saturating_mul(86_400_000_000)),
            Datum::Int(n) => self.unit.to_micros(*n).map_err(|e| e.to_string()),
            _ => return None,
        };
        Some(us.and_then(|us| self.moment(role, us, latest_us)))
    }

    /// A local time that a clock change skips or repeats is taken with the offset from before the change, as RFC 5545 does.
    fn zoned(&self, local_us: i64) -> Result<i64, String> {
        let zone = self.zone.as_ref().ok_or("has no time zone: name it in the mapping")?;
        let out_of_range = || format!("{} is outside the years 1900 to 2200: is its unit right?", format_micros(local_us));
        if !(MICROS_MIN..=MICROS_MAX).contains(&local_us) {
            return Err(out_of_range());
        }
        let epoch: DateTime = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        let local = epoch.checked_add(Span::new().microseconds(local_us)).map_err(|_| out_of_range())?;
        zone.to_ambiguous_timestamp(local).compatible().map(Timestamp::as_microsecond).map_err(|_| out_of_range())
    }

    fn moment(&self, role: Role, us: i64, latest_us: i64) -> Checked {
        if !(MICROS_MIN..=MICROS_MAX).contains(&us) {
            return Err(format!("{} is outside the years 1900 to 2200: is its unit right?", format_micros(us)));
        }
        if role == Role::EventTime && us > latest_us {
            return Err(format!("{} lies too far in the future of its receipt: is its unit or time zone right?", format_micros(us)));
        }
        Ok(Cell::Int(us))
    }
}

fn decimal_of(text: &str, precision: u8, scale: i8, role: Role) -> Checked {
    let value = decimal::parse(text.trim_ascii(), precision, scale).map_err(|e| e.to_string())?;
    if role == Role::Positive && value <= 0 { Err("must be greater than zero".to_owned()) } else { Ok(Cell::Decimal(value)) }
}

fn int_of(text: &str) -> Result<i64, String> {
    let text = text.trim_ascii();
    if let Ok(v) = text.parse::<i64>() {
        return Ok(v);
    }
    let value = decimal::parse(text, decimal::PRECISION_MAX, 0).map_err(|e| match e {
        decimal::DecimalError::Scale(..) => format!("{} is not a whole number", shorten(text)),
        e => e.to_string(),
    })?;
    i64::try_from(value).map_err(|_| format!("{} does not fit into 64 bits", shorten(text)))
}

fn float_of(text: &str) -> Checked {
    match text.trim_ascii().parse::<f64>() {
        Ok(v) if v.is_finite() => Ok(Cell::Float(v)),
        _ => Err(format!("'{}' is not a finite number", shorten(text))),
    }
}

/// The longest symbol, in bytes: the rule of every source (`crates/connect/src/decode/value.rs`).
const SYMBOL_BYTES_MAX: usize = 64;

fn check_symbol(text: &str) -> Result<(), String> {
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'=' | b'^' | b'&' | b'+' | b'#' | b'@' | b'$');
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() <= SYMBOL_BYTES_MAX && text.bytes().all(allowed) && text.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(format!(
        "'{}' is not a symbol: use up to {SYMBOL_BYTES_MAX} letters, digits and any of . - _ / : = ^ & + # @ $",
        shorten(&text.escape_debug().to_string())
    ))
}

fn what(datum: &Datum) -> &'static str {
    match datum {
        Datum::Null | Datum::Unavailable => "nothing",
        Datum::Odd(_) | Datum::Text(_) => "text",
        Datum::Bool(_) => "a boolean",
        Datum::Int(_) | Datum::UInt(_) | Datum::Decimal(_) => "a number",
        Datum::Float32(_) | Datum::Float64(_) => "a float",
        Datum::Binary(_) => "bytes",
        Datum::Date(_) | Datum::Timestamp(_) | Datum::TimestampTz(_) => "a time",
        Datum::Time(_) => "a time of the day",
        Datum::Uuid(_) => "a uuid",
        Datum::Json(_) => "json",
        Datum::Array(_) => "an array",
    }
}

/// Cuts a quoted bad value, so that a 1 MB field does not become a 1 MB reason.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
