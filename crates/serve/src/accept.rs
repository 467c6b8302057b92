//! Connections at the door: how many, and how long they may hesitate.

use crate::measure;
use axum_server::accept::Accept;
use futures::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Takes at most as many connections as it has slots; what comes above is closed at once.
#[derive(Clone)]
pub struct Limited {
    slots: Arc<Semaphore>,
    first_bytes_within: Duration,
}

impl Limited {
    pub fn new(connections_max: usize, first_bytes_within: Duration) -> Self {
        Self { slots: Arc::new(Semaphore::new(connections_max)), first_bytes_within }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Limited {
    type Stream = Guarded;
    type Service = S;
    type Future = BoxFuture<'static, io::Result<(Guarded, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let first_bytes_within = self.first_bytes_within;
        Box::pin(async move {
            let slot = slot.map_err(|_| {
                measure::refused("connections");
                io::Error::other("too many connections")
            })?;
            // Small frames must not wait for the acknowledgement of the one before.
            stream.set_nodelay(true)?;
            let _counted = measure::Connection::new();
            Ok((Guarded { stream, n_read: 0, hesitation: Some(Box::pin(sleep(first_bytes_within))), _slot: slot, _counted }, service))
        })
    }
}

/// A connection that must say something soon. The HTTP server's own limit for headers begins only when it has seen enough bytes to tell
/// the version; this one begins at once.
pub struct Guarded {
    stream: TcpStream,
    n_read: usize,
    hesitation: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
    _counted: measure::Connection,
}

/// The length of the HTTP/2 preface, which the version is told from.
const FIRST_BYTES: usize = 24;

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.n_read += buffer.filled().len() - before;
        if self.n_read >= FIRST_BYTES {
            self.hesitation = None;
        }
        match (&read, &mut self.hesitation) {
            (Poll::Pending, Some(hesitation)) => match hesitation.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    measure::refused("hesitation");
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                Poll::Pending => Poll::Pending,
            },
            _ => read,
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
