//! Certificates with their keys from PKCS#12 (RFC 7292), as Key Vault, Windows, OpenSSL and Java write it.
//!
//! In: a file's bytes and its password. Out: what PEM gives, too, or in words why not. Pure, but deriving
//! keys takes up to some seconds of processor time: not for an event loop. Decrypted keys are zeroized;
//! that is why the container is read here and not by a library that leaves them behind.

mod cipher;

use zeroize::Zeroizing;

use cipher::Opener;

use super::certificate::{MOST_KEYS, bounded, matched};
use super::der::{CONTEXT_0, IMPLICIT_0, OCTET_STRING, OID, Reader, SEQUENCE};
use super::key::SigningKey;
use super::{Certificate, CredentialError};

/// `data` and `encryptedData` of PKCS#7.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
/// Bags of PKCS#12: a key, an encrypted key, a certificate.
const KEY_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x01,
];
const SHROUDED_KEY_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02,
];
const CERT_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03,
];
/// The one kind of certificate that is not obsolete.
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];

/// Reads every key and certificate of a PKCS#12 file. Where it has a checksum, that tells a wrong
/// password from a damaged file.
pub fn certificates_from_pkcs12(
    file: &[u8],
    password: &str,
) -> Result<Vec<Certificate>, CredentialError> {
    let (safes, checksum) = outer(file).ok_or_else(|| broken("it is no PKCS#12 in DER"))?;
    let mut opener = Opener::new(password);
    if let Some(checksum) = checksum {
        opener.check(checksum, safes)?;
    }
    let mut found = Found::default();
    let mut safes = Reader(safes)
        .enter(SEQUENCE)
        .ok_or_else(|| broken("it is damaged"))?;
    while !safes.is_empty() {
        let safe = safes
            .enter(SEQUENCE)
            .ok_or_else(|| broken("it is damaged"))?;
        found.safe(safe, &mut opener)?;
    }
    if found.keys.is_empty() {
        return Err(broken("it holds no private key"));
    }
    if found.certificates.is_empty() {
        return Err(broken("it holds no certificate"));
    }
    matched(found.keys, found.certificates)
}

fn broken(why: &str) -> CredentialError {
    CredentialError::Pkcs12(why.to_owned())
}

/// `PFX`: what the checksum is over (`AuthenticatedSafe`), and the checksum (`MacData`), if any.
fn outer(file: &[u8]) -> Option<(&[u8], Option<Reader<'_>>)> {
    let mut pfx = Reader(file).enter(SEQUENCE)?;
    if pfx.number()? != 3 {
        return None;
    }
    let mut content = pfx.enter(SEQUENCE)?;
    if content.take(OID)? != DATA {
        return None;
    }
    let safes = content.enter(CONTEXT_0)?.take(OCTET_STRING)?;
    let checksum = if pfx.is_empty() {
        None
    } else {
        Some(pfx.enter(SEQUENCE)?)
    };
    Some((safes, checksum))
}

#[derive(Default)]
struct Found {
    keys: Vec<SigningKey>,
    certificates: Vec<Vec<u8>>,
}

impl Found {
    /// One `ContentInfo`: bags, encrypted or not.
    fn safe(&mut self, mut safe: Reader<'_>, opener: &mut Opener) -> Result<(), CredentialError> {
        let damaged = || broken("it is damaged");
        let kind = safe.take(OID).ok_or_else(damaged)?;
        let mut content = safe.enter(CONTEXT_0).ok_or_else(damaged)?;
        if kind == DATA {
            return self.bags(content.take(OCTET_STRING).ok_or_else(damaged)?, opener);
        }
        if kind != ENCRYPTED_DATA {
            return Err(broken(
                "it is encrypted for somebody's key, not by a password",
            ));
        }
        let mut content = content.enter(SEQUENCE).ok_or_else(damaged)?;
        content.number().ok_or_else(damaged)?;
        let mut encrypted = content.enter(SEQUENCE).ok_or_else(damaged)?;
        encrypted.take(OID).ok_or_else(damaged)?;
        let plain = opener.open(&mut encrypted, IMPLICIT_0)?;
        self.bags(&plain, opener)
            .map_err(|error| opener.doubt(error))
    }

    /// `SafeContents`.
    fn bags(&mut self, bags: &[u8], opener: &mut Opener) -> Result<(), CredentialError> {
        let damaged = || broken("it is damaged");
        let mut bags = Reader(bags).enter(SEQUENCE).ok_or_else(damaged)?;
        while !bags.is_empty() {
            let mut bag = bags.enter(SEQUENCE).ok_or_else(damaged)?;
            let kind = bag.take(OID).ok_or_else(damaged)?;
            let mut value = bag.enter(CONTEXT_0).ok_or_else(damaged)?;
            bounded(&self.keys, MOST_KEYS, "private keys")?;
            if kind == KEY_BAG {
                self.keys.push(SigningKey::from_pkcs8(value.0)?);
            } else if kind == SHROUDED_KEY_BAG {
                let mut encrypted = value.enter(SEQUENCE).ok_or_else(damaged)?;
                let plain: Zeroizing<_> = opener.open(&mut encrypted, OCTET_STRING)?;
                let key = SigningKey::from_pkcs8(&plain).map_err(|error| opener.doubt(error))?;
                self.keys.push(key);
            } else if kind == CERT_BAG {
                let mut inner = value.enter(SEQUENCE).ok_or_else(damaged)?;
                if inner.take(OID) == Some(X509) {
                    let der = inner
                        .enter(CONTEXT_0)
                        .and_then(|mut der| der.take(OCTET_STRING));
                    self.certificates.push(der.ok_or_else(damaged)?.to_vec());
                }
            }
            // Revocation lists and others' secrets are no part of a credential.
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
