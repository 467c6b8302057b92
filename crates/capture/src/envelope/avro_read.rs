//! Changes read back from the log. The bytes may be anybody's: nothing here panics, and what is allocated is bounded by what arrived.

use super::avro::{AvroError, OPS, SNAPSHOTS};
use super::avro_schema::{self, ARRAY_DEPTH_MAX, decimal_scale, item_kind, nested_branch};
use super::unscaled::{Parts, push_decimal};
use crate::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use crate::datum::Datum;
use crate::table::{Kind, Table};
use bytes::{Bytes, BytesMut};
use mulgil_model::avro::{HEADER_BYTES, WireSchema, schema_id};
use mulgil_model::position::Position;
use std::collections::HashMap;
use std::sync::Arc;

/// Reads changes, each in the shape it was written in. Texts and bytes are slices of the message.
#[derive(Default)]
pub struct ChangeDecoder {
    known: HashMap<u32, Known>,
    /// Changes of one transaction share it again.
    last: Option<Arc<Origin>>,
    /// Decimals are written here as text; many share one allocation.
    texts: BytesMut,
}

struct Known {
    json: String,
    /// None: the schema of messages.
    table: Option<Arc<Table>>,
}

type Read<T> = Result<T, &'static str>;

impl ChangeDecoder {
    /// Makes a schema known, such as the log's record of schemas has it.
    pub fn learn(&mut self, wire: &WireSchema) -> Result<(), AvroError> {
        let refuse = |reason| AvroError::Schema { id: wire.id, reason };
        match self.known.get(&wire.id) {
            Some(known) if known.json == wire.json => return Ok(()),
            Some(_) => return Err(refuse("another schema has the same id")),
            None => {}
        }
        let table = avro_schema::read(&wire.json).map_err(refuse)?;
        let same = table.as_ref().map_or_else(avro_schema::of_messages, avro_schema::of_table);
        if same.json != wire.json {
            return Err(refuse("its types are not those that its property \"table\" asks for"));
        }
        self.known.insert(wire.id, Known { json: wire.json.clone(), table: table.map(Arc::new) });
        Ok(())
    }

    /// The shape that a message was written in; None for a logical message.
    pub fn table(&self, id: u32) -> Option<&Arc<Table>> {
        self.known.get(&id)?.table.as_ref()
    }

    /// Reads one whole message.
    pub fn decode(&mut self, message: &Bytes) -> Result<Change, AvroError> {
        let damaged = |reason| AvroError::Damaged { reason };
        let id = schema_id(message).ok_or_else(|| damaged("it does not begin with a zero byte and a schema id"))?;
        let known = self.known.get(&id).ok_or(AvroError::UnknownSchema { id })?;
        let mut input = Input { bytes: message, at: HEADER_BYTES, last: self.last.as_ref(), texts: &mut self.texts };
        let read = match &known.table {
            Some(table) => read_change(&mut input, table),
            None => read_message(&mut input),
        };
        let (op, what, (position, origin)) = read.map_err(damaged)?;
        if input.at != message.len() {
            return Err(damaged("bytes are left behind its end"));
        }
        self.last = Some(Arc::clone(&origin));
        Ok(Change { op, what, position, origin })
    }
}

type OpWhatSource = (Op, What, (Position, Arc<Origin>));

fn read_change(input: &mut Input<'_>, table: &Arc<Table>) -> Read<OpWhatSource> {
    let op = *OPS.get(input.index()?).ok_or("an unknown operation")?;
    let before = read_row(input, table)?;
    let after = read_row(input, table)?;
    let source = read_source(input)?;
    let table = Arc::clone(table);
    let what = match input.index()? {
        0 => What::Row { table, before, after },
        1 if before.is_none() && after.is_none() => What::Truncate { table, cascade: input.boolean()?, restart_identity: input.boolean()? },
        _ => return Err("neither rows nor a truncate"),
    };
    Ok((op, what, source))
}

fn read_message(input: &mut Input<'_>) -> Read<OpWhatSource> {
    let prefix = input.str()?.to_owned();
    let (content, is_transactional) = (input.sized()?, input.boolean()?);
    Ok((Op::Message, What::Message { prefix, content, is_transactional }, read_source(input)?))
}

/// A [`Place`] that points into the message.
#[derive(PartialEq)]
enum PlaceRef<'a> {
    Postgres { database: &'a str, commit_lsn: u64, txid: Option<u32> },
    Mysql { server_id: u32, file: &'a str, at: u64, gtid: Option<&'a str>, thread: Option<u32> },
}

