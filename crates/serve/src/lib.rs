//! The doors of mulgil: REST, WebSocket, Server-Sent Events, metrics, keys, OpenAPI and the pages, over the few questions of `ports`.
//! It must never know the log, the engine, the connectors or the history: it cannot write a row except through the ingest port.

pub mod ports;
