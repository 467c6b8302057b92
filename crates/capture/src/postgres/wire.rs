//! One connection to a PostgreSQL server, for SQL or for replication.
//!
//! Frames are as in the PostgreSQL documentation, chapter "Frontend/Backend Protocol", section "Message Formats": a letter, a length that
//! counts itself, a body. Nothing here spawns; every method that waits on the server takes at most the connection's timeout, but for
//! [`Connection::readable`], whose caller has deadlines of its own.

use super::address::{Address, TlsMode};
use super::login;
use super::tls;
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The protocol's own limit of one message ("Message Formats": lengths are Int32; the server allocates at most 1 GiB - 1).
const FRAME_BYTES_MAX: usize = 1 << 30;
/// The room that is made for a read; more is made only after it was filled.
const READ_BYTES: usize = 256 * 1024;
/// Below this a new buffer is begun, so that a trickle of small messages shares one.
const READ_BYTES_MIN: usize = 16 * 1024;
/// All rows of one [`Connection::query`] together; what is larger is read with [`Connection::copy_out`].
const RESULT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// `ParameterStatus` messages that are kept; a server has about fifteen.
const PARAMETERS_MAX: usize = 64;
/// How long the server may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a statement that only sends may wait for room in the socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// Text of one result row; `None` is null.
pub type TextRow = Vec<Option<Bytes>>;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("TLS with {address} failed: {why}")]
    Tls { address: String, why: String },
    #[error("cannot log in to {address}: {why}")]
    Login { address: String, why: String },
    #[error("the connection to PostgreSQL broke: {0}")]
    Broken(#[from] io::Error),
    #[error("PostgreSQL closed the connection")]
    Closed,
    #[error("PostgreSQL did not answer within {0:?}")]
    Silent(Duration),
    #[error("PostgreSQL sent what its protocol does not allow: {0}")]
    Protocol(&'static str),
    #[error("PostgreSQL sent {what} of {bytes} bytes, more than {limit} are not read")]
    TooLarge { what: &'static str, bytes: usize, limit: usize },
    #[error("{0}")]
    Server(ServerError),
}

/// What an ErrorResponse says ("Error and Notice Message Fields"). The detail is left out: it may quote values of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The SQLSTATE.
    pub code: String,
    pub message: String,
    pub hint: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL says: {} ({})", self.message, self.code)?;
        if !self.hint.is_empty() {
            write!(f, "; hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl WireError {
    /// The SQLSTATE, if the server answered with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server(e) => Some(&e.code),
            _ => None,
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Sql,
    /// Understands replication commands besides simple queries.
    Replication,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Socket for T {}

/// One message from the server.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub tag: u8,
    pub body: Bytes,
}

pub struct Connection {
    socket: Box<dyn Socket>,
    input: BytesMut,
    output: BytesMut,
    parameters: Vec<(String, String)>,
    is_encrypted: bool,
    /// In the middle of `COPY`: until [`Connection::copied`] has answered `None`.
    is_copying: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_encrypted", &self.is_encrypted).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, agrees on TLS and logs in.
    pub async fn open(address: &Address, purpose: Purpose) -> Result<Self, WireError> {
        let opening = Self::open_unbounded(address, purpose);
        timeout(address.connect_timeout, opening).await.map_err(|_| WireError::Silent(address.connect_timeout))?
    }

    async fn open_unbounded(address: &Address, purpose: Purpose) -> Result<Self, WireError> {
        let unreachable = |source| WireError::Connect { address: address.to_string(), source };
        let mut tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let is_encrypted = address.tls != TlsMode::Disable && agrees_on_tls(address, &mut tcp).await?;
        let socket: Box<dyn Socket> = if is_encrypted { Box::new(tls::wrap(address, tcp).await?) } else { Box::new(tcp) };
        Self::log_in(socket, address, purpose, is_encrypted).await
    }

    /// Over what is connected already, without TLS. For fuzzing: a server that says anything.
    pub async fn over(
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
        address: &Address,
        purpose: Purpose,
    ) -> Result<Self, WireError> {
        Self::log_in(Box::new(socket), address, purpose, false).await
    }

    async fn log_in(socket: Box<dyn Socket>, address: &Address, purpose: Purpose, is_encrypted: bool) -> Result<Self, WireError> {
        let mut connection =
            Self { socket, input: BytesMut::new(), output: BytesMut::new(), parameters: Vec::new(), is_encrypted, is_copying: false };
        login::log_in(&mut connection, address, purpose).await?;
        Ok(connection)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// What the server told with ParameterStatus: `server_version`, `server_encoding`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `15` of `15.4 (Debian 15.4-1)`; 0 if the server does not say.
    pub fn server_major(&self) -> u32 {
        let version = self.parameter("server_version").unwrap_or("");
        let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
        digits.parse().unwrap_or(0)
    }

    /// Runs simple SQL or one replication command and gives all rows of all its statements.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, WireError> {
        self.query_within(sql, ANSWER_TIMEOUT).await
    }

    /// The same, for a statement that may take longer than most.
    pub async fn query_within(&mut self, sql: &str, limit: Duration) -> Result<Vec<TextRow>, WireError> {
        timeout(limit, self.query_unbounded(sql)).await.map_err(|_| WireError::Silent(limit))?
    }

    async fn query_unbounded(&mut self, sql: &str) -> Result<Vec<TextRow>, WireError> {
        self.send_query(sql).await?;
        let (mut rows, mut bytes, mut failure) = (Vec::new(), 0, None);
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'D' => {
                    bytes += frame.body.len();
                    if bytes > RESULT_BYTES_MAX {
                        return Err(WireError::TooLarge { what: "a result", bytes, limit: RESULT_BYTES_MAX });
                    }
                    rows.push(text_row(frame.body)?);
                }
                b'E' => failure = Some(WireError::Server(server_error(&frame.body))),
                b'Z' => return failure.map_or(Ok(rows), Err),
                b'T' | b'C' | b'I' => {}
                b'G' | b'H' | b'W' => return Err(WireError::Protocol("a copy where a result was expected")),
                _ => {}
            }
        }
    }

    /// Begins `COPY … TO STDOUT`; its data comes from [`Connection::copied`].
    pub async fn copy_out(&mut self, sql: &str) -> Result<(), WireError> {
        self.begin_copy(sql, b'H').await
    }

    /// Begins `START_REPLICATION` ("Streaming Replication Protocol"): both sides copy until one ends it.
    pub(super) async fn copy_both(&mut self, sql: &str) -> Result<(), WireError> {
        self.begin_copy(sql, b'W').await
    }

    async fn begin_copy(&mut self, sql: &str, response: u8) -> Result<(), WireError> {
        let begun = async {
            self.send_query(sql).await?;
            let mut failure = None;
            loop {
                let frame = self.frame().await?;
                match frame.tag {
                    b'E' => failure = Some(WireError::Server(server_error(&frame.body))),
                    b'Z' => return Err(failure.unwrap_or(WireError::Protocol("no copy where one was asked for"))),
                    tag if tag == response => return Ok(()),
                    _ => {}
                }
            }
        };
        timeout(ANSWER_TIMEOUT, begun).await.map_err(|_| WireError::Silent(ANSWER_TIMEOUT))??;
        self.is_copying = true;
        Ok(())
    }

    /// The next piece of a `COPY … TO STDOUT` (of text: one row with its newline), `None` at its end: then the connection takes SQL again.
    /// Bounded by `limit` for each piece, since a server that scans a large table with a filter may be silent for long.
    pub async fn copied(&mut self, limit: Duration) -> Result<Option<Bytes>, WireError> {
        // What has arrived already needs no clock: a snapshot comes here once a row.
        if self.is_copying
            && self.input.first() == Some(&b'd')
            && let Some(frame) = split_frame(&mut self.input)?
        {
            return Ok(Some(frame.body));
        }
        timeout(limit, self.copied_unbounded()).await.map_err(|_| WireError::Silent(limit))?
    }

    async fn copied_unbounded(&mut self) -> Result<Option<Bytes>, WireError> {
        let mut failure = None;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'd' => return Ok(Some(frame.body)),
                b'E' => failure = Some(WireError::Server(server_error(&frame.body))),
                b'Z' => {
                    self.is_copying = false;
                    return failure.map_or(Ok(None), Err);
                }
                _ => {}
            }
        }
    }

    /// The next piece of a replication stream that has already arrived; `None` when more must be read first.
    pub(super) fn arrived(&mut self) -> Result<Option<Bytes>, WireError> {
        while let Some(frame) = self.take_frame()? {
            match frame.tag {
                b'd' => return Ok(Some(frame.body)),
                b'E' => return Err(WireError::Server(server_error(&frame.body))),
                b'c' | b'Z' => return Err(WireError::Closed),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Waits for more bytes, without a bound. May be dropped at any time: nothing that arrived is lost.
    pub(super) async fn readable(&mut self) -> Result<(), WireError> {
        self.make_room();
        if self.socket.read_buf(&mut self.input).await? == 0 {
            return Err(WireError::Closed);
        }
        Ok(())
    }

    /// Sends one piece of a copy.
    pub(super) async fn copy_in(&mut self, piece: &[u8]) -> Result<(), WireError> {
        frontend::CopyData::new(piece)?.write(&mut self.output);
        self.flush().await
    }

    /// Says goodbye, best effort: the server then frees the slot at once, not when it finds the socket closed.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.output);
        // A connection that is broken needs no goodbye.
        let _ = self.flush().await;
        let _ = timeout(SEND_TIMEOUT, self.socket.shutdown()).await;
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), WireError> {
        if self.is_copying {
            return Err(WireError::Protocol("a query was asked for in the middle of a copy"));
        }
        frontend::query(sql, &mut self.output)?;
        self.flush().await
    }

    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        let sending = async {
            self.socket.write_all_buf(&mut self.output).await?;
            self.socket.flush().await
        };
        timeout(SEND_TIMEOUT, sending).await.map_err(|_| WireError::Silent(SEND_TIMEOUT))??;
        Ok(())
    }

    /// The next message that is neither a notice nor a parameter.
    pub(super) async fn frame(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            self.readable().await?;
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, WireError> {
        while let Some(frame) = split_frame(&mut self.input)? {
            match frame.tag {
                b'S' => self.keep_parameter(frame.body),
                // Notices and notifications may come at any time, and tell nothing that is needed here.
                b'N' | b'A' => {}
                _ => return Ok(Some(frame)),
            }
        }
        Ok(None)
    }

    fn keep_parameter(&mut self, mut body: Bytes) {
        let (Some(name), Some(value)) = (c_string(&mut body), c_string(&mut body)) else { return };
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let (name, value) = (text(&name), text(&value));
        self.parameters.retain(|(n, _)| *n != name);
        if self.parameters.len() < PARAMETERS_MAX {
            self.parameters.push((name, value));
        }
    }

    /// Room for the next read. It grows with what has arrived (a `BytesMut` doubles), never with what a length says will arrive.
    fn make_room(&mut self) {
        if self.input.capacity() - self.input.len() < READ_BYTES_MIN {
            self.input.reserve(READ_BYTES);
        }
    }
}

/// SSLRequest ("SSL Session Encryption"): the server answers with one letter.
async fn agrees_on_tls(address: &Address, tcp: &mut TcpStream) -> Result<bool, WireError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    // One byte and no more: what follows it must be TLS, or somebody in between put words into the server's mouth (CVE-2021-23222).
    let mut answer = [0];
    tcp.read_exact(&mut answer).await?;
    match (answer[0], address.tls) {
        (b'S', _) => Ok(true),
        (b'N', TlsMode::Prefer) => Ok(false),
        (b'N', _) => Err(WireError::Tls {
            address: address.to_string(),
            why: "the server does not speak TLS; set ssl = on there, or sslmode=disable here if nobody can listen on the way".to_owned(),
        }),
        _ => Err(WireError::Protocol("an answer to SSLRequest other than S and N")),
    }
}

