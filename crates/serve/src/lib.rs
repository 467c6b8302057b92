//! The doors of mulgil: REST, WebSocket, Server-Sent Events, metrics, keys, OpenAPI and the pages, over the few questions of `ports`.
//! It must never know the log, the engine, the connectors or the history: it cannot write a row except through the ingest port.

pub mod config;
pub mod ports;
pub mod server;

mod accept;
mod app;
mod auth;
mod extract;
mod measure;
mod problem;
mod seat;

pub mod live;
mod pages;
mod rest;

pub mod openapi;

/// What clients send back, for whoever reads it without a server (the fuzz targets).
pub mod wire {
    pub use crate::live::{request, token};
    pub use crate::rest::search::{Cursor, read_cursor};
}
