//! The first packets of a connection: who the server is, and who we are.

use super::error::WireError;
use crate::mysql::binlog::cursor::Cursor;
use bytes::{BufMut, Bytes};

/// "Capabilities Flags".
pub(super) mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
}

/// `utf8mb4_general_ci`, which every server knows by this number.
const UTF8MB4: u8 = 45;
const PROTOCOL_VERSION: u8 = 10;
/// "auth_data_part_1" and the least of "auth_data_part_2".
const NONCE_FIRST_BYTES: usize = 8;
const NONCE_REST_BYTES_MIN: usize = 13;

/// `Protocol::HandshakeV10`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Greeting {
    pub version: String,
    pub capabilities: u32,
    pub nonce: Vec<u8>,
    pub plugin: String,
}

impl Greeting {
    pub fn parse(packet: Bytes) -> Result<Self, WireError> {
        let mut c = Cursor::new("greeting", packet);
        let read = |c: &mut Cursor| -> crate::mysql::binlog::error::Result<Option<Self>> {
            if c.u8()? != PROTOCOL_VERSION {
                return Ok(None);
            }
            let version = until_nul(c)?;
            c.skip(4)?; // thread id
            let mut nonce = c.slice(NONCE_FIRST_BYTES)?.to_vec();
            c.skip(1)?;
            let low = u32::from(c.u16()?);
            c.skip(1 + 2)?; // charset, status
            let capabilities = low | u32::from(c.u16()?) << 16;
            let nonce_bytes = usize::from(c.u8()?);
            c.skip(10)?;
            let rest = nonce_bytes.saturating_sub(NONCE_FIRST_BYTES).max(NONCE_REST_BYTES_MIN).min(c.left());
            nonce.extend_from_slice(c.slice(rest)?);
            // It ends with a zero that is not part of it.
            if nonce.last() == Some(&0) {
                nonce.pop();
            }
            let plugin = if capabilities & capability::PLUGIN_AUTH != 0 { until_nul(c)? } else { super::auth::NATIVE.to_owned() };
            Ok(Some(Self { version, capabilities, nonce, plugin }))
        };
        let greeting = read(&mut c).ok().flatten().ok_or(WireError::Malformed { what: "greeting of a MySQL server" })?;
        let needed = capability::PROTOCOL_41 | capability::SECURE_CONNECTION;
        if greeting.capabilities & needed != needed {
            return Err(WireError::Login("the server is older than MySQL 5.0".to_owned()));
        }
        Ok(greeting)
    }
}

/// Text up to a zero byte or the end.
fn until_nul(c: &mut Cursor) -> crate::mysql::binlog::error::Result<String> {
    let mut text = Vec::new();
    while !c.is_empty() {
        match c.u8()? {
            0 => break,
            byte => text.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What we say of ourselves.
pub(super) struct Login<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub plugin: &'a str,
    pub is_tls: bool,
    pub server: u32,
    pub packet_bytes_max: u32,
}

impl Login<'_> {
    fn capabilities(&self) -> u32 {
        use capability::{
            CONNECT_WITH_DB, LONG_FLAG, LONG_PASSWORD, PLUGIN_AUTH, PLUGIN_AUTH_LENENC, PROTOCOL_41, SECURE_CONNECTION, SSL, TRANSACTIONS,
        };
        let base = LONG_PASSWORD | LONG_FLAG | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION;
        let database = if self.database.is_empty() { 0 } else { CONNECT_WITH_DB };
        let tls = if self.is_tls { SSL } else { 0 };
        base | database | tls | (PLUGIN_AUTH | PLUGIN_AUTH_LENENC) & self.server
    }

    /// `Protocol::SSLRequest`: the beginning of the answer, before TLS begins.
    pub fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u32_le(self.capabilities());
        out.put_u32_le(self.packet_bytes_max);
        out.put_u8(UTF8MB4);
        out.put_bytes(0, 23);
        out
    }

    /// `Protocol::HandshakeResponse41`.
    pub fn response(&self, answer: &[u8]) -> Vec<u8> {
        let mut out = self.head();
        out.put_slice(self.user.as_bytes());
        out.put_u8(0);
        // One byte of length: also as a length-encoded integer, for answers are shorter than 251 bytes.
        out.put_u8(u8::try_from(answer.len()).expect("invariant: a hash has 20 or 32 bytes"));
        out.put_slice(answer);
        if !self.database.is_empty() {
            out.put_slice(self.database.as_bytes());
            out.put_u8(0);
        }
        if self.capabilities() & capability::PLUGIN_AUTH != 0 {
            out.put_slice(self.plugin.as_bytes());
            out.put_u8(0);
        }
        out
    }
}

/// What the server says to an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    Ok,
    /// `Protocol::AuthSwitchRequest`
    Switch {
        plugin: String,
        nonce: Vec<u8>,
    },
    /// `Protocol::AuthMoreData`
    More(Bytes),
}

