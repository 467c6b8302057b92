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
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Heartbeats within which a server that is asked for a sign of life gives one, or the connection counts as cut; at least so long, for a
/// server may be busy.
const HEARTBEATS_MISSED_MAX: u32 = 6;
const SILENCE_MIN: Duration = Duration::from_secs(10);

/// In which PostgreSQL sends some ten rows of a transaction: so many come with one waking, on both sides. Its last row waits half of it.
const GATHERED: Duration = Duration::from_micros(100);

/// Opens it anew each time: the address may have changed since (a file that is rotated).
pub fn open(plan: &CapturePlan, dir: &Path) -> Open {
    let (plan, dir, waits_for_commits) = (plan.clone(), dir.to_owned(), Arc::<AtomicBool>::default());
    Box::new(move |resume, link| -> Opening {
        let (plan, dir, waits_for_commits) = (plan.clone(), dir.clone(), Arc::clone(&waits_for_commits));
        Box::pin(async move {
            match settings(&plan, &dir).map_err(|e| SourceError::config(format!("{e:#}")))? {
                Settings::Postgres(mut settings) => {
                    settings.waits_for_commits = waits_for_commits;
                    postgres::source::open(*settings, resume, link).await
                }
                Settings::Mysql(settings) => mysql::open(*settings, resume, link).await,
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

/// Why the source cannot even be opened: what its configuration refers to is not there (an address, a salt). Its own trouble: the others work,
/// and it is tried again until it is there.
pub fn obstacle(plan: &CapturePlan, dir: &Path) -> Option<anyhow::Error> {
    settings(plan, dir).err()
}

enum Settings {
    Postgres(Box<postgres::settings::PostgresSettings>),
    Mysql(Box<mysql::settings::Settings>),
}

fn settings(plan: &CapturePlan, dir: &Path) -> Result<Settings> {
    // The salt is needed with the first row only, and told before: nothing is read that could not be written.
    plan.filter.options(&plan.name)?;
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
            settings.snapshot.in_order.clone_from(&plan.streamed);
            // On the thread that the source has for itself.
            settings.gather = Some(|| std::thread::sleep(GATHERED));
            Settings::Postgres(Box::new(settings))
        }
        Database::Mysql { server_id, gtid, on_stale } => {
            let tables: Vec<&str> = plan.tables.iter().map(String::as_str).collect();
            let mut settings = mysql::settings::Settings::new(url.parse().with_context(section)?, &tables);
            settings.server_id = server_id.unwrap_or(settings.server_id);
            settings.heartbeat = plan.heartbeat.unwrap_or(settings.heartbeat);
            settings.snapshot = plan.snapshot;
            (settings.gtid, settings.on_stale) = (*gtid, *on_stale);
            Settings::Mysql(Box::new(settings))
        }
    })
}

/// Transactions that are streamed before they are committed wait here; what is left of a former run means nothing.
fn spill_folder(dir: &Path, source: &str) -> PathBuf {
    dir.join("capture").join(source)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::capture::writer::ChangeWriter;
    use crate::config::parse;
    use crate::pipeline::folder::Folder;
    use crate::pipeline::plan::Plan;
    use mulgil_capture::source::{Health, Link, SourceErrorKind};
    use mulgil_log::Clock;
    use mulgil_model::position::Position;
    use mulgil_model::time::{AppendTime, ReceiveTime};
    use tokio::sync::{mpsc, watch};

    /// What a source's configuration refers to and nobody has set.
    fn config(hash: &str, url: &str) -> String {
        format!("[source.db]\ntype = \"postgres\"\nurl = \"{url}\"\ntables = [\"public.t\"]\n{hash}")
    }

    #[test]
    fn a_missing_salt_is_the_sources_own_trouble_as_a_missing_address_is() {
        let hash = "hash = [\"public.t.v\"]\nsalt = \"env:MULGIL_TEST_NO_SUCH_SALT\"";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (hash, url, named) in
            [(hash, "env:PATH", "MULGIL_TEST_NO_SUCH_SALT"), ("", "env:MULGIL_TEST_NO_SUCH_URL", "MULGIL_TEST_NO_SUCH_URL")]
        {
            let dir = tempfile::tempdir().unwrap();
            let mut config = parse(&config(hash, url)).unwrap();
            config.log.dir = dir.path().to_owned();
            let plan = Plan::new(&config).unwrap();
            let clock: Clock = Arc::new(|| AppendTime(7));
            let folder = Folder::open(&config, &plan, &clock).unwrap();
            // The program starts.
            let mut writer = ChangeWriter::new(&config.captures[0], &config, &plan, &folder.schemas, folder.log()).unwrap();
            let told = obstacle(&config.captures[0], dir.path()).unwrap();
            assert!(format!("{told:#}").contains(named), "{told:#}");
            let link = Link {
                durable: watch::channel(Position::default()).1,
                health: watch::channel(Health::default()).0,
                requests: mpsc::channel(1).1,
            };
            let error = runtime.block_on(open(&config.captures[0], dir.path())(None, link)).err().unwrap();
            assert_eq!(error.kind, SourceErrorKind::Config);
            assert!(error.message.contains(named), "{error}");
            // And whoever would write all the same is stopped before a row leaves.
            let written = writer.commit_of(Vec::new(), ReceiveTime(1));
            assert_eq!(written.is_err(), !hash.is_empty());
        }
    }
}
