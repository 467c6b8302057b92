//! What a MySQL or MariaDB server sends on a connection, and the pieces of it that are read on their own: GTID sets and binary JSON.

use bytes::Bytes;
use mulgil_capture::mysql::binlog::decoder::{Body, Decoder, Limits};
use mulgil_capture::mysql::binlog::{json as document, json_diff};
use mulgil_capture::mysql::ddl::Statement;
use mulgil_capture::mysql::gtid::{Gtid, GtidSet, MariadbGtid, MariadbPosition};
use mulgil_capture::mysql::settings::Settings;
use mulgil_capture::mysql::wire::{Connection, WireError};
use std::fmt::{Debug, Display};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// One packet's payload at most.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Answers that are asked for; more would mean that reading gives nothing new.
const ANSWERS_MAX: usize = 10_000;

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("invariant: a runtime of this thread needs nothing")
});

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let url = "mysql://u:hunter2@db/shop?ssl-mode=disabled&get-server-public-key=true";
    let settings = Settings::new(url.parse().expect("invariant: the url is one"), &["shop.*"]);
    Settings { packet_bytes_max: PACKET_BYTES_MAX, ..settings }
});

/// One packet at a time: what a server says before it is asked is thrown away behind the login.
struct Packets {
    bytes: Vec<u8>,
    at: usize,
    /// Of the packet that is being read.
    left: usize,
}

impl AsyncRead for Packets {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.left == 0 {
            let length = self.bytes[self.at..].first_chunk::<3>().map_or(0, |[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]) as usize);
            self.left = 4 + length;
        }
        let n = self.left.min(self.bytes.len() - self.at).min(buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..self.at + n]);
        (self.at, self.left) = (self.at + n, self.left - n);
        Poll::Ready(Ok(()))
    }
}

/// All that a server says: our login, an answer of rows, and a binlog. An error tells no secret.
pub fn server(input: &[u8]) {
    let said = hear(input).map_or_else(|e| format!("{e} {e:?}"), |()| String::new());
    assert!(!said.contains("hunter2") || String::from_utf8_lossy(input).contains("hunter2"), "{said}");
}

fn hear(input: &[u8]) -> Result<(), WireError> {
    RUNTIME.block_on(async {
        let said = Packets { bytes: input.to_vec(), at: 0, left: 0 };
        let mut connection = Connection::over(tokio::io::join(said, tokio::io::sink()), &SETTINGS).await?;
        connection.query("SELECT 1").await?;
        connection.register(7).await?;
        connection.dump(7, "binlog.000001", 4).await?;
        let wait = Duration::from_secs(1);
        for _ in 0..ANSWERS_MAX {
            connection.event_until(Instant::now() + wait, wait).await?;
        }
        Ok(())
    })
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    [&length[..3], &[sequence], payload].concat()
}

/// "Protocol::HandshakeV10"
fn greeting(version: &str, plugin: &str) -> Vec<u8> {
    let fixed = b"\x0b\0\0\0\x64\x76\x48\x40\x49\x2d\x43\x4a\0\xff\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0\x2a\x34\x64\x7c\x63\x5a\x77\x6b\x34\x5e\x5d\x3a\0";
    [b"\x0a", version.as_bytes(), b"\0", fixed, plugin.as_bytes(), b"\0"].concat()
}

/// A server's public key of 1,024 bits.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDXj3p9F8dlzq7NE2VdKzXh4cTX\nnbJ1Y0g7CPCYyLQvLzgVrqbM2D4xw6vTtQh8cWq4o1oQ0eyM0f6CjJ1m9ZkG5n8q\nq3iX2h0rG5sJ0ZJ5mSgkzvGg8V2mXj0l7x9Q0m5m2g3bqkq3a0e2kq0c1Jx8c1J4\nQxJ7gJcE0m3xg8T3jwIDAQAB\n-----END PUBLIC KEY-----\n\0";

pub fn server_seeds() -> Vec<Vec<u8>> {
    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
    let answer = [
        packet(1, &[2]),
        packet(2, b"\x03def\0\0\0\x01a\0"),
        packet(3, b"\x03def\0\0\0\x01b\0"),
        packet(4, EOF),
        packet(5, b"\x011\xfb"),
        packet(6, b"\0\xfc\x02\0ab"),
        packet(7, EOF),
    ]
    .concat();
    let event = [&[0][..], &[0; 19], b"an event"].concat();
    let events =
        [packet(1, OK), packet(1, &event), packet(2, &event), packet(3, b"\xff\xd4\x04#HY000Could not find first log file")].concat();
    let native = greeting("5.5.5-10.11.6-MariaDB-log", "mysql_native_password");
    let caching = greeting("9.7.4", "caching_sha2_password");
    let key = [&[1], KEY.as_bytes()].concat();
    let seeds = vec![
        [packet(0, &native), packet(2, OK), answer.clone(), events.clone()].concat(),
        [
            packet(0, &native),
            packet(2, b"\xfecaching_sha2_password\0zQg4i6oNy6=rHN/>-b)A\0"),
            packet(4, b"\x01\x03"),
            packet(5, OK),
            answer.clone(),
        ]
        .concat(),
        [packet(0, &caching), packet(2, b"\x01\x04"), packet(4, &key), packet(6, OK), answer, events].concat(),
        [packet(0, &caching), packet(2, b"\xff\x15\x04#28000Access denied for user 'u'@'db'")].concat(),
        packet(0, b"\xff\x10\x04Too many connections"),
    ];
    assert_eq!(hear(&seeds[0]).map_err(|e| e.code()), Err(Some(1236)), "a good server is heard to its end");
    seeds
}

