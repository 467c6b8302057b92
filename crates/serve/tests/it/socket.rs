//! A WebSocket client for the tests.

use crate::market::Running;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Socket(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn open(server: &Running) -> Self {
        Self::open_at(server, "/api/v1/stock/realtime").await
    }

    pub async fn open_at(server: &Running, path: &str) -> Self {
        let url = format!("ws://{}{path}", server.addr);
        Self(connect_async(url.into_client_request().unwrap()).await.unwrap().0)
    }

    pub async fn say(&mut self, value: Value) {
        self.say_text(&value.to_string()).await;
    }

    pub async fn say_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next frame as it was sent.
    pub async fn next_text(&mut self) -> String {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(_)) => {}
                end => panic!("the socket is open: {end:?}"),
            }
        }
    }

    /// The next JSON frame; None when the server closed, with its code and reason.
    pub async fn next(&mut self) -> Result<Value, Option<(u16, String)>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|f| (u16::from(f.code), f.reason.to_string()))),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next frame of a type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.expect("the socket is open");
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Sends a subscription and returns what the server acknowledges.
    pub async fn subscribe(&mut self, value: Value) -> Value {
        self.say(value).await;
        self.next_of("subscribed").await
    }
}

/// The trade ids of a row frame.
pub fn ids(frame: &Value) -> Vec<usize> {
    frame["rows"].as_array().unwrap().iter().map(|r| r["trade_id"].as_str().unwrap().parse().unwrap()).collect()
}
