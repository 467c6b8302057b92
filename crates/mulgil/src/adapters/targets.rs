//! Tables of captured databases that the generator may put rows into: only where their section says so, since the rows are made up.

use super::inserts::{self, Inserts, refuse};
use super::orders::{self, Orders};
use crate::config::captured::Database;
use crate::config::checked::Checked;
use anyhow::Result;
use arrow::array::RecordBatch;
use mulgil_model::ids::Topic;
use mulgil_serve::ports::{PortError, PortErrorKind};

/// A table, as the configuration has it.
#[derive(Debug, Clone)]
pub enum Target {
    /// PostgreSQL: trades, as a stream reads them.
    Trades(inserts::Target),
    /// MySQL and MariaDB: orders and what becomes of them.
    Orders(orders::Target),
}

/// A table that is open for rows.
pub enum Table {
    Trades(Inserts),
    Orders(Orders),
}

impl Target {
    /// `into` names a captured database, or one of its tables: `exchange`, `exchange.public.stock_trades`.
    pub fn find(config: &Checked, into: &str) -> Result<Self, PortError> {
        let (source, table) = into.split_once('.').map_or((into, None), |(source, table)| (source, Some(table)));
        let capture = config.captures.iter().find(|c| c.name == source);
        let unknown = || refuse(PortErrorKind::NotFound, format!("there is no captured database '{source}': see GET /api/v1/captures"));
        let capture = capture.ok_or_else(unknown)?;
        if !capture.allow_generate {
            let detail = format!("[source.{source}] does not allow rows that are made up: set allow_generate = true if it may have them");
            return Err(refuse(PortErrorKind::Forbidden, detail));
        }
        Ok(match capture.database {
            Database::Postgres { .. } => Self::Trades(inserts::Target::find(config, capture, table)?),
            Database::Mysql { .. } => Self::Orders(orders::Target::find(capture, table)?),
        })
    }

    /// `exchange.public.stock_trades`
    pub fn name(&self) -> String {
        match self {
            Self::Trades(target) => target.name(),
            Self::Orders(target) => target.name(),
        }
    }

    /// The name that the trades' schema has.
    pub fn stream(&self) -> &Topic {
        match self {
            Self::Trades(target) => target.stream(),
            Self::Orders(target) => target.topic(),
        }
    }

    /// Connects, and looks whether the table can take the rows.
    pub async fn open(&self) -> Result<Table, PortError> {
        Ok(match self {
            Self::Trades(target) => Table::Trades(Inserts::open(target).await?),
            Self::Orders(target) => Table::Orders(Orders::open(target).await?),
        })
    }
}

impl Table {
    /// All rows of the batch or none.
    pub async fn insert(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Trades(table) => table.insert(batch).await,
            Self::Orders(table) => table.insert(batch).await,
        }
    }

    pub fn rows_max(&self) -> usize {
        match self {
            Self::Trades(_) => inserts::STATEMENT_ROWS,
            Self::Orders(_) => orders::TRANSACTION_ROWS,
        }
    }

    pub async fn close(self) {
        match self {
            Self::Trades(table) => table.close().await,
            // The server notices that the socket is closed.
            Self::Orders(_) => {}
        }
    }
}