fn split_frame(input: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    let [tag, a, b, c, d, ..] = input[..] else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length < 4 {
        return Err(WireError::Protocol("a message shorter than its own length"));
    }
    if length > FRAME_BYTES_MAX {
        return Err(WireError::TooLarge { what: "a message", bytes: length, limit: FRAME_BYTES_MAX });
    }
    if input.len() <= length {
        return Ok(None);
    }
    let mut body = input.split_to(1 + length).freeze();
    body.advance(5);
    Ok(Some(Frame { tag, body }))
}

/// Takes a text that ends with a zero byte.
pub(super) fn c_string(body: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(0, body)?;
    let text = body.split_to(end);
    body.advance(1);
    Some(text)
}

/// DataRow: a count, then for each column its length (-1: null) and text.
fn text_row(mut body: Bytes) -> Result<TextRow, WireError> {
    let short = || WireError::Protocol("a row that ends early");
    let n = usize::from(body.try_get_u16().map_err(|_| short())?);
    let mut row = Vec::with_capacity(n.min(body.len() / 4));
    for _ in 0..n {
        let length = body.try_get_i32().map_err(|_| short())?;
        match usize::try_from(length) {
            Ok(length) if length <= body.len() => row.push(Some(body.split_to(length))),
            Ok(_) => return Err(short()),
            Err(_) => row.push(None),
        }
    }
    Ok(row)
}