fn same_again<T: FromStr + Display + PartialEq + Debug>(text: &str)
where
    T::Err: Debug + Display,
{
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse::<T>().expect("what is printed can be read"), value),
        Err(e) => assert!(e.to_string().len() < 1_000, "{} bytes of words", e.to_string().len()),
    }
}

/// Sets as texts and as bytes: what is read says the same when it is written, in both forms.
pub fn gtid(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    same_again::<GtidSet>(&text);
    same_again::<Gtid>(&text);
    same_again::<MariadbGtid>(&text);
    same_again::<MariadbPosition>(&text);
    let [set, position] = [(35, input), (163, input)].map(|(kind, body)| decoded(kind, body));
    if let Some(Body::PreviousGtids(set)) = set {
        let Some(Body::PreviousGtids(again)) = decoded(35, &set.encode()) else { panic!("what is encoded cannot be read") };
        assert_eq!(again, set);
        assert_eq!(set.to_string().parse::<GtidSet>().as_ref(), Ok(&set));
        assert!(set.contains(&again) && set.subtract(&again).is_empty());
    }
    if let Some(Body::MariadbPosition(position)) = position {
        assert_eq!(position.to_string().parse::<MariadbPosition>().as_ref(), Ok(&position));
    }
}

fn decoded(kind: u8, body: &[u8]) -> Option<Body> {
    let event = super::mysql_binlog::event(kind, body);
    Decoder::new(Limits::default()).event(event.into()).ok().map(|event| event.body)
}

pub fn gtid_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:blue:1-3, 4f22fa47-71ca-11e1-9e33-c80aa9429562:1",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:9223372036854775806",
        "0-1-270,7-2-3",
        "0-1-270",
    ];
    let sets = texts[..2].iter().map(|text| text.parse::<GtidSet>().expect("a set").encode());
    let list = [&2u32.to_le_bytes()[..], &[0; 16], &[7; 16]].concat();
    texts.iter().map(|t| t.as_bytes().to_vec()).chain(sets).chain([list]).collect()
}

/// A document and changes of it, each behind its length in two bytes: their text is JSON.
pub fn json(input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return };
    let (before, changes) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let (before, changes) = (Bytes::copy_from_slice(before), Bytes::copy_from_slice(changes));
    let texts = [document::text(before.clone()), json_diff::apply(before, changes)];
    for text in texts.into_iter().flatten() {
        let read = serde_json::from_slice::<serde_json::Value>(&text);
        assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(&text));
    }
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    super::mysql_binlog::documents()
}

/// A statement of the binlog. Names are what a server can have, and blanks around it say nothing.
pub fn ddl(input: &[u8]) {
    let sql = String::from_utf8_lossy(input);
    let read = Statement::read(&sql, "shop");
    if let Statement::Shapes(names) | Statement::Partitions(names) = &read {
        assert!(!names.is_empty(), "shapes of no table");
        assert!(names.iter().all(|name| name.table.len() <= input.len() * 3), "a name longer than the statement");
    }
    assert_eq!(Statement::read(&format!(" \n/* x */{sql}"), "shop"), read);
}

pub fn ddl_seeds() -> Vec<Vec<u8>> {
    let statements = [
        "BEGIN",
        "SAVEPOINT `a b`",
        "ROLLBACK WORK TO SAVEPOINT s",
        "XA START X'61',X'',1",
        "XA COMMIT 'a','b',7 ONE PHASE",
        "TRUNCATE TABLE shop.`or``ders`",
        "RENAME TABLE a TO b.c, d TO e",
        "DROP TABLE IF EXISTS `a`,\"b\" /* generated by server */",
        "CREATE OR REPLACE TABLE t (a int) -- x\n",
        "ALTER TABLE /*!50000 t */ ADD COLUMN c INT, RENAME TO u",
        "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u",
        "ALTER TABLE t DISCARD TABLESPACE",
        "INSERT INTO t VALUES (1)",
        "GRANT ALL ON *.* TO 'a'@'b' # x",
    ];
    statements.map(|s| s.as_bytes().to_vec()).to_vec()
}
