//! The window between two marks, driven by hand: no server, no clock, no task.

use super::*;
use crate::datum::Datum;
use crate::postgres::catalog::{Ordered, Relation, ReplicaIdentity, Shape, Types, UniqueKey};
use crate::table::{Column, Kind, TableId};
use bytes::Bytes;

const RUN: u64 = 7;
/// Where the high mark stands.
const AT: Position = Position { commit: 500, ordinal: 3 };
/// A view that contains all transactions below 100.
const ALL_BELOW_100: &str = "100:100:";

/// No row.
const NONE: [i64; 0] = [];

fn shape(schema: &str, name: &str, columns: &[&str], identity: &[&str]) -> Arc<Table> {
    let column = |name: &&str| Column {
        name: (*name).into(),
        kind: if *name == "id" { Kind::Int64 } else { Kind::Text },
        is_nullable: false,
        is_key: identity.contains(name),
        native: "x".into(),
    };
    let id = TableId { database: "db".into(), schema: schema.into(), table: name.into() };
    Arc::new(Table { id, version: 1, columns: columns.iter().map(column).collect() })
}

/// `t (id, v, u)`, paged by the column of this number.
fn plan(identity: &[&str], paged_by: i16) -> TablePlan {
    let attribute = |(number, (name, type_oid)): (i16, (&str, u32))| Attribute {
        number,
        name: name.into(),
        type_oid,
        typmod: -1,
        native: "x".into(),
        is_not_null: true,
        is_generated: false,
        collation: None,
    };
    let key = UniqueKey {
        is_primary: true,
        is_replica_identity: false,
        columns: vec![paged_by],
        ordered: vec![Ordered { collation: None, order: None }],
    };
    let relation = Relation {
        oid: 1,
        schema: "public".into(),
        name: "t".into(),
        shape: Shape::Ordinary,
        replica_identity: ReplicaIdentity::Default,
        columns: (1..).zip([("id", 20), ("v", 25), ("u", 25)]).map(attribute).collect(),
        keys: vec![key],
        leaves: vec![],
        root: None,
        has_row_security: false,
    };
    let table = shape("public", "t", &["id", "v", "u"], identity);
    TablePlan::new(&relation, &Types::default(), &Wanted::table("public", "t"), |_| table)
}

fn text(t: &'static str) -> Datum {
    Datum::Text(Bytes::from_static(t.as_bytes()))
}

/// Rows 1 to 4, whose `u` is a to d.
fn rows() -> Vec<Row> {
    (1..).zip(["a", "b", "c", "d"]).map(|(id, u)| vec![Datum::Int(id), text("old"), text(u)]).collect()
}

struct Rig {
    incremental: Incremental,
    identity: &'static [&'static str],
    paged_by: i16,
}

impl Rig {
    fn new(identity: &'static [&'static str]) -> Self {
        let address = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
        let task =
            |name: &str| TableTask { schema: "public".to_owned(), name: name.to_owned(), columns: None, filter: None, at: None, n_rows: 0 };
        // Paused, so that no task is begun: the marks and what they bring come by hand.
        let notes = IncrementalNotes { is_paused: true, tables: [task("t"), task("next")].into() };
        let shapes: Shapes = Arc::new(|_, _, _| shape("public", "t", &["id"], &["id"]));
        let mut incremental = Incremental::new(address, SnapshotSettings::default(), shapes, RUN, notes);
        (incremental.number, incremental.is_under_way) = (1, true);
        Self { incremental, identity, paged_by: 1 }
    }

    fn mark(&mut self, run: u64, number: u64, is_high: bool) -> Vec<Change> {
        let content = serde_json::to_vec(&Mark { run, number, is_high }).unwrap();
        let place = Place::Postgres { database: "db".into(), commit_lsn: AT.commit, txid: Some(90) };
        self.incremental.on_watermark(&content, AT, &place).unwrap()
    }

    fn low(&mut self) {
        let number = self.incremental.number;
        let names = RowNames::of(&plan(self.identity, self.paged_by));
        self.incremental.sender.try_send(Event::Planned { number, names }).ok().unwrap();
        assert_eq!(self.mark(RUN, number, false), []);
    }

    fn read(&mut self, view: &str, is_end: bool) {
        let number = self.incremental.number;
        let (view, plan) = (View::parse(view, 0, false).unwrap(), Arc::new(plan(self.identity, self.paged_by)));
        let chunk = Chunk { number, view, plan, rows: rows(), upto: Some(vec!["4".to_owned()]), is_end, read_us: 5 };
        self.incremental.sender.try_send(Event::Read(chunk)).ok().unwrap();
    }

    /// The rows that come with the high mark, by their ids.
    fn high(&mut self, view: &str) -> Vec<i64> {
        self.read(view, false);
        let number = self.incremental.number;
        ids(&self.mark(RUN, number, true))
    }

    fn n_left(&self) -> usize {
        self.incremental.notes.tables.len()
    }
}

