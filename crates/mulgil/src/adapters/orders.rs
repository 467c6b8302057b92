//! The generator's trades as the life of orders in a captured MySQL or MariaDB: the tables of `examples/orders`.
//!
//! ```text
//! of ten orders    seven   INSERT ─▶ FILLED, with an execution where order_executions is captured too
//!                  one     INSERT ─▶ CANCELLED
//!                  one     INSERT ─▶ PARTIAL
//!                  one     INSERT ─▶ DELETE
//! ```
//!
//! Orders are inserted one by one, so that it is known which are ours: nothing else of the table is ever touched.

use super::inserts::{PRICE_SCALE, refuse};
use crate::config::captured::CapturePlan;
use crate::config::units::looked_up;
use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Decimal128Type;
use mulgil_capture::mysql::settings::{Address, Settings};
use mulgil_capture::mysql::wire::{Connection, TextRow, WireError, literal, quoted};
use mulgil_model::decimal;
use mulgil_model::ids::Topic;
use mulgil_serve::ports::{PortError, PortErrorKind};
use std::time::Duration;
use tokio::time::timeout;

/// Orders of one transaction at most: each is two questions.
pub const TRANSACTION_ROWS: usize = 200;

const USERS: u32 = 100_000;

/// Until the server has answered one statement; it gives up waiting for a lock earlier.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const SESSION: &str = "SET SESSION innodb_lock_wait_timeout = 10, SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')";

/// `ER_DBACCESS_DENIED_ERROR`, `ER_TABLEACCESS_DENIED_ERROR`, `ER_COLUMNACCESS_DENIED_ERROR`.
const DENIED: [u16; 3] = [1044, 1142, 1143];
/// `ER_BAD_FIELD_ERROR`, `ER_NO_SUCH_TABLE`.
const LACKING: [u16; 2] = [1054, 1146];

#[derive(Debug, Clone)]
pub struct Target {
    capture: CapturePlan,
    database: String,
    table: String,
    has_executions: bool,
    topic: Topic,
}

impl Target {
    /// `table`: `shop.orders`; without it the captured table that is called so.
    pub fn find(capture: &CapturePlan, table: Option<&str>) -> Result<Self, PortError> {
        let source = &capture.name;
        let named = |name: &str| capture.tables.iter().find(|t| t.split_once('.').is_some_and(|(_, t)| t == name));
        let found = match table {
            Some(table) => capture.tables.iter().find(|t| *t == table),
            None => named("orders"),
        };
        let Some((database, table)) = found.and_then(|t| t.split_once('.')) else {
            let wanted = table.unwrap_or("DATABASE.orders");
            let detail =
                format!("[source.{source}] captures no table {wanted} by its name: orders are put into the tables of examples/orders");
            return Err(refuse(PortErrorKind::Invalid, detail));
        };
        let executions = format!("{database}.order_executions");
        let topic = CapturePlan::topic(source, &format!("{database}.{table}"));
        let topic = topic.map_err(|e| refuse(PortErrorKind::Invalid, format!("{e:#}")))?;
        let has_executions = capture.tables.contains(&executions);
        Ok(Self { capture: capture.clone(), database: database.to_owned(), table: table.to_owned(), has_executions, topic })
    }

    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.capture.name, self.database, self.table)
    }

    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    fn orders(&self) -> String {
        format!("{}.{}", quoted(&self.database), quoted(&self.table))
    }

    fn executions(&self) -> Option<String> {
        self.has_executions.then(|| format!("{}.{}", quoted(&self.database), quoted("order_executions")))
    }
}

/// A table that is open for orders.
pub struct Orders {
    connection: Connection,
    /// As they stand in statements.
    orders: String,
    executions: Option<String>,
    /// Of ten orders in a row, however they are cut into batches, seven are filled.
    n_placed: usize,
}

impl Orders {
    /// Connects, and has the server say whether every statement could be run, without running one.
    pub async fn open(target: &Target) -> Result<Self, PortError> {
        let plan = &target.capture;
        let misplaced = |e: anyhow::Error| refuse(PortErrorKind::Invalid, format!("{e:#}"));
        let url = looked_up(&format!("source.{}.url", plan.name), &plan.url).map_err(misplaced)?;
        let address = url.parse::<Address>().with_context(|| format!("[source.{}] url", plan.name)).map_err(misplaced)?;
        let user = address.user.clone();
        let unreachable = |e: anyhow::Error| refuse(PortErrorKind::Busy, format!("[source.{}]: {e:#}", plan.name));
        let opened = Connection::open(&Settings::new(address, &[])).await.context("cannot connect");
        let mut open =
            Self { connection: opened.map_err(unreachable)?, orders: target.orders(), executions: target.executions(), n_placed: 0 };
        open.ask(SESSION).await.map_err(unreachable)?;
        for (rights, table, statement) in open.questions() {
            match open.ask(&statement).await {
                Ok(_) => {}
                Err(error) => return Err(unfit(error, plan, rights, &table, &user)),
            }
        }
        let scale = format!(
            "SELECT numeric_scale, column_type FROM information_schema.columns \
             WHERE table_schema = {} AND table_name = {} AND column_name = 'price' AND data_type = 'decimal'",
            text(&target.database),
            text(&target.table)
        );
        let found = open.ask(&scale).await.map_err(unreachable)?;
        if found.first().and_then(|row| row.number::<i8>(0)).is_none_or(|scale| scale < PRICE_SCALE) {
            let detail = format!("the column price of {} would round: use decimal(15,2)", open.orders);
            return Err(refuse(PortErrorKind::Invalid, detail));
        }
        Ok(open)
    }

