//! One connection: logged in, asked in text, or handed over to be sent the binlog.

use super::auth;
use super::error::WireError;
use super::handshake::{Greeting, Login, Reply, capability, error};
use super::packet::{self, Io, PacketReader, Transport};
use super::rows::TextRow;
use super::{rsa, tls};
use crate::mysql::settings::{Address, Settings, SslMode};
use bytes::{BufMut, Bytes};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// For the connection, TLS and login together.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Until an answer begins or goes on: a statement of ours reads by an index.
const ANSWER_MAX: Duration = Duration::from_mins(5);
/// What a login exchanges at most.
const LOGIN_PACKET_BYTES_MAX: usize = 64 << 10;
const LOGIN_PACKETS_MAX: usize = 8;
/// Rows of an answer that is kept whole.
const ROWS_MAX: usize = 1 << 21;
/// Of them together; what is larger is read row by row.
const RESULT_BYTES_MAX: usize = 256 << 20;

const COM_QUERY: u8 = 0x03;
const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
/// `BINLOG_DUMP_NON_BLOCK`
const NON_BLOCKING: u16 = 0x01;
/// `BINLOG_THROUGH_GTID`
const THROUGH_GTID: u16 = 0x04;

const OK: u8 = 0x00;
const LOCAL_INFILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
/// An `EOF_Packet` is shorter; a row that begins with 0xfe is longer.
const EOF_BYTES_MAX: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    MySql,
    MariaDb,
}

pub struct Connection {
    io: Io,
    reader: PacketReader,
    /// As the server says it: `8.0.36`, `5.5.5-10.11.6-MariaDB-log`.
    version: String,
    n_columns: usize,
}

impl Connection {
    pub async fn open(settings: &Settings) -> Result<Self, WireError> {
        let opened = timeout(CONNECT_MAX, Self::log_in(settings)).await;
        opened.map_err(|_| WireError::Silent(CONNECT_MAX))?
    }

    async fn log_in(settings: &Settings) -> Result<Self, WireError> {
        let address = &settings.address;
        let connected = TcpStream::connect((address.host.as_str(), address.port)).await;
        let tcp = connected.map_err(|source| WireError::Io { what: "connect", source })?;
        tcp.set_nodelay(true).map_err(|source| WireError::Io { what: "connect", source })?;
        Self::log_in_over(Box::pin(tcp), settings).await
    }

    /// Over what is connected already. For fuzzing: a server that says anything.
    pub async fn over(transport: impl Transport + 'static, settings: &Settings) -> Result<Self, WireError> {
        Self::log_in_over(Box::pin(transport), settings).await
    }

    async fn log_in_over(mut io: Io, settings: &Settings) -> Result<Self, WireError> {
        let address = &settings.address;
        let mut reader = PacketReader::new(LOGIN_PACKET_BYTES_MAX);
        let first = reader.read(&mut io).await?;
        if first.first() == Some(&ERR) {
            return Err(error(first));
        }
        let greeting = Greeting::parse(first)?;
        let is_tls = wants_tls(address, greeting.capabilities)?;
        let login = Login {
            user: &address.user,
            database: &address.database,
            plugin: &greeting.plugin,
            is_tls,
            server: greeting.capabilities,
            packet_bytes_max: u32::try_from(settings.packet_bytes_max).unwrap_or(u32::MAX),
        };
        if is_tls {
            let next = packet::write(&mut io, reader.sequence(), &login.head()).await?;
            // What came in clear before TLS began could be anybody's.
            if reader.has_more() {
                return Err(WireError::Malformed { what: "greeting with nothing behind it" });
            }
            io = tls::wrap(address, io).await?;
            reader.expect_sequence(next);
        }
        // The server may prefer a plugin for new accounts that ours does not have; it then names the account's.
        let answer = auth::answer(&greeting.plugin, address.password.reveal(), &greeting.nonce).unwrap_or_default();
        let next = packet::write(&mut io, reader.sequence(), &login.response(&answer)).await?;
        reader.expect_sequence(next);
        let mut connection = Self { io, reader, version: greeting.version, n_columns: 0 };
        connection.prove(address, greeting.plugin, greeting.nonce, is_tls).await?;
        let Self { io, version, .. } = connection;
        Ok(Self { io, reader: PacketReader::new(settings.packet_bytes_max), version, n_columns: 0 })
    }

