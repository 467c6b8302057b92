//! What accidents have in common: a table `t (id, v)` that is captured by name `exchange`, what the log has of it, what the program says.

use super::{World, get};
use crate::program::{Server, ok, output, text, until};
use mulgil_servers::{MariaDb, Postgres, Settings};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// Shared by accidents that are a database's; each has one of its own.
pub static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&Settings::default()).unwrap());
pub static MARIADB: LazyLock<MariaDb> = LazyLock::new(|| MariaDb::start(&Settings::default()).unwrap());

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'before')";

/// One database with the table, and whoever captures it.
pub struct Accident {
    name: String,
    kind: Kind,
    pub world: World,
}

#[derive(Clone, Copy)]
enum Kind {
    Postgres,
    MariaDb,
}

/// `more` are lines of the source's configuration. The slot is called as the database.
pub fn postgres(server: &Postgres, name: &str, more: &str) -> Accident {
    server.sql(&format!("CREATE DATABASE {name}")).unwrap();
    server.sql_in(name, TABLE).unwrap();
    let config = format!(
        "[source.exchange]\ntype = \"postgres\"\nurl = \"env:DATABASE_URL\"\ntables = [\"public.t\"]\nheartbeat = \"500ms\"\nslot = \"{name}\"\n{more}"
    );
    Accident { name: name.to_owned(), kind: Kind::Postgres, world: World::new(&config, server.url(name)) }
}

pub fn mariadb(server: &MariaDb, name: &str, more: &str) -> Accident {
    server.sql(&format!("CREATE DATABASE {name}")).unwrap();
    server.sql_in(name, TABLE).unwrap();
    let config =
        format!("[source.exchange]\ntype = \"mysql\"\nurl = \"env:DATABASE_URL\"\ntables = [\"{name}.t\"]\nheartbeat = \"500ms\"\n{more}");
    Accident { name: name.to_owned(), kind: Kind::MariaDb, world: World::new(&config, server.url(name)) }
}

impl Accident {
    /// As if this server were another one.
    pub fn at(&mut self, url: String) {
        self.world.url = url;
    }

    /// Through a proxy.
    pub fn at_port(&mut self, from: u16, to: u16) {
        self.world.url = self.world.url.replace(&format!(":{from}/"), &format!(":{to}/"));
    }

    fn topic(&self) -> String {
        match self.kind {
            Kind::Postgres => "exchange.public.t".to_owned(),
            Kind::MariaDb => format!("exchange.{}.t", self.name),
        }
    }

    /// What the log has: `r1 c2 u2 d1`, each change by its letter and the row's id; a truncate is `t`.
    pub fn seen(&self) -> String {
        let one = |event: &serde_json::Value| {
            let row = if event["after"].is_null() { &event["before"] } else { &event["after"] };
            format!("{}{}", event["op"].as_str().unwrap(), row["id"].as_i64().map_or(String::new(), |id| id.to_string()))
        };
        self.world.events(&self.topic()).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    pub fn until_seen(&self, want: &str) {
        until(&format!("'{want}' in the log, not '{}'", self.seen()), || {
            let seen = self.seen();
            assert!(seen.len() <= want.len(), "'{seen}' where '{want}' should be");
            (seen == want).then_some(())
        });
    }

    /// Waits until the program refuses to go on, for a reason that has all of this, and shows it everywhere. Ends it in order.
    pub fn refused(&self, running: Server, why: &[&str]) {
        let detail = until("it refuses to go on", || {
            let detail = capture_detail(&running);
            detail.contains("refused").then_some(detail)
        });
        for part in why {
            assert!(detail.contains(part), "no '{part}' in: {detail}");
        }
        // Measured now and then.
        let is_down = || get(&format!("{}/metrics", running.url)).contains("mulgil_capture_up{source=\"exchange\"} 0").then_some(());
        until("the metric of it", is_down);
        let said = running.stop();
        assert!(said.contains("capture has stopped and waits for a decision"), "{said}");
        let listed = ok(&["capture", "ls", "-c", text(&self.world.config), "--data", text(&self.world.data())]);
        assert!(listed.contains("exchange") && listed.contains("behind"), "{listed}");
    }

    /// The person's choice: it begins anew.
    pub fn forget(&self) {
        let out = output(&["capture", "forget", "exchange", "-c", text(&self.world.config), "--data", text(&self.world.data())]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// What `/health/ready` says of the source, from the first answer of a life on.
pub fn capture_detail(running: &Server) -> String {
    let health: serde_json::Value = serde_json::from_str(&get(&format!("{}/health/ready", running.url))).unwrap();
    let checks = health["checks"].as_array().unwrap();
    let ours = checks.iter().find(|check| check["name"] == "capture exchange");
    let ours = ours.unwrap_or_else(|| panic!("nothing is said of the source: {health}"));
    ours["detail"].as_str().unwrap().to_owned()
}

/// Waits until the slot can be dropped: whoever uses it is sent away.
pub fn drop_slot(server: &Postgres, name: &str) {
    until("the slot to be dropped", || {
        let gone = server.sql(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}' AND active; \
             SELECT pg_drop_replication_slot('{name}')"
        ));
        gone.is_ok().then_some(())
    });
}

/// Passes bytes on between a source and the server, until it is told to swallow them: no end and no error is told to either side.
pub struct Proxy {
    pub port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, is_cut) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let cut = Arc::clone(&is_cut);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", target)).unwrap());
                // A connection of before the cut stays silent for ever, also when later ones are passed on.
                let is_dead = Arc::new(AtomicBool::new(false));
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&cut), Arc::clone(&is_dead));
                pass(server, client, Arc::clone(&cut), is_dead);
            }
        });
        Self { port, is_cut }
    }

    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_cut: Arc<AtomicBool>, is_dead: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(n) = from.read(&mut buffer) {
            if is_cut.load(Ordering::SeqCst) {
                is_dead.store(true, Ordering::SeqCst);
            }
            if is_dead.load(Ordering::SeqCst) {
                if n == 0 {
                    return;
                }
            } else if n == 0 || to.write_all(&buffer[..n]).is_err() {
                to.shutdown(Shutdown::Both).ok();
                return;
            }
        }
    });
}
