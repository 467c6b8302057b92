//! The whole loop: generator, database, capture, stream, client.

use super::socket::Client;
use super::{World, until_it_streams};
use crate::program::{repository, text, until};
use mulgil_servers::{MariaDb, Postgres, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const GENERATE: &str = "/api/v1/stock/generate";

/// `examples/stocks` with its own role and no more rights than its setup gives.
fn stocks(switch: &str) -> (Postgres, World) {
    let server = Postgres::start(&Settings::default().hba("host all mulgil 127.0.0.1/32 scram-sha-256")).unwrap();
    let example = |name: &str| std::fs::read_to_string(repository(&format!("examples/stocks/{name}"))).unwrap();
    server.sql(&format!("\\set password '\\'right\\''\n{}", example("setup.sql"))).unwrap();
    let config = example("mulgil.toml").replace("allow_generate = false", switch);
    let world = World::new(&config, server.url_as("mulgil", "right", "postgres"));
    (server, world)
}

fn until_over(client: &Client) -> Value {
    until("the run is over", || Some(client.get(GENERATE)).filter(|run| run["state"] != "running"))
}

/// Ticker, price, volume and so on of each trade, by its event's id.
fn by_id(rows: &[Value], names: [&str; 8]) -> BTreeMap<String, Vec<String>> {
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    rows.iter().map(|row| (plain(&row["event_id"]), names.iter().map(|name| plain(&row[*name])).collect())).collect()
}

#[test]
fn what_the_generator_puts_into_the_table_is_what_clients_get() {
    const TRADES: usize = 2_500;
    let (server, world) = stocks("allow_generate = true");
    server.sql("GRANT INSERT ON public.stock_trades TO mulgil").unwrap();
    let running = world.start();
    until_it_streams(&server);
    let mut client = Client::of(&running.url);
    client.subscribe(json!({"streams": ["trades"]}));
    let body = json!({"into": "exchange", "count": TRADES, "rate": 100_000, "seed": 7});
    let (status, run) = client.post(GENERATE, &body);
    assert_eq!((status, &run["into"], &run["already_running"]), (202, &json!("exchange.public.stock_trades"), &json!(false)), "{run}");
    let run = until_over(&client);
    assert_eq!((&run["state"], &run["produced"]), (&json!("finished"), &json!(TRADES)), "{run}");

    let (received, _) = client.rows("trades", TRADES);
    let received = by_id(&received, ["event_time", "symbol", "price", "quantity", "side", "trade_id", "market", "currency"]);
    let columns = "event_id, event_time AT TIME ZONE 'UTC' AS event_time, ticker, trim_scale(price) AS price, volume, trade_type, trade_id, market_code, currency_code";
    let table = server.sql(&format!("SELECT json_agg(t) FROM (SELECT {columns} FROM stock_trades) t")).unwrap();
    let table: Vec<Value> = serde_json::from_str(&table).unwrap();
    let names = ["event_time", "ticker", "price", "volume", "trade_type", "trade_id", "market_code", "currency_code"];
    let mut table = by_id(&table, names);
    // json_agg writes a time without its Z.
    table.values_mut().for_each(|row| row[0].push('Z'));
    assert_eq!(table.len(), TRADES);
    for (id, row) in &table {
        assert_eq!(received.get(id), Some(row), "{id}");
    }
    assert_eq!(received.len(), TRADES);
    assert_eq!(world.cat("trades").len(), TRADES, "each once");
    assert_eq!(world.events("exchange.public.stock_trades").len(), TRADES);
    running.stop();
}

#[test]
fn a_run_is_stopped_and_says_how_many_are_in_the_table() {
    let (server, world) = stocks("allow_generate = true");
    server.sql("GRANT INSERT ON public.stock_trades TO mulgil").unwrap();
    let running = world.start();
    let client = Client::of(&running.url);
    let body = json!({"into": "exchange.public.stock_trades", "rate": 500});
    assert_eq!(client.post(GENERATE, &body).0, 202);
    assert_eq!(client.post(GENERATE, &body).1["already_running"], json!(true));
    let (status, problem) = client.post(GENERATE, &json!({}));
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("stop it before"), "{problem}");
    let count = || server.sql("SELECT count(*) FROM stock_trades").unwrap().parse::<u64>().unwrap();
    until("some trades are there", || (count() > 20).then_some(()));
    let (status, run) = client.post(&format!("{GENERATE}/stop"), &json!({}));
    assert_eq!((status, &run["state"], &run["produced"]), (200, &json!("stopped"), &json!(count())));

    // What the database has against a trade ends the run, with those that it took before counted.
    server.sql("ALTER TABLE stock_trades ADD CHECK (volume < 0) NOT VALID").unwrap();
    let before = count();
    assert_eq!(client.post(GENERATE, &body).0, 202);
    let run = until_over(&client);
    let detail = run["detail"].as_str().unwrap();
    assert!(run["state"] == "failed" && run["produced"] == json!(0) && detail.contains("did not take the trades"), "{run}");
    assert_eq!(count(), before);
    running.stop();
}

