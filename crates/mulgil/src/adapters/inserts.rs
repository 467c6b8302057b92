//! The generator's trades as rows of a captured PostgreSQL table: each batch one INSERT, which is one transaction.
//!
//! Which column gets what is what the stream reads from it, the other way round: `[stream.trades] columns = { symbol = "ticker" }` puts the
//! symbol into `ticker`. Values are literals with every digit they have; nothing is rounded on the way, and a column that would round is
//! refused before the first trade.

use crate::config::captured::CapturePlan;
use crate::config::checked::{Checked, StreamPlan};
use crate::config::units::looked_up;
use anyhow::{Context, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use mulgil_capture::postgres::address::Address;
use mulgil_capture::postgres::wire::{Connection, Purpose, TextRow, WireError, identifier, literal};
use mulgil_connect::sources::simulator;
use mulgil_model::decimal;
use mulgil_model::ids::Topic;
use mulgil_model::schema::{StreamKind, StreamSchema};
use mulgil_model::streams::TradeDecimals;
use mulgil_model::time::format_micros;
use mulgil_serve::ports::{PortError, PortErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// Rows of one INSERT: about 250 bytes each.
pub const STATEMENT_ROWS: usize = 1_000;

/// Decimals of the simulator's prices; its quantities are whole.
pub const PRICE_SCALE: i8 = 2;

/// For a question to the catalog.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// For an INSERT; the server itself gives up earlier ([`SESSION`]), so that it is known what became of it.
const INSERT_WITHIN: Duration = Duration::from_secs(60);
const SESSION: &str = "SET lock_timeout = '10s'; SET statement_timeout = '30s'; SET TimeZone = 'UTC'";

/// A table that may get trades, as the configuration has it.
#[derive(Debug, Clone)]
pub struct Target {
    capture: CapturePlan,
    /// `public.stock_trades`
    table: String,
    stream: Topic,
    columns: Vec<Column>,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
struct Column {
    /// In the simulator's schema.
    index: usize,
    /// Of the stream.
    name: String,
    /// Of the table.
    native: String,
    /// The table must have it.
    is_needed: bool,
}

/// Of the trades that are put into tables.
pub fn schema(stream: &Topic) -> Result<Arc<StreamSchema>> {
    Ok(Arc::new(simulator::schema(stream.clone(), TradeDecimals { price_scale: PRICE_SCALE, quantity_scale: 0 })?))
}

pub fn refuse(kind: PortErrorKind, detail: impl Into<String>) -> PortError {
    PortError::new(kind, detail)
}

impl Target {
    /// The table of the database that a stream of trades is made from; `table` where there is more than one.
    pub fn find(config: &Checked, capture: &CapturePlan, table: Option<&str>) -> Result<Self, PortError> {
        let source = capture.name.as_str();
        let of_source = |s: &&StreamPlan| s.schema.kind == StreamKind::Trade && s.from.as_ref().is_some_and(|f| f.source == source);
        let mut streams: Vec<&StreamPlan> = config.streams.iter().filter(of_source).collect();
        if let Some(table) = table {
            streams.retain(|s| s.from.as_ref().is_some_and(|f| f.table == table));
        }
        let tables: Vec<&str> = streams.iter().filter_map(|s| s.from.as_ref()).map(|f| f.table.as_str()).collect();
        let Some((stream, table)) = streams.first().zip(tables.first()) else {
            let from = table.map_or_else(|| format!("{source}.SCHEMA.TABLE"), |table| format!("{source}.{table}"));
            let detail =
                format!("no stream of trades is made from {from}: add [stream.trades] with kind = \"trade\" and from = \"{from}\"");
            return Err(refuse(PortErrorKind::Invalid, detail));
        };
        if let Some(other) = tables.iter().find(|t| t != &table) {
            let detail = format!("{source} has more than one table of trades: write \"{source}.{table}\" or \"{source}.{other}\"");
            return Err(refuse(PortErrorKind::Invalid, detail));
        }
        let broken = |e: anyhow::Error| refuse(PortErrorKind::Internal, format!("{e:#}"));
        let schema = schema(&stream.schema.stream).map_err(broken)?;
        let zone = TimeZone::get(&stream.timezone).context("the stream's time zone").map_err(broken)?;
        let columns = columns(&schema, stream);
        Ok(Self { capture: capture.clone(), table: (*table).to_owned(), stream: stream.schema.stream.clone(), columns, zone })
    }

    /// `exchange.public.stock_trades`
    pub fn name(&self) -> String {
        format!("{}.{}", self.capture.name, self.table)
    }

    pub fn stream(&self) -> &Topic {
        &self.stream
    }

    fn quoted(&self) -> String {
        let (schema, table) = self.table.split_once('.').unwrap_or(("public", &self.table));
        format!("{}.{}", identifier(schema), identifier(table))
    }
}

/// What the stream reads from the table, the other way round. Constants and words such as `@committed` are not the table's.
fn columns(schema: &StreamSchema, stream: &StreamPlan) -> Vec<Column> {
    let is_told = |name: &str| name != "label" && !stream.input.constants.contains_key(name);
    let all = schema.columns.iter().enumerate().filter(|(_, c)| is_told(&c.name));
    let column = all.map(|(index, c)| {
        let mapped = stream.input.columns.get(&c.name);
        let is_read = stream.schema.index_of(&c.name).is_some_and(|i| !stream.schema.columns[i].nullable);
        Column {
            index,
            name: c.name.clone(),
            native: mapped.cloned().unwrap_or_else(|| c.name.clone()),
            is_needed: is_read || mapped.is_some(),
        }
    });
    column.filter(|c| !c.native.starts_with('@')).collect()
}

/// A table that is open for trades.
pub struct Inserts {
    connection: Connection,
    /// `INSERT INTO … (…) VALUES `
    head: String,
    columns: Vec<Written>,
    zone: TimeZone,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    index: usize,
    /// The column has no zone: it gets the wall clock of the stream's.
    is_wall_clock: bool,
}

impl Inserts {
    /// Connects, and looks whether the table can take trades.
    pub async fn open(target: &Target) -> Result<Self, PortError> {
        let plan = &target.capture;
        let misplaced = |e: anyhow::Error| refuse(PortErrorKind::Invalid, format!("{e:#}"));
        let url = looked_up(&format!("source.{}.url", plan.name), &plan.url).map_err(misplaced)?;
        let address = url.parse::<Address>().with_context(|| format!("[source.{}] url", plan.name)).map_err(misplaced)?;
        let unreachable = |e: WireError| refuse(PortErrorKind::Busy, format!("[source.{}]: {e}", plan.name));
        let mut connection = Connection::open(&address, Purpose::Sql).await.map_err(unreachable)?;
        connection.query_within(SESSION, ASK_WITHIN).await.map_err(unreachable)?;
        let standby = connection.query_within("SELECT pg_is_in_recovery()", ASK_WITHIN).await.map_err(unreachable)?;
        if standby.first().is_some_and(|row| text(row, 0) == "t") {
            return Err(refuse(
                PortErrorKind::Conflict,
                format!("the database of [source.{}] is a standby: nothing can be put into it", plan.name),
            ));
        }
        let found = connection.query_within(&question(&target.table), ASK_WITHIN).await.map_err(unreachable)?;
        let taken = fit(target, &found, &address.user)?;
        let names: Vec<String> = taken.iter().map(|(column, _)| identifier(&column.native)).collect();
        let head = format!("INSERT INTO {} ({}) VALUES ", target.quoted(), names.join(", "));
        let columns = taken.into_iter().map(|(column, is_wall_clock)| Written { index: column.index, is_wall_clock }).collect();
        Ok(Self { connection, head, columns, zone: target.zone.clone() })
    }

    /// All rows of the batch or none.
    pub async fn insert(&mut self, batch: &RecordBatch) -> Result<()> {
        let statement = self.statement(batch)?;
        let unknown = || format!("what became of the last {} trades is not known", batch.num_rows());
        match self.connection.query_within(&statement, INSERT_WITHIN).await {
            Ok(_) => Ok(()),
            // The server said no, so there is nothing of them in the table.
            Err(error @ WireError::Server(_)) => Err(error).context("the table did not take the trades"),
            Err(error) => Err(error).with_context(unknown),
        }
    }

    pub async fn close(self) {
        self.connection.close().await;
    }

    fn statement(&self, batch: &RecordBatch) -> Result<String> {
        let mut out = self.head.clone();
        for row in 0..batch.num_rows() {
            out.push_str(if row == 0 { "(" } else { ",(" });
            for (i, column) in self.columns.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                self.push_value(&mut out, batch.column(column.index), row, column.is_wall_clock)?;
            }
            out.push(')');
        }
        Ok(out)
    }

    fn push_value(&self, out: &mut String, values: &dyn Array, row: usize, is_wall_clock: bool) -> Result<()> {
        if values.is_null(row) {
            out.push_str("NULL");
        } else if let Some(texts) = values.as_string_opt::<i32>() {
            out.push_str(&literal(texts.value(row)));
        } else if let Some(decimals) = values.as_primitive_opt::<Decimal128Type>() {
            decimal::write(out, decimals.value(row), decimals.scale());
        } else {
            let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
            let text = match is_wall_clock {
                true => Timestamp::from_microsecond(us)?.to_zoned(self.zone.clone()).datetime().to_string(),
                false => format_micros(us),
            };
            out.push_str(&literal(&text));
        }
        Ok(())
    }
}

/// The table's columns: name, type, whether an INSERT must give it a value, whether we may, whether we may use the schema.
fn question(table: &str) -> String {
    let (schema, name) = table.split_once('.').unwrap_or(("public", table));
    format!(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', \
         has_column_privilege(c.oid, a.attnum, 'INSERT'), has_schema_privilege(n.oid, 'USAGE') \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {} AND c.relname = {} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''",
        literal(schema),
        literal(name)
    )
}

/// The columns that are written, with whether each is without a zone; or why the table cannot take trades.
fn fit(target: &Target, found: &[TextRow], user: &str) -> Result<Vec<(Column, bool)>, PortError> {
    let (table, quoted) = (&target.table, target.quoted());
    let invalid = |detail: String| Err(refuse(PortErrorKind::Invalid, detail));
    let Some(first) = found.first() else {
        return invalid(format!("the database of [source.{}] has no table {table}", target.capture.name));
    };
    if text(first, 4) != "t" {
        let (schema, _) = table.split_once('.').unwrap_or(("public", ""));
        let detail =
            format!("{user} may not use the schema {schema}: GRANT USAGE ON SCHEMA {} TO {}", identifier(schema), identifier(user));
        return Err(refuse(PortErrorKind::Forbidden, detail));
    }
    let mut taken = Vec::new();
    for column in &target.columns {
        let Some(row) = found.iter().find(|row| text(row, 0) == column.native) else {
            if column.is_needed {
                return invalid(format!(
                    "{table} has no column {}, which [stream.{}] reads as {}: add it, or map another with columns = {{ {} = \"…\" }}",
                    column.native, target.stream, column.name, column.name
                ));
            }
            continue;
        };
        if text(row, 3) != "t" {
            let detail = format!("{user} may not insert into {table}: GRANT INSERT ON {quoted} TO {}", identifier(user));
            return Err(refuse(PortErrorKind::Forbidden, detail));
        }
        let kind = text(row, 1);
        if matches!(column.name.as_str(), "price" | "quantity") && !is_exact(&kind, if column.name == "price" { PRICE_SCALE } else { 0 }) {
            return invalid(format!("the column {} of {table} is {kind}, which would round: use numeric(18,2)", column.native));
        }
        let is_wall_clock = kind.starts_with("timestamp") && kind.ends_with("without time zone");
        taken.push((column.clone(), is_wall_clock));
    }
    let is_written = |row: &TextRow| taken.iter().any(|(c, _)| c.native == text(row, 0));
    if let Some(row) = found.iter().find(|row| text(row, 2) == "t" && !is_written(row)) {
        return invalid(format!(
            "the column {} of {table} must not be null, and a made-up trade has nothing for it: give it a default",
            text(row, 0)
        ));
    }
    Ok(taken)
}

/// Whether a column of this type (as `format_type` says it) keeps a number with so many decimals as it is.
fn is_exact(kind: &str, scale: i8) -> bool {
    match kind {
        "numeric" | "text" | "character varying" => true,
        "smallint" | "integer" | "bigint" => scale == 0,
        _ => {
            let digits = kind.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')'));
            let declared = digits.map(|d| d.split_once(',').map_or("0", |(_, scale)| scale));
            declared.and_then(|s| s.parse::<i16>().ok()).is_some_and(|s| s >= i16::from(scale))
        }
    }
}

fn text(row: &TextRow, at: usize) -> String {
    let value = row.get(at).and_then(Option::as_deref).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::is_exact;

    #[test]
    fn a_column_that_would_round_is_not_exact() {
        for (kind, price, quantity) in [
            ("numeric", true, true),
            ("numeric(18,2)", true, true),
            ("numeric(18,4)", true, true),
            ("numeric(18,1)", false, true),
            ("numeric(5,-2)", false, false),
            ("integer", false, true),
            ("double precision", false, false),
            ("money", false, false),
        ] {
            assert_eq!((is_exact(kind, 2), is_exact(kind, 0)), (price, quantity), "{kind}");
        }
    }
}
