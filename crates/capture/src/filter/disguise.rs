//! Values that say less than they did.

use crate::datum::Datum;
use crate::envelope::text::{push_hex, push_text};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disguise {
    /// So many stars.
    Mask { n_chars: usize },
    /// SHA-256 of the salt and the value's text, in hexadecimal.
    Hash { salt: Salt },
    /// The first so many characters.
    Truncate { n_chars: usize },
}

/// The longest mask.
pub const MASK_CHARS_MAX: usize = 1_000;

/// A secret: whoever has it can find out short values by trying. Handed in by the binary, which resolves the reference in the config
/// (`salt = "env:CAPTURE_SALT"`); never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(Arc<[u8]>);

impl Salt {
    /// None if it is shorter than 16 bytes: such a salt can be tried out together with the values.
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= 16).then(|| Self(secret.into()))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(hidden)")
    }
}

impl Disguise {
    pub(super) fn put_on(&self, datum: &mut Datum) {
        match (self, &mut *datum) {
            (_, Datum::Unavailable) | (Self::Hash { .. } | Self::Truncate { .. }, Datum::Null) => {}
            (Self::Mask { n_chars }, _) => *datum = Datum::Text(mask(*n_chars)),
            (Self::Hash { salt }, value) => *datum = Datum::Text(hash(salt, value)),
            (Self::Truncate { n_chars }, Datum::Text(text) | Datum::Json(text) | Datum::Odd(text)) => {
                *datum = Datum::Text(first_chars(text, *n_chars));
            }
            // The plan lets no other kind come here; should one come, nothing of it is told.
            (Self::Truncate { .. }, value) => *value = Datum::Text(Bytes::new()),
        }
    }
}

fn mask(n_chars: usize) -> Bytes {
    static STARS: [u8; MASK_CHARS_MAX] = [b'*'; MASK_CHARS_MAX];
    Bytes::from_static(&STARS[..n_chars.min(MASK_CHARS_MAX)])
}

fn hash(salt: &Salt, value: &Datum) -> Bytes {
    let mut text = Vec::with_capacity(64);
    push_text(&mut text, value);
    let digest = Sha256::new().chain_update(&salt.0).chain_update(&text).finalize();
    let mut hex = Vec::with_capacity(64);
    push_hex(&mut hex, &digest);
    hex.into()
}

/// A slice of the same bytes. What is not UTF-8 (which no text is) becomes nothing.
fn first_chars(text: &Bytes, n_chars: usize) -> Bytes {
    let Ok(read) = std::str::from_utf8(text) else { return Bytes::new() };
    let end = read.char_indices().nth(n_chars).map_or(text.len(), |(at, _)| at);
    text.slice(..end)
}
