//! Sizes, durations and secrets as they are written in the configuration.

use anyhow::{Context, Result, bail};
use mulgil_model::time::parse_duration;
use std::io::Read;
use std::time::Duration;

/// `500ms`, `10s`, `7d`.
pub fn duration(key: &str, text: &str) -> Result<Duration> {
    let us = parse_duration(text).with_context(|| format!("in '{key}'"))?;
    Ok(Duration::from_micros(us.unsigned_abs()))
}

/// `64MB` (10^6), `1GiB` (2^30), `4096`.
pub fn bytes(key: &str, text: &str) -> Result<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[split..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => bail!("'{text}' in '{key}' is not a size: write a whole number and a unit, such as 512MB or 20GB"),
    };
    let n: u64 = text[..split].parse().with_context(|| format!("'{text}' in '{key}' is not a size: write for example 20GB"))?;
    n.checked_mul(unit).with_context(|| format!("'{text}' in '{key}' is too large"))
}

/// Resolves `env:NAME` or `file:PATH`. The secret itself in the file is refused: a config is copied, shown and committed.
pub fn secret(key: &str, reference: &str) -> Result<String> {
    let value = looked_up(key, reference)?;
    if value.len() < SECRET_BYTES_MIN {
        bail!("the secret that '{key}' refers to is shorter than {SECRET_BYTES_MIN} bytes: make one with `openssl rand -hex 24`");
    }
    Ok(value)
}

/// The value of `env:NAME` or `file:PATH`.
pub fn looked_up(key: &str, text: &str) -> Result<String> {
    Ok(match reference(key, text)? {
        Reference::Variable(name) => {
            std::env::var(name).with_context(|| format!("'{key}' refers to the environment variable {name}, which is not set"))?
        }
        Reference::File(path) => {
            let text = read_small(path).with_context(|| format!("'{key}' refers to the file {path}, which cannot be read"))?;
            text.trim().to_owned()
        }
    })
}

/// A secret's file, or the start of what never ends, such as /dev/zero.
fn read_small(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    let is_small = text.len() as u64 <= SECRET_FILE_BYTES_MAX;
    is_small.then_some(text).ok_or_else(|| std::io::Error::other(format!("it has more than {SECRET_FILE_BYTES_MAX} bytes")))
}

/// Where a secret stands.
pub enum Reference<'a> {
    Variable(&'a str),
    File(&'a str),
}

pub fn reference<'a>(key: &str, text: &'a str) -> Result<Reference<'a>> {
    let variable = text.strip_prefix("env:").map(Reference::Variable);
    let reference = variable.or_else(|| text.strip_prefix("file:").map(Reference::File));
    reference.with_context(|| format!("'{key}' must refer to a secret as env:NAME or file:PATH, not contain it"))
}

const SECRET_BYTES_MIN: usize = 16;
/// A key, an address or a certificate, with room to spare.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("k", "20GB").unwrap(), 20_000_000_000);
        assert_eq!(bytes("k", "1GiB").unwrap(), 1 << 30);
        assert_eq!(bytes("k", "4096").unwrap(), 4096);
        assert_eq!(
            bytes("log.segment", "20 gigs").unwrap_err().to_string(),
            "'20 gigs' in 'log.segment' is not a size: write a whole number and a unit, such as 512MB or 20GB"
        );
        assert!(bytes("k", "99999999999TB").is_err());
    }

    #[test]
    fn a_secret_s_file_is_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let looked_up = |path: &str| looked_up("serve.keys.a", &format!("file:{path}")).map_err(|error| format!("{error:#}"));
        for (n, is_taken) in [(64 << 10, true), ((64 << 10) + 1, false)] {
            std::fs::write(&path, "x".repeat(n)).unwrap();
            assert_eq!(looked_up(path.to_str().unwrap()).is_ok(), is_taken, "{n} bytes");
        }
        let endless = looked_up("/dev/zero").unwrap_err();
        assert_eq!(endless, "'serve.keys.a' refers to the file /dev/zero, which cannot be read: it has more than 65536 bytes");
    }

    #[test]
    fn secrets_are_references() {
        assert_eq!(
            secret("serve.keys.a", "hunter2").unwrap_err().to_string(),
            "'serve.keys.a' must refer to a secret as env:NAME or file:PATH, not contain it"
        );
    }
}
