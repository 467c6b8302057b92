//! Looking after a slot while its changes are read: a heartbeat, and what has changed about slot, publication and tables.

use super::decoder::HEARTBEAT;
use super::settings::PostgresSettings;
use super::slot::Slot;
use super::wire::{Connection, Purpose, WireError, literal};
use super::{matching, publication};
use std::future::Future;
use std::pin::Pin;

pub(super) type Care = Pin<Box<dyn Future<Output = Box<Cared>> + Send>>;

/// The connection, if it still works, and what was found.
pub(super) struct Cared {
    pub connection: Option<Connection>,
    pub found: Result<Found, WireError>,
}

pub(super) struct Found {
    pub slot: Option<Slot>,
    /// Of the publication.
    pub fingerprint: Option<String>,
    /// Tables that have come and that a pattern means.
    pub news: Vec<String>,
}

/// Opens a connection where there is none. `is_beat`: a heartbeat is due.
pub(super) fn begin(settings: PostgresSettings, connection: Option<Connection>, is_beat: bool) -> Care {
    Box::pin(async move {
        let opened = match connection {
            Some(connection) => Ok(connection),
            None => Connection::open(&settings.address, Purpose::Sql).await,
        };
        Box::new(match opened {
            Ok(mut connection) => match look(&mut connection, &settings, is_beat).await {
                Ok(found) => Cared { connection: Some(connection), found: Ok(found) },
                Err(error) => Cared { connection: None, found: Err(error) },
            },
            Err(error) => Cared { connection: None, found: Err(error) },
        })
    })
}

/// A heartbeat, in a transaction so that it is flushed and decoded at once, and with it all that was written before. A standby writes nothing.
pub(super) fn beat() -> String {
    format!("SELECT pg_logical_emit_message(true, {}, '') WHERE NOT pg_is_in_recovery()", literal(HEARTBEAT))
}

/// Writes a heartbeat and reads the slot.
async fn look(connection: &mut Connection, settings: &PostgresSettings, is_beat: bool) -> Result<Found, WireError> {
    if is_beat {
        connection.query(&beat()).await?;
    }
    let fingerprint = publication::fingerprint(connection, &settings.publication).await?;
    let news = matching::news(connection, settings).await?;
    Ok(Found { slot: Slot::read(connection, &settings.slot).await?, fingerprint, news })
}
