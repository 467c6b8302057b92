//! What leaves a source, and what does not.

use crate::envelope_rows::{TableOf, decimal, text};
use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Row, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::filter::{Comparison, Condition, Disguise, Filter, FilterError, FilterOptions, Pattern, Salt};
use mulgil_capture::table::{Digits, Kind};
use proptest::prelude::*;

const SALT: &[u8] = b"sixteen bytes or more";

fn users() -> TableOf {
    TableOf::new(
        "public",
        "users",
        &[
            ("id*", Kind::Int64, "bigint"),
            ("name", Kind::Text, "text"),
            ("card", Kind::Text, "text"),
            ("balance", Kind::Decimal(Some(Digits { precision: 12, scale: 2 })), "numeric(12,2)"),
            ("since", Kind::Date, "date"),
        ],
    )
}

fn row(id: i64, balance: &str) -> Row {
    vec![Datum::Int(id), text("물길 Kim"), text("4111-1111"), decimal(balance), Datum::Date(20_779)]
}

fn table(pattern: &str) -> Pattern {
    Pattern::table(pattern).unwrap()
}

fn column(pattern: &str) -> Pattern {
    Pattern::column(pattern).unwrap()
}

fn only(options: FilterOptions, change: Change) -> Option<Change> {
    Filter::new(options).apply(change).unwrap()
}

fn parts(change: &Change) -> (Vec<&str>, Option<&Row>, Option<&Row>) {
    let What::Row { table, before, after } = &change.what else { unreachable!() };
    (table.columns.iter().map(|c| &*c.name).collect(), before.as_ref(), after.as_ref())
}

#[test]
fn columns_are_included_and_excluded() {
    let check = |include: &[&str], exclude: &[&str], want: &[&str]| {
        let patterns = |list: &[&str]| list.iter().map(|p| column(p)).collect();
        let options = FilterOptions { include_columns: patterns(include), exclude_columns: patterns(exclude), ..Default::default() };
        let users = users();
        let change = users.change(Op::Update, Some(row(1, "1.00")), Some(row(1, "2.00")));
        let out = only(options, change).unwrap();
        let (names, before, after) = parts(&out);
        assert_eq!(names, want);
        assert_eq!((before.unwrap().len(), after.unwrap().len()), (want.len(), want.len()));
        let at = users.table.position(want[want.len() - 1]).unwrap();
        assert_eq!(after.unwrap().last(), Some(&row(1, "2.00")[at]));
    };
    check(&[], &[], &["id", "name", "card", "balance", "since"]);
    check(&["public.users.id", "*.*.na*"], &[], &["id", "name"]);
    check(&[], &["public.users.card"], &["id", "name", "balance", "since"]);
    check(&["*.users.*"], &["*.*.??????e", "*.*.since"], &["id", "name", "card"]);
    check(&[], &["public.orders.card"], &["id", "name", "card", "balance", "since"]);
}

#[test]
fn disguises_leave_nothing_of_the_value() {
    let salt = Salt::new(SALT).unwrap();
    let check = |disguise: Disguise, of: &str, datum: Datum, want: Datum| {
        let users = users();
        let mut values = row(1, "10.00");
        let at = users.table.position(of).unwrap();
        values[at] = datum;
        let options = FilterOptions { disguises: vec![(column(&format!("public.users.{of}")), disguise)], ..Default::default() };
        let out = only(options, users.change(Op::Create, None, Some(values))).unwrap();
        assert_eq!(parts(&out).2.unwrap()[at], want);
        let What::Row { table, .. } = &out.what else { unreachable!() };
        assert_eq!(table.columns[at].kind, Kind::Text);
    };
    check(Disguise::Mask { n_chars: 5 }, "card", text("4111"), text("*****"));
    check(Disguise::Mask { n_chars: 5 }, "balance", Datum::Null, text("*****"));
    check(Disguise::Mask { n_chars: 5 }, "card", Datum::Unavailable, Datum::Unavailable);
    check(Disguise::Hash { salt: salt.clone() }, "card", Datum::Null, Datum::Null);
    check(Disguise::Hash { salt: salt.clone() }, "card", text("4111"), text(SHA_OF_4111));
    check(Disguise::Hash { salt: salt.clone() }, "balance", decimal("4111"), text(SHA_OF_4111));
    check(Disguise::Truncate { n_chars: 2 }, "name", text("물길 Kim"), text("물길"));
    check(Disguise::Truncate { n_chars: 0 }, "name", text("물길 Kim"), text(""));
    check(Disguise::Truncate { n_chars: 99 }, "name", text("Kim"), text("Kim"));
    assert_eq!(format!("{:?}", Disguise::Hash { salt }), "Hash { salt: Salt(hidden) }");
    assert_eq!(Salt::new(b"short"), None);
}

