//! TLS to PostgreSQL. The certificates are for these tests alone: a root, and a server's for the address 127.0.0.1, until 2126.

use mulgil_capture::postgres::address::Address;
use mulgil_capture::postgres::wire::{Connection, Purpose};
use mulgil_servers::{Postgres, Settings};

const SERVER_PEM: &[u8] = include_bytes!("tls/server.pem");
const SERVER_KEY: &[u8] = include_bytes!("tls/server.key");

/// Whether a connection with these options is encrypted; the error's text if there is none.
async fn encrypted(host: &str, port: u16, options: &str) -> Result<bool, String> {
    let address: Address = format!("postgres://postgres@{host}:{port}/postgres?{options}").parse().unwrap();
    let mut connection = Connection::open(&address, Purpose::Sql).await.map_err(|e| e.to_string())?;
    let rows = connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await.map_err(|e| e.to_string())?;
    Ok(rows[0][0].as_deref() == Some(b"t"))
}

#[tokio::test]
async fn each_mode_trusts_as_far_as_it_says() {
    let settings = Settings::default().with("ssl", "on").with("ssl_cert_file", "server.pem").with("ssl_key_file", "server.key");
    let server = Postgres::start(&settings.file("server.pem", SERVER_PEM).file("server.key", SERVER_KEY)).unwrap();
    let plain = Postgres::start(&Settings::default()).unwrap();
    let pem = crate::own("tests/it/tls/root.pem").display().to_string();
    let root = format!("sslrootcert={pem}");
    let port = server.port();
    for (host, options, expected) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), Ok(false)),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Ok(true)),
        ("127.0.0.1", "sslmode=require".to_owned(), Ok(true)),
        ("127.0.0.1", format!("sslmode=require&{root}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-full&{root}"), Ok(true)),
        ("localhost", format!("sslmode=verify-ca&{root}"), Ok(true)),
        ("localhost", format!("sslmode=verify-full&{root}"), Err("not valid for name")),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={pem}.not"), Err("root certificates of")),
        ("127.0.0.1", "sslmode=verify-full".to_owned(), Err("TLS with")),
    ] {
        let found = encrypted(host, port, &options).await;
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{host} {options}"),
            (Err(found), Err(part)) => assert!(found.contains(part), "{host} {options}: {found}"),
            _ => panic!("{host} {options}: {found:?}"),
        }
    }
    assert_eq!(encrypted("127.0.0.1", plain.port(), "sslmode=prefer").await, Ok(false));
    let refused = encrypted("127.0.0.1", plain.port(), "sslmode=require").await.unwrap_err();
    assert!(refused.contains("does not speak TLS"), "{refused}");
}
