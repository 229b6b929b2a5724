//! Certificates with their keys from PKCS#12 (RFC 7292), as Key Vault and Windows export them.
//!
//! In: a file's bytes and its password. Out: what PEM gives, too, or in words why not.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;

use super::certificate::matched;
use super::key::SigningKey;
use super::{Certificate, CredentialError};

/// Reads every key and certificate of a PKCS#12 file.
pub fn certificates_from_pkcs12(
    file: &[u8],
    password: &str,
) -> Result<Vec<Certificate>, CredentialError> {
    let archive = Pkcs12Archive::from_pkcs12(file, password).map_err(|error| match error {
        Error::MacError(_) | Error::UnpadError => CredentialError::Password,
        other => CredentialError::Pkcs12(other.to_string()),
    })?;
    let keys = archive.keys.iter();
    let keys: Vec<_> = keys
        .map(|bag| SigningKey::from_pkcs8(bag.key.as_der()))
        .collect::<Result<_, _>>()?;
    let certificates = archive.certs.iter();
    matched(
        keys,
        certificates.map(|bag| bag.cert.as_der().to_vec()).collect(),
    )
}
