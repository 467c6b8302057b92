//! Encrypting the password with the server's public key: RSAES-OAEP with SHA-1 (RFC 8017, section 7.1.1), as caching_sha2_password wants it.
//!
//! Only encryption, so no secret key is handled here; what is secret is the message, once per login.

use super::error::WireError;
use num_bigint::BigUint;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

const HASH_BYTES: usize = 20;
/// Smaller is not safe, larger no server makes and would keep us busy.
const KEY_BITS: std::ops::RangeInclusive<u64> = 1_024..=16_384;

pub(super) fn encrypt(pem: &[u8], message: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut seed = [0; HASH_BYTES];
    SystemRandom::new().fill(&mut seed).map_err(|_| WireError::Login("the system gives no random bytes".to_owned()))?;
    let key = Key::parse(pem).ok_or(WireError::Malformed { what: "public key" })?;
    key.encrypt(message, seed).ok_or_else(|| WireError::Login("the password is too long for the server's RSA key: use TLS".to_owned()))
}

struct Key {
    modulus: BigUint,
    exponent: BigUint,
}

impl Key {
    /// A `SubjectPublicKeyInfo` (RFC 5280, section 4.1; RFC 3279, section 2.3.1) in PEM.
    fn parse(pem: &[u8]) -> Option<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
        let (outer, _) = element(0x30, &der)?;
        let (_algorithm, rest) = element(0x30, outer)?;
        let (bits, _) = element(0x03, rest)?;
        let (key, _) = element(0x30, bits.strip_prefix(&[0])?)?;
        let (modulus, rest) = element(0x02, key)?;
        let (exponent, _) = element(0x02, rest)?;
        let key = Self { modulus: BigUint::from_bytes_be(modulus), exponent: BigUint::from_bytes_be(exponent) };
        (KEY_BITS.contains(&key.modulus.bits()) && (2..=64).contains(&key.exponent.bits())).then_some(key)
    }

    fn encrypt(&self, message: &[u8], seed: [u8; HASH_BYTES]) -> Option<Vec<u8>> {
        let k = self.modulus.bits().div_ceil(8) as usize;
        let padding = k.checked_sub(message.len() + 2 * HASH_BYTES + 2)?;
        let mut block = digest(&SHA1_FOR_LEGACY_USE_ONLY, b"").as_ref().to_vec();
        block.resize(block.len() + padding, 0);
        block.push(1);
        block.extend(message);
        mask(&mut block, &seed);
        let mut masked_seed = seed;
        mask(&mut masked_seed, &block);
        let encoded = BigUint::from_bytes_be(&[&masked_seed[..], &block].concat());
        let cipher = encoded.modpow(&self.exponent, &self.modulus).to_bytes_be();
        let mut out = vec![0; k - cipher.len()];
        out.extend(cipher);
        Some(out)
    }
}

/// XOR with MGF1 of the seed (RFC 8017, appendix B.2.1).
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (counter, chunk) in (0_u32..).zip(bytes.chunks_mut(HASH_BYTES)) {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[seed, &counter.to_be_bytes()].concat());
        chunk.iter_mut().zip(hash.as_ref()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// The content of a DER element with this tag, and what is behind it (X.690, sections 8.1.2 and 8.1.3).
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[first, short], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
        }
        _ => return None,
    };
    (first == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl genrsa 2048` for this test.
    const PUBLIC: &str = include_str!("../../../tests/data/rsa-public.pem");
    const PRIVATE_EXPONENT: &str = include_str!("../../../tests/data/rsa-private-exponent.hex");

    #[test]
    fn what_is_encrypted_is_what_the_private_key_gives_back() {
        let message = b"a password\0";
        let cipher = encrypt(PUBLIC.as_bytes(), message).expect("encrypt");
        assert_eq!(cipher.len(), 256);
        let key = Key::parse(PUBLIC.as_bytes()).expect("key");
        let d = BigUint::parse_bytes(PRIVATE_EXPONENT.trim().as_bytes(), 16).expect("exponent");
        let encoded = BigUint::from_bytes_be(&cipher).modpow(&d, &key.modulus).to_bytes_be();
        assert_eq!(encoded.len(), 255, "the first byte of the encoding is zero");
        let (mut seed, mut block) = (encoded[..HASH_BYTES].to_vec(), encoded[HASH_BYTES..].to_vec());
        mask(&mut seed, &block);
        mask(&mut block, &seed);
        assert_eq!(&block[..HASH_BYTES], digest(&SHA1_FOR_LEGACY_USE_ONLY, b"").as_ref());
        let text = block[HASH_BYTES..].iter().position(|b| *b == 1).expect("the mark before the message");
        assert_eq!(&block[HASH_BYTES + text + 1..], message);
    }

    #[test]
    fn a_key_that_is_none_or_too_small_is_refused() {
        for pem in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &PUBLIC[..200]] {
            assert!(encrypt(pem.as_bytes(), b"x").is_err(), "{pem:?}");
        }
        assert!(encrypt(PUBLIC.as_bytes(), &[b'x'; 300]).is_err());
    }
}
