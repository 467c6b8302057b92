//! A mapping and one shape of its table: where each column of the stream comes from, or why it cannot.

use super::{Break, Changes, Mapping, MappingError};
use crate::table::{Kind, Table};
use mulgil_model::position::Position;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use std::collections::BTreeSet;

/// What is known of a change beside its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Op,
    IsDeleted,
    Snapshot,
    Committed,
    Position,
}

const WORDS: [(&str, Word, ColumnType, &str); 5] = [
    ("@op", Word::Op, ColumnType::Text, "text"),
    ("@is_deleted", Word::IsDeleted, ColumnType::Bool, "a bool"),
    ("@snapshot", Word::Snapshot, ColumnType::Bool, "a bool"),
    ("@committed", Word::Committed, ColumnType::Timestamp, "a timestamp"),
    ("@position", Word::Position, ColumnType::Text, "text"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Column(usize),
    Word(Word),
    Constant,
    /// An optional column that the table does not have.
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// One per column of the stream.
    pub from: Vec<From>,
    /// What each is called where it comes from.
    pub names: Vec<String>,
    /// Of the table.
    pub n_columns: usize,
}

/// What needs no table to be seen wrong.
pub(super) fn check(mapping: &Mapping) -> Result<(), MappingError> {
    let stream = &mapping.stream;
    for column in mapping.columns.keys().chain(mapping.constants.keys()) {
        if stream.index_of(column).is_none() {
            return Err(MappingError::NoColumn { stream: stream.stream.to_string(), column: column.clone() });
        }
    }
    if let Some(column) = mapping.constants.keys().find(|c| mapping.columns.contains_key(*c)) {
        return Err(MappingError::Both { column: column.clone() });
    }
    for (column, word) in mapping.columns.iter().filter(|(_, source)| source.starts_with('@')) {
        let (column, word) = (column.clone(), word.clone());
        let Some((_, _, wanted, what)) = WORDS.into_iter().find(|(name, ..)| *name == word) else {
            return Err(MappingError::Word { column, word });
        };
        let kind = stream.index_of(&column).map(|at| stream.columns[at].kind);
        if let Some(kind) = kind.filter(|kind| *kind != wanted) {
            return Err(MappingError::WordKind { column, word, kind, wanted: what });
        }
    }
    if mapping.changes == Changes::All {
        check_marked(mapping)?;
    }
    Ok(())
}

fn check_marked(mapping: &Mapping) -> Result<(), MappingError> {
    for (word, column, wanted) in [("@op", "op", "text"), ("@is_deleted", "is_deleted", "bool")] {
        let is_there = (0..mapping.stream.columns.len()).any(|at| source_of(mapping, at) == word || by_itself(mapping, at) == Some(word));
        if !is_there {
            return Err(MappingError::Unmarked { stream: mapping.stream.stream.to_string(), column, wanted });
        }
    }
    Ok(())
}

fn source_of(mapping: &Mapping, target: usize) -> &str {
    let name = &mapping.stream.columns[target].name;
    mapping.columns.get(name).map_or(name, String::as_str)
}

/// The word that fills a column which is not mapped, by its name.
fn by_itself(mapping: &Mapping, target: usize) -> Option<&'static str> {
    let column = &mapping.stream.columns[target];
    let is_mapped = mapping.columns.contains_key(&column.name) || mapping.constants.contains_key(&column.name);
    let word = match (column.name.as_str(), column.kind) {
        ("op", ColumnType::Text) => "@op",
        ("is_deleted", ColumnType::Bool) => "@is_deleted",
        ("snapshot", ColumnType::Bool) => "@snapshot",
        _ => return None,
    };
    (!is_mapped).then_some(word)
}

impl Binding {
    /// `once_found`: columns that an earlier shape has filled without being mapped by name.
    pub fn of(table: &Table, mapping: &Mapping, once_found: &BTreeSet<usize>, position: Position) -> Result<Self, Break> {
        let stream = &mapping.stream;
        let (mut from, mut names) = (Vec::with_capacity(stream.columns.len()), Vec::with_capacity(stream.columns.len()));
        for (target, column) in stream.columns.iter().enumerate() {
            let source = by_itself(mapping, target).unwrap_or_else(|| source_of(mapping, target));
            let refuse = |reason: String| Break {
                stream: stream.stream.to_string(),
                table: table.id.to_string(),
                version: table.version,
                column: source.to_owned(),
                target: column.name.clone(),
                reason,
                position,
            };
            let is_needed = !column.nullable || mapping.columns.contains_key(&column.name) || once_found.contains(&target);
            names.push(source.to_owned());
            from.push(if mapping.constants.contains_key(&column.name) {
                From::Constant
            } else if let Some((_, word, ..)) = WORDS.iter().find(|(name, ..)| *name == source) {
                From::Word(*word)
            } else if let Some(i) = table.position(source) {
                fits(&table.columns[i].kind, stream, target, mapping).map_err(refuse)?;
                From::Column(i)
            } else if is_needed {
                return Err(refuse(if once_found.contains(&target) { "is no longer there" } else { "is not there" }.to_owned()));
            } else {
                From::Nothing
            });
        }
        Ok(Self { from, names, n_columns: table.columns.len() })
    }
}

/// Whether values of the kind can be values of the stream's column.
fn fits(kind: &Kind, stream: &StreamSchema, target: usize, mapping: &Mapping) -> Result<(), String> {
    let column = &stream.columns[target];
    let is_symbol = stream.kind == StreamKind::Trade && target == stream.key;
    let is_number = matches!(kind, Kind::Int16 | Kind::Int32 | Kind::Int64 | Kind::UInt64 | Kind::Decimal(_));
    let is_text = matches!(kind, Kind::Text | Kind::Unknown);
    let is_float = matches!(kind, Kind::Float32 | Kind::Float64);
    let fits = match column.kind {
        // A symbol that is a number has lost its leading zeros.
        ColumnType::Text if is_symbol => is_text,
        ColumnType::Text => !matches!(kind, Kind::Binary | Kind::Array(_)),
        ColumnType::Int => is_number || is_text,
        ColumnType::Decimal { .. } | ColumnType::Float => is_number || is_float || is_text,
        ColumnType::Bool => is_number || is_text || *kind == Kind::Bool,
        ColumnType::Timestamp => {
            let is_local = matches!(kind, Kind::Timestamp | Kind::Date);
            if is_local && mapping.time_zone.is_none() {
                return Err(
                    "has no time zone: name it in the mapping (timezone = \"Asia/Seoul\"), or make the column one with a zone".to_owned()
                );
            }
            is_local || is_text || matches!(kind, Kind::TimestampTz | Kind::Int64 | Kind::Int32)
        }
    };
    let called = if is_symbol { "a symbol".to_owned() } else { column.kind.to_string() };
    if fits { Ok(()) } else { Err(format!("is of a type ({}) that cannot be {called}", what(kind))) }
}

fn what(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int16 | Kind::Int32 | Kind::Int64 | Kind::UInt64 => "a whole number",
        Kind::Float32 | Kind::Float64 => "a float",
        Kind::Decimal(_) => "a decimal",
        Kind::Text | Kind::Unknown => "text",
        Kind::Binary => "bytes",
        Kind::Date => "a date",
        Kind::Time => "a time of the day",
        Kind::Timestamp | Kind::TimestampTz => "a timestamp",
        Kind::Uuid => "a uuid",
        Kind::Json => "json",
        Kind::Array(_) => "an array",
    }
}
