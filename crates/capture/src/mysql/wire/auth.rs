//! How a password is proven: by the plugin that the account has on the server.
//!
//! "Authentication Methods" of the protocol manual: Native Authentication, Caching_sha2_password information.

use super::error::WireError;
use ring::digest::{Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

pub(super) const NATIVE: &str = "mysql_native_password";
pub(super) const CACHING_SHA2: &str = "caching_sha2_password";

/// The first answer by this plugin to the server's random bytes.
pub(super) fn answer(plugin: &str, password: &str, nonce: &[u8]) -> Result<Vec<u8>, WireError> {
    match plugin {
        NATIVE | CACHING_SHA2 if password.is_empty() => Ok(Vec::new()),
        NATIVE => Ok(native(password.as_bytes(), nonce)),
        CACHING_SHA2 => Ok(caching_sha2(password.as_bytes(), nonce)),
        other => Err(WireError::Login(format!(
            "the account logs in by {}, which mulgil does not speak: ALTER USER … IDENTIFIED VIA {NATIVE} (MariaDB) or IDENTIFIED WITH {CACHING_SHA2} (MySQL)",
            other.chars().take(64).collect::<String>()
        ))),
    }
}

/// `SHA1(password) XOR SHA1(nonce <concat> SHA1(SHA1(password)))`
fn native(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha1 = |data: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, data);
    let once = sha1(password);
    let mask = sha1(&[nonce, sha1(once.as_ref()).as_ref()].concat());
    xor(&once, &mask)
}

/// `XOR(SHA256(password), SHA256(SHA256(SHA256(password)), nonce))`
fn caching_sha2(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha256 = |data: &[u8]| digest(&SHA256, data);
    let once = sha256(password);
    let mask = sha256(&[sha256(once.as_ref()).as_ref(), nonce].concat());
    xor(&once, &mask)
}

fn xor(a: &Digest, b: &Digest) -> Vec<u8> {
    a.as_ref().iter().zip(b.as_ref()).map(|(a, b)| a ^ b).collect()
}

/// What is encrypted with the server's key where there is no TLS: the password with its end, XOR the nonce over and over.
pub(super) fn masked(password: &str, nonce: &[u8]) -> Vec<u8> {
    let with_end = password.bytes().chain([0]);
    with_end.zip(nonce.iter().cycle()).map(|(p, n)| p ^ n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Computed with Python's hashlib after the formulas of the manual.
    #[test]
    fn answers_are_those_of_the_formulas() {
        let nonce: Vec<u8> = (1..=20).collect();
        assert_eq!(hex(&answer(NATIVE, "secret", &nonce).expect("answer")), "b32bb3a583e1340c0a1108d58b1be49781ad8c2f");
        assert_eq!(
            hex(&answer(CACHING_SHA2, "secret", &nonce).expect("answer")),
            "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9"
        );
        assert!(answer(NATIVE, "", &nonce).expect("answer").is_empty());
        let refused = answer("client_ed25519", "secret", &nonce).expect_err("unknown plugin").to_string();
        assert!(refused.contains("client_ed25519") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn a_masked_password_is_the_password_and_its_end() {
        let nonce = [7, 9, 11];
        let masked = masked("abcd", &nonce);
        let back: Vec<u8> = masked.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(back, b"abcd\0");
    }
}
