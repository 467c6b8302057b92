//! A client outside: one WebSocket, and one request at a time.

use crate::program::PATIENCE;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub struct Client {
    runtime: Runtime,
    url: String,
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
}

impl Client {
    pub fn of(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, url: url.to_owned(), socket: None }
    }

    /// Status and document.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.answer(
            reqwest::Client::new().post(format!("{}{path}", self.url)).header("content-type", "application/json").body(body.to_string()),
        )
    }

    pub fn get(&self, path: &str) -> Value {
        self.answer(reqwest::Client::new().get(format!("{}{path}", self.url))).1
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        self.runtime.block_on(async {
            let answer = request.timeout(PATIENCE).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
        })
    }

    /// Opens a socket in the place of the one before, and subscribes; what the server acknowledges.
    pub fn subscribe(&mut self, mut ask: Value) -> Value {
        let url = format!("{}/api/v1/stock/realtime", self.url.replacen("http", "ws", 1));
        (ask["op"], ask["id"]) = ("subscribe".into(), "t".into());
        self.socket = None;
        let mut socket = self.runtime.block_on(async { connect_async(url).await.unwrap().0 });
        self.runtime.block_on(socket.send(Message::text(ask.to_string()))).unwrap();
        self.socket = Some(socket);
        self.next("subscribed")
    }

    /// The next frame of a type.
    pub fn next(&mut self, kind: &str) -> Value {
        let socket = self.socket.as_mut().expect("subscribed before");
        loop {
            let next = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, socket.next()).await.expect("a frame in time") });
            let Message::Text(text) = next.expect("the socket is open").unwrap() else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            assert_ne!(frame["type"], "error", "{frame}");
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// So many rows of frames of a type or a few more, and the cursor behind the last.
    pub fn rows(&mut self, kind: &str, n: usize) -> (Vec<Value>, String) {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        while rows.len() < n {
            let frame = self.next(kind);
            rows.extend(frame["rows"].as_array().unwrap().iter().cloned());
            cursor = frame["cursor"].as_str().unwrap().to_owned();
        }
        (rows, cursor)
    }
}
