//! A WebSocket client that costs next to nothing: frames are looked at where they lie in one buffer. Only what a server of ours sends is
//! understood: whole, unmasked messages (RFC 6455 section 5).

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct RawSocket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What has been received and not looked at.
    start: usize,
    end: usize,
}

const BUFFER_BYTES: usize = 16 << 10;

/// No frame of a server of ours is larger.
const FRAME_BYTES_MAX: usize = 16 << 20;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Where a frame's payload lies in the buffer.
struct Head {
    opcode: u8,
    start: usize,
    end: usize,
}

impl RawSocket {
    pub async fn connect(address: &str, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        let hello = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: bXVsZ2lsLWJlbmNoLWtleQ==\r\n\r\n"
        );
        stream.write_all(hello.as_bytes()).await?;
        let mut socket = Self { stream, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 };
        loop {
            socket.fill().await?;
            let said = &socket.buffer[..socket.end];
            if let Some(at) = memchr::memmem::find(said, b"\r\n\r\n") {
                ensure!(said.starts_with(b"HTTP/1.1 101"), "no WebSocket: {}", String::from_utf8_lossy(&said[..at]));
                socket.start = at + 4;
                return Ok(socket);
            }
        }
    }

    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        self.send(TEXT, text.as_bytes()).await
    }

    /// The payload of the next text message; pings are answered meanwhile.
    pub async fn next(&mut self) -> Result<&[u8]> {
        loop {
            let Some(head) = self.head()? else {
                self.fill().await?;
                continue;
            };
            self.start = head.end;
            match head.opcode {
                PING => {
                    let payload = self.buffer[head.start..head.end].to_vec();
                    self.send(PONG, &payload).await?;
                }
                CLOSE => {
                    let why = self.buffer[head.start..head.end].get(2..).unwrap_or_default();
                    bail!("the server closed the socket: {}", String::from_utf8_lossy(why));
                }
                _ => return Ok(&self.buffer[head.start..head.end]),
            }
        }
    }

    /// The first whole frame in the buffer.
    fn head(&self) -> Result<Option<Head>> {
        let got = &self.buffer[self.start..self.end];
        let (Some(first), Some(second)) = (got.first(), got.get(1)) else { return Ok(None) };
        ensure!(first & 0x80 != 0 && second & 0x80 == 0, "a frame that is not one whole unmasked message");
        let (length, skip) = match second & 0x7f {
            126 => match got.get(2..4) {
                Some(bytes) => (usize::from(u16::from_be_bytes(bytes.try_into()?)), 4),
                None => return Ok(None),
            },
            127 => match got.get(2..10) {
                Some(bytes) => (usize::try_from(u64::from_be_bytes(bytes.try_into()?))?, 10),
                None => return Ok(None),
            },
            short => (usize::from(short), 2),
        };
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let start = self.start + skip;
        Ok((start + length <= self.end).then_some(Head { opcode: first & 0x0f, start, end: start + length }))
    }

    async fn fill(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end * 2 > self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let n = self.stream.read(&mut self.buffer[self.end..]).await?;
        ensure!(n > 0, "the server closed the connection");
        self.end += n;
        Ok(())
    }

    /// Masked, as clients must, with a mask of zeros, which leaves the payload as it is.
    async fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => frame.push(0x80 | length as u8),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => bail!("a message of {} bytes: clients say little", payload.len()),
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        Ok(self.stream.write_all(&frame).await?)
    }
}
