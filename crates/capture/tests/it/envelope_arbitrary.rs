//! Any table, any row, any change: what the model allows, its extremes included.

use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::table::{Column, Digits, Kind, Table, TableId};
use mulgil_model::position::Position;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

fn bytes(text: String) -> Bytes {
    Bytes::from(text.into_bytes())
}

pub fn any_kind() -> impl Strategy<Value = Kind> {
    let digits = (1u16..=60, -5i16..=40).prop_map(|(precision, scale)| Digits { precision, scale });
    let plain = prop_oneof![
        Just(Kind::Bool),
        Just(Kind::Int16),
        Just(Kind::Int32),
        Just(Kind::Int64),
        Just(Kind::UInt64),
        Just(Kind::Float32),
        Just(Kind::Float64),
        Just(Kind::Decimal(None)),
        digits.prop_map(|d| Kind::Decimal(Some(d))),
        (1u16..=38)
            .prop_flat_map(|p| (Just(p), 0..=p as i16))
            .prop_map(|(precision, scale)| Kind::Decimal(Some(Digits { precision, scale }))),
        Just(Kind::Text),
        Just(Kind::Binary),
        Just(Kind::Date),
        Just(Kind::Time),
        Just(Kind::Timestamp),
        Just(Kind::TimestampTz),
        Just(Kind::Uuid),
        Just(Kind::Json),
        Just(Kind::Unknown),
    ];
    (plain, prop::bool::weighted(0.2)).prop_map(|(kind, is_array)| if is_array { Kind::Array(Box::new(kind)) } else { kind })
}

/// A value of the kind: canonical decimals more often than others.
fn value_of(kind: &Kind) -> BoxedStrategy<Datum> {
    let text = prop_oneof![Just(String::new()), ".{0,20}", "[\\x00-\\x1f\"\\\\]{0,5}"];
    match kind {
        Kind::Bool => any::<bool>().prop_map(Datum::Bool).boxed(),
        Kind::Int16 => any::<i16>().prop_map(|v| Datum::Int(v.into())).boxed(),
        Kind::Int32 => prop_oneof![any::<i32>(), Just(i32::MIN), Just(i32::MAX)].prop_map(|v| Datum::Int(v.into())).boxed(),
        Kind::Int64 => prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -70i64..70].prop_map(Datum::Int).boxed(),
        Kind::UInt64 => prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..300].prop_map(Datum::UInt).boxed(),
        Kind::Float32 => any::<f32>().prop_map(Datum::Float32).boxed(),
        Kind::Float64 => any::<f64>().prop_map(Datum::Float64).boxed(),
        Kind::Decimal(Some(d)) if d.scale >= 0 && d.scale as u16 <= d.precision => {
            let (n_whole, n_fraction) = (d.precision - d.scale as u16, d.scale as u16);
            let pattern = match (n_whole, n_fraction) {
                (0, f) => format!("-?0\\.[0-9]{{{f}}}"),
                (w, 0) => format!("-?(0|[1-9][0-9]{{0,{}}})", w - 1),
                (w, f) => format!("-?(0|[1-9][0-9]{{0,{}}})\\.[0-9]{{{f}}}", w - 1),
            };
            let canonical = proptest::string::string_regex(&pattern).unwrap();
            prop_oneof![9 => canonical, 1 => "-?[0-9]{1,50}(\\.[0-9]{1,50})?"].prop_map(|t| Datum::Decimal(bytes(t))).boxed()
        }
        Kind::Decimal(_) => "-?[0-9]{1,50}(\\.[0-9]{1,50})?".prop_map(|t| Datum::Decimal(bytes(t))).boxed(),
        Kind::Text | Kind::Unknown => text.prop_map(|t| Datum::Text(bytes(t))).boxed(),
        Kind::Binary => vec(any::<u8>(), 0..20).prop_map(|b| Datum::Binary(b.into())).boxed(),
        Kind::Date => any::<i32>().prop_map(Datum::Date).boxed(),
        Kind::Time => prop_oneof![any::<i64>(), 0i64..86_400_000_000].prop_map(Datum::Time).boxed(),
        Kind::Timestamp => any::<i64>().prop_map(Datum::Timestamp).boxed(),
        Kind::TimestampTz => any::<i64>().prop_map(Datum::TimestampTz).boxed(),
        Kind::Uuid => any::<[u8; 16]>().prop_map(Datum::Uuid).boxed(),
        Kind::Json => text.prop_map(|t| Datum::Json(bytes(t))).boxed(),
        Kind::Array(item) => {
            let flat = vec(datum_of(item, false), 0..4);
            let nested = vec(flat.clone().prop_map(Datum::Array), 0..3);
            prop_oneof![3 => flat, 1 => nested].prop_map(Datum::Array).boxed()
        }
    }
}