pub(super) fn server_error(body: &Bytes) -> ServerError {
    let mut body = body.clone();
    let mut error = ServerError { code: String::new(), message: String::new(), hint: String::new() };
    while body.first().is_some_and(|field| *field != 0) {
        let field = body.get_u8();
        let Some(text) = c_string(&mut body) else { break };
        let text = || String::from_utf8_lossy(&text).chars().take(ERROR_CHARS_MAX).collect();
        match field {
            b'C' => error.code = text(),
            b'M' => error.message = text(),
            b'H' => error.hint = text(),
            _ => {}
        }
    }
    error
}

/// What is kept of each text of an error.
const ERROR_CHARS_MAX: usize = 1_000;

/// A text in SQL, between single quotes. Right whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A name in SQL, between double quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn frames_are_split_wherever_the_network_cut_them() {
        let bytes = [frame(b'd', b"hello"), frame(b'Z', b""), frame(b'C', b"x")].concat();
        for cut in 0..bytes.len() {
            let mut input = BytesMut::from(&bytes[..cut]);
            let mut found = Vec::new();
            while let Some(f) = split_frame(&mut input).unwrap() {
                found.push((f.tag, f.body.to_vec()));
            }
            input.extend_from_slice(&bytes[cut..]);
            while let Some(f) = split_frame(&mut input).unwrap() {
                found.push((f.tag, f.body.to_vec()));
            }
            assert_eq!(found, [(b'd', b"hello".to_vec()), (b'Z', vec![]), (b'C', b"x".to_vec())], "cut at {cut}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_anything_is_allocated() {
        for length in [0u32, 3, (1 << 30) + 1, u32::MAX] {
            let mut input = BytesMut::from(&[b'd'][..]);
            input.extend_from_slice(&length.to_be_bytes());
            assert!(split_frame(&mut input).is_err(), "{length}");
        }
    }

    #[test]
    fn an_error_keeps_its_code_message_and_hint_but_no_detail() {
        let error = server_error(&Bytes::from_static(b"SERROR\0C42501\0Mno\0DKey (card)=(4111) exists\0Hask\0\0"));
        assert_eq!(error.to_string(), "PostgreSQL says: no (42501); hint: ask");
    }

    #[test]
    fn rows_are_text_or_null() {
        let row = text_row(Bytes::from_static(b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0")).unwrap();
        assert_eq!(row, [Some(Bytes::from_static(b"ab")), None, Some(Bytes::new())]);
        assert!(text_row(Bytes::from_static(b"\0\x01\0\0\0\x03ab")).is_err());
    }

    #[test]
    fn quoted_text_cannot_leave_its_quotes() {
        assert_eq!(literal("o'clock"), "'o''clock'");
        assert_eq!(literal(r"\'; DROP TABLE x"), r" E'\\''; DROP TABLE x'");
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = split_frame(&mut input) {}
            let body = Bytes::from(bytes);
            let _ = text_row(body.clone());
            let _ = server_error(&body);
        }
    }
}
