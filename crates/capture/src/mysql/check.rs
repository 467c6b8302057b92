//! What a server lacks for capture, each with the statement that puts it right.

use super::catalog::{self, Selection};
use super::settings::{GtidMode, Settings};
use super::wire::{Connection, Flavor, WireError, quoted};
use crate::snapshot_mode::SnapshotMode;
use crate::source::{Missing, SourceError};
use std::collections::BTreeMap;

/// Less than this of binlog, and a weekend's stop may lose the place.
const EXPIRE_SECONDS_MIN: u64 = 3 * 86_400;

const VARIABLES: [&str; 11] = [
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "server_id",
    "expire_logs_days",
    "binlog_expire_logs_seconds",
    "gtid_mode",
    "enforce_gtid_consistency",
    "binlog_row_value_options",
    "log_bin_compress",
];

pub async fn check(settings: &Settings) -> Result<Vec<Missing>, SourceError> {
    let selection = Selection::new(&settings.tables).map_err(SourceError::config)?;
    let mut connection = Connection::open(settings).await.map_err(|e| e.during(&format!("connect to {}", settings.address)))?;
    let read = async {
        let variables = variables(&mut connection).await?;
        let grants: Vec<String> = connection.query("SHOW GRANTS").await?.iter().map(|r| r.text(0)).collect();
        let tables = catalog::names(&mut connection, &selection).await?;
        let tables = catalog::read(&mut connection, &tables).await?;
        let user = connection.query("SELECT CURRENT_USER()").await?.first().map(|r| r.text(0)).unwrap_or_default();
        Ok::<_, WireError>((variables, grants, tables, user))
    };
    let (variables, grants, tables, user) = read.await.map_err(|e| e.during("check the server"))?;
    let flavor = connection.flavor();
    let mut missing = of_variables(&variables, flavor, settings.gtid);
    missing.extend(of_grants(&Grants::parse(&grants), flavor, &account(&user), &selection, settings.snapshot));
    missing.extend(of_tables(&tables, &selection));
    Ok(missing)
}