/// `printf 'sixteen bytes or more4111' | sha256sum`
const SHA_OF_4111: &str = "00836a6849042345438ae8a6f96f9a34e3b4e024aab0f9ba91c5d6d351593ad9";

#[test]
fn keys_and_operations() {
    let options = || FilterOptions {
        keys: vec![(table("public.users"), vec!["card".to_owned(), "name".to_owned()])],
        exclude_columns: vec![column("*.*.id")],
        skip_operations: vec![Op::Delete, Op::Truncate],
        ..Default::default()
    };
    let out = only(options(), users().change(Op::Create, None, Some(row(1, "1.00")))).unwrap();
    let What::Row { table: shape, .. } = &out.what else { unreachable!() };
    let keys: Vec<_> = shape.key().map(|i| &*shape.columns[i].name).collect();
    assert_eq!(keys, ["name", "card"]);
    assert_eq!(only(options(), users().change(Op::Delete, Some(row(1, "1.00")), None)), None);
}

#[test]
fn rows_enter_and_leave_a_condition() {
    let options = || FilterOptions {
        rows: vec![(
            table("*.users"),
            vec![
                Condition { column: "balance".to_owned(), comparison: Comparison::AtLeast("100".to_owned()) },
                Condition { column: "name".to_owned(), comparison: Comparison::IsNotNull },
            ],
        )],
        ..Default::default()
    };
    let (low, high) = (|| row(1, "99.99"), || row(1, "100.00"));
    let key_only = || vec![Datum::Int(1), Datum::Unavailable, Datum::Unavailable, Datum::Unavailable, Datum::Unavailable];
    let unsent = || {
        let mut row = high();
        row[3] = Datum::Unavailable;
        row
    };
    let nameless = || {
        let mut row = high();
        row[1] = Datum::Null;
        row
    };
    type Side = Option<Row>;
    let check = |op, before: Side, after: Side, want: Option<(Op, Side, Side)>| {
        let out = only(options(), users().change(op, before.clone(), after.clone()));
        let got = out.map(|c| match c.what {
            What::Row { before, after, .. } => (c.op, before, after),
            _ => unreachable!(),
        });
        assert_eq!(got, want, "{op:?} {before:?} {after:?}");
    };
    check(Op::Create, None, Some(high()), Some((Op::Create, None, Some(high()))));
    check(Op::Create, None, Some(low()), None);
    check(Op::Read, None, Some(nameless()), None);
    check(Op::Delete, Some(low()), None, None);
    check(Op::Delete, Some(key_only()), None, Some((Op::Delete, Some(key_only()), None)));
    check(Op::Update, Some(low()), Some(low()), None);
    check(Op::Update, Some(high()), Some(low()), Some((Op::Delete, Some(high()), None)));
    check(Op::Update, Some(low()), Some(high()), Some((Op::Create, None, Some(high()))));
    check(Op::Update, None, Some(high()), Some((Op::Update, None, Some(high()))));
    check(Op::Update, None, Some(low()), Some((Op::Delete, Some(key_only()), None)));
    check(Op::Update, None, Some(unsent()), Some((Op::Update, None, Some(unsent()))));
    check(Op::Update, Some(low()), Some(unsent()), None);
    check(Op::Update, Some(high()), Some(unsent()), Some((Op::Update, Some(high()), Some(unsent()))));
}

