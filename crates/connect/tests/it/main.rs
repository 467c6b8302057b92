//! The sources and decoders as the binary uses them.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod formats;
mod replay;
mod simulator;

use mulgil_connect::decode::{DecodeOptions, Decoded, Format, Plan, UnknownFields, decode};
use mulgil_model::ids::Topic;
use mulgil_model::json::write_row;
use mulgil_model::schema::{Column, ColumnType, StreamSchema};
use mulgil_model::streams::{TradeDecimals, trades};
use mulgil_model::time::ReceiveTime;
use std::fmt::Write;
use std::sync::Arc;

/// 2026-11-21T00:00:00Z: the receive time of every test.
pub const RECEIVED: ReceiveTime = ReceiveTime(1_795_219_200_000_000);

pub fn trade_schema() -> Arc<StreamSchema> {
    let extra = vec![
        Column::optional("score", ColumnType::Float),
        Column::optional("seq", ColumnType::Int),
        Column::optional("block", ColumnType::Bool),
    ];
    Arc::new(trades(Topic::new("trades").unwrap(), TradeDecimals::default(), extra).unwrap())
}

pub fn plan(change: impl FnOnce(&mut DecodeOptions)) -> Arc<Plan> {
    let mut options = DecodeOptions::default();
    change(&mut options);
    Arc::new(Plan::new(trade_schema(), options).unwrap())
}

pub fn strict() -> Arc<Plan> {
    plan(|o| o.unknown = UnknownFields::Refuse)
}

/// Every row and every problem as a line, in the input's order.
pub fn show(plan: &Plan, decoded: &Decoded) -> String {
    let schema = plan.schema();
    let mut lines: Vec<(u64, String)> = Vec::new();
    for (i, row) in decoded.rows.iter().enumerate() {
        let mut text = format!("{row} @{} ", decoded.lines[i]);
        write_row(&mut text, schema, &decoded.batch, i);
        lines.push((*row, text.replace(",\"score\":null,\"seq\":null,\"block\":null", "")));
    }
    for p in &decoded.problems {
        let original = String::from_utf8_lossy(&p.original);
        let short: String = original.chars().take(60).collect();
        let field = p.field.as_deref().map_or(String::new(), |f| format!("'{f}' "));
        lines.push((p.row, format!("{} !{}:{} {field}{} | {}", p.row, p.line, p.column, p.reason, short.escape_debug())));
    }
    lines.sort();
    lines.into_iter().fold(String::new(), |mut out, (_, line)| {
        writeln!(out, "{line}").unwrap();
        out
    })
}

pub fn decoded(plan: &Arc<Plan>, format: Format, bytes: &[u8]) -> String {
    show(plan, &decode(plan, format, bytes, RECEIVED))
}
