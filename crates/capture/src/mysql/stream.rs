//! The binlog as the server sends it to a replica: events one by one, and a cut connection noticed by its silence.

use super::place::{FIRST_AT, Gtids, Place};
use super::server::Server;
use super::settings::Settings;
use super::wire::{Connection, Flavor, WireError, literal};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// How many heartbeats may be missed.
const HEARTBEATS_MISSED_MAX: u32 = 3;
/// At least so long: a server may be busy.
const SILENCE_MIN: Duration = Duration::from_secs(3);
/// For as long the server waits for us to take what it has sent: a full disk on our side stops the reading.
const WRITE_WAIT_SECONDS: u32 = 3_600;

/// The protocol has 32 bits for it.
fn first_at(file: &str, at: u64) -> Result<u32, WireError> {
    let refused = |_| WireError::Login(format!("binlog file {file} cannot be asked for at {at}: only the first 4 GiB can"));
    u32::try_from(at).map_err(refused)
}

pub struct Stream {
    connection: Connection,
    silence_max: Duration,
    heard: Instant,
}

impl Stream {
    async fn connect(settings: &Settings, server: &Server) -> Result<Connection, WireError> {
        let mut connection = Connection::open(settings).await?;
        let nanoseconds = settings.heartbeat.as_nanos();
        let names = if server.flavor == Flavor::MySql { &["master", "source"][..] } else { &["master"] };
        for name in names {
            connection
                .query(&format!("SET @{name}_heartbeat_period = {nanoseconds}, @{name}_binlog_checksum = @@GLOBAL.binlog_checksum"))
                .await?;
        }
        connection.query(&format!("SET SESSION net_write_timeout = {WRITE_WAIT_SECONDS}")).await?;
        if server.flavor == Flavor::MariaDb {
            // "Replica registration", MARIA_SLAVE_CAPABILITY_GTID: GTID events are sent as they are.
            connection.query("SET @mariadb_slave_capability = 4").await?;
        }
        Ok(connection)
    }

    /// By the names of transactions if `by_gtid`, else from the place's file.
    pub async fn open(settings: &Settings, server: &Server, place: &Place, by_gtid: bool) -> Result<Self, WireError> {
        let mut connection = Self::connect(settings, server).await?;
        let silence_max = (settings.heartbeat * HEARTBEATS_MISSED_MAX).max(SILENCE_MIN);
        let id = settings.server_id;
        match &place.gtids {
            Gtids::MariaDb(position) if by_gtid => {
                let text = literal(position.to_string().as_bytes());
                connection.query(&format!("SET @slave_connect_state = CONVERT({text} USING utf8mb4), @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0")).await?;
                connection.register(id).await?;
                connection.dump(id, "", FIRST_AT as u32).await?;
            }
            Gtids::MySql(set) if by_gtid => {
                connection.register(id).await?;
                connection.dump_gtid(id, &set.encode()).await?;
            }
            _ => {
                let at = first_at(&place.file, place.at)?;
                connection.register(id).await?;
                connection.dump(id, &place.file, at).await?;
            }
        }
        Ok(Self { connection, silence_max, heard: Instant::now() })
    }

    /// What is in the binlog from there on, and its end is the end: beside the stream, as mysqlbinlog reads.
    pub async fn open_again(settings: &Settings, server: &Server, file: &str, at: u64) -> Result<Self, WireError> {
        let mut connection = Self::connect(settings, server).await?;
        connection.dump_what_is_there(file, first_at(file, at)?).await?;
        Ok(Self { connection, silence_max: (settings.heartbeat * HEARTBEATS_MISSED_MAX).max(SILENCE_MIN), heard: Instant::now() })
    }

    /// The next event; may be dropped while it waits.
    pub async fn event(&mut self) -> Result<Bytes, WireError> {
        let event = self.connection.event_until(self.heard + self.silence_max, self.silence_max).await?;
        self.heard = Instant::now();
        Ok(event)
    }

    /// An event that is here already.
    pub fn event_now(&mut self) -> Result<Option<Bytes>, WireError> {
        let event = self.connection.event_now()?;
        if event.is_some() {
            self.heard = Instant::now();
        }
        Ok(event)
    }

    /// While nothing was asked of the connection, its silence is ours.
    pub fn was_left_alone(&mut self) {
        self.heard = Instant::now();
    }
}
