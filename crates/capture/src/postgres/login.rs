//! Start-up and authentication ("Message Flow", section "Start-up"; "SASL Authentication").

use super::address::Address;
use super::wire::{Connection, Purpose, WireError, server_error};
use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

/// How values are written as text, the same wherever they are read. `search_path` is empty so that nobody else's function or operator is ever
/// called. `lc_monetary` is left alone: money is an integer whose decimals only the server's own setting tells.
pub const TEXT_SETTINGS: [(&str, &str); 6] = [
    ("search_path", ""),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
];

/// Beside the forms of values. The timeouts keep a role's settings from ending a long read or an idle replication connection.
const SETTINGS: [(&str, &str); 4] =
    [("client_encoding", "UTF8"), ("statement_timeout", "0"), ("lock_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];

// AuthenticationRequest's numbers.
const OK: i32 = 0;
const CLEAR_TEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

pub(super) async fn log_in(connection: &mut Connection, address: &Address, purpose: Purpose) -> Result<(), WireError> {
    let mut parameters = vec![("user", &*address.user), ("database", &*address.database), ("application_name", &*address.application)];
    parameters.extend(SETTINGS);
    parameters.extend(TEXT_SETTINGS);
    if purpose == Purpose::Replication {
        parameters.push(("replication", "database"));
    }
    frontend::startup_message(parameters, connection.output())?;
    connection.flush().await?;
    authenticate(connection, address).await?;
    loop {
        let frame = connection.frame().await?;
        match frame.tag {
            b'Z' => return Ok(()),
            b'E' => return Err(WireError::Server(server_error(&frame.body))),
            _ => {}
        }
    }
}

async fn authenticate(connection: &mut Connection, address: &Address) -> Result<(), WireError> {
    let refuse = |why: &str| WireError::Login { address: address.to_string(), why: why.to_owned() };
    let mut scram: Option<Scram> = None;
    loop {
        let frame = connection.frame().await?;
        let mut body = frame.body;
        match frame.tag {
            b'R' => {}
            b'E' => return Err(WireError::Server(server_error(&body))),
            _ => return Err(WireError::Protocol("something else than an authentication request")),
        }
        let kind = body.try_get_i32().map_err(|_| WireError::Protocol("an authentication request that ends early"))?;
        match kind {
            // Whoever asks for SCRAM and then does not prove to know the password too is not the server.
            OK if scram.as_ref().is_some_and(|s| !s.is_proven) => {
                return Err(refuse("the server did not prove that it knows the password"));
            }
            OK => return Ok(()),
            CLEAR_TEXT if !connection.is_encrypted() => {
                return Err(refuse(
                    "the server asks for the password in clear text without TLS; use sslmode=require, or scram-sha-256 in pg_hba.conf",
                ));
            }
            CLEAR_TEXT => frontend::password_message(password(address)?, connection.output())?,
            MD5 => {
                let salt = body.get(..4).and_then(|s| <[u8; 4]>::try_from(s).ok());
                let salt = salt.ok_or(WireError::Protocol("an MD5 request without its salt"))?;
                let hash = md5_hash(address.user.as_bytes(), password(address)?, salt);
                frontend::password_message(hash.as_bytes(), connection.output())?;
            }
            SASL => scram = Some(Scram::begin(connection, address, &body)?),
            SASL_CONTINUE | SASL_FINAL => {
                let scram = scram.as_mut().ok_or(WireError::Protocol("SCRAM's end without its beginning"))?;
                scram.go_on(connection, kind, &body).map_err(|e| refuse(&format!("SCRAM: {e}")))?;
            }
            _ => return Err(refuse("the server asks for an authentication other than password, md5 and scram-sha-256")),
        }
        connection.flush().await?;
    }
}

fn password(address: &Address) -> Result<&[u8], WireError> {
    let missing =
        || WireError::Login { address: address.to_string(), why: "the server asks for a password and the url has none".to_owned() };
    Ok(address.password.as_ref().ok_or_else(missing)?.reveal().as_bytes())
}

struct Scram {
    dialogue: ScramSha256,
    is_proven: bool,
}

impl Scram {
    fn begin(connection: &mut Connection, address: &Address, mechanisms: &Bytes) -> Result<Self, WireError> {
        if !mechanisms.split(|b| *b == 0).any(|m| m == SCRAM_SHA_256.as_bytes()) {
            return Err(WireError::Protocol("a list of SASL mechanisms without SCRAM-SHA-256"));
        }
        let dialogue = ScramSha256::new(password(address)?, ChannelBinding::unrequested());
        frontend::sasl_initial_response(SCRAM_SHA_256, dialogue.message(), connection.output())?;
        Ok(Self { dialogue, is_proven: false })
    }

    /// The crate bounds the iterations that a server may ask for.
    fn go_on(&mut self, connection: &mut Connection, kind: i32, body: &[u8]) -> std::io::Result<()> {
        if kind == SASL_FINAL {
            self.dialogue.finish(body)?;
            self.is_proven = true;
            return Ok(());
        }
        self.dialogue.update(body)?;
        frontend::sasl_response(self.dialogue.message(), connection.output())
    }
}
