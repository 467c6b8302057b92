//! Transactions that MySQL 9.7.4 prepared (`testdata/binlog/mysql-9.7-xa.sql`), event by event and without a server.

use super::*;
use crate::mysql::binlog::decoder::{Decoder, Limits as DecoderLimits};
use crate::mysql::binlog::file::File;
use crate::mysql::binlog::header::EventKind;
use crate::mysql::catalog::{CatalogColumn, CatalogTable, Selection};
use crate::mysql::place::Gtids;
use crate::mysql::prepared::Noted;
use crate::table::TableId;
use bytes::Bytes;
use std::io::Cursor;

const XA: &[u8] = include_bytes!("../../../testdata/binlog/mysql-9.7-xa.binlog");
const FILE: &str = "binlog.000001";
/// Behind the statements that make the table.
const BEGIN: u64 = 536;

/// Where an event begins; the file's format counts as everywhere.
fn begin(event: &Bytes) -> u64 {
    let header = Header::parse(event.first_chunk().expect("a header"));
    if header.kind == EventKind::FORMAT_DESCRIPTION { u64::MAX } else { u64::from(header.next_at - header.length) }
}

/// Logged in to a server that says nothing more: whoever asks it something fails.
async fn silent(settings: &Settings) -> Connection {
    let greeting = b"\x49\0\0\0\x0a9.7.4\0\x0b\0\0\0\x64\x76\x48\x40\x49\x2d\x43\x4a\0\xff\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0\x2a\x34\x64\x7c\x63\x5a\x77\x6b\x34\x5e\x5d\x3a\0mysql_native_password\0";
    let ok = b"\x07\0\0\x02\0\0\0\x02\0\0\0";
    let said = [&greeting[..], ok].concat();
    Connection::over(tokio::io::join(Cursor::new(said), tokio::io::sink()), settings).await.expect("login")
}

fn shapes() -> Shapes {
    let column = |name: &str, native: &str, is_key: bool| CatalogColumn {
        name: name.into(),
        native: native.into(),
        charset: Some("utf8mb4".into()).filter(|_| !is_key),
        is_nullable: !is_key,
        is_key,
        default: None,
    };
    let id = TableId { database: "t".into(), schema: "".into(), table: "x".into() };
    let columns = vec![column("id", "int", true), column("v", "text", false)];
    let mut shapes = Shapes::new(Selection::new(&["t.x".to_owned()]).expect("selection"), Default::default());
    shapes.knows(CatalogTable { id, columns, key: vec![0], rows: 0, row_bytes: 0 });
    shapes
}

struct Reader {
    assembler: Assembler,
    sql: Connection,
    events: Vec<Bytes>,
}

impl Reader {
    async fn new(prepared_bytes_max: usize, batch_rows_max: usize) -> Self {
        let mut settings = Settings::new("mysql://u@h?ssl-mode=disabled".parse().expect("url"), &["t.x"]);
        (settings.prepared_bytes_max, settings.batch_rows_max) = (prepared_bytes_max, batch_rows_max);
        let place = Place { file: FILE.into(), at: BEGIN, file_base: 0, gtids: Gtids::None };
        let mut events: Vec<Bytes> = File::new(Bytes::from_static(XA)).expect("a binlog").collect::<Result<_, _>>().expect("whole");
        events.retain(|event| begin(event) >= BEGIN);
        let assembler = Assembler::new(&settings, shapes(), place, 0, Position::default());
        Self { assembler, sql: silent(&settings).await, events }
    }

    /// As the source does it.
    async fn read(&mut self) {
        let mut decoder = Decoder::new(DecoderLimits::default());
        for bytes in self.events.clone() {
            let event = decoder.event(bytes).expect("event");
            let Body::Payload(mut payload) = event.body else {
                self.assembler.event(event, &mut self.sql).await.expect("assembled");
                self.replay().await;
                continue;
            };
            self.assembler.payload(&event.header);
            while let Some(inner) = payload.next(&mut decoder).expect("event") {
                self.assembler.inner(inner, &mut self.sql).await.expect("assembled");
                self.replay().await;
            }
            self.assembler.payload_end();
        }
    }

    async fn replay(&mut self) {
        let Some(wanted) = self.assembler.wanted.take() else { return };
        let (file, from) = wanted.begin.expect("it was prepared in this file");
        assert_eq!(&*file, FILE);
        let (mut decoder, mut is_inside) = (Decoder::new(DecoderLimits::default()), false);
        for bytes in self.events.clone().into_iter().filter(|bytes| begin(bytes) >= from) {
            let event = decoder.event(bytes).expect("event");
            match &event.body {
                Body::XaPrepare(_) if is_inside => break,
                Body::Query(q) if q.text().starts_with("XA START") => {
                    assert_eq!(q.text(), format!("XA START {}", wanted.xid));
                    is_inside = true;
                }
                _ if is_inside => self.assembler.replayed(event, &mut self.sql).await.expect("assembled"),
                _ => {}
            }
        }
        self.assembler.replay_end(&wanted.xid).expect("assembled");
    }
}

fn told(changes: &[Change]) -> Vec<String> {
    let one = |c: &Change| {
        let What::Row { after: Some(row), .. } = &c.what else { panic!("{c:?}") };
        let change::Place::Mysql { gtid: Some(gtid), at, .. } = &c.origin.place else { panic!("{c:?}") };
        let (_, number) = gtid.rsplit_once(':').expect("a number");
        format!("{:?} {:?} at {at} of {number}, {}.{}", c.op, row[0], c.position.commit & 0xf_ffff_ffff, c.position.ordinal)
    };
    changes.iter().map(one).collect()
}

#[tokio::test]
async fn what_mysql_prepares_comes_with_its_commit_or_never() {
    // In memory, and read again: the same places.
    for (prepared_bytes_max, batch_rows_max) in [(1 << 20, 8_192), (0, 8_192), (1 << 20, 1)] {
        let mut reader = Reader::new(prepared_bytes_max, batch_rows_max).await;
        reader.read().await;
        // A branch that was committed, one in one phase, and one of twenty rows, compressed, that was rolled back.
        assert_eq!(told(&reader.assembler.ready), ["Create Int(1) at 1226 of 4, 1226.0", "Create Int(8) at 1700 of 5, 1700.0"]);
        assert_eq!(reader.assembler.prepared.noted(), []);
        assert!(reader.assembler.is_between());
    }
}

#[tokio::test]
async fn what_is_prepared_is_stored_with_its_place_until_it_ends() {
    let mut reader = Reader::new(0, 8_192).await;
    reader.events.retain(|event| begin(event) == u64::MAX || begin(event) < 1_062);
    reader.read().await;
    let noted = Noted { xid: "X'61',X'',1".into(), file: Some(FILE.into()), at: 536 };
    assert_eq!((reader.assembler.prepared.noted(), reader.assembler.ready.len()), (vec![noted], 0));
    assert_eq!(reader.assembler.place.at, 1_062, "the stored place goes on meanwhile");
}
