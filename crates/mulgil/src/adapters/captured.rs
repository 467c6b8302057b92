//! The captured databases as they are asked over HTTP.

use crate::capture::captures::{Captures, SnapshotRefused};
use crate::capture::supervisor::Seen;
use crate::config::captured::{CapturePlan, Database};
use futures::{FutureExt, future::BoxFuture};
use mulgil_model::time::{AppendTime, EventTime};
use mulgil_serve::ports::{CaptureStatus, Captured, PortError, PortErrorKind, SnapshotRequest};
use std::sync::{Arc, OnceLock};

/// Sources are started after the server, so that it can tell how they come up.
pub type Started = Arc<OnceLock<Arc<Captures>>>;

pub struct CapturedDatabases(pub Started);

impl CapturedDatabases {
    fn captures(&self) -> Result<&Captures, PortError> {
        let starting = || PortError::new(PortErrorKind::Busy, "the captured databases are not started yet");
        self.0.get().map(|captures| &**captures).ok_or_else(starting)
    }
}

impl Captured for CapturedDatabases {
    fn list(&self) -> Result<Vec<CaptureStatus>, PortError> {
        Ok(self.captures()?.seen().map(|(plan, seen)| status(plan, seen)).collect())
    }

    fn snapshot(&self, request: SnapshotRequest) -> BoxFuture<'_, Result<(), PortError>> {
        async move {
            let SnapshotRequest { source, tables, filter } = request;
            self.captures()?.snapshot(&source, tables, filter).await.map_err(|refused| refusal(&refused))
        }
        .boxed()
    }
}

fn refusal(refused: &SnapshotRefused) -> PortError {
    let kind = match refused {
        SnapshotRefused::Unknown(_) => PortErrorKind::NotFound,
        SnapshotRefused::NotStreaming { .. } => PortErrorKind::Conflict,
        SnapshotRefused::Busy(_) | SnapshotRefused::Interrupted(_) => PortErrorKind::Busy,
        SnapshotRefused::Silent(_) => PortErrorKind::Timeout,
        SnapshotRefused::Unfit(_) => PortErrorKind::Invalid,
    };
    PortError::new(kind, refused.to_string())
}

fn status(plan: &CapturePlan, seen: Seen) -> CaptureStatus {
    let health = seen.health;
    CaptureStatus {
        source: plan.name.clone(),
        kind: match plan.database {
            Database::Postgres { .. } => "postgres",
            Database::Mysql { .. } => "mysql",
        },
        tables: plan.tables.clone(),
        state: seen.state.name(health.phase),
        detail: seen.detail,
        since: AppendTime(seen.since_us),
        position: seen.durable.map(|p| p.to_string()),
        n_changes: seen.n_changes,
        n_commits: seen.n_commits,
        n_failures: seen.n_failures,
        committed: health.committed_us.map(EventTime),
        lag_bytes: health.lag_bytes,
        retained_bytes: health.retained_bytes,
        wal_status: health.wal_status,
        safe_wal_bytes: health.safe_wal_bytes,
        stale: health.stale,
        snapshot_rows: health.snapshot_rows,
        snapshot_chunks_done: health.snapshot_chunks_done,
        snapshot_chunks: health.snapshot_chunks,
    }
}
