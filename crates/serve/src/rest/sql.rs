//! `POST /api/v1/sql`: a query's answer, streamed as JSON, CSV or Arrow.

use super::cells::{self, Column};
use crate::app::App;
use crate::extract::Json;
use crate::ports::{PortError, PortErrorKind, SqlRequest};
use crate::problem::Problem;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use mulgil_model::json;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

const SQL_CHARS_MAX: usize = 100_000;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlBody {
    /// Read-only SQL over all streams.
    sql: String,
    #[serde(default)]
    format: Format,
    /// Rows; `truncated` tells when there were more.
    limit: Option<usize>,
    /// Shorter than the server's own limit.
    timeout_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

/// Asks all streams a question in SQL.
///
/// JSON: `{columns: [{name, type}], data: [{…}], count, truncated}`. When the query fails after its first rows, `error` holds the problem
/// (CSV and Arrow answers break off instead).
#[utoipa::path(post, path = "/api/v1/sql", tag = "history", request_body = SqlBody, responses(
    (status = 200, description = "The rows.", content((serde_json::Value = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
    (status = 422, description = "The query cannot be run, or not within its limits of memory and rows.", body = Problem, content_type = "application/problem+json"),
    (status = 504, description = "It took too long.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn sql(State(app): State<Arc<App>>, Json(body): Json<SqlBody>) -> Result<Response, Problem> {
    let limit = body.limit.unwrap_or(app.limits.sql_rows_max).min(app.limits.sql_rows_max);
    if body.sql.len() > SQL_CHARS_MAX {
        return Err(Problem::parameter("sql", format!("sql has at most {SQL_CHARS_MAX} bytes")));
    }
    let timeout = body.timeout_seconds.map(|s| Duration::try_from_secs_f64(s).ok().filter(|d| !d.is_zero()));
    let timeout =
        timeout.map(|t| t.ok_or_else(|| Problem::parameter("timeout_seconds", "timeout_seconds is a number above 0"))).transpose()?;
    let timeout = timeout.unwrap_or(app.limits.sql_timeout).min(app.limits.sql_timeout);
    let mut answer = app.ports.past.sql(SqlRequest { sql: body.sql, rows_max: limit.saturating_add(1), timeout }).await?;
    // What fails before the first rows still gets a status of its own.
    let first = answer.batches.next().await.transpose()?;
    let rest = futures::stream::iter(first.map(Ok)).chain(answer.batches).boxed();
    let media_type = match body.format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Arrow => "application/vnd.apache.arrow.stream",
    };
    let writer = Writer { format: body.format, schema: answer.schema, batches: rest, limit, n_rows: 0, state: WriterState::Head };
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(futures::stream::unfold(writer, Writer::step))).into_response())
}

/// Turns batches into the text or bytes of one format, piece by piece.
struct Writer {
    format: Format,
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch, PortError>>,
    limit: usize,
    n_rows: usize,
    state: WriterState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    Head,
    Rows,
    Done,
}

type Piece = Result<Bytes, std::io::Error>;

impl Writer {
    async fn step(mut self) -> Option<(Piece, Self)> {
        let piece = match self.state {
            WriterState::Done => return None,
            WriterState::Head => {
                self.state = WriterState::Rows;
                self.head()
            }
            WriterState::Rows => match self.batches.next().await {
                Some(Ok(batch)) => self.rows(&batch),
                Some(Err(error)) => self.failed(error),
                None => self.tail(false),
            },
        };
        let piece = piece.unwrap_or_else(|e| {
            self.state = WriterState::Done;
            Err(std::io::Error::other(e))
        });
        Some((piece, self))
    }

    fn head(&self) -> Result<Piece, ArrowError> {
        let fields = self.schema.fields();
        let text = match self.format {
            Format::Json => {
                let columns: Vec<_> =
                    fields.iter().map(|f| serde_json::json!({"name": f.name(), "type": cells::type_name(f.data_type())})).collect();
                format!(r#"{{"columns":{},"data":["#, serde_json::Value::from(columns))
            }
            Format::Csv => {
                let mut out = String::new();
                for (i, field) in fields.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    cells::write_csv_field(&mut out, field.name());
                }
                out + "\r\n"
            }
            Format::Arrow => return self.arrow(None),
        };
        Ok(Ok(text.into()))
    }

    fn rows(&mut self, batch: &RecordBatch) -> Result<Piece, ArrowError> {
        let room = self.limit - self.n_rows;
        let is_cut = batch.num_rows() > room;
        let batch = batch.slice(0, batch.num_rows().min(room));
        let piece = match self.format {
            Format::Arrow => self.arrow(Some(&batch))?,
            _ => Ok(self.text(&batch)?.into()),
        };
        self.n_rows += batch.num_rows();
        if !is_cut {
            return Ok(piece);
        }
        let end = self.tail(true)?;
        Ok(piece.and_then(|a| end.map(|b| [a, b].concat().into())))
    }

    fn text(&self, batch: &RecordBatch) -> Result<String, ArrowError> {
        let columns = batch.columns().iter().map(Column::new).collect::<Result<Vec<_>, _>>()?;
        let mut out = String::with_capacity(batch.num_rows() * columns.len() * 16);
        for row in 0..batch.num_rows() {
            if self.format == Format::Csv {
                for (i, column) in columns.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    column.write_csv(&mut out, row);
                }
                out.push_str("\r\n");
                continue;
            }
            out.push_str(if self.n_rows + row > 0 { ",{" } else { "{" });
            for (i, column) in columns.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                json::write_text(&mut out, self.schema.field(i).name());
                out.push(':');
                column.write_json(&mut out, row);
            }
            out.push('}');
        }
        Ok(out)
    }

    /// The schema's message, or one batch's: both are written by a stream writer that never ends its stream.
    fn arrow(&self, batch: Option<&RecordBatch>) -> Result<Piece, ArrowError> {
        let mut head = Vec::new();
        let mut writer = StreamWriter::try_new(&mut head, &self.schema)?;
        let Some(batch) = batch else {
            drop(writer);
            return Ok(Ok(head.into()));
        };
        writer.write(batch)?;
        drop(writer);
        let mut schema_only = Vec::new();
        drop(StreamWriter::try_new(&mut schema_only, &self.schema)?);
        Ok(Ok(Bytes::from(head).slice(schema_only.len()..)))
    }

    fn tail(&mut self, truncated: bool) -> Result<Piece, ArrowError> {
        self.state = WriterState::Done;
        Ok(Ok(match self.format {
            Format::Json => format!(r#"],"count":{},"truncated":{truncated}}}"#, self.n_rows).into(),
            Format::Csv => Bytes::new(),
            // End of stream: continuation marker and a length of zero.
            Format::Arrow => Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        }))
    }

    /// The status is sent already: JSON says it at the end, the others break off.
    fn failed(&mut self, error: PortError) -> Result<Piece, ArrowError> {
        self.state = WriterState::Done;
        let is_internal = error.kind == PortErrorKind::Internal;
        let problem = Problem::from(error);
        if self.format != Format::Json {
            return Ok(Err(std::io::Error::other(if is_internal { "internal".to_owned() } else { problem.detail })));
        }
        let problem = serde_json::to_string(&problem).expect("a problem holds only text and numbers");
        Ok(Ok(format!(r#"],"count":{},"truncated":true,"error":{problem}}}"#, self.n_rows).into()))
    }
}
