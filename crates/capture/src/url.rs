//! What the URLs of both databases are made of: a password, and percent-encoded parts.

use std::fmt;

/// A password, which no error, log line or `Debug` form ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Percent-decoded (RFC 3986, section 2.1), or what is wrong with it.
pub(crate) fn decoded(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "has a % that is not followed by two hexadecimal digits of UTF-8 (write %25 for %)";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(BAD);
        out.push((digit()? << 4 | digit()?) as u8);
    }
    String::from_utf8(out).map_err(|_| BAD)
}
