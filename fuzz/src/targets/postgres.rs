//! What a PostgreSQL server sends: on a connection, in the replication stream, and as the text of values.

use crate::targets::mysql::RUNTIME;
use bytes::Bytes;
use mulgil_capture::datum::Datum;
use mulgil_capture::postgres::address::Address;
use mulgil_capture::postgres::catalog::{Type, TypeForm, Types};
use mulgil_capture::postgres::forms::{self, Form};
use mulgil_capture::postgres::pgoutput::{self, Message, Old, Tuple};
use mulgil_capture::postgres::values::decode;
use mulgil_capture::postgres::wire::{Connection, Purpose, WireError};
use std::io::Cursor;
use std::sync::LazyLock;
use std::time::Duration;

/// Pieces of a copy that are asked for; more would mean that reading gives nothing new.
const PIECES_MAX: usize = 10_000;

static ADDRESS: LazyLock<Address> =
    LazyLock::new(|| "postgres://u:hunter2@db/shop?sslmode=disable".parse().expect("invariant: the url is one"));

/// All that a server says: our login, an answer of rows, and a copy. An error tells no secret.
pub fn server(input: &[u8]) {
    let said = hear(input).map_or_else(|e| format!("{e} {e:?}"), |()| String::new());
    assert!(!said.contains("hunter2") || String::from_utf8_lossy(input).contains("hunter2"), "{said}");
}

fn hear(input: &[u8]) -> Result<(), WireError> {
    RUNTIME.block_on(async {
        let socket = tokio::io::join(Cursor::new(input.to_vec()), tokio::io::sink());
        let mut connection = Connection::over(socket, &ADDRESS, Purpose::Replication).await?;
        connection.query("SELECT 1").await?;
        connection.copy_out("COPY t TO STDOUT").await?;
        for _ in 0..PIECES_MAX {
            if connection.copied(Duration::from_secs(1)).await?.is_none() {
                break;
            }
        }
        Ok(())
    })
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

pub fn server_seeds() -> Vec<Vec<u8>> {
    let ok = frame(b'R', &[0, 0, 0, 0]);
    let welcome = [frame(b'S', b"server_version\x0015.4\0"), frame(b'K', &[0; 8]), frame(b'Z', b"I")].concat();
    let row = frame(b'D', b"\0\x02\0\0\0\x011\xff\xff\xff\xff");
    let answer = [frame(b'T', b"\0\0"), row, frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat();
    let copy = [frame(b'H', &[0; 3]), frame(b'd', b"1\tx\n"), frame(b'c', b""), frame(b'C', b"COPY 1\0"), frame(b'Z', b"I")].concat();
    let error = frame(b'E', b"SFATAL\0C28P01\0Mpassword authentication failed\0Hask\0\0");
    let scram = [
        frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        frame(b'R', b"\0\0\0\x0br=abcdef,s=QSXCR+Q6sek8bf92,i=4096"),
        frame(b'R', b"\0\0\0\x0cv=rmF9pqV8S7suAoZWja4dJRkFsKQ="),
    ];
    let seeds = vec![
        [ok.clone(), welcome.clone(), answer.clone(), copy].concat(),
        [frame(b'R', b"\0\0\0\x05salt"), ok.clone(), welcome.clone(), frame(b'N', b"Snotice\0\0"), answer].concat(),
        scram.concat(),
        error.clone(),
        [ok, welcome, error, frame(b'Z', b"I")].concat(),
    ];
    hear(&seeds[0]).expect("a good server is heard to its end");
    seeds
}

/// A message of the stream; the first byte says whether it stands inside of a streamed transaction. Every cell of it is read.
pub fn messages(input: &[u8]) {
    let Some((inside, body)) = input.split_first() else { return };
    let Ok((_, message)) = pgoutput::decode(Bytes::copy_from_slice(body), inside & 1 == 1) else { return };
    let of_old = |old: &Old| match old {
        Old::Key(tuple) | Old::Full(tuple) => tuple.clone(),
    };
    let tuples: Vec<Tuple> = match &message {
        Message::Insert { new, .. } => vec![new.clone()],
        Message::Update { old, new, .. } => old.iter().map(of_old).chain([new.clone()]).collect(),
        Message::Delete { old, .. } => vec![of_old(old)],
        _ => Vec::new(),
    };
    for tuple in tuples {
        assert_eq!(tuple.cells().count(), tuple.len());
        assert!(tuple.len() <= body.len(), "more cells than bytes");
    }
}

pub fn messages_seeds() -> Vec<Vec<u8>> {
    let u32s = |n: u32| n.to_be_bytes();
    let tuple = b"\0\x04t\0\0\0\x03abcnub\0\0\0\x02\x01\x02";
    let times = [&[0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 2, 0xb5, 0x5c, 0, 0, 0, 0]].concat();
    let relation = [&u32s(7)[..], b"public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0s\0\0\0\0\x19\xff\xff\xff\xff"].concat();
    let plain = [
        [b"B", &times[..], &u32s(9)].concat(),
        [b"C", &[0][..], &times, &[0; 8]].concat(),
        [b"O", &[0; 8][..], b"origin\0"].concat(),
        [b"R", &relation[..]].concat(),
        [b"Y", &u32s(600)[..], b"public\0mood\0"].concat(),
        [b"I", &u32s(7)[..], b"N", tuple].concat(),
        [b"U", &u32s(7)[..], b"K", tuple, b"N", tuple].concat(),
        [b"U", &u32s(7)[..], b"N", tuple].concat(),
        [b"D", &u32s(7)[..], b"O", tuple].concat(),
        [b"T", &u32s(2)[..], &[3], &u32s(7), &u32s(8)].concat(),
        [b"M", &[1][..], &[0; 8], b"prefix\0", &u32s(3), b"abc"].concat(),
        [b"S", &u32s(9)[..], &[1]].concat(),
        b"E".to_vec(),
        [b"c", &u32s(9)[..], &[0], &times, &[0; 8]].concat(),
        [b"A", &u32s(9)[..], &u32s(10)].concat(),
        [b"P", &[0][..], &times, &[0; 8], &u32s(9), b"gid\0"].concat(),
    ];
    let inside = |m: &Vec<u8>| [&[1, m[0]], &u32s(9)[..], &m[1..]].concat();
    let streamed: Vec<Vec<u8>> = plain.iter().filter(|m| b"RYIUDTM".contains(&m[0])).map(inside).collect();
    plain.iter().map(|m| [&[0], &m[..]].concat()).chain(streamed).collect()
}

/// Domains in a circle and arrays of themselves, as a broken catalog could have them.
static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let forms = [
        TypeForm::Base,
        TypeForm::Enum(vec!["a".into(), "b".into()]),
        TypeForm::Domain { base: 1_700, typmod: (10 << 16 | 2) + 4 },
        TypeForm::Domain { base: 70_003, typmod: -1 },
        TypeForm::Array { element: 70_004 },
        TypeForm::Array { element: 70_002 },
        TypeForm::Array { element: 70_001 },
        TypeForm::Composite,
        TypeForm::Range,
        TypeForm::Other,
    ];
    let one = |(i, form): (usize, TypeForm)| {
        let oid = 70_000 + i as u32;
        (oid, Type { oid, schema: "public".into(), name: format!("t{i}").into(), form })
    };
    Types(forms.into_iter().enumerate().map(one).collect())
});

