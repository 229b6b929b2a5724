//! A private key that signs assertions: RSA of 2048 bits or more, from PKCS#8 (RFC 5208) or PKCS#1
//! (RFC 8017) in DER.
//!
//! In: bytes. Out: the key with its public half, by which its certificate is found, or in words why it
//! is not usable. Pure. What aws-lc holds of a key it zeroizes when the last owner drops it.

use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};

use super::CredentialError;
use super::der::{INTEGER, OCTET_STRING, Reader, SEQUENCE, algorithm};

/// The least that Entra's documents ask for.
const LEAST_BITS: usize = 2048;

/// An RSA private key, ready to sign.
#[derive(Clone)]
pub(super) struct SigningKey {
    /// Kept parsed and checked: that is the larger part of a signature's time.
    pub pair: Arc<RsaKeyPair>,
    /// `RSAPublicKey` in DER, as a certificate's key is.
    pub public: Vec<u8>,
}

impl SigningKey {
    /// Reads `PrivateKeyInfo`.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CredentialError> {
        let read = || {
            let mut info = Reader(der).enter(SEQUENCE)?;
            info.number()?;
            let (kind, _) = algorithm(&mut info)?;
            Some((kind, info.take(OCTET_STRING)?))
        };
        let (kind, key) =
            read().ok_or_else(|| CredentialError::Key("it is no PKCS#8".to_owned()))?;
        match other_than_rsa(kind) {
            Some(other) => Err(CredentialError::NotRsa(other)),
            None => Self::from_pkcs1(key),
        }
    }

    /// Reads `RSAPrivateKey`.
    pub fn from_pkcs1(der: &[u8]) -> Result<Self, CredentialError> {
        let bits = modulus_bits(der)
            .ok_or_else(|| CredentialError::Key("it is no RSA private key".to_owned()))?;
        if bits < LEAST_BITS {
            return Err(CredentialError::TooSmall(bits));
        }
        // Also checks that the numbers belong together.
        let pair = RsaKeyPair::from_der(der)
            .map_err(|error| CredentialError::Key(format!("it is no RSA key ({error})")))?;
        Ok(Self {
            public: pair.public_key().as_ref().to_vec(),
            pair: Arc::new(pair),
        })
    }

    /// Start of the SHA-256 of the public key, hexadecimal: tells keys apart in messages.
    pub fn fingerprint(&self) -> String {
        let hash = digest(&SHA256, &self.public);
        hex(&hash.as_ref()[..8])
    }
}

/// In lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    let append = |mut text: String, byte: &u8| {
        let _ = write!(text, "{byte:02x}");
        text
    };
    bytes.iter().fold(String::new(), append)
}

/// What kind of key this is, where it is not RSA, by the bytes of its object identifier.
fn other_than_rsa(kind: &[u8]) -> Option<&'static str> {
    match kind {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01] => None,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a] => Some("an RSA key for PSS only"),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01] => Some("an EC key"),
        [0x2b, 0x65, 0x70] => Some("an Ed25519 key"),
        _ => Some("of another kind than RSA"),
    }
}

fn modulus_bits(pkcs1: &[u8]) -> Option<usize> {
    let mut numbers = Reader(pkcs1).enter(SEQUENCE)?;
    numbers.number()?;
    let modulus = numbers.take(INTEGER)?;
    let start = modulus.iter().position(|byte| *byte != 0)?;
    let unused = modulus[start].leading_zeros() as usize;
    Some((modulus.len() - start) * 8 - unused)
}
