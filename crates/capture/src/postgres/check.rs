//! What a database lacks for capture, with the statement that puts each right: `mulgil check`.

use super::catalog::{Catalog, Relation, ReplicaIdentity, Selection, Shape};
use super::matching;
use super::publication::{self, Publication};
use super::settings::PostgresSettings;
use super::slot::{Lsn, Slot};
use super::wire::{Connection, Purpose, WireError, identifier, literal};
use crate::source::{Missing, SourceError};

/// Older servers do not stream large transactions, and their documentation ends.
const MAJOR_MIN: u32 = 14;

/// Looks at everything and changes nothing.
pub async fn check(settings: &PostgresSettings) -> Result<Vec<Missing>, SourceError> {
    settings.validate()?;
    let mut settings = settings.clone();
    let mut connection = Connection::open(&settings.address, Purpose::Sql).await?;
    settings.resolve(&mut connection).await?;
    let settings = &settings;
    let mut found = Found(Vec::new());
    server(&mut connection, &mut found).await?;
    let slot = Slot::read(&mut connection, &settings.slot).await?;
    found.slot(settings, slot.as_ref());
    slots_left(&mut connection, slot.is_some(), &mut found).await?;
    role(&mut connection, settings, &mut found).await?;
    tables(&mut connection, settings, &mut found).await?;
    left_out(&mut connection, settings, &mut found).await?;
    words(&mut connection, settings, &mut found).await?;
    Ok(found.0)
}

struct Found(Vec<Missing>);

impl Found {
    fn fatal(&mut self, what: String, fix: String) {
        self.0.push(Missing { what, fix, is_fatal: true });
    }

    fn advice(&mut self, what: String, fix: String) {
        self.0.push(Missing { what, fix, is_fatal: false });
    }

    fn slot(&mut self, settings: &PostgresSettings, slot: Option<&Slot>) {
        let name = &settings.slot;
        let remake =
            format!("SELECT pg_drop_replication_slot({0}); SELECT pg_create_logical_replication_slot({0}, 'pgoutput')", literal(name));
        match slot {
            None if settings.manages => {}
            None => {
                let fix = format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput')", literal(name));
                self.fatal(format!("the replication slot {name} does not exist"), fix);
            }
            Some(slot) if slot.plugin != "pgoutput" => {
                self.fatal(format!("the replication slot {name} is of the plugin {:?}", slot.plugin), remake)
            }
            Some(slot) if slot.database != settings.address.database => {
                self.fatal(format!("the replication slot {name} is of the database {}", slot.database), remake);
            }
            Some(slot) if slot.is_lost() => self.fatal(format!("the replication slot {name} has lost its WAL"), remake),
            Some(slot) if slot.wal_status.as_deref() == Some("unreserved") => {
                let begins = slot.restart_lsn.map_or_else(String::new, |l| format!(" (it begins at {})", Lsn(l)));
                let fix =
                    "ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf() -- more than the slot is behind".to_owned();
                self.advice(format!("the replication slot {name} is about to lose its WAL{begins}"), fix);
            }
            Some(_) => {}
        }
    }

    fn table(&mut self, relation: &Relation) {
        let (name, quoted) = (format!("{}.{}", relation.schema, relation.name), relation.quoted());
        if relation.shape == Shape::Other {
            self.fatal(format!("{name} is not a table"), "name a table: a view has no changes of its own".to_owned());
            return;
        }
        let has_identity = match relation.replica_identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Nothing => false,
            ReplicaIdentity::Index => relation.keys.iter().any(|k| k.is_replica_identity),
            ReplicaIdentity::Default => relation.primary_key().is_some(),
        };
        if !has_identity {
            let fix = format!("ALTER TABLE {quoted} REPLICA IDENTITY FULL; -- or ADD PRIMARY KEY, or REPLICA IDENTITY USING INDEX");
            self.fatal(format!("{name} has no replica identity: once published, its updates and deletes fail"), fix);
        }
        if relation.has_row_security {
            let fix = "ALTER ROLE … BYPASSRLS -- for the user of this source".to_owned();
            self.advice(format!("{name} has row-level security: a snapshot fails unless the role may bypass it"), fix);
        }
    }
}

