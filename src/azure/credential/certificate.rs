//! Certificates with their private keys, as a Secret or a file holds them.
//!
//! In: PEM texts, or keys and certificates in DER. Out: one [`Certificate`] for each certificate whose
//! key is there, the one that began last first, each with the chain above it; or in words why not. Pure.
//! Signatures and expiry are not judged here: what Entra takes only Entra knows.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::parse_x509_certificate;

use super::CredentialError;
use super::key::{SigningKey, hex};
use super::pem::blocks;

/// The most certificates of a chain that are sent along.
const LONGEST_CHAIN: usize = 8;
/// Whoever may write a Secret must not be able to keep a node, or Entra, busy with it: private keys of
/// one credential, certificates of these keys, certificates at all.
pub(super) const MOST_KEYS: usize = 8;
const MOST_OWN: usize = 16;
const MOST_CERTIFICATES: usize = 256;

/// A certificate with its private key. Cheap enough to clone: the key is shared.
#[derive(Clone)]
pub struct Certificate {
    pub(super) key: SigningKey,
    /// In DER: the certificate itself, then what leads up from it, without the root.
    pub(super) chain: Vec<Vec<u8>>,
    thumbprint: [u8; 32],
    subject: String,
    not_before: Duration,
    not_after: Duration,
}

impl Certificate {
    /// SHA-256 of the certificate in DER, hexadecimal: how people tell certificates apart.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        hex(&self.thumbprint)
    }

    /// The same as JOSE's `x5t#S256` (RFC 7515, section 4.1.8): base64url without padding.
    #[must_use]
    pub fn x5t_s256(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.thumbprint)
    }

    /// Its subject, as in `CN=payments`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Start of its validity (since the Unix epoch).
    #[must_use]
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// End of its validity (since the Unix epoch).
    #[must_use]
    pub fn not_after(&self) -> Duration {
        self.not_after
    }
}

impl fmt::Debug for Certificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("thumbprint", &self.thumbprint())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads certificates and private keys of PEM texts: one text for each as in a TLS Secret, or both in
/// one. Any number of both; a key's certificate is found by its public key, what belongs to no key is
/// part of a chain.
pub fn certificates_from_pem(
    certificates: &str,
    keys: &str,
) -> Result<Vec<Certificate>, CredentialError> {
    let mut found = Found::default();
    found.add(certificates)?;
    if keys != certificates {
        found.add(keys)?;
    }
    matched(found.keys, found.certificates)
}

#[derive(Default)]
struct Found {
    keys: Vec<SigningKey>,
    certificates: Vec<Vec<u8>>,
}

impl Found {
    fn add(&mut self, pem: &str) -> Result<(), CredentialError> {
        for block in blocks(pem)? {
            let key = match block.label.as_str() {
                "CERTIFICATE" | "X509 CERTIFICATE" => {
                    self.certificates.push(block.bytes.to_vec());
                    continue;
                }
                "ENCRYPTED PRIVATE KEY" => return Err(CredentialError::Encrypted),
                label if label.ends_with("PRIVATE KEY") && block.encrypted => {
                    return Err(CredentialError::Encrypted);
                }
                "PRIVATE KEY" => SigningKey::from_pkcs8(&block.bytes)?,
                "RSA PRIVATE KEY" => SigningKey::from_pkcs1(&block.bytes)?,
                "EC PRIVATE KEY" => return Err(CredentialError::NotRsa("an EC key")),
                label if label.ends_with("PRIVATE KEY") => {
                    return Err(CredentialError::NotRsa("of another kind than RSA"));
                }
                // Parameters, public keys, requests: no part of a credential.
                _ => continue,
            };
            self.keys.push(key);
            bounded(&self.keys, MOST_KEYS, "private keys")?;
        }
        Ok(())
    }
}

/// An error where there are more than `most`.
pub(super) fn bounded<T>(
    found: &[T],
    most: usize,
    what: &'static str,
) -> Result<(), CredentialError> {
    if found.len() > most {
        return Err(CredentialError::TooMany { most, what });
    }
    Ok(())
}

/// What is needed of a certificate to find its place.
struct Parsed {
    der: Vec<u8>,
    key: Vec<u8>,
    issuer: Vec<u8>,
    name: Vec<u8>,
    subject: String,
    not_before: Duration,
    not_after: Duration,
}

/// Gives each key its certificates and each of these its chain; the one that began last comes first.
pub(super) fn matched(
    mut keys: Vec<SigningKey>,
    mut certificates: Vec<Vec<u8>>,
) -> Result<Vec<Certificate>, CredentialError> {
    bounded(&certificates, MOST_CERTIFICATES, "certificates")?;
    keys.sort_by(|a, b| a.public.cmp(&b.public));
    keys.dedup_by(|a, b| a.public == b.public);
    let mut seen = std::collections::BTreeSet::new();
    certificates.retain(|der| seen.insert(der.clone()));
    let numbered = certificates.into_iter().zip(1..);
    let parsed: Vec<Parsed> = numbered
        .map(|(der, number)| parse(der, number))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(CredentialError::NoKey);
    }
    if parsed.is_empty() {
        return Err(CredentialError::NoCertificate);
    }
    let mut found = Vec::new();
    for key in keys {
        let before = found.len();
        let own = parsed.iter().filter(|one| one.key == key.public);
        found.extend(own.map(|leaf| certificate(leaf, key.clone(), &parsed)));
        bounded(&found, MOST_OWN, "certificates of its private keys")?;
        if found.len() == before {
            let subjects: Vec<_> = parsed.iter().map(|one| &*one.subject).collect();
            return Err(CredentialError::Mismatch {
                key: key.fingerprint(),
                certificates: subjects.join("; ").chars().take(500).collect(),
            });
        }
    }
    found.sort_by_key(|one: &Certificate| {
        std::cmp::Reverse((one.not_before, one.not_after, one.thumbprint))
    });
    Ok(found)
}

fn parse(der: Vec<u8>, number: usize) -> Result<Parsed, CredentialError> {
    let broken = |why: String| CredentialError::Certificate { number, why };
    let (rest, read) = parse_x509_certificate(&der).map_err(|error| broken(error.to_string()))?;
    if !rest.is_empty() {
        return Err(broken("more follows after its end".to_owned()));
    }
    let since_epoch = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(Parsed {
        key: read.public_key().subject_public_key.data.to_vec(),
        issuer: read.issuer().as_raw().to_vec(),
        name: read.subject().as_raw().to_vec(),
        subject: read.subject().to_string().chars().take(200).collect(),
        not_before: since_epoch(read.validity().not_before.timestamp()),
        not_after: since_epoch(read.validity().not_after.timestamp()),
        der,
    })
}

fn certificate(leaf: &Parsed, key: SigningKey, all: &[Parsed]) -> Certificate {
    let mut chain = vec![leaf.der.clone()];
    let mut last = leaf;
    while last.issuer != last.name && chain.len() < LONGEST_CHAIN {
        // A root issues itself; whoever trusts it has it.
        let above = all
            .iter()
            .find(|one| one.name == last.issuer && one.issuer != one.name);
        let Some(above) = above.filter(|one| !chain.contains(&one.der)) else {
            break;
        };
        chain.push(above.der.clone());
        last = above;
    }
    let mut thumbprint = [0; 32];
    thumbprint.copy_from_slice(digest(&SHA256, &leaf.der).as_ref());
    Certificate {
        key,
        chain,
        thumbprint,
        subject: leaf.subject.clone(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    }
}

#[cfg(test)]
mod tests;
