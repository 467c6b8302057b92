//! `GET /api/v1/streams`: what there is to read.

use crate::app::App;
use crate::ports::StreamInfo;
use crate::problem::Problem;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use mulgil_model::ids::Partition;
use mulgil_model::schema::StreamKind;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize, utoipa::ToSchema)]
pub struct StreamList {
    /// Identity of the log: offsets and cursors of another epoch mean nothing here.
    epoch: String,
    streams: Vec<StreamReport>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct StreamReport {
    name: String,
    /// trade, bar, alert, change (of a captured table: on the WebSocket as Debezium's JSON) or plain
    kind: &'static str,
    key: String,
    event_time: String,
    columns: Vec<ColumnReport>,
    partitions: Vec<PartitionReport>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ColumnReport {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    nullable: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct PartitionReport {
    partition: u32,
    /// The oldest kept offset.
    first: u64,
    /// The offset that the next row will get.
    next: u64,
}

/// All streams with their columns and where they begin and end.
#[utoipa::path(get, path = "/api/v1/streams", tag = "streams", responses((status = 200, body = StreamList)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let feed = &app.ports.feed;
    let streams = feed.streams().iter().map(|s| report(&app, s)).collect::<Result<_, _>>()?;
    Ok(axum::Json(StreamList { epoch: feed.epoch().to_owned(), streams }).into_response())
}

fn report(app: &App, info: &StreamInfo) -> Result<StreamReport, Problem> {
    let schema = &info.schema;
    let partition = |p| {
        let bounds = app.ports.feed.bounds(&schema.stream, Partition(p))?;
        Ok::<_, Problem>(PartitionReport { partition: p, first: bounds.first.0, next: bounds.next.0 })
    };
    let kind = match schema.kind {
        StreamKind::Trade => "trade",
        StreamKind::Bar => "bar",
        StreamKind::Alert => "alert",
        StreamKind::Change => "change",
        StreamKind::Plain => "plain",
    };
    Ok(StreamReport {
        name: schema.stream.to_string(),
        kind,
        key: schema.columns[schema.key].name.clone(),
        event_time: schema.columns[schema.event_time].name.clone(),
        columns: schema
            .columns
            .iter()
            .map(|c| ColumnReport { name: c.name.clone(), kind: c.kind.to_string(), nullable: c.nullable })
            .collect(),
        partitions: (0..info.partitions).map(partition).collect::<Result<_, _>>()?,
    })
}