fn ids(changes: &[Change]) -> Vec<i64> {
    let id = |c: &Change| match &c.what {
        What::Row { after: Some(row), .. } => match row[0] {
            Datum::Int(id) => id,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    changes.iter().map(id).collect()
}

fn change(op: Op, what: What) -> Change {
    let place = Place::Postgres { database: "db".into(), commit_lsn: 400, txid: Some(80) };
    let origin = Arc::new(Origin { committed_us: 1, snapshot: Snapshot::No, place });
    Change { op, what, position: Position::new(400, 1), origin }
}

fn row_of(table: &Arc<Table>, op: Op, before: Option<Row>, after: Option<Row>) -> Change {
    change(op, What::Row { table: table.clone(), before, after })
}

fn t() -> Arc<Table> {
    shape("public", "t", &["id", "v", "u"], &["id"])
}

fn whole(id: i64) -> Option<Row> {
    Some(vec![Datum::Int(id), text("new"), text("z")])
}

/// What replica identity DEFAULT gives of the row before.
fn key_only(id: i64) -> Option<Row> {
    Some(vec![Datum::Int(id), Datum::Unavailable, Datum::Unavailable])
}

/// The rows of the chunk that come when this happens between the marks.
fn check(what: &str, changes: &[Change], expected: &[i64]) {
    let mut rig = Rig::new(&["id"]);
    rig.low();
    changes.iter().for_each(|c| rig.incremental.on_change(c));
    assert_eq!(rig.high(ALL_BELOW_100), expected, "{what}");
}

#[test]
fn what_changed_between_the_marks_is_not_brought_back() {
    let t = t();
    check("nothing", &[], &[1, 2, 3, 4]);
    check("another row was inserted", &[row_of(&t, Op::Create, None, whole(5))], &[1, 2, 3, 4]);
    check("deleted before, inserted again", &[row_of(&t, Op::Create, None, whole(2))], &[1, 3, 4]);
    check("updated, its key the same", &[row_of(&t, Op::Update, None, whole(2))], &[1, 3, 4]);
    check("moved away: the old key is in the chunk", &[row_of(&t, Op::Update, key_only(2), whole(9))], &[1, 3, 4]);
    check("moved here: the new key is in the chunk", &[row_of(&t, Op::Update, key_only(9), whole(3))], &[1, 2, 4]);
    check("moved within the chunk", &[row_of(&t, Op::Update, key_only(2), whole(3))], &[1, 4]);
    check("deleted", &[row_of(&t, Op::Delete, key_only(4), None)], &[1, 2, 3]);
    check("deleted, all of it told", &[row_of(&t, Op::Delete, whole(4), None)], &[1, 2, 3]);
    let toast = Some(vec![Datum::Int(1), Datum::Unavailable, text("z")]);
    check("updated beside a large value", &[row_of(&t, Op::Update, None, toast)], &[2, 3, 4]);
    let large_key = Some(vec![Datum::Unavailable, text("new"), text("z")]);
    check("updated beside a large key", &[row_of(&t, Op::Update, key_only(3), large_key.clone())], &[1, 2, 4]);
    let all =
        [row_of(&t, Op::Delete, key_only(1), None), row_of(&t, Op::Update, key_only(2), whole(8)), row_of(&t, Op::Update, None, whole(4))];
    check("several", &all, &[3]);
    let every: Vec<Change> = (1..=4).map(|id| row_of(&t, Op::Delete, key_only(id), None)).collect();
    check("all of them", &every, &[]);
}

#[test]
fn other_tables_and_messages_are_nothing_to_it() {
    for (schema, name) in [("public", "next"), ("public", "tt"), ("other", "t")] {
        let other = shape(schema, name, &["id", "v", "u"], &["id"]);
        check(name, &[row_of(&other, Op::Delete, key_only(4), None)], &[1, 2, 3, 4]);
        let truncate = What::Truncate { table: other, cascade: false, restart_identity: false };
        check(name, &[change(Op::Truncate, truncate)], &[1, 2, 3, 4]);
    }
    let message = What::Message { prefix: "app".to_owned(), content: Bytes::new(), is_transactional: true };
    check("a message", &[change(Op::Message, message)], &[1, 2, 3, 4]);
}

/// Nothing of the chunk is given, and it is read again: its table still waits at the same place.
fn check_void(what: &str, identity: &'static [&'static str], changes: &[Change]) {
    let mut rig = Rig::new(identity);
    rig.low();
    changes.iter().for_each(|c| rig.incremental.on_change(c));
    assert_eq!(rig.high(ALL_BELOW_100), NONE, "{what}");
    assert_eq!((rig.n_left(), &rig.incremental.notes.tables[0].at), (2, &None), "{what}");
    assert!(!rig.incremental.is_under_way && rig.incremental.n_void == 1, "{what}: it can be begun again");
    // The next one is of use.
    rig.low();
    assert_eq!(rig.high(ALL_BELOW_100), [1, 2, 3, 4], "{what}");
    assert_eq!(rig.incremental.n_void, 0);
}

#[test]
fn a_chunk_of_which_it_is_not_known_what_is_still_so_is_read_again() {
    let t = t();
    let truncate = What::Truncate { table: t.clone(), cascade: false, restart_identity: false };
    check_void("truncate", &["id"], &[change(Op::Truncate, truncate)]);
    let nameless = Some(vec![Datum::Unavailable, text("new"), text("z")]);
    check_void("an update of nobody knows which row", &["id"], &[row_of(&t, Op::Update, None, nameless.clone())]);
    check_void("a delete of nobody knows which row", &["id"], &[row_of(&t, Op::Delete, nameless.clone(), None)]);
    check_void("moved from nobody knows where", &["id"], &[row_of(&t, Op::Update, nameless, whole(9))]);
    let keyed_otherwise = shape("public", "t", &["id", "v", "u"], &["u"]);
    check_void("another replica identity", &["id"], &[row_of(&keyed_otherwise, Op::Update, None, whole(9))]);
    let without = shape("public", "t", &["v", "u"], &[]);
    check_void("the key was dropped", &["id"], &[row_of(&without, Op::Create, None, Some(vec![text("x"), text("y")]))]);
}

#[test]
fn more_changes_than_are_remembered_make_it_void() {
    let t = t();
    let mut rig = Rig::new(&["id"]);
    rig.incremental.touched_max = 2;
    for n_changes in [2, 3] {
        rig.low();
        for id in 0..n_changes {
            rig.incremental.on_change(&row_of(&t, Op::Update, None, whole(2 + id)));
        }
        assert_eq!(rig.high(ALL_BELOW_100), if n_changes == 2 { vec![1, 4] } else { vec![] });
    }
}

/// The primary key pages, the index that is the replica identity names.
#[test]
fn rows_are_named_by_the_replica_identity_not_by_what_they_are_paged_by() {
    let t = shape("public", "t", &["id", "v", "u"], &["u"]);
    let deleted = row_of(&t, Op::Delete, Some(vec![Datum::Unavailable, Datum::Unavailable, text("c")]), None);
    let renumbered = row_of(&t, Op::Update, None, Some(vec![Datum::Int(77), text("new"), text("a")]));
    let renamed = row_of(
        &t,
        Op::Update,
        Some(vec![Datum::Unavailable, Datum::Unavailable, text("d")]),
        Some(vec![Datum::Int(4), text("new"), text("e")]),
    );
    let mut rig = Rig::new(&["u"]);
    rig.low();
    [deleted, renumbered, renamed].iter().for_each(|c| rig.incremental.on_change(c));
    assert_eq!(rig.high(ALL_BELOW_100), [2]);
    check_void("without it", &["u"], &[row_of(&t, Op::Delete, key_only(3), None)]);
}

/// Replica identity FULL without a primary key: whole rows name themselves by what they are paged by.
#[test]
fn a_table_without_an_identity_is_named_by_what_it_is_paged_by() {
    let t = shape("public", "t", &["id", "v", "u"], &[]);
    let mut rig = Rig::new(&[]);
    rig.low();
    rig.incremental.on_change(&row_of(&t, Op::Update, whole(2), whole(9)));
    rig.incremental.on_change(&row_of(&t, Op::Delete, whole(3), None));
    assert_eq!(rig.high(ALL_BELOW_100), [1, 4]);
}

#[test]
fn columns_may_stand_elsewhere_since() {
    let moved = shape("public", "t", &["v", "id"], &["id"]);
    check("moved", &[row_of(&moved, Op::Update, None, Some(vec![text("1"), Datum::Int(2)]))], &[1, 3, 4]);
}

#[test]
fn only_what_is_between_the_marks_counts() {
    let t = t();
    let mut rig = Rig::new(&["id"]);
    rig.incremental.on_change(&row_of(&t, Op::Update, None, whole(1)));
    rig.low();
    rig.incremental.on_change(&row_of(&t, Op::Update, None, whole(2)));
    assert_eq!(rig.high(ALL_BELOW_100), [1, 3, 4]);
    // Of the chunk behind it.
    rig.incremental.on_change(&row_of(&t, Op::Update, None, whole(3)));
    rig.low();
    assert_eq!(rig.high(ALL_BELOW_100), [1, 2, 3, 4]);
}

#[test]
fn what_was_given_before_the_low_mark_must_be_in_the_view() {
    let mut rig = Rig::new(&["id"]);
    rig.incremental.on_commit(50);
    rig.low();
    // Between the marks: its rows are touched, whatever the view has.
    rig.incremental.on_commit(60);
    assert_eq!(rig.high("50:50:"), NONE, "it was committed, but not visible yet");
    rig.low();
    assert_eq!(rig.high("60:61:60"), NONE, "the other one was before this low mark");
    rig.low();
    assert_eq!(rig.high("61:61:"), [1, 2, 3, 4]);
    // Once it was seen, no view is asked again.
    rig.low();
    assert_eq!(rig.high("1:1:"), [1, 2, 3, 4]);
}

#[test]
fn more_transactions_than_are_remembered_are_not_taken_for_seen() {
    let mut rig = Rig::new(&["id"]);
    let n = crate::postgres::snapshot::recent::RECENT_MAX as u32;
    (0..=n).for_each(|i| rig.incremental.on_commit(1_000 + i));
    rig.low();
    assert_eq!(rig.high(&format!("1000:{}:1000", 1_001 + n)), NONE);
    rig.low();
    assert_eq!(rig.high(&format!("1001:{}:", 1_001 + n)), [1, 2, 3, 4]);
}

#[test]
fn marks_of_others_are_passed_over() {
    let mut rig = Rig::new(&["id"]);
    rig.low();
    rig.incremental.on_change(&row_of(&t(), Op::Update, None, whole(2)));
    rig.read(ALL_BELOW_100, false);
    let place = Place::Postgres { database: "db".into(), commit_lsn: 1, txid: Some(90) };
    for content in [&b"no mark"[..], b"{}", br#"{"run":"x"}"#] {
        assert_eq!(rig.incremental.on_watermark(content, AT, &place).unwrap(), []);
    }
    for (run, number) in [(RUN + 1, 1), (RUN, 0), (RUN, 2)] {
        assert_eq!(rig.mark(run, number, false), []);
        assert_eq!(rig.mark(run, number, true), [], "run {run}, number {number}");
    }
    assert_eq!(ids(&rig.mark(RUN, 1, true)), [1, 3, 4], "the window is as it was");
}

#[test]
fn a_high_mark_without_a_low_one_gives_nothing() {
    let mut rig = Rig::new(&["id"]);
    assert_eq!(rig.high(ALL_BELOW_100), NONE);
    // Nor one without rows.
    rig.low();
    assert_eq!(rig.mark(RUN, 1, true), []);
    assert!(!rig.incremental.is_under_way);
    // Nor the rows of another chunk.
    rig.low();
    rig.incremental.number += 1;
    rig.read(ALL_BELOW_100, false);
    rig.incremental.number -= 1;
    assert_eq!(ids(&rig.mark(RUN, 1, true)), NONE);
    // What was planned for another chunk opens no window.
    let names = RowNames::of(&plan(&["id"], 1));
    rig.incremental.sender.try_send(Event::Planned { number: 9, names }).ok().unwrap();
    rig.mark(RUN, 1, false);
    assert_eq!(rig.high(ALL_BELOW_100), NONE);
}

#[test]
fn a_table_that_is_paged_otherwise_than_planned_is_read_again() {
    let mut rig = Rig::new(&["id"]);
    rig.low();
    rig.identity = &["u"];
    assert_eq!(rig.high(ALL_BELOW_100), NONE);
    // By another key, its rows named as before: the place that it would go on behind is another.
    let mut rig = Rig::new(&["id"]);
    rig.low();
    rig.paged_by = 3;
    assert_eq!(rig.high(ALL_BELOW_100), NONE);
    rig.low();
    assert_eq!(rig.high(ALL_BELOW_100), [1, 2, 3, 4]);
}

#[test]
fn rows_stand_behind_the_mark_and_the_table_goes_on_behind_them() {
    let mut rig = Rig::new(&["id"]);
    rig.low();
    rig.incremental.on_change(&row_of(&t(), Op::Delete, key_only(2), None));
    rig.read(ALL_BELOW_100, false);
    let changes = rig.mark(RUN, 1, true);
    let places: Vec<Position> = changes.iter().map(|c| c.position).collect();
    assert_eq!(places, [4, 5, 6].map(|n| Position::new(AT.commit, n)));
    let place = Place::Postgres { database: "db".into(), commit_lsn: AT.commit, txid: Some(90) };
    let origin = Origin { committed_us: 5, snapshot: Snapshot::Incremental, place };
    assert!(changes.iter().all(|c| c.op == Op::Read && *c.origin == origin));
    let task = &rig.incremental.notes.tables[0];
    assert_eq!((task.at.clone(), task.n_rows), (Some((vec!["id".to_owned()], vec!["4".to_owned()])), 3));
    // The last chunk ends the table.
    rig.low();
    rig.read(ALL_BELOW_100, true);
    assert_eq!(ids(&rig.mark(RUN, 1, true)), [1, 2, 3, 4]);
    assert_eq!((rig.n_left(), &*rig.incremental.notes.tables[0].name), (1, "next"));
}

#[test]
fn rests_grow_to_a_bound() {
    assert_eq!([0, 1, 2, 3].map(rest), [0, 20, 40, 80].map(Duration::from_millis));
    assert_eq!([10, 40, u32::MAX].map(rest), [REST_MAX; 3]);
}