impl<'a> PlaceRef<'a> {
    fn of(place: &'a Place) -> Self {
        match place {
            Place::Postgres { database, commit_lsn, txid } => Self::Postgres { database, commit_lsn: *commit_lsn, txid: *txid },
            Place::Mysql { server_id, file, at, gtid, thread } => {
                Self::Mysql { server_id: *server_id, file, at: *at, gtid: gtid.as_deref(), thread: *thread }
            }
        }
    }

    fn read(input: &mut Input<'a>) -> Read<Self> {
        Ok(match input.index()? {
            0 => Self::Postgres { database: input.str()?, commit_lsn: input.long()?.cast_unsigned(), txid: input.optional(Input::number)? },
            1 => Self::Mysql {
                server_id: input.number()?,
                file: input.str()?,
                at: input.long()?.cast_unsigned(),
                gtid: input.optional(Input::str)?,
                thread: input.optional(Input::number)?,
            },
            _ => return Err("an unknown kind of place"),
        })
    }

    fn to_place(&self) -> Place {
        match *self {
            Self::Postgres { database, commit_lsn, txid } => Place::Postgres { database: database.into(), commit_lsn, txid },
            Self::Mysql { server_id, file, at, gtid, thread } => {
                Place::Mysql { server_id, file: file.into(), at, gtid: gtid.map(Into::into), thread }
            }
        }
    }
}

fn read_source(input: &mut Input<'_>) -> Read<(Position, Arc<Origin>)> {
    let committed_us = input.long()?;
    let snapshot: Snapshot = *SNAPSHOTS.get(input.index()?).ok_or("an unknown kind of snapshot")?;
    let position = Position::new(input.long()?.cast_unsigned(), input.long()?.cast_unsigned());
    let place = PlaceRef::read(input)?;
    let is_same = |o: &Arc<Origin>| o.committed_us == committed_us && o.snapshot == snapshot && PlaceRef::of(&o.place) == place;
    let origin = match input.last {
        Some(last) if is_same(last) => Arc::clone(last),
        _ => Arc::new(Origin { committed_us, snapshot, place: place.to_place() }),
    };
    Ok((position, origin))
}

fn read_row(input: &mut Input<'_>, table: &Table) -> Read<Option<Row>> {
    match input.index()? {
        0 => Ok(None),
        1 if input.left() < table.columns.len() => Err("a row that is cut short"),
        1 => table.columns.iter().map(|c| read_datum(input, &c.kind)).collect::<Read<Row>>().map(Some),
        _ => Err("neither a row nor none"),
    }
}

fn read_datum(input: &mut Input<'_>, kind: &Kind) -> Read<Datum> {
    let branch = input.index()?;
    read_branch(input, kind, branch)
}

fn read_branch(input: &mut Input<'_>, kind: &Kind, branch: usize) -> Read<Datum> {
    match branch {
        0 => Ok(Datum::Null),
        1 => read_value(input, kind),
        2 if input.index()? == 0 => Ok(Datum::Unavailable),
        3 => Ok(Datum::Odd(input.string()?)),
        4 if matches!(kind, Kind::Decimal(digits) if decimal_scale(*digits).is_some()) => input.plain_decimal(),
        _ => Err("a column's value is none of those it can be"),
    }
}

fn read_value(input: &mut Input<'_>, kind: &Kind) -> Read<Datum> {
    Ok(match kind {
        Kind::Bool => Datum::Bool(input.boolean()?),
        Kind::Int16 | Kind::Int32 => Datum::Int(i64::from(input.int()?)),
        Kind::Int64 => Datum::Int(input.long()?),
        Kind::UInt64 => {
            let mut text = Vec::with_capacity(20);
            let value = push_decimal(&mut text, input.sized_ref()?, 0).then(|| std::str::from_utf8(&text).ok()?.parse().ok()).flatten();
            Datum::UInt(value.ok_or("an unsigned number out of range")?)
        }
        Kind::Float32 => Datum::Float32(f32::from_le_bytes(input.array()?)),
        Kind::Float64 => Datum::Float64(f64::from_le_bytes(input.array()?)),
        Kind::Decimal(digits) => return read_decimal(input, decimal_scale(*digits)),
        Kind::Text | Kind::Unknown => Datum::Text(input.string()?),
        Kind::Binary => Datum::Binary(input.sized()?),
        Kind::Date => Datum::Date(input.int()?),
        Kind::Time => Datum::Time(input.long()?),
        Kind::Timestamp => Datum::Timestamp(input.long()?),
        Kind::TimestampTz => Datum::TimestampTz(input.long()?),
        Kind::Uuid => Datum::Uuid(uuid_of(input.sized_ref()?).ok_or("a uuid that is none")?),
        Kind::Json => Datum::Json(input.string()?),
        Kind::Array(_) => Datum::Array(read_items(input, item_kind(kind), 0)?),
    })
}