async fn variables(connection: &mut Connection) -> Result<BTreeMap<String, String>, WireError> {
    let names: Vec<String> = VARIABLES.iter().map(|v| format!("'{v}'")).collect();
    let rows = connection.query(&format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "))).await?;
    Ok(rows.iter().map(|r| (r.text(0).to_ascii_lowercase(), r.text(1))).collect())
}

/// `'cdc'@'%'`
fn account(user: &str) -> String {
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    format!("'{}'@'{}'", name.replace('\'', "''"), host.replace('\'', "''"))
}

fn of_variables(variables: &BTreeMap<String, String>, flavor: Flavor, gtid: GtidMode) -> Vec<Missing> {
    let get = |name: &str| variables.get(name).map_or("", String::as_str);
    let mut out = Vec::new();
    let mut add = |is_missing: bool, is_fatal, what: String, fix: &str| {
        if is_missing {
            out.push(Missing { what, fix: fix.to_owned(), is_fatal });
        }
    };
    add(
        get("log_bin") != "ON",
        true,
        "log_bin is OFF: the server writes no binlog".into(),
        "[mysqld] log_bin = binlog -- then restart the server",
    );
    let format = get("binlog_format");
    add(
        format != "ROW",
        true,
        format!("binlog_format is {format}, not ROW"),
        "SET GLOBAL binlog_format = 'ROW'; -- and [mysqld] binlog_format = ROW; sessions that are open keep the old one",
    );
    let image = get("binlog_row_image");
    add(
        image != "FULL",
        false,
        format!("binlog_row_image is {image}, not FULL: columns that an update does not change are unavailable"),
        "SET GLOBAL binlog_row_image = 'FULL'; -- and [mysqld] binlog_row_image = FULL",
    );
    let metadata = get("binlog_row_metadata");
    add(
        metadata != "FULL",
        false,
        format!(
            "binlog_row_metadata is {}, not FULL: names and signs of columns are read from the catalog, which may be ahead of the binlog after DDL",
            if metadata.is_empty() { "not known to this server" } else { metadata }
        ),
        "SET GLOBAL binlog_row_metadata = 'FULL'; -- and [mysqld] binlog_row_metadata = FULL",
    );
    add(
        get("server_id") == "0",
        true,
        "server_id is 0: the server has no replicas".into(),
        "SET GLOBAL server_id = 1; -- and [mysqld] server_id = 1",
    );
    let days: f64 = get("expire_logs_days").parse().unwrap_or(0.0);
    let seconds: u64 = get("binlog_expire_logs_seconds").parse().unwrap_or(0);
    let kept = if seconds > 0 { seconds } else { (days * 86_400.0) as u64 };
    add(
        kept > 0 && kept < EXPIRE_SECONDS_MIN,
        false,
        format!("the binlog is purged after {kept} s: a longer stop of mulgil loses its place"),
        if flavor == Flavor::MariaDb { "SET GLOBAL expire_logs_days = 7;" } else { "SET GLOBAL binlog_expire_logs_seconds = 604800;" },
    );
    add(
        flavor == Flavor::MySql && get("gtid_mode") != "ON",
        gtid == GtidMode::On,
        format!("gtid_mode is {}: after a failover the place on the other server is not known", get("gtid_mode")),
        "SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON;",
    );
    out
}

/// The privileges of `SHOW GRANTS`, in capitals, by what they are on: `*.*`, `shop.*`, `shop.orders`.
#[derive(Debug, Default)]
struct Grants(Vec<(String, Vec<String>)>);

impl Grants {
    /// ``GRANT SELECT, REPLICATION SLAVE ON *.* TO `cdc`@`%` …``; a role's grants are not followed.
    fn parse(lines: &[String]) -> Self {
        let one = |line: &String| {
            let rest = line.strip_prefix("GRANT ")?;
            let (privileges, rest) = rest.split_once(" ON ")?;
            let (on, _) = rest.split_once(" TO ")?;
            let privileges = privileges.split(',').map(|p| p.trim().to_ascii_uppercase()).collect();
            Some((on.replace('`', "").replace("\\_", "_"), privileges))
        };
        Self(lines.iter().filter_map(one).collect())
    }

    fn has(&self, names: &[&str], database: &str, table: &str) -> bool {
        let places = ["*.*".to_owned(), format!("{database}.*"), format!("{database}.{table}")];
        self.0.iter().any(|(on, privileges)| {
            let is_there = places.contains(on)
                || on.strip_suffix(".*").is_some_and(|d| !database.is_empty() && d.replace('%', "*") != *d && is_prefix(d, database));
            is_there && privileges.iter().any(|p| names.contains(&p.as_str()) || p == "ALL PRIVILEGES")
        })
    }
}

/// `shop%`
fn is_prefix(pattern: &str, database: &str) -> bool {
    pattern.strip_suffix('%').is_some_and(|head| database.starts_with(head))
}

fn of_grants(grants: &Grants, flavor: Flavor, account: &str, selection: &Selection, mode: SnapshotMode) -> Vec<Missing> {
    let mut out = Vec::new();
    let mut need = |names: &[&str], privilege: &str, on: &str, database: &str, table: &str, is_fatal| {
        if !grants.has(names, database, table) {
            let what = format!("the account has no {privilege} on {on}");
            out.push(Missing { what, fix: format!("GRANT {privilege} ON {on} TO {account};"), is_fatal });
        }
    };
    need(&["REPLICATION SLAVE", "REPLICATION REPLICA"], "REPLICATION SLAVE", "*.*", "", "", true);
    match flavor {
        // Its grants of REPLICATION CLIENT are shown as BINLOG MONITOR from 10.5 on.
        Flavor::MariaDb => need(&["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"], "BINLOG MONITOR", "*.*", "", "", true),
        Flavor::MySql => need(&["REPLICATION CLIENT", "SUPER"], "REPLICATION CLIENT", "*.*", "", "", true),
    }
    for (database, table) in selection.patterns() {
        let part = |name: &str| if name == "*" { name.to_owned() } else { quoted(name) };
        let on = format!("{}.{}", part(database), if table.contains('*') { "*".to_owned() } else { part(table) });
        // Also without a snapshot: the catalog shows only tables that may be read.
        need(&["SELECT"], "SELECT", &on, database, table, mode != SnapshotMode::NoData);
    }
    out
}

fn of_tables(tables: &[catalog::CatalogTable], selection: &Selection) -> Vec<Missing> {
    let named = selection.patterns().filter(|(d, t)| !d.contains('*') && !t.contains('*'));
    let absent = named.filter(|(d, t)| !tables.iter().any(|table| *table.id.database == **d && *table.id.table == **t));
    let mut out: Vec<Missing> = absent
        .map(|(d, t)| Missing {
            what: format!("the table {d}.{t} does not exist, or the account may not read it"),
            fix: format!("CREATE TABLE {}.{} (…); -- or take it out of tables", quoted(d), quoted(t)),
            is_fatal: false,
        })
        .collect();
    out.extend(tables.iter().filter(|t| t.key.is_empty()).map(|t| Missing {
        what: format!("the table {} has no primary key: its snapshot is one chunk that begins anew, with a truncate, when it is interrupted, and its changes have no key", t.id),
        fix: format!("ALTER TABLE {}.{} ADD PRIMARY KEY (…);", quoted(&t.id.database), quoted(&t.id.table)),
        is_fatal: false,
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(missing: &[Missing]) -> String {
        missing.iter().map(|m| format!("{}{}\n", if m.is_fatal { "! " } else { "" }, m.fix)).collect()
    }

    #[test]
    fn mysql_8_without_gtid_and_metadata() {
        let variables = [
            ("log_bin", "ON"),
            ("binlog_format", "MIXED"),
            ("binlog_row_image", "MINIMAL"),
            ("binlog_row_metadata", "MINIMAL"),
            ("server_id", "1"),
            ("binlog_expire_logs_seconds", "3600"),
            ("gtid_mode", "OFF"),
        ];
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let said = whats(&of_variables(&variables, Flavor::MySql, GtidMode::Auto));
        for fix in [
            "! SET GLOBAL binlog_format",
            "\nSET GLOBAL binlog_row_image",
            "\nSET GLOBAL binlog_row_metadata",
            "\nSET GLOBAL binlog_expire",
            "\nSET GLOBAL enforce_gtid",
        ] {
            assert!(said.contains(fix), "{fix} in:\n{said}");
        }
        assert!(!said.contains("log_bin = "), "{said}");
    }

    #[test]
    fn grants_are_found_on_the_server_the_database_or_the_table() {
        let selection = Selection::new(&["shop.orders".into(), "books.*".into()]).expect("selection");
        let of = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|&l| l.to_owned()).collect();
            whats(&of_grants(&Grants::parse(&lines), Flavor::MySql, "'c'@'%'", &selection, SnapshotMode::Initial))
        };
        assert_eq!(of(&["GRANT ALL PRIVILEGES ON *.* TO `c`@`%` WITH GRANT OPTION"]), "");
        assert_eq!(
            of(&[
                "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `c`@`%`",
                "GRANT SELECT, INSERT ON `shop`.`orders` TO `c`@`%`",
                "GRANT SELECT ON `books`.* TO `c`@`%`"
            ]),
            ""
        );
        assert_eq!(
            of(&["GRANT USAGE ON *.* TO `c`@`%`", "GRANT SELECT ON `shop`.* TO `c`@`%`"]),
            "! GRANT REPLICATION SLAVE ON *.* TO 'c'@'%';\n! GRANT REPLICATION CLIENT ON *.* TO 'c'@'%';\n! GRANT SELECT ON `books`.* TO 'c'@'%';\n"
        );
    }
}
