//! From a configured database to its source: the one place that knows which kinds there are.

use super::supervisor::{Open, Opening};
use crate::config::captured::{CapturePlan, Database};
use crate::config::units::looked_up;
use anyhow::{Context, Result};
use mulgil_capture::postgres::streams::Spill;
use mulgil_capture::source::{Missing, SourceError};
use mulgil_capture::{mysql, postgres};
use mulgil_disk::RealDisk;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Heartbeats within which a server that is asked for a sign of life gives one, or the connection counts as cut; at least so long, for a
/// server may be busy.
const HEARTBEATS_MISSED_MAX: u32 = 6;
const SILENCE_MIN: Duration = Duration::from_secs(10);

/// Opens it anew each time: the address may have changed since (a file that is rotated).
pub fn open(plan: &CapturePlan, dir: &Path) -> Open {
    let (plan, dir) = (plan.clone(), dir.to_owned());
    Box::new(move |resume, link| -> Opening {
        let (plan, dir) = (plan.clone(), dir.clone());
        Box::pin(async move {
            match settings(&plan, &dir).map_err(|e| SourceError::config(format!("{e:#}")))? {
                Settings::Postgres(settings) => postgres::source::open(settings, resume, link).await,
                Settings::Mysql(settings) => mysql::open(settings, resume, link).await,
            }
        })
    })
}

/// What the database lacks for this plan.
pub async fn check(plan: &CapturePlan, dir: &Path) -> Result<Vec<Missing>> {
    Ok(match settings(plan, dir)? {
        Settings::Postgres(settings) => postgres::check::check(&settings).await?,
        Settings::Mysql(settings) => mysql::check(&settings).await?,
    })
}

enum Settings {
    Postgres(postgres::settings::PostgresSettings),
    Mysql(mysql::settings::Settings),
}

fn settings(plan: &CapturePlan, dir: &Path) -> Result<Settings> {
    let url = looked_up(&format!("source.{}.url", plan.name), &plan.url)?;
    let section = || format!("[source.{}] url", plan.name);
    Ok(match &plan.database {
        Database::Postgres { slot, publication } => {
            let address = url.parse().with_context(section)?;
            let memory_bytes_max = postgres::settings::PostgresSettings::MEMORY_BYTES_MAX;
            let spill = Spill { disk: Arc::new(RealDisk), dir: spill_folder(dir, &plan.name), memory_bytes_max };
            let mut settings = postgres::settings::PostgresSettings::new(&plan.name, address, spill);
            (settings.slot, settings.publication) = (slot.clone(), publication.clone());
            (settings.tables, settings.heartbeat) = (plan.tables.clone(), plan.heartbeat);
            let silence = |every: Duration| (every * HEARTBEATS_MISSED_MAX).max(SILENCE_MIN).min(settings.silence);
            settings.silence = plan.heartbeat.map_or(settings.silence, silence);
            settings.signal_table.clone_from(&plan.signals);
            settings.mode = plan.snapshot;
            Settings::Postgres(settings)
        }
        Database::Mysql { server_id, gtid } => {
            let tables: Vec<&str> = plan.tables.iter().map(String::as_str).collect();
            let mut settings = mysql::settings::Settings::new(url.parse().with_context(section)?, &tables);
            settings.server_id = server_id.unwrap_or(settings.server_id);
            settings.heartbeat = plan.heartbeat.unwrap_or(settings.heartbeat);
            settings.snapshot = plan.snapshot;
            settings.gtid = *gtid;
            Settings::Mysql(settings)
        }
    })
}

/// Transactions that are streamed before they are committed wait here; what is left of a former run means nothing.
fn spill_folder(dir: &Path, source: &str) -> PathBuf {
    dir.join("capture").join(source)
}
