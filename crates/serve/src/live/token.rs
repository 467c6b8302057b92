//! Resume tokens: where a client stands in its streams, written so that it can be checked but not usefully edited.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mulgil_model::ids::Offset;
use std::collections::BTreeMap;

/// The next offset of every partition of every stream of a subscription.
///
/// Layout, version 1, base64url without padding: version (1 byte, value 1), epoch (length byte, bytes), number of streams (1 byte), per
/// stream: name (length byte, bytes), number of partitions (u16), next offsets (u64 each); then CRC-32C of all before. Big endian.
/// The checksum finds damage and guesses; a token gives no rights, so it needs no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub epoch: String,
    pub streams: BTreeMap<String, Vec<Offset>>,
}

const VERSION: u8 = 1;
/// The longest token read, in characters.
pub const TOKEN_CHARS_MAX: usize = 48 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the resume token is damaged or not from this server: subscribe without it")]
    Damaged,
    #[error("the resume token has version {0}, which this server does not know: subscribe without it")]
    Version(u8),
}

impl Token {
    pub fn encode(&self) -> String {
        let mut out = vec![VERSION];
        write_short(&mut out, &self.epoch);
        out.push(self.streams.len() as u8);
        for (name, offsets) in &self.streams {
            write_short(&mut out, name);
            out.extend((offsets.len() as u16).to_be_bytes());
            offsets.iter().for_each(|o| out.extend(o.0.to_be_bytes()));
        }
        seal(out)
    }

    pub fn decode(text: &str) -> Result<Self, TokenError> {
        let body = unseal(text).ok_or(TokenError::Damaged)?;
        let mut reader = Reader { rest: &body };
        match reader.byte().ok_or(TokenError::Damaged)? {
            VERSION => reader.token().ok_or(TokenError::Damaged),
            other => Err(TokenError::Version(other)),
        }
    }
}

/// Text that [`unseal`] takes back, and nothing else that is likely to be sent.
pub fn seal(mut body: Vec<u8>) -> String {
    body.extend(crc32c::crc32c(&body).to_be_bytes());
    URL_SAFE_NO_PAD.encode(body)
}

pub fn unseal(text: &str) -> Option<Vec<u8>> {
    if text.len() > TOKEN_CHARS_MAX {
        return None;
    }
    let mut body = URL_SAFE_NO_PAD.decode(text).ok()?;
    let sum = *body.last_chunk::<4>()?;
    body.truncate(body.len() - sum.len());
    (crc32c::crc32c(&body) == u32::from_be_bytes(sum)).then_some(body)
}

fn write_short(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= 255, "topics have at most 200 bytes, epochs at most 64");
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    fn short(&mut self) -> Option<String> {
        let n = usize::from(self.byte()?);
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        String::from_utf8(head.to_vec()).ok()
    }

    fn token(&mut self) -> Option<Token> {
        let epoch = self.short()?;
        let n_streams = self.byte()?;
        let mut streams = BTreeMap::new();
        for _ in 0..n_streams {
            let name = self.short()?;
            let n = u16::from_be_bytes(self.take()?);
            let offsets = (0..n).map(|_| self.take().map(|b| Offset(u64::from_be_bytes(b)))).collect::<Option<_>>()?;
            streams.insert(name, offsets);
        }
        self.rest.is_empty().then_some(Token { epoch, streams })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Token {
        let streams = [("trades".to_owned(), vec![Offset(7), Offset(u64::MAX)]), ("alerts".to_owned(), vec![])].into_iter().collect();
        Token { epoch: "e-1".to_owned(), streams }
    }

    #[test]
    fn round_trip_and_fixed_layout() {
        let text = sample().encode();
        assert_eq!(text, include_str!("../../testdata/token-v1.txt").trim_end());
        assert_eq!(Token::decode(&text), Ok(sample()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = sample().encode();
        for (i, c) in text.char_indices() {
            let mut bad = text.clone();
            bad.replace_range(i..=i, if c == 'A' { "B" } else { "A" });
            assert!(Token::decode(&bad).is_err(), "{bad}");
        }
        for n in 0..text.len() {
            assert!(Token::decode(&text[..n]).is_err());
        }
        let mut body = vec![9u8, 0, 0];
        body.extend(crc32c::crc32c(&body).to_be_bytes());
        assert_eq!(Token::decode(&URL_SAFE_NO_PAD.encode(body)), Err(TokenError::Version(9)));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[A-Za-z0-9_-]{0,200}") {
            let _ = Token::decode(&text);
        }

        #[test]
        fn never_panics_behind_a_good_checksum(mut body in proptest::collection::vec(any::<u8>(), 0..64)) {
            body.insert(0, VERSION);
            body.extend(crc32c::crc32c(&body).to_be_bytes());
            let _ = Token::decode(&URL_SAFE_NO_PAD.encode(body));
        }
    }
}
