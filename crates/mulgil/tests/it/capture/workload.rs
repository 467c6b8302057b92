//! Random transactions over two tables of many types, as SQL of either database.
//!
//! What a script does beside rows: savepoints and rollbacks, keys that change, values that are stored apart, transactions larger than a
//! batch, and DDL, of which the table's own columns know nothing: it adds, drops, renames and retypes columns of its own (`x0` …), and
//! drops and makes the table anew. A script may fail, for a deadlock or a column that is not there: whatever it did, the table tells.

use super::database::Dialect;
use rand::Rng;
use rand::rngs::StdRng;

/// The second has the replica identity FULL in PostgreSQL.
pub const TABLES: [&str; 2] = ["plain", "whole"];

/// Ids of ordinary rows; others are beyond.
const IDS: u32 = 300;
const BULK_FROM: u32 = 10_000;

/// More than a batch has, now and then.
const BULK_ROWS: u32 = 1_500;
const LARGE_ROWS: u32 = 9_000;

/// Large enough that PostgreSQL stores it apart, so that an update that leaves it alone does not send it.
const NOTE_BYTES: u32 = 2_560;

/// A column, its type in both databases, and its value in row `k`.
struct Column {
    name: &'static str,
    postgres: (&'static str, &'static str),
    mariadb: (&'static str, &'static str),
}

const fn column(name: &'static str, postgres: (&'static str, &'static str), mariadb: (&'static str, &'static str)) -> Column {
    Column { name, postgres, mariadb }
}

#[rustfmt::skip]
const COLUMNS: [Column; 14] = [
    column("id", ("bigint PRIMARY KEY", "k"), ("bigint PRIMARY KEY", "k")),
    column("n", ("int NOT NULL DEFAULT 0", "0"), ("int NOT NULL DEFAULT 0", "0")),
    column("price", ("numeric(15,2)", "k * 1.25 + 0.01"), ("decimal(15,2)", "k * 1.25 + 0.01")),
    column("ratio", ("double precision", "k / 8.0"), ("double", "k / 8.0")),
    column("ticker", ("varchar(40)", "'물\"\\' || k"), ("varchar(40)", "CONCAT('물\"\\\\', k)")),
    column("at", ("timestamptz", "now()"), ("timestamp(6) NULL", "NOW(6)")),
    column("wall", ("timestamp", "timestamp '2026-01-05 09:00:00.000001' + k * interval '1.000001 s'"),
        ("datetime(6)", "TIMESTAMPADD(MICROSECOND, k * 1000001, '2026-01-05 09:00:00.000001')")),
    column("day", ("date", "date '2026-01-05' + k"), ("date", "DATE_ADD('2026-01-05', INTERVAL k DAY)")),
    column("doc", ("jsonb", "jsonb_build_object('k', k, 'q', '\"')"), ("json", "JSON_OBJECT('k', k, 'q', '\"')")),
    column("raw", ("bytea", "decode(md5(k::text), 'hex')"), ("varbinary(60)", "UNHEX(MD5(k))")),
    column("side", ("side", "(ARRAY['BUY', 'SELL'])[1 + k % 2]::side"), ("enum('BUY','SELL')", "ELT(1 + k % 2, 'BUY', 'SELL')")),
    column("big", ("numeric", "k / 7.0"), ("bigint unsigned", "18446744073709551615 - k")),
    column("tag", ("uuid", "md5(k::text)::uuid"), ("uuid", "INSERT(INSERT(MD5(k), 13, 1, '4'), 17, 1, '8')")),
    column("many", ("bigint[]", "ARRAY[k, NULL, k + 1]"), ("set('a','b','c')", "ELT(1 + k % 3, 'a', 'a,c', '')")),
];

/// Names of the columns that both sides of an update must agree on: no DDL touches them.
pub fn own_columns() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().map(|c| c.name).chain(["note"])
}

/// The statements that make everything.
pub fn setup(dialect: Dialect) -> String {
    let types = if dialect == Dialect::Postgres { "CREATE TYPE side AS ENUM ('BUY', 'SELL');\n" } else { "" };
    TABLES.iter().fold(types.to_owned(), |sql, table| sql + &create(dialect, table))
}

fn create(dialect: Dialect, table: &str) -> String {
    let of = |c: &Column| format!("{} {}", c.name, if dialect == Dialect::Postgres { c.postgres.0 } else { c.mariadb.0 });
    let columns: Vec<String> = COLUMNS.iter().map(of).collect();
    let columns = columns.join(", ");
    match dialect {
        Dialect::Postgres => {
            let identity = if table == "whole" { "FULL" } else { "DEFAULT" };
            format!(
                "CREATE TABLE {table} ({columns}, note text); ALTER TABLE {table} ALTER note SET STORAGE EXTERNAL; \
                 ALTER TABLE {table} REPLICA IDENTITY {identity};\n"
            )
        }
        Dialect::MariaDb => format!("CREATE TABLE IF NOT EXISTS {table} ({columns}, note longtext);\n"),
    }
}

