//! What lies in `examples/` runs against real servers, with no more privileges than its setup gives.

use super::World;
use crate::program::{repository, until};
use mulgil_servers::{MariaDb, Postgres, Settings};
use serde_json::json;

fn example(name: &str) -> String {
    std::fs::read_to_string(repository(&format!("examples/{name}"))).unwrap()
}

#[test]
fn stocks() {
    let server = Postgres::start(&Settings::default().hba("host all mulgil 127.0.0.1/32 scram-sha-256")).unwrap();
    server.sql(&format!("\\set password '\\'right\\''\n{}", example("stocks/setup.sql"))).unwrap();
    let world = World::new(&example("stocks/mulgil.toml"), server.url_as("mulgil", "right", "postgres"));
    let running = world.start();
    super::until_it_streams(&server);
    server
        .sql(
            "INSERT INTO stock_trades SELECT now(), gen_random_uuid(), '005930', 71500.50, 600, 'BUY', gen_random_uuid(), 'KRX', 'KRW' \
             FROM generate_series(1, 3)",
        )
        .unwrap();
    let trades = until("three trades", || Some(world.cat("trades")).filter(|rows| rows.len() == 3));
    let fields = ["symbol", "price", "quantity", "side", "market", "currency", "snapshot"].map(|name| trades[0][name].clone());
    assert_eq!(json!(fields), json!(["005930", 71500.50, 600, "BUY", "KRX", "KRW", false]));
    let alerts = until("an alert", || Some(world.cat("trades.alerts")).filter(|rows| !rows.is_empty()));
    assert_eq!(alerts[0]["rule"], "large_quantity");
    running.stop();
}

#[test]
fn orders() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    server.sql(&example("orders/setup.sql")).unwrap();
    server.sql_in("shop", "INSERT INTO orders (user_id, symbol, order_type, quantity, price) VALUES (1, 'BTC', 'BUY', 900, 5.25)").unwrap();
    let world = World::new(&example("orders/mulgil.toml"), server.url_as("mulgil", "change%20me", "shop"));
    let running = world.start();
    until("the row that was there", || (world.cat("orders").len() == 1).then_some(()));
    server
        .sql_in("shop", "INSERT INTO orders (user_id, symbol, order_type, quantity, price) VALUES (2, 'ETH', 'SELL', 501, 10.50)")
        .unwrap();
    server.sql_in("shop", "UPDATE orders SET status = 'FILLED' WHERE user_id = 2; DELETE FROM orders WHERE user_id = 2").unwrap();
    let orders = until("the life of two orders", || Some(world.cat("orders")).filter(|rows| rows.len() >= 4));
    // Two partitions: within an order the order of its changes holds.
    let life = |user: i64| -> Vec<(&str, &str)> {
        let of_user = orders.iter().filter(|o| o["user_id"] == json!(user));
        of_user.map(|o| (o["op"].as_str().unwrap(), o["status"].as_str().unwrap())).collect()
    };
    assert_eq!(life(1), [("r", "PENDING")]);
    assert_eq!(life(2), [("c", "PENDING"), ("u", "FILLED"), ("d", "FILLED")]);
    let alerts = until("an alert", || Some(world.cat("placed.alerts")).filter(|rows| !rows.is_empty()));
    assert_eq!(
        (alerts.len(), &alerts[0]["rule"], &alerts[0]["key"]),
        (1, &json!("large_order"), &json!("2")),
        "the snapshot raises nothing"
    );
    running.stop();
}