    /// Until the server is content.
    async fn prove(&mut self, address: &Address, mut plugin: String, mut nonce: Vec<u8>, is_tls: bool) -> Result<(), WireError> {
        const FAST_OK: &[u8] = &[3];
        const FULL: &[u8] = &[4];
        const ASK_KEY: &[u8] = &[2];
        let password = address.password.reveal();
        for _ in 0..LOGIN_PACKETS_MAX {
            let answer = match Reply::parse(self.reader.read(&mut self.io).await?)? {
                Reply::Ok => return Ok(()),
                Reply::Switch { plugin: other, nonce: fresh } => {
                    (plugin, nonce) = (other, fresh);
                    auth::answer(&plugin, password, &nonce)?
                }
                Reply::More(_) if plugin != auth::CACHING_SHA2 => return Err(WireError::Malformed { what: "answer to a login" }),
                Reply::More(data) if data == FAST_OK => continue,
                Reply::More(data) if data == FULL && is_tls => [password.as_bytes(), &[0]].concat(),
                Reply::More(data) if data == FULL && address.is_public_key_asked => ASK_KEY.to_vec(),
                Reply::More(data) if data == FULL => {
                    return Err(WireError::Login(
                        "the server wants the password, and the connection has no TLS: write ssl-mode=required, or get-server-public-key=true"
                            .to_owned(),
                    ));
                }
                Reply::More(pem) if address.is_public_key_asked && !is_tls => rsa::encrypt(&pem, &auth::masked(password, &nonce))?,
                Reply::More(_) => return Err(WireError::Malformed { what: "answer to a login" }),
            };
            let next = packet::write(&mut self.io, self.reader.sequence(), &answer).await?;
            self.reader.expect_sequence(next);
        }
        Err(WireError::Login("the login does not come to an end".to_owned()))
    }

