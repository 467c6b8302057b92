//! The bare broadcast that delivery is measured against: the same WebSocket library, one shared frame, and nothing else.

use anyhow::{Context, Result};
use futures::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

#[derive(Debug, clap::Args)]
pub struct BroadcastArgs {
    #[arg(long)]
    bind: SocketAddr,
    #[arg(long)]
    frame_bytes: usize,
    /// Frames a second.
    #[arg(long)]
    rate: f64,
}

/// A client that is behind by more frames misses some, as in any bare broadcast.
const FRAMES_WAITING: usize = 64;

/// Serves until it is killed: it has nothing to lose.
pub fn broadcast(args: &BroadcastArgs) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.bind).await.with_context(|| format!("cannot listen on {}", args.bind))?;
        let (send, _) = broadcast::channel(FRAMES_WAITING);
        let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate.max(0.1)));
        let frame = Utf8Bytes::from("x".repeat(args.frame_bytes));
        loop {
            tokio::select! {
                accepted = listener.accept() => drop(tokio::spawn(serve(accepted?.0, send.subscribe()))),
                // Nobody may listen yet.
                _ = beat.tick() => drop(send.send(frame.clone())),
            }
        }
    })
}

async fn serve(stream: TcpStream, mut frames: broadcast::Receiver<Utf8Bytes>) -> Result<()> {
    stream.set_nodelay(true)?;
    // The buffers of our own server.
    let config = WebSocketConfig::default().read_buffer_size(2 << 10).write_buffer_size(16 << 10);
    let (mut sink, mut source) = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?.split();
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Ok(frame) => sink.send(Message::Text(frame)).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            said = source.next() => if !matches!(said, Some(Ok(_))) { return Ok(()) },
        }
    }
}