fn read_decimal(input: &mut Input<'_>, scale: Option<u32>) -> Read<Datum> {
    let Some(scale) = scale else { return input.plain_decimal() };
    let unscaled = input.sized_ref()?;
    if input.texts.capacity() < DECIMAL_BYTES_MAX {
        input.texts.reserve(TEXTS_BYTES);
    }
    let before = input.texts.len();
    if push_decimal(input.texts, unscaled, scale) {
        Ok(Datum::Decimal(input.texts.split().freeze()))
    } else {
        input.texts.truncate(before);
        Err("a decimal of more than 16 bytes")
    }
}

/// A sign, 39 digits and a point.
const DECIMAL_BYTES_MAX: usize = 41;

/// What decimals share. A message that is kept keeps so much of it alive.
const TEXTS_BYTES: usize = 1 << 10;

fn read_items(input: &mut Input<'_>, item: &Kind, depth: usize) -> Read<Vec<Datum>> {
    if depth >= ARRAY_DEPTH_MAX {
        return Err("arrays that are nested too deep");
    }
    let mut items = Vec::new();
    loop {
        let count = input.long()?;
        if count == 0 {
            return Ok(items);
        }
        if count < 0 {
            // The block's bytes follow, for readers that skip it.
            input.long()?;
        }
        // Every item takes a byte at least.
        let n_items = usize::try_from(count.unsigned_abs()).ok().filter(|n| *n <= input.left()).ok_or("more items than bytes")?;
        for _ in 0..n_items {
            let branch = input.index()?;
            items.push(if branch == usize::from(nested_branch(item)) {
                Datum::Array(read_items(input, item, depth + 1)?)
            } else {
                read_branch(input, item, branch)?
            });
        }
    }
}

fn uuid_of(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 || [8, 13, 18, 23].iter().any(|dash| text[*dash] != b'-') {
        return None;
    }
    let mut digits = text.iter().filter(|b| **b != b'-').map(|b| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    });
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    digits.next().is_none().then_some(uuid)
}

struct Input<'a> {
    bytes: &'a Bytes,
    at: usize,
    last: Option<&'a Arc<Origin>>,
    texts: &'a mut BytesMut,
}

impl<'a> Input<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let bytes: &'a Bytes = self.bytes;
        let taken = bytes[self.at..].get(..n).ok_or("it is cut short")?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "it is cut short")
    }

    /// A zig-zag number of at most ten bytes, the tenth of which holds one bit.
    fn long(&mut self) -> Read<i64> {
        let mut raw = 0u64;
        for (i, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            if i == 9 && *byte > 1 {
                return Err("a number of more than 64 bits");
            }
            raw |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err("it is cut short in a number")
    }

    fn int(&mut self) -> Read<i32> {
        i32::try_from(self.long()?).map_err(|_| "a number of more than 32 bits")
    }

    fn number(&mut self) -> Read<u32> {
        u32::try_from(self.long()?).map_err(|_| "a number that is negative or of more than 32 bits")
    }

    /// The index of an enum's symbol or a union's branch.
    fn index(&mut self) -> Read<usize> {
        usize::try_from(self.long()?).map_err(|_| "a negative index")
    }

    fn boolean(&mut self) -> Read<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a boolean that is neither"),
        }
    }

    fn sized_ref(&mut self) -> Read<&'a [u8]> {
        let n = usize::try_from(self.long()?).map_err(|_| "a negative length")?;
        self.take(n)
    }

    /// A slice of the message.
    fn sized(&mut self) -> Read<Bytes> {
        let n = self.sized_ref()?.len();
        Ok(self.bytes.slice(self.at - n..self.at))
    }

    fn str(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.sized_ref()?).map_err(|_| "a text that is not UTF-8")
    }

    fn string(&mut self) -> Read<Bytes> {
        let n = self.str()?.len();
        Ok(self.bytes.slice(self.at - n..self.at))
    }

    fn plain_decimal(&mut self) -> Read<Datum> {
        let text = self.sized()?;
        if Parts::of(&text).is_some() { Ok(Datum::Decimal(text)) } else { Err("a decimal in no plain notation") }
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.index()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err("neither a value nor none"),
        }
    }
}