    pub fn flavor(&self) -> Flavor {
        if self.version.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql }
    }

    pub fn version(&self) -> &str {
        // MariaDB 10 puts this in front of its own, so that old replicas think it is a MySQL that they know.
        self.version.strip_prefix("5.5.5-").unwrap_or(&self.version)
    }

    async fn command(&mut self, payload: &[u8]) -> Result<(), WireError> {
        packet::write(&mut self.io, 0, payload).await?;
        self.reader.expect_sequence(1);
        Ok(())
    }

    async fn packet(&mut self) -> Result<Bytes, WireError> {
        let read = timeout(ANSWER_MAX, self.reader.read(&mut self.io)).await;
        read.map_err(|_| WireError::Silent(ANSWER_MAX))?
    }

    /// Asks; the rows are then read one by one with `row` until there is none.
    pub async fn ask(&mut self, sql: &str) -> Result<(), WireError> {
        self.command(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        let head = self.packet().await?;
        match head.first() {
            Some(&ERR) => return Err(error(head)),
            // We never ask for it: a server that does wants to read our files.
            Some(&LOCAL_INFILE) => return Err(WireError::Malformed { what: "result" }),
            Some(&OK) => self.n_columns = 0,
            Some(_) => {
                let mut c = crate::mysql::binlog::cursor::Cursor::new("result", head);
                let n = c.lenenc().map_err(|_| WireError::Malformed { what: "result" })?;
                // "Column count": the server's own limit is 4,096.
                self.n_columns = usize::try_from(n).ok().filter(|n| *n <= 4_096).ok_or(WireError::Malformed { what: "result" })?;
                for _ in 0..self.n_columns {
                    self.packet().await?;
                }
                if self.packet().await?.first() != Some(&EOF) {
                    return Err(WireError::Malformed { what: "result" });
                }
            }
            None => return Err(WireError::Malformed { what: "result" }),
        }
        Ok(())
    }

    pub async fn row(&mut self) -> Result<Option<TextRow>, WireError> {
        if self.n_columns == 0 {
            return Ok(None);
        }
        let packet = self.packet().await?;
        match packet.first() {
            Some(&ERR) => {
                self.n_columns = 0;
                Err(error(packet))
            }
            Some(&EOF) if packet.len() < EOF_BYTES_MAX => {
                self.n_columns = 0;
                Ok(None)
            }
            _ => TextRow::parse(packet, self.n_columns).map(Some),
        }
    }

    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, WireError> {
        self.ask(sql).await?;
        let (mut rows, mut n_bytes) = (Vec::new(), 0);
        while let Some(row) = self.row().await? {
            n_bytes += row.bytes();
            if rows.len() >= ROWS_MAX || n_bytes > RESULT_BYTES_MAX {
                return Err(WireError::Malformed { what: "result: too many rows" });
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// `COM_REGISTER_SLAVE`, so that `SHOW SLAVE HOSTS` has us.
    pub async fn register(&mut self, server_id: u32) -> Result<(), WireError> {
        let mut out = vec![COM_REGISTER_SLAVE];
        out.put_u32_le(server_id);
        out.put_bytes(0, 3); // no host, user, password
        out.put_u16_le(0); // port
        out.put_u32_le(0); // rank
        out.put_u32_le(0); // the source's id, filled in by the server
        self.command(&out).await?;
        let answer = self.packet().await?;
        if answer.first() == Some(&ERR) { Err(error(answer)) } else { Ok(()) }
    }

    /// `COM_BINLOG_DUMP`: from here on only `event` may be called.
    pub async fn dump(&mut self, server_id: u32, file: &str, at: u32) -> Result<(), WireError> {
        self.dump_with(0, server_id, file, at).await
    }

    /// The same to where the binlog ends now. A replica with the same number would be cut off by it, number 0 never is one.
    pub async fn dump_what_is_there(&mut self, file: &str, at: u32) -> Result<(), WireError> {
        self.dump_with(NON_BLOCKING, 0, file, at).await
    }

    async fn dump_with(&mut self, flags: u16, server_id: u32, file: &str, at: u32) -> Result<(), WireError> {
        let mut out = vec![COM_BINLOG_DUMP];
        out.put_u32_le(at);
        out.put_u16_le(flags);
        out.put_u32_le(server_id);
        out.put_slice(file.as_bytes());
        self.command(&out).await
    }

    /// `COM_BINLOG_DUMP_GTID` of MySQL: all that is not in this encoded set.
    pub async fn dump_gtid(&mut self, server_id: u32, set: &[u8]) -> Result<(), WireError> {
        self.command(&dump_gtid(server_id, set)).await
    }

    /// The next event's bytes, until then; an error packet is the end of the stream. May be dropped while it waits.
    pub async fn event_until(&mut self, deadline: Instant, silence: Duration) -> Result<Bytes, WireError> {
        let read = timeout_at(deadline, self.reader.read(&mut self.io)).await;
        event_of(read.map_err(|_| WireError::Silent(silence))??)
    }

    /// An event that has already arrived.
    pub fn event_now(&mut self) -> Result<Option<Bytes>, WireError> {
        self.reader.take()?.map(event_of).transpose()
    }
}

/// "Binlog Network stream": each event behind an OK byte.
fn event_of(packet: Bytes) -> Result<Bytes, WireError> {
    match packet.first() {
        Some(&OK) => Ok(packet.slice(1..)),
        Some(&ERR) => Err(error(packet)),
        Some(&EOF) if packet.len() < EOF_BYTES_MAX => Err(WireError::Closed),
        _ => Err(WireError::Malformed { what: "binlog packet" }),
    }
}

/// Flags 2, server id 4, name length 4, name, position 8, data length 4, data.
fn dump_gtid(server_id: u32, set: &[u8]) -> Vec<u8> {
    const FIRST: u64 = 4;
    let mut out = vec![COM_BINLOG_DUMP_GTID];
    out.put_u16_le(THROUGH_GTID);
    out.put_u32_le(server_id);
    out.put_u32_le(0);
    out.put_u64_le(FIRST);
    out.put_u32_le(u32::try_from(set.len()).expect("invariant: a GTID set is bounded"));
    out.put_slice(set);
    out
}

fn wants_tls(address: &Address, server: u32) -> Result<bool, WireError> {
    match (address.ssl_mode, server & capability::SSL != 0) {
        (SslMode::Disabled, _) | (SslMode::Preferred, false) => Ok(false),
        (_, true) => Ok(true),
        (_, false) => Err(WireError::Tls("the server has none, and ssl-mode asks for it".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_by_gtid_is_laid_out_as_documented() {
        assert_eq!(dump_gtid(7, b"set"), b"\x1e\x04\0\x07\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x03\0\0\0set");
    }

    #[test]
    fn what_comes_in_a_binlog_stream_is_an_event_an_error_or_the_end() {
        assert_eq!(event_of(Bytes::from_static(b"\0event")).expect("event"), "event");
        assert_eq!(event_of(Bytes::from_static(b"\xff\xd4\x04#HY000Could not find")).expect_err("error").code(), Some(1236));
        assert!(matches!(event_of(Bytes::from_static(b"\xfe\0\0\0\0")), Err(WireError::Closed)));
        assert!(matches!(event_of(Bytes::new()), Err(WireError::Malformed { .. })));
    }
}