async fn server(connection: &mut Connection, found: &mut Found) -> Result<(), WireError> {
    let major = connection.server_major();
    if major < MAJOR_MIN {
        found.fatal(format!("the server is version {major}"), format!("upgrade it to {MAJOR_MIN} or later"));
    }
    let wal_level = setting(connection, "wal_level").await?;
    if wal_level != "logical" {
        let fix = "ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server".to_owned();
        found.fatal(format!("wal_level is {wal_level}, not logical"), fix);
    }
    if setting(connection, "max_slot_wal_keep_size").await? == "-1" {
        let fix = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf() -- less than the disk has free".to_owned();
        found.advice("max_slot_wal_keep_size is unlimited: a source that stays away fills the server's disk".to_owned(), fix);
    }
    Ok(())
}

async fn slots_left(connection: &mut Connection, has_own: bool, found: &mut Found) -> Result<(), WireError> {
    let counts = "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication)";
    let rows = connection.query(counts).await?;
    let number = |at: usize| rows.first().and_then(|r| text(r, at).parse::<u64>().ok()).unwrap_or(0);
    let (n_slots, n_senders) = (number(0), number(1));
    for (name, used, needed) in
        [("max_replication_slots", n_slots, u64::from(!has_own)), ("max_wal_senders", n_senders, u64::from(!has_own))]
    {
        let limit: u64 = setting(connection, name).await?.parse().unwrap_or(u64::MAX);
        if used + needed > limit {
            let fix = format!("ALTER SYSTEM SET {name} = {}; -- then restart the server", limit + 10);
            found.fatal(format!("{name} is {limit}, and {used} are in use"), fix);
        }
    }
    Ok(())
}

async fn role(connection: &mut Connection, settings: &PostgresSettings, found: &mut Found) -> Result<(), WireError> {
    let user = &settings.address.user;
    let rows = connection.query("SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user").await?;
    if rows.first().is_none_or(|r| text(r, 0) != "t") {
        found.fatal(format!("the role {user} may not replicate"), format!("ALTER ROLE {} REPLICATION", identifier(user)));
    }
    Ok(())
}

async fn tables(connection: &mut Connection, settings: &PostgresSettings, found: &mut Found) -> Result<(), WireError> {
    let selection = if settings.tables.is_empty() { Selection::All } else { Selection::Names(settings.table_names()) };
    let catalog = Catalog::read(connection, &selection).await?;
    for (schema, name) in settings.named() {
        if catalog.relation(&schema, &name).is_none() {
            found.fatal(format!("table {schema}.{name} does not exist"), "correct its name, or create it".to_owned());
        }
    }
    let user = &settings.address.user;
    for relation in &catalog.relations {
        found.table(relation);
        let may = format!(
            "SELECT has_schema_privilege({}, 'USAGE'), has_table_privilege({}::oid, 'SELECT')",
            literal(&relation.schema),
            relation.oid
        );
        let rows = connection.query(&may).await?;
        let is = |at: usize| rows.first().is_some_and(|r| text(r, at) == "t");
        if !is(0) {
            let fix = format!("GRANT USAGE ON SCHEMA {} TO {}", identifier(&relation.schema), identifier(user));
            found.fatal(format!("the role {user} may not use the schema {}", relation.schema), fix);
        }
        if !is(1) {
            let fix = format!("GRANT SELECT ON {} TO {}", relation.quoted(), identifier(user));
            found.fatal(format!("the role {user} may not read {}.{}", relation.schema, relation.name), fix);
        }
    }
    published(connection, settings, &catalog, found).await
}

/// Tables that a pattern means and that are not captured.
async fn left_out(connection: &mut Connection, settings: &PostgresSettings, found: &mut Found) -> Result<(), WireError> {
    let matched = matching::matches(connection, settings).await?;
    for m in matched.iter().filter(|m| !m.has_identity && !m.is_published) {
        let what = format!(
            "{}.{} is left out, though a pattern means it: it has no replica identity, and published, its updates and deletes would fail",
            m.schema, m.name
        );
        let quoted = format!("{}.{}", identifier(&m.schema), identifier(&m.name));
        found.advice(what, format!("ALTER TABLE {quoted} REPLICA IDENTITY FULL; -- or ADD PRIMARY KEY, or REPLICA IDENTITY USING INDEX"));
    }
    if settings.has_patterns() && matched.is_empty() {
        let fix = "correct the pattern, or create them: they are captured from then on".to_owned();
        found.advice("no table is meant by the patterns yet".to_owned(), fix);
    }
    Ok(())
}