#[test]
fn trades_are_put_into_no_table_that_may_not_have_them() {
    let (server, world) = stocks("");
    let refused = |world: &World, into: &str| {
        let running = world.start();
        let (status, problem) = Client::of(&running.url).post(GENERATE, &json!({"into": into, "count": 1}));
        running.stop();
        (status, problem["detail"].as_str().unwrap().to_owned())
    };
    let check = |world: &World, into: &str, want: u16, words: &str| {
        let (status, said) = refused(world, into);
        assert!(status == want && said.contains(words), "{into}: {status} {said}");
    };
    server.sql("GRANT INSERT ON public.stock_trades TO mulgil").unwrap();
    check(&world, "exchange", 403, "set allow_generate = true");
    let config = std::fs::read_to_string(&world.config).unwrap();
    let allowed = config.replace("heartbeat =", "allow_generate = true\nheartbeat =");
    std::fs::write(&world.config, allowed).unwrap();
    check(&world, "nowhere", 404, "no captured database 'nowhere'");
    check(&world, "exchange.public.other", 422, "from = \"exchange.public.other\"");
    server.sql("REVOKE INSERT ON public.stock_trades FROM mulgil").unwrap();
    check(&world, "exchange", 403, "GRANT INSERT ON \"public\".\"stock_trades\" TO \"mulgil\"");
    server.sql("GRANT INSERT ON public.stock_trades TO mulgil; ALTER TABLE stock_trades ADD COLUMN desk text NOT NULL").unwrap();
    check(&world, "exchange", 422, "the column desk of public.stock_trades must not be null");
    server.sql("ALTER TABLE stock_trades DROP COLUMN desk, ALTER price TYPE numeric(18,1)").unwrap();
    check(&world, "exchange", 422, "which would round");
    server.sql("ALTER TABLE stock_trades ALTER price TYPE numeric(18,2); ALTER TABLE stock_trades RENAME ticker TO symbol").unwrap();
    check(&world, "exchange", 422, "has no column ticker, which [stream.trades] reads as symbol");
    assert_eq!(server.sql("SELECT count(*) FROM stock_trades").unwrap(), "0");
    drop(server);
    check(&world, "exchange", 503, "cannot connect");
}

#[test]
fn orders_are_placed_filled_cancelled_and_taken_out() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    let example = |name: &str| std::fs::read_to_string(repository(&format!("examples/orders/{name}"))).unwrap();
    server.sql(&example("setup.sql")).unwrap();
    server.sql_in("shop", "INSERT INTO orders (user_id, symbol, order_type, quantity, price) VALUES (1, 'BTC', 'BUY', 900, 5.25)").unwrap();
    let config = example("mulgil.toml").replace("allow_generate = false", "allow_generate = true");
    let world = World::new(&config, server.url_as("mulgil", "change%20me", "shop"));
    let running = world.start();
    let mut client = Client::of(&running.url);
    until("the row that was there", || (world.cat("orders").len() == 1).then_some(()));
    let body = json!({"into": "shop", "count": 300, "rate": 100_000, "seed": 7});
    let (status, problem) = client.post(GENERATE, &body);
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 403 && detail.contains("GRANT SELECT, INSERT, UPDATE, DELETE ON `shop`.`orders` TO `mulgil`"), "{status} {detail}");
    server
        .sql("GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders TO 'mulgil'@'%'; GRANT INSERT ON shop.order_executions TO 'mulgil'@'%'")
        .unwrap();
    client.subscribe(json!({"streams": ["orders", "executions"]}));
    let (status, run) = client.post(GENERATE, &body);
    assert_eq!((status, &run["into"]), (202, &json!("shop.shop.orders")), "{run}");
    let run = until_over(&client);
    assert_eq!((&run["state"], &run["produced"]), (&json!("finished"), &json!(300)), "{run}");

    // Of ten orders nine get another status and one is deleted; seven are executed.
    let (rows, _) = client.rows("rows", 300 + 270 + 30 + 210);
    let with = |op: &str, status: &str| {
        rows.iter().filter(|r| r["op"] == op && (r["status"] == status || r["executed_qty"].is_i64() && status.is_empty())).count()
    };
    let seen =
        [with("c", "PENDING"), with("u", "FILLED"), with("u", "CANCELLED"), with("u", "PARTIAL"), with("d", "PENDING"), with("c", "")];
    assert_eq!(seen, [300, 210, 30, 30, 30, 210]);
    // What is left in the table is what the changes say, to the cent; the row of somebody else is as it was.
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for row in rows.iter().filter(|r| r["user_id"].is_i64()) {
        let id = row["order_id"].as_str().unwrap().to_owned();
        match row["is_deleted"] == json!(true) {
            true => drop(last.remove(&id)),
            false => drop(last.insert(id, format!("{} {} {}", row["user_id"], row["quantity"], row["price"].as_f64().unwrap()))),
        }
    }
    let table =
        server.sql_in("shop", "SELECT order_id, user_id, quantity, price FROM orders WHERE user_id <> 1 OR symbol <> 'BTC'").unwrap();
    let table: BTreeMap<String, String> = table
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            (cells[0].to_owned(), format!("{} {} {}", cells[1], cells[2], cells[3].parse::<f64>().unwrap()))
        })
        .collect();
    assert_eq!((last.len(), &last), (270, &table));
    assert_eq!(server.sql_in("shop", "SELECT status, price FROM orders WHERE user_id = 1 AND symbol = 'BTC'").unwrap(), "PENDING\t5.25");
    running.stop();
}

#[test]
fn check_names_the_right_that_made_up_rows_lack_with_the_statement_that_gives_it() {
    let (server, world) = stocks("allow_generate = true");
    let check = || {
        let data = world.data();
        let mut command = crate::program::mulgil();
        command.args(["check", "-c", text(&world.config), "--data", text(&data)]).envs([("DATABASE_URL", &world.url)]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let said = check();
    assert!(said.contains("made-up rows cannot be put into it: mulgil may not insert into public.stock_trades\n"), "{said}");
    let grant = said.lines().map(str::trim).find(|line| line.starts_with("GRANT INSERT ON")).unwrap_or_else(|| panic!("{said}"));
    server.sql(grant).unwrap();
    let said = check();
    assert!(!said.contains("GRANT") && !said.contains("made-up"), "{said}");
}
