//! Compressed transactions (MySQL, zstd) and compressed events (MariaDB, zlib): what comes out is bounded, and only as much is allocated as
//! has really come out.

use super::cursor::Cursor;
use super::decoder::{Decoder, Event};
use super::error::{BinlogError, Result};
use super::header::{HEADER_BYTES, Header};
use bytes::{Buf, Bytes};
use std::fmt;
use std::io::Read;

/// The window that zstd's highest level (22, `binlog_transaction_compression_level_zstd`) asks for; more is refused by the library.
const WINDOW_LOG_MAX: u32 = 27;

const PAYLOAD: &str = "compressed transaction";

/// The events of a compressed transaction, one after the other ("Transaction_payload_event", codecs/binary.cpp: fields of type, length and
/// value, all length-encoded; 0 ends them, 1 is the size of the payload, 2 the method, 3 the size when uncompressed).
pub struct Payload {
    events: Events,
    /// What may still come out.
    budget: u64,
}

enum Events {
    Zstd(zstd::stream::read::Decoder<'static, bytes::buf::Reader<Bytes>>),
    Plain(bytes::buf::Reader<Bytes>),
}

impl Read for Events {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(buf),
            Self::Plain(bytes) => bytes.read(buf),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Payload {
    pub(crate) fn parse(body: Bytes, bytes_max: u64) -> Result<Self> {
        let mut cursor = Cursor::new(PAYLOAD, body);
        let (mut size, mut method, mut uncompressed) = (None, None, None);
        loop {
            match cursor.lenenc()? {
                0 => break,
                field => {
                    let n = cursor.length()?;
                    let mut value = cursor.part(PAYLOAD, n)?;
                    match field {
                        1 => size = Some(value.lenenc()?),
                        2 => method = Some(value.lenenc()?),
                        3 => uncompressed = Some(value.lenenc()?),
                        // The format leaves room for more.
                        _ => {}
                    }
                }
            }
        }
        let bytes = cursor.rest();
        if size.is_some_and(|size| size != bytes.len() as u64) {
            return Err(BinlogError::malformed(PAYLOAD, "it has another size than it says"));
        }
        if uncompressed.is_some_and(|n| n > bytes_max) {
            return Err(over(bytes_max));
        }
        let events = match method {
            Some(0) => Events::Zstd(zstd_decoder(bytes)?),
            Some(255) => Events::Plain(bytes.reader()),
            Some(method) => return Err(BinlogError::UnknownCompression { what: PAYLOAD, method }),
            None => return Err(BinlogError::malformed(PAYLOAD, "it does not say how it is compressed")),
        };
        Ok(Self { events, budget: uncompressed.unwrap_or(bytes_max) })
    }

    /// The next event, none at the end. After an error the transaction cannot be read on.
    pub fn next(&mut self, decoder: &mut Decoder) -> Result<Option<Event>> {
        let head = self.read(HEADER_BYTES as u64)?;
        if head.is_empty() {
            return Ok(None);
        }
        let mut array = [0; HEADER_BYTES];
        if head.len() < HEADER_BYTES {
            return Err(BinlogError::Truncated { what: PAYLOAD, need: HEADER_BYTES, have: head.len() });
        }
        array.copy_from_slice(&head);
        let length = u64::from(Header::parse(&array).length);
        let body = length.checked_sub(HEADER_BYTES as u64).ok_or(BinlogError::malformed(PAYLOAD, "an event is shorter than its header"))?;
        decoder.check_length(length)?;
        let mut event = head;
        event.extend(self.read(body)?);
        if event.len() as u64 != length {
            return Err(BinlogError::Truncated { what: PAYLOAD, need: length as usize, have: event.len() });
        }
        decoder.inner_event(event.into()).map(Some)
    }

    /// Up to `n` bytes, fewer at the end.
    fn read(&mut self, n: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.events.by_ref().take(n).read_to_end(&mut out).map_err(|_| BinlogError::malformed(PAYLOAD, "it does not decompress"))?;
        self.budget =
            self.budget.checked_sub(out.len() as u64).ok_or(BinlogError::malformed(PAYLOAD, "more comes out of it than it says"))?;
        Ok(out)
    }
}

fn over(limit: u64) -> BinlogError {
    BinlogError::Limit { what: "a compressed transaction", limit, name: "transaction_bytes_max" }
}

fn zstd_decoder(bytes: Bytes) -> Result<zstd::stream::read::Decoder<'static, bytes::buf::Reader<Bytes>>> {
    let failed = |_| BinlogError::malformed(PAYLOAD, "it does not decompress");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.reader()).map_err(failed)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
    Ok(decoder)
}

/// MariaDB's compressed tail of an event (`binlog_buf_uncompress`, log_event.cc): a byte whose highest bit is set, with the method in bits 4
/// to 6 (0 is zlib) and in the lowest three how many bytes follow with the length when uncompressed, the highest first; then the data.
pub fn inflate(what: &'static str, bytes: Bytes, bytes_max: usize) -> Result<Bytes> {
    let mut cursor = Cursor::new(what, bytes);
    let head = cursor.u8()?;
    if head & 0x80 == 0 {
        return Err(BinlogError::malformed(what, "its compressed part has no header"));
    }
    let method = u64::from(head >> 4 & 7);
    if method != 0 {
        return Err(BinlogError::UnknownCompression { what, method });
    }
    let length = cursor.uint_be(usize::from(head & 7).min(8))?;
    if length > bytes_max as u64 {
        return Err(BinlogError::Limit { what, limit: bytes_max as u64, name: "event_bytes_max" });
    }
    inflate_exactly(what, flate2::read::ZlibDecoder::new(cursor.rest().reader()), length)
}

/// A value of a column with MariaDB's `COMPRESSED` attribute (`Field_longstr::compress`, field_comp.cc): one byte, 0 before plain data; else the
/// method in its upper half (8 is zlib), in bit 3 whether the data lacks zlib's wrapping, and in the lowest three how many bytes follow with
/// the length, the highest first; then the data. An empty value has not even the byte.
pub fn inflate_column(bytes: Bytes, bytes_max: usize) -> Result<Bytes> {
    const WHAT: &str = "compressed column";
    let mut cursor = Cursor::new(WHAT, bytes);
    if cursor.is_empty() {
        return Ok(Bytes::new());
    }
    match cursor.u8()? {
        0 => Ok(cursor.rest()),
        head if head >> 4 == 8 => {
            let length = cursor.uint_be(usize::from(head & 7))?;
            if length > bytes_max as u64 {
                return Err(BinlogError::Limit { what: WHAT, limit: bytes_max as u64, name: "event_bytes_max" });
            }
            match head & 8 {
                0 => inflate_exactly(WHAT, flate2::read::ZlibDecoder::new(cursor.rest().reader()), length),
                _ => inflate_exactly(WHAT, flate2::read::DeflateDecoder::new(cursor.rest().reader()), length),
            }
        }
        head => Err(BinlogError::UnknownCompression { what: WHAT, method: u64::from(head >> 4) }),
    }
}

fn inflate_exactly(what: &'static str, decoder: impl Read, length: u64) -> Result<Bytes> {
    let mut out = Vec::new();
    // One byte more than there should be, so that more is noticed.
    decoder.take(length + 1).read_to_end(&mut out).map_err(|_| BinlogError::malformed(what, "it does not decompress"))?;
    match out.len() as u64 == length {
        true => Ok(out.into()),
        false => Err(BinlogError::malformed(what, "it decompresses to another length than it says")),
    }
}