/// One client's work: mostly a transaction.
pub fn script(dialect: Dialect, random: &mut StdRng) -> String {
    match random.random_range(0..60) {
        0 | 1 => return ddl(dialect, random),
        2..4 => return own_kind(dialect, random),
        _ => {}
    }
    let n = random.random_range(1..6);
    let statements: String = (0..n).map(|_| statement(dialect, random) + ";\n").collect();
    let end = if random.random_range(0..10) == 0 { "ROLLBACK" } else { "COMMIT" };
    format!("BEGIN;\n{statements}{end};\n")
}

/// What each has in its own way: transactions that are prepared before they are committed. And what only one of them has: DDL within a
/// transaction and within what of it is rolled back, one truncate of two tables; one statement that deletes from two tables.
fn own_kind(dialect: Dialect, random: &mut StdRng) -> String {
    let (table, id, x) = (TABLES[random.random_range(0..TABLES.len())], random.random_range(0..IDS), random.random_range(0..3));
    match (dialect, id % 4) {
        (Dialect::Postgres, 0) => format!("TRUNCATE {};\n", TABLES.join(", ")),
        (Dialect::Postgres, 1) => {
            let (name, end) = (format!("'{}'", copied(random)), if id % 8 == 1 { "ROLLBACK" } else { "COMMIT" });
            let rows = insert(dialect, table, id, id + 300);
            format!("BEGIN; {rows}; DELETE FROM {table} WHERE id < {id}; PREPARE TRANSACTION {name}; {end} PREPARED {name};\n")
        }
        (Dialect::Postgres, _) => {
            let add = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS x{x} int DEFAULT {id}");
            let [first, undone, between, last] = [(); 4].map(|()| insert(dialect, table, id, id + random.random_range(20..300)));
            format!(
                "BEGIN; {first}; SAVEPOINT s; {add}; UPDATE {table} SET n = n + 1 WHERE id < 50; {undone}; ROLLBACK TO SAVEPOINT s; {between}; \
                 ALTER TABLE {table} ADD COLUMN IF NOT EXISTS x{x} varchar(9) DEFAULT 'in'; {last}; \
                 UPDATE {table} SET n = n + 1 WHERE id >= {id}; COMMIT;\n"
            )
        }
        (Dialect::MariaDb, 0) => {
            let [one, other] = TABLES;
            format!("DELETE {one}, {other} FROM {one} JOIN {other} USING (id) WHERE {one}.id < {id};\n")
        }
        (Dialect::MariaDb, at) => {
            let (name, end) = (format!("'{}'", copied(random)), if at == 1 { "ROLLBACK" } else { "COMMIT" });
            let (rows, update) = (insert(dialect, table, id, id + 20), format!("UPDATE {table} SET n = n + 1 WHERE id < {id}"));
            format!("XA START {name}; {rows}; {update}; XA END {name}; XA PREPARE {name}; XA {end} {name};\n")
        }
    }
}

/// What a MariaDB that dies in the midst of it may do to its tables without a word of it in its binlog, or the other way round: it empties a
/// table before it writes so, and writes that a prepared transaction is committed before it is. Nothing that reads the binlog can know.
/// (10.11, killed while six clients did nothing else: 43 of 180 times for truncates, 35 of 150 for prepared transactions, 0 of 72 for deletes.)
pub fn must_end_unharmed(dialect: Dialect, script: &str) -> bool {
    dialect == Dialect::MariaDb && ["TRUNCATE", "XA "].iter().any(|word| script.contains(word))
}

/// Lists what a killed server had prepared: it holds its locks for ever.
pub fn list_prepared(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "SELECT gid FROM pg_prepared_xacts",
        Dialect::MariaDb => "XA RECOVER",
    }
}

/// Ends it.
pub fn rollback_prepared(dialect: Dialect, listed: &str) -> String {
    // A line of `XA RECOVER` ends with the name.
    let names = listed.lines().filter_map(|line| line.rsplit('\t').next());
    let rollback = if dialect == Dialect::Postgres { "ROLLBACK PREPARED" } else { "XA ROLLBACK" };
    names.map(|name| format!("{rollback} '{name}';\n")).collect()
}

/// Touches every row, so that the log has each as it is after all DDL, and leaves a mark: the row -1.
pub fn last_script(table: &str) -> String {
    format!("UPDATE {table} SET n = n + 1; INSERT INTO {table} (id) VALUES (-1);\n")
}