#[test]
fn conditions_by_kind() {
    let every = crate::envelope_rows::postgres_every_type();
    let check = |name: &str, datum: Datum, comparison: Comparison, want: bool| {
        let conditions = vec![Condition { column: name.to_owned(), comparison: comparison.clone() }];
        let options = FilterOptions { rows: vec![(table("*.*"), conditions)], ..Default::default() };
        assert_eq!(only(options, every.create(1, vec![(name, datum.clone())])).is_some(), want, "{name} {datum:?} {comparison:?}");
    };
    let s = str::to_owned;
    check("i8", Datum::Int(-5), Comparison::Less(s("-4.5")), true);
    check("i8", Datum::Int(7), Comparison::In(vec![s("8"), s("7.0")]), true);
    check("i8", Datum::Null, Comparison::NotIn(vec![s("8")]), false);
    check("i8", Datum::Null, Comparison::IsNull, true);
    check("n", decimal("0.10"), Comparison::In(vec![s("0.1")]), true);
    check("n", Datum::Odd(Bytes::from_static(b"NaN")), Comparison::Greater(s("1")), true);
    check("t", text("BUY"), Comparison::NotIn(vec![s("SELL")]), true);
    check("t", text("b"), Comparison::AtMost(s("a")), false);
    check("b", Datum::Bool(true), Comparison::In(vec![s("true")]), true);
    check("f8", Datum::Float64(f64::NAN), Comparison::Less(s("1")), true);
    check("f8", Datum::Float64(2.0), Comparison::Less(s("1")), false);
    check("d", Datum::Date(20_779), Comparison::AtLeast(s("2026-11-22")), true);
    check("d", Datum::Date(20_778), Comparison::AtLeast(s("2026-11-22")), false);
    check("ts6", Datum::Timestamp(0), Comparison::Less(s("1970-01-01T00:00:00.000001")), true);
    check("tstz", Datum::TimestampTz(0), Comparison::In(vec![s("1970-01-01T09:00:00+09:00")]), true);
    check("u", Datum::Uuid([0xab; 16]), Comparison::In(vec![s("ABABABAB-abab-abab-abab-abababababab")]), true);
}

#[test]
fn mistakes_are_named() {
    let check = |options: FilterOptions, want: &str| {
        let error = Filter::new(options).apply(users().change(Op::Create, None, Some(row(1, "1.00")))).unwrap_err();
        assert_eq!(error.to_string(), want);
    };
    check(
        FilterOptions { exclude_columns: vec![column("*.*.id")], ..Default::default() },
        "column 'id' of public.users is part of the key and cannot be left out: override the key, or include the column",
    );
    check(
        FilterOptions { keys: vec![(table("*.*"), vec!["nam".to_owned()])], ..Default::default() },
        "the key of public.users is overridden with column 'nam', which the table does not have or which is left out",
    );
    check(
        FilterOptions { disguises: vec![(column("*.*.balance"), Disguise::Truncate { n_chars: 1 })], ..Default::default() },
        "column 'balance' of public.users is not text and cannot be truncated: mask or hash it",
    );
    let condition = |name: &str, comparison| FilterOptions {
        rows: vec![(table("*.*"), vec![Condition { column: name.to_owned(), comparison }])],
        ..Default::default()
    };
    check(condition("x", Comparison::IsNull), "a condition on the rows of public.users names column 'x', which the table does not have");
    check(
        condition("balance", Comparison::Less("1e5".to_owned())),
        "'1e5' cannot be compared with column 'balance' of public.users: write a number in plain notation, such as -12.50",
    );
    let mut narrow = row(1, "1.00");
    narrow.pop();
    let error = Filter::new(FilterOptions::default()).apply(users().change(Op::Create, None, Some(narrow))).unwrap_err();
    assert!(matches!(error, FilterError::Width { .. }));
}

proptest! {
    /// The invariant of the folder: a disguised value is nowhere in what comes out.
    #[test]
    fn a_secret_never_leaves(secret in "[a-z]{12,20}", op in 0usize..3, hash: bool, change in crate::envelope_arbitrary::any_change()) {
        let users = users();
        let hidden = || {
            let mut row = row(1, "1.00");
            row[2] = text(&secret);
            row
        };
        let disguise = if hash { Disguise::Hash { salt: Salt::new(SALT).unwrap() } } else { Disguise::Mask { n_chars: 3 } };
        let options = FilterOptions { disguises: vec![(column("*.*.card"), disguise)], ..Default::default() };
        let (op, before, after) = match op {
            0 => (Op::Create, None, Some(hidden())),
            1 => (Op::Update, Some(hidden()), Some(hidden())),
            _ => (Op::Delete, Some(hidden()), None),
        };
        let mut filter = Filter::new(options);
        let out = filter.apply(users.change(op, before, after)).unwrap().unwrap();
        let shown = format!("{out:?}");
        prop_assert!(!shown.contains(&secret));
        // Any other change passes as it is.
        prop_assert_eq!(format!("{:?}", Filter::new(FilterOptions::default()).apply(change.clone()).unwrap()), format!("{:?}", Some(change)));
    }
}