/// Built-in types that have a form of their own, and some of their arrays ("pg_type.dat").
const OIDS: [u32; 40] = [
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 142, 600, 603, 650, 700, 701, 790, 829, 869, 1_000, 1_007, 1_009, 1_020, 1_042, 1_043, 1_082,
    1_083, 1_114, 1_115, 1_184, 1_186, 1_231, 1_266, 1_560, 1_700, 2_950, 2_951, 3_220, 3_802, 3_904,
];

/// One byte of type, four of its typmod, and the text of a value: of its kind, or odd.
pub fn values(input: &[u8]) {
    let Some((head, text)) = input.split_first_chunk::<5>() else { return };
    let [which, a, b, c, d] = *head;
    let (which, typmod) = (usize::from(which), i32::from_be_bytes([a, b, c, d]));
    let oid = OIDS.get(which).copied().unwrap_or(70_000 + (which % 12) as u32);
    let form = Form::of(oid, typmod, &TYPES);
    let _ = (form.kind(), forms::is_built_in(oid));
    assert!(forms::native(oid, typmod, &TYPES).len() < 10_000);
    well_formed(&decode(&form, Bytes::copy_from_slice(text)), text.len());
}

fn well_formed(datum: &Datum, n_bytes: usize) {
    match datum {
        Datum::Text(b) | Datum::Json(b) => assert!(std::str::from_utf8(b).is_ok(), "text that is not UTF-8"),
        Datum::Decimal(b) => assert!(b.iter().all(|b| b.is_ascii_digit() || b"-.".contains(b)), "{b:?} is no plain decimal"),
        Datum::Array(items) => {
            assert!(items.len() <= n_bytes, "more items than bytes");
            items.iter().for_each(|item| well_formed(item, n_bytes));
        }
        _ => {}
    }
}

pub fn values_seeds() -> Vec<Vec<u8>> {
    let of = |oid: u32| OIDS.iter().position(|o| *o == oid).map_or_else(|| (oid - 70_000 + 240) as u8, |i| i as u8);
    let texts = [
        (16, "t"),
        (17, "\\x00ff"),
        (17, "a\\000\\\\b"),
        (20, "-9223372036854775808"),
        (700, "NaN"),
        (701, "1.7976931348623157e+308"),
        (1_700, "-12345678901234567890.0123456789"),
        (1_700, "1E-7"),
        (1_082, "4714-11-24 BC"),
        (1_082, "infinity"),
        (1_114, "2024-02-29 23:59:59.999999"),
        (1_184, "0001-01-01 00:00:00+00 BC"),
        (1_083, "24:00:00"),
        (1_266, "12:34:56.5+09:30"),
        (1_186, "1 year 2 mons -3 days +04:05:06.7"),
        (2_950, "123e4567-e89b-12d3-a456-426655440000"),
        (3_802, "{\"a\": [1, 2.50]}"),
        (1_007, "[0:1][1:2]={{1,NULL},{3,4}}"),
        (1_009, "{\"a \\\"b\\\\\",NULL,\"NULL\",c}"),
        (1_020, "{(1,2),(0,0);(3,4),(1,1)}"),
        (70_004, "{{a,b},{c,d}}"),
        (70_005, "{1.00,NaN}"),
    ];
    texts.iter().map(|(oid, text)| [&[of(*oid)], &[255; 4][..], text.as_bytes()].concat()).collect()
}