fn statement(dialect: Dialect, random: &mut StdRng) -> String {
    let table = TABLES[random.random_range(0..TABLES.len())];
    let id = random.random_range(0..IDS);
    match random.random_range(0..100) {
        0..32 => insert(dialect, table, id, id + random.random_range(0..40)),
        32..52 => format!("UPDATE {table} SET n = n + 1, price = price + 0.01, doc = NULL WHERE id >= {id} AND id < {}", id + 20),
        52..60 => match dialect {
            Dialect::Postgres => {
                format!("UPDATE {table} SET note = repeat(md5(random()::text), {}) WHERE id = {id}", NOTE_BYTES / 32)
            }
            Dialect::MariaDb => format!("UPDATE {table} SET note = REPEAT(MD5(RAND()), {}) WHERE id = {id}", NOTE_BYTES / 32),
        },
        60..69 => format!("DELETE FROM {table} WHERE id >= {id} AND id < {}", id + 5),
        69..76 => format!("UPDATE {table} SET id = {} WHERE id = {id}", random.random_range(1_000_000..1_000_000_000)),
        76..84 => format!("SAVEPOINT s; DELETE FROM {table} WHERE id < {id}; ROLLBACK TO SAVEPOINT s"),
        84..86 => format!("TRUNCATE TABLE {table}"),
        86..89 => bulk(dialect, table, BULK_FROM + random.random_range(500..BULK_ROWS)),
        89 => bulk(dialect, table, BULK_FROM + LARGE_ROWS),
        90..95 => match dialect {
            Dialect::Postgres => format!("COPY {table} (id, ticker, price) FROM STDIN;\n{}\tCOPIED\t1.5\n\\.\nSELECT 1", copied(random)),
            Dialect::MariaDb => {
                format!("REPLACE INTO {table} (id, ticker, price) VALUES ({id}, 'REPLACED', 1.5), ({}, 'NEW', 2)", copied(random))
            }
        },
        _ => format!("UPDATE {table} SET ticker = 'gone', day = NULL WHERE id = {id}; DELETE FROM {table} WHERE id = {id}"),
    }
}

/// An id that nothing else uses.
fn copied(random: &mut StdRng) -> u32 {
    random.random_range(1_000_000..1_000_000_000)
}

/// Rows `from` to `to`, but for those that are there.
pub fn insert(dialect: Dialect, table: &str, from: u32, to: u32) -> String {
    let (names, values) = named_values(dialect);
    match dialect {
        Dialect::Postgres => {
            format!("INSERT INTO {table} ({names}) SELECT {values} FROM generate_series({from}, {to}) k ON CONFLICT DO NOTHING")
        }
        Dialect::MariaDb => {
            format!("INSERT IGNORE INTO {table} ({names}) SELECT {values} FROM (SELECT seq AS k FROM seq_{from}_to_{to}) s")
        }
    }
}

/// Rows up to `to`; those that are there are changed.
fn bulk(dialect: Dialect, table: &str, to: u32) -> String {
    let (names, values) = named_values(dialect);
    match dialect {
        Dialect::Postgres => format!(
            "INSERT INTO {table} ({names}) SELECT {values} FROM generate_series({BULK_FROM}, {to}) k \
             ON CONFLICT (id) DO UPDATE SET n = {table}.n + 1"
        ),
        Dialect::MariaDb => format!(
            "INSERT INTO {table} ({names}) SELECT {values} FROM (SELECT seq AS k FROM seq_{BULK_FROM}_to_{to}) s \
             ON DUPLICATE KEY UPDATE n = {table}.n + 1"
        ),
    }
}

fn named_values(dialect: Dialect) -> (String, String) {
    let value = |c: &Column| if dialect == Dialect::Postgres { c.postgres.1 } else { c.mariadb.1 };
    let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
    let values: Vec<&str> = COLUMNS.iter().map(value).collect();
    (names.join(", "), values.join(", "))
}

fn ddl(dialect: Dialect, random: &mut StdRng) -> String {
    let table = TABLES[random.random_range(0..TABLES.len())];
    let (x, y) = (random.random_range(0..3), random.random_range(0..3));
    let kind = ["int DEFAULT 7", "varchar(20) DEFAULT 'd'", "numeric(9,3)"][random.random_range(0..3)];
    let retyped = match dialect {
        Dialect::Postgres => format!("ALTER TABLE {table} ALTER x{x} DROP DEFAULT, ALTER x{x} TYPE text"),
        Dialect::MariaDb => format!("ALTER TABLE {table} MODIFY COLUMN IF EXISTS x{x} varchar(60)"),
    };
    match random.random_range(0..10) {
        0..4 => format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS x{x} {kind};\n"),
        4..6 => format!("ALTER TABLE {table} DROP COLUMN IF EXISTS x{x};\n"),
        6..8 => format!("ALTER TABLE {table} RENAME COLUMN x{x} TO x{y};\n"),
        8 => format!("{retyped};\n"),
        _ => anew(dialect, table),
    }
}

/// The table dropped and made again. Nobody tells of the rows that go with it, so that they are deleted before.
fn anew(dialect: Dialect, table: &str) -> String {
    let create = create(dialect, table);
    match dialect {
        Dialect::Postgres => format!(
            "BEGIN; LOCK TABLE {table}; DELETE FROM {table}; DROP TABLE {table}; {create} \
             ALTER PUBLICATION mulgil_exchange ADD TABLE {table}; COMMIT;\n"
        ),
        Dialect::MariaDb => {
            format!("{create} LOCK TABLES {table} WRITE; DELETE FROM {table}; DROP TABLE {table}; UNLOCK TABLES; {create}")
        }
    }
}
