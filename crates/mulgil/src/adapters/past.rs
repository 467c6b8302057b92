//! The history as the server asks it, on threads of its own, so that a question can never stop the rows that come in.

use futures::{FutureExt, StreamExt, future::BoxFuture};
use mulgil_history::{ErrorKind, History, HistoryError, QueryLimits};
use mulgil_model::search::{SearchPage, SearchRequest};
use mulgil_serve::ports::{Past, PortError, PortErrorKind, SqlAnswer, SqlRequest};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub struct HistoryPast {
    history: Arc<History>,
    /// The runtime that queries run on.
    threads: Handle,
    limits: QueryLimits,
}

/// Batches that may wait for a slow client.
const BATCHES_WAITING: usize = 2;

impl HistoryPast {
    pub fn new(history: Arc<History>, threads: Handle, limits: QueryLimits) -> Self {
        Self { history, threads, limits }
    }
}

impl Past for HistoryPast {
    fn sql(&self, request: SqlRequest) -> BoxFuture<'_, Result<SqlAnswer, PortError>> {
        let history = Arc::clone(&self.history);
        let mut limits = self.limits.clone();
        limits.rows_max = limits.rows_max.min(request.rows_max as u64);
        limits.timeout = limits.timeout.min(request.timeout);
        async move {
            let planned = self.threads.spawn(async move { history.query(&request.sql, Some(limits)).await });
            let mut answer = planned.await.map_err(|e| broke(&e))?.map_err(port_error)?;
            let schema = Arc::clone(answer.schema());
            let (send, batches) = mpsc::channel(BATCHES_WAITING);
            self.threads.spawn(async move {
                while let Some(batch) = answer.next().await {
                    // A client that went away drops its end, and with it the query.
                    if send.send(batch.map_err(port_error)).await.is_err() {
                        break;
                    }
                }
            });
            Ok(SqlAnswer { schema, batches: ReceiverStream::new(batches).boxed() })
        }
        .boxed()
    }

    fn search(&self, request: SearchRequest) -> BoxFuture<'_, Result<SearchPage, PortError>> {
        let history = Arc::clone(&self.history);
        let found = self.threads.spawn(async move { history.search(&request).await });
        async move { found.await.map_err(|e| broke(&e))?.map_err(port_error) }.boxed()
    }
}

fn broke(error: &tokio::task::JoinError) -> PortError {
    PortError::new(PortErrorKind::Internal, format!("the query broke: {error}"))
}

fn port_error(error: HistoryError) -> PortError {
    let kind = match error.kind() {
        ErrorKind::User => PortErrorKind::Invalid,
        ErrorKind::Limit => PortErrorKind::Invalid,
        ErrorKind::Time => PortErrorKind::Timeout,
        ErrorKind::Busy => PortErrorKind::Busy,
        ErrorKind::Internal => PortErrorKind::Internal,
    };
    PortError::new(kind, error.to_string())
}