/// A value, or what may stand in its place.
pub fn datum_of(kind: &Kind, may_lack: bool) -> BoxedStrategy<Datum> {
    let odd = prop_oneof![Just("NaN"), Just("infinity"), Just("0000-00-00"), Just("-Infinity"), Just("4714-01-01 BC")];
    let odd = odd.prop_map(|t| Datum::Odd(Bytes::from_static(t.as_bytes())));
    let lacking = if may_lack { Datum::Unavailable } else { Datum::Null };
    prop_oneof![16 => value_of(kind), 2 => Just(Datum::Null), 1 => Just(lacking), 1 => odd].boxed()
}

pub fn any_table() -> impl Strategy<Value = Arc<Table>> {
    let name = prop_oneof![3 => "[a-z_][a-z0-9_]{0,8}", 1 => "[ -~]{1,8}", 1 => "\\PC{1,6}"];
    let column = (name.clone(), any_kind(), any::<bool>(), prop::bool::weighted(0.3));
    let column = column.prop_map(|(name, kind, is_nullable, is_key)| Column {
        name: name.into(),
        native: format!("{kind:?}").to_lowercase().into(),
        kind,
        is_nullable,
        is_key,
    });
    let names = (name.clone(), prop_oneof![Just(String::new()), name.clone()], name, any::<u32>());
    (names, vec(column, 0..8)).prop_map(|((database, schema, table, version), columns)| {
        let id = TableId { database: database.into(), schema: schema.into(), table: table.into() };
        Arc::new(Table { id, version, columns })
    })
}

pub fn row_of(table: &Table, may_lack: bool) -> BoxedStrategy<Row> {
    let datums: Vec<_> = table.columns.iter().map(|c| datum_of(&c.kind, may_lack)).collect();
    datums.boxed()
}

fn any_origin() -> impl Strategy<Value = Origin> {
    let postgres = (".{0,6}", any::<u64>(), any::<Option<u32>>()).prop_map(|(database, commit_lsn, txid)| Place::Postgres {
        database: database.into(),
        commit_lsn,
        txid,
    });
    let gtid = proptest::option::of("[0-9-]{1,9}").prop_map(|g| g.map(Into::into));
    let mysql = (any::<u32>(), "[a-z.0-9]{0,9}", any::<u64>(), gtid, any::<Option<u32>>())
        .prop_map(|(server_id, file, at, gtid, thread)| Place::Mysql { server_id, file: file.into(), at, gtid, thread });
    let snapshot = prop_oneof![Just(Snapshot::No), Just(Snapshot::Initial), Just(Snapshot::Last), Just(Snapshot::Incremental)];
    (any::<i64>(), snapshot, prop_oneof![postgres, mysql]).prop_map(|(committed_us, snapshot, place)| Origin {
        committed_us,
        snapshot,
        place,
    })
}

pub fn any_change() -> impl Strategy<Value = Change> {
    let row = any_table().prop_flat_map(|table| {
        let op = prop_oneof![Just(Op::Create), Just(Op::Update), Just(Op::Delete), Just(Op::Read)];
        let sides = (proptest::option::of(row_of(&table, true)), proptest::option::of(row_of(&table, true)));
        (op, sides).prop_map(move |(op, (before, after))| (op, What::Row { table: Arc::clone(&table), before, after }))
    });
    let truncate = (any_table(), any::<bool>(), any::<bool>())
        .prop_map(|(table, cascade, restart_identity)| (Op::Truncate, What::Truncate { table, cascade, restart_identity }));
    let message = (".{0,9}", vec(any::<u8>(), 0..30), any::<bool>())
        .prop_map(|(prefix, content, is_transactional)| (Op::Message, What::Message { prefix, content: content.into(), is_transactional }));
    let what = prop_oneof![8 => row, 1 => truncate, 1 => message];
    (what, any::<(u64, u64)>(), any_origin()).prop_map(|((op, what), (commit, ordinal), origin)| Change {
        op,
        what,
        position: Position::new(commit, ordinal),
        origin: Arc::new(origin),
    })
}