    /// Privileges, table, and a statement that needs them and changes nothing.
    fn questions(&self) -> Vec<(&'static str, String, String)> {
        let Self { orders, executions, .. } = self;
        let rights = "SELECT, INSERT, UPDATE, DELETE";
        let none = "FROM DUAL WHERE FALSE";
        let insert = format!("INSERT INTO {orders} (user_id, symbol, order_type, quantity, price) SELECT 1, '', 'BUY', 1, 1 {none}");
        let mut all = vec![
            (rights, orders.clone(), insert),
            (rights, orders.clone(), format!("UPDATE {orders} SET status = 'FILLED' WHERE order_id IN (0) AND FALSE")),
            (rights, orders.clone(), format!("DELETE FROM {orders} WHERE order_id IN (0) AND FALSE")),
        ];
        if let Some(executions) = executions {
            let insert = format!("INSERT INTO {executions} (order_id, executed_qty, executed_price) SELECT 1, 1, 1 {none}");
            all.push(("INSERT", executions.clone(), insert));
        }
        all
    }

    /// All orders of the batch with their lives, or none.
    pub async fn insert(&mut self, batch: &RecordBatch) -> Result<()> {
        self.ask("START TRANSACTION").await?;
        let lived = self.live(batch).await;
        if let Err(error) = lived {
            // Where even this fails the connection is gone, and the transaction with it.
            self.ask("ROLLBACK").await.ok();
            return Err(error.context("the table did not take the orders"));
        }
        let unknown = || format!("what became of the last {} orders is not known", batch.num_rows());
        self.ask("COMMIT").await.with_context(unknown)?;
        self.n_placed += batch.num_rows();
        Ok(())
    }

    async fn live(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut lives: [Vec<String>; 10] = Default::default();
        for row in 0..batch.num_rows() {
            let statement =
                format!("INSERT INTO {} (user_id, symbol, order_type, quantity, price) VALUES {}", self.orders, order(batch, row)?);
            self.ask(&statement).await?;
            let id = self.ask("SELECT LAST_INSERT_ID()").await?;
            lives[(self.n_placed + row) % 10]
                .push(id.first().map(|row| row.text(0)).filter(|id| !id.is_empty()).context("the server gave no id")?);
        }
        let [filled @ .., cancelled, partial, deleted] = lives;
        let filled: Vec<String> = filled.into_iter().flatten().collect();
        for (status, ids) in [("FILLED", &filled), ("CANCELLED", &cancelled), ("PARTIAL", &partial)] {
            self.of(ids, &format!("UPDATE {} SET status = '{status}'", self.orders)).await?;
        }
        if let Some(executions) = self.executions.clone() {
            let done = format!(
                "INSERT INTO {executions} (order_id, executed_qty, executed_price) SELECT order_id, quantity, price FROM {}",
                self.orders
            );
            self.of(&filled, &done).await?;
        }
        self.of(&deleted, &format!("DELETE FROM {}", self.orders)).await
    }

    /// A statement about these orders.
    async fn of(&mut self, ids: &[String], statement: &str) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.ask(&format!("{statement} WHERE order_id IN ({})", ids.join(","))).await.map(drop)
    }

    async fn ask(&mut self, statement: &str) -> Result<Vec<TextRow>> {
        match timeout(ANSWER_WITHIN, self.connection.query(statement)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => bail!("the server did not answer within {} s", ANSWER_WITHIN.as_secs()),
        }
    }
}

fn unfit(error: anyhow::Error, plan: &CapturePlan, rights: &str, table: &str, user: &str) -> PortError {
    let code = error.downcast_ref::<WireError>().and_then(WireError::code);
    match code {
        Some(code) if DENIED.contains(&code) => {
            let grant = format!("GRANT {rights} ON {table} TO {}@'%'", quoted(user));
            refuse(PortErrorKind::Forbidden, format!("{user} may not put orders into {table}: {grant}"))
        }
        Some(code) if LACKING.contains(&code) => {
            refuse(PortErrorKind::Invalid, format!("{table} is not as examples/orders/setup.sql makes it: {error:#}"))
        }
        _ => refuse(PortErrorKind::Busy, format!("[source.{}]: {error:#}", plan.name)),
    }
}

/// A trade as the values of an order.
fn order(batch: &RecordBatch, row: usize) -> Result<String> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("the simulator gives no {name}"));
    let word = |name: &str| Ok::<_, anyhow::Error>(column(name)?.as_string::<i32>().value(row));
    let number = |name: &str| {
        let values = column(name)?.as_primitive::<Decimal128Type>();
        Ok::<_, anyhow::Error>(decimal::format(values.value(row), if name == "price" { PRICE_SCALE } else { 0 }))
    };
    // Whose order it is comes from the trade's random id, so that the same seed gives the same users.
    let user = word("trade_id")?.bytes().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add(u32::from(b))) % USERS;
    Ok(format!("({user}, {}, {}, {}, {})", text(word("symbol")?), text(word("side")?), number("quantity")?, number("price")?))
}

fn text(text: &str) -> String {
    format!("CONVERT({} USING utf8mb4)", literal(text.as_bytes()))
}