/// What the source and whoever asks it for snapshots write into the database.
async fn words(connection: &mut Connection, settings: &PostgresSettings, found: &mut Found) -> Result<(), WireError> {
    let user = &settings.address.user;
    let beats = "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND pg_get_function_arguments(oid) LIKE '%text%text%' \
         AND NOT has_function_privilege(oid, 'EXECUTE')";
    if let Some(function) = connection.query(beats).await?.first().map(|r| text(r, 0)) {
        let what = format!("the role {user} may not write heartbeats and the marks of snapshots");
        found.advice(what, format!("GRANT EXECUTE ON FUNCTION {function} TO {}", identifier(user)));
    }
    let Some((schema, name)) = settings.signal_table.as_deref().and_then(|t| t.split_once('.')) else { return Ok(()) };
    if !settings.captures(schema, name) {
        let fix = format!("tables = [ …, \"{schema}.{name}\" ]");
        found.advice(format!("the signal table {schema}.{name} is not captured: what is put into it is not seen"), fix);
    }
    let quoted = format!("{}.{}", identifier(schema), identifier(name));
    let may = format!(
        "SELECT has_table_privilege(c.oid, 'INSERT') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {} AND c.relname = {}",
        literal(schema),
        literal(name)
    );
    let rows = connection.query(&may).await?;
    if rows.is_empty() {
        let fix = format!("CREATE TABLE {quoted} (id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))");
        found.advice(format!("the signal table {schema}.{name} does not exist"), fix);
    } else if text(&rows[0], 0) != "t" {
        let what = format!("the role {user} may not put signals into {schema}.{name}; whoever asks for snapshots there needs that");
        found.advice(what, format!("GRANT INSERT ON {quoted} TO {}", identifier(user)));
    }
    Ok(())
}

async fn published(
    connection: &mut Connection,
    settings: &PostgresSettings,
    catalog: &Catalog,
    found: &mut Found,
) -> Result<(), WireError> {
    let name = &settings.publication;
    let major = connection.server_major();
    let Some(publication) = Publication::read(connection, name).await? else {
        let has_hypertables = catalog.relations.iter().any(|r| r.shape == Shape::Hypertable);
        let statement = publication::create_statement(settings, has_hypertables, major);
        if !may_publish(connection).await? || !settings.manages {
            found.fatal(format!("the publication {name} does not exist"), statement);
        }
        return Ok(());
    };
    let missing: Vec<&Relation> = catalog.relations.iter().filter(|r| !settings.tables.is_empty() && !publication.has(r)).collect();
    if !missing.is_empty() {
        let names = missing.iter().map(|r| format!("{}.{}", r.schema, r.name)).collect::<Vec<_>>().join(", ");
        found.fatal(format!("the publication {name} lacks {names}"), publication::add_statement(name, &missing));
    }
    let lacks_chunks = |r: &Relation| publication.missing_chunks(r) > 0 || r.leaves.is_empty() || !publication.sends_new_chunks(major);
    for relation in catalog.relations.iter().filter(|r| r.shape == Shape::Hypertable && lacks_chunks(r)) {
        let what = format!("the publication {name} does not have all chunks of {}.{}", relation.schema, relation.name);
        found.fatal(what, publication::add_chunks_statement(name, major));
    }
    if !publication.lacks.is_empty() {
        let fix = format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')", identifier(name));
        found.advice(format!("the publication {name} does not publish {}", publication.lacks.join(", ")), fix);
    }
    Ok(())
}

async fn may_publish(connection: &mut Connection) -> Result<bool, WireError> {
    let rows = connection.query("SELECT has_database_privilege(current_database(), 'CREATE')").await?;
    Ok(rows.first().is_some_and(|r| text(r, 0) == "t"))
}

async fn setting(connection: &mut Connection, name: &str) -> Result<String, WireError> {
    let rows = connection.query(&format!("SHOW {name}")).await?;
    Ok(rows.first().map(|r| text(r, 0)).unwrap_or_default())
}

fn text(row: &[Option<bytes::Bytes>], at: usize) -> String {
    let value = row.get(at).and_then(Option::as_deref).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}
