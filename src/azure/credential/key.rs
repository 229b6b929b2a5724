//! A private key that signs assertions: RSA of 2048 bits or more, from PKCS#8 (RFC 5208) or PKCS#1
//! (RFC 8017) in DER.
//!
//! In: bytes. Out: the key with its public half, by which its certificate is found, or in words why it
//! is not usable. Pure. What aws-lc holds of a key it zeroizes when the last owner drops it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use x509_parser::asn1_rs::{FromDer, Integer, OctetString, Oid, Sequence, oid};
use x509_parser::x509::AlgorithmIdentifier;

use super::CredentialError;

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
        let broken = |_| CredentialError::Key("it is no PKCS#8".to_owned());
        let (_, info) = Sequence::from_der(der).map_err(broken)?;
        let (rest, _version) = Integer::from_der(&info.content).map_err(broken)?;
        let (rest, algorithm) = AlgorithmIdentifier::from_der(rest)
            .map_err(|_| CredentialError::Key("it is no PKCS#8".to_owned()))?;
        if let Some(other) = other_than_rsa(algorithm.oid()) {
            return Err(CredentialError::NotRsa(other));
        }
        let (_, key) = OctetString::from_der(rest).map_err(broken)?;
        Self::from_pkcs1(key.as_ref())
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
        let start = &hash.as_ref()[..8];
        start.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What kind of key this is, where it is not RSA.
fn other_than_rsa(algorithm: &Oid<'_>) -> Option<&'static str> {
    if *algorithm == oid!(1.2.840.113549.1.1.1) {
        None
    } else if *algorithm == oid!(1.2.840.10045.2.1) {
        Some("an EC key")
    } else if *algorithm == oid!(1.3.101.112) {
        Some("an Ed25519 key")
    } else if *algorithm == oid!(1.2.840.113549.1.1.10) {
        Some("an RSA key for PSS only")
    } else {
        Some("of another kind than RSA")
    }
}

fn modulus_bits(pkcs1: &[u8]) -> Option<usize> {
    let (_, numbers) = Sequence::from_der(pkcs1).ok()?;
    let (rest, _version) = Integer::from_der(&numbers.content).ok()?;
    let (_, modulus) = Integer::from_der(rest).ok()?;
    let bytes: &[u8] = modulus.as_ref();
    let start = bytes.iter().position(|byte| *byte != 0)?;
    let unused = bytes[start].leading_zeros() as usize;
    Some((bytes.len() - start) * 8 - unused)
}