impl Reply {
    pub fn parse(packet: Bytes) -> Result<Self, WireError> {
        let malformed = |_| WireError::Malformed { what: "answer to a login" };
        let mut c = Cursor::new("answer to a login", packet.clone());
        match c.u8().map_err(malformed)? {
            0x00 => Ok(Self::Ok),
            0x01 => Ok(Self::More(c.rest())),
            // Without a plugin it asks for the hash of MySQL 4.0, which anybody could read.
            0xfe if c.is_empty() => Err(WireError::Login("the account has a password of MySQL 4.0: set it again".to_owned())),
            0xfe => {
                let plugin = until_nul(&mut c).map_err(malformed)?;
                let nonce = c.rest();
                Ok(Self::Switch { plugin, nonce: nonce.strip_suffix(&[0]).unwrap_or(&nonce).to_vec() })
            }
            0xff => Err(error(packet)),
            _ => Err(WireError::Malformed { what: "answer to a login" }),
        }
    }
}

/// `ERR_Packet`: 0xff, code, '#' and five characters of state, message.
pub(super) fn error(packet: Bytes) -> WireError {
    let mut c = Cursor::new("error", packet);
    let mut read = || -> crate::mysql::binlog::error::Result<WireError> {
        c.skip(1)?;
        let code = c.u16()?;
        let mut state = String::new();
        if c.peek() == Some(b'#') {
            c.skip(1)?;
            state = String::from_utf8_lossy(c.slice(5)?).into_owned();
        }
        Ok(WireError::server(code, state, &String::from_utf8_lossy(&c.rest())))
    };
    read().unwrap_or(WireError::Malformed { what: "error" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Protocol::HandshakeV10", example of MySQL 5.6.
    const MYSQL_56: &[u8] = b"\x0a5.5.2-m2\0\x0b\0\0\0\x64\x76\x48\x40\x49\x2d\x43\x4a\0\xff\xf7\x08\x02\0\x0f\x80\x15\0\0\0\0\0\0\0\0\0\0\x2a\x34\x64\x7c\x63\x5a\x77\x6b\x34\x5e\x5d\x3a\0mysql_native_password\0";

    #[test]
    fn a_greeting_is_read() {
        let greeting = Greeting::parse(Bytes::from_static(MYSQL_56)).expect("greeting");
        assert_eq!((greeting.version.as_str(), greeting.plugin.as_str()), ("5.5.2-m2", "mysql_native_password"));
        assert_eq!(greeting.nonce, b"\x64\x76\x48\x40\x49\x2d\x43\x4a\x2a\x34\x64\x7c\x63\x5a\x77\x6b\x34\x5e\x5d\x3a");
        for n in 0..MYSQL_56.len() {
            // Cut short it is refused, or has a shorter nonce or name; it never panics.
            let _ = Greeting::parse(Bytes::from_static(&MYSQL_56[..n]));
        }
        assert!(Greeting::parse(Bytes::from_static(&MYSQL_56[..20])).is_err());
    }

    #[test]
    fn our_answer_is_laid_out_as_documented() {
        let login = Login {
            user: "pam",
            database: "test",
            plugin: "mysql_native_password",
            is_tls: false,
            server: u32::MAX,
            packet_bytes_max: 1 << 24,
        };
        let answer = [0xab; 20];
        let out = login.response(&answer);
        assert_eq!(out[..9], [0x0d, 0xa2, 0x28, 0x00, 0, 0, 0, 1, 45]);
        assert!(out[9..32].iter().all(|b| *b == 0));
        assert_eq!(&out[32..], [&b"pam\0\x14"[..], &answer, b"test\0mysql_native_password\0"].concat());
        assert_eq!(login.head().len(), 32, "an SSL request");
    }

    #[test]
    fn replies_are_told_apart() {
        // "Protocol::AuthSwitchRequest", example.
        let switch = b"\xfemysql_native_password\0zQg4i6oNy6=rHN/>-b)A\0";
        let reply = Reply::parse(Bytes::from_static(switch)).expect("reply");
        assert_eq!(reply, Reply::Switch { plugin: "mysql_native_password".into(), nonce: b"zQg4i6oNy6=rHN/>-b)A".to_vec() });
        assert_eq!(Reply::parse(Bytes::from_static(b"\x01\x04")).expect("reply"), Reply::More(Bytes::from_static(b"\x04")));
        let refused = Reply::parse(Bytes::from_static(b"\xff\x15\x04#28000Access denied")).expect_err("error").to_string();
        assert_eq!(refused, "the server answered with error 1045 (28000): Access denied");
        assert!(Reply::parse(Bytes::from_static(b"\xfe")).is_err());
        assert!(Reply::parse(Bytes::new()).is_err());
    }
}
