//! A binlog file: four bytes that name it, then events.

use super::error::{BinlogError, Result};
use super::header::{HEADER_BYTES, Header};
use bytes::Bytes;

const MAGIC: &[u8] = b"\xfebin";
/// What a file begins with that the server has encrypted.
const MAGIC_ENCRYPTED: &[u8] = b"\xfdbin";

/// The events of a file, whole, each for [`super::decoder::Decoder::event`]. Ends after an error.
#[derive(Debug)]
pub struct File {
    rest: Bytes,
}

impl File {
    pub fn new(mut bytes: Bytes) -> Result<Self> {
        match bytes.get(..MAGIC.len()) {
            Some(MAGIC) => Ok(Self { rest: bytes.split_off(MAGIC.len()) }),
            Some(MAGIC_ENCRYPTED) => Err(BinlogError::Encrypted),
            _ => Err(BinlogError::malformed("binlog file", "it does not begin with the bytes fe 62 69 6e")),
        }
    }
}

impl Iterator for File {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let length = rest.first_chunk::<HEADER_BYTES>().map_or(HEADER_BYTES, |head| Header::parse(head).length as usize);
        if length < HEADER_BYTES {
            return Some(Err(BinlogError::malformed("binlog file", "an event is shorter than its header")));
        }
        if length > rest.len() {
            return Some(Err(BinlogError::Truncated { what: "binlog file", need: length, have: rest.len() }));
        }
        self.rest = rest.slice(length..);
        Some(Ok(rest.slice(..length)))
    }
}
