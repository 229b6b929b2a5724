//! What proves who we are, from files: a mounted Secret, a projected token.
//!
//! In: where. Out: credentials, newest first, or which file is wrong, how, and what to do. Blocks on the
//! disk, and up to some seconds on opening a PKCS#12 file: on a thread for that. A Secret's mount
//! changes by one swap of a link; two files that do not belong together yet are an error, and read
//! again at the next look. Buffers are wiped.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::candidates::Material;
use super::{AccessError, How};
use crate::azure::credential::{
    Certificate, CredentialError, certificates_from_pem, certificates_from_pkcs12,
};

/// More than any Secret holds (bytes).
const MOST: u64 = 1024 * 1024;

const SECRET: &str = "clientSecret";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const STORE: &str = "certificate.pfx";
const PASSWORD: &str = "password";

const PUT_SECRET: &str = "mount a Secret with the key clientSecret there (controller.azure.secretName), or correct --credential-dir";
const PUT_CERTIFICATE: &str = "mount a Secret with tls.crt and tls.key, or certificate.pfx and password, there (controller.azure.secretName), or correct --credential-dir";
const PUT_TOKEN: &str = "mount the projected service account token for api://AzureADTokenExchange there, or correct --federated-token-file";

/// Reads what this way of proving needs. Nothing for the node's identity.
pub(super) async fn read(how: &How) -> Result<Vec<Material>, AccessError> {
    let how = how.clone();
    let read = tokio::task::spawn_blocking(move || read_now(&how));
    match read.await {
        Ok(read) => read,
        Err(error) => Err(AccessError::Config(format!(
            "the credential could not be read: {error}"
        ))),
    }
}

fn read_now(how: &How) -> Result<Vec<Material>, AccessError> {
    match how {
        How::NodeIdentity { .. } => Ok(Vec::new()),
        How::Secret { dir } => {
            let secret = line(&dir.join(SECRET), PUT_SECRET)?;
            Ok(vec![Material::Secret(secret)])
        }
        How::Federated { token_file } => {
            let token = line(token_file, PUT_TOKEN)?;
            Ok(vec![Material::Assertion(token)])
        }
        How::Certificate { dir, .. } => {
            let found = if dir.join(STORE).exists() && !dir.join(CERTIFICATE).exists() {
                store(dir)?
            } else {
                pem(dir)?
            };
            Ok(found.into_iter().map(Material::Certificate).collect())
        }
    }
}

fn pem(dir: &Path) -> Result<Vec<Certificate>, AccessError> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    let certificates = text(&certificate, PUT_CERTIFICATE)?;
    let keys = text(&key, PUT_CERTIFICATE)?;
    certificates_from_pem(&certificates, &keys).map_err(|why| AccessError::Credential {
        path: match why {
            CredentialError::NoCertificate
            | CredentialError::Certificate { .. }
            | CredentialError::TooMany { .. } => certificate,
            _ => key,
        },
        why,
    })
}

fn store(dir: &Path) -> Result<Vec<Certificate>, AccessError> {
    let (store, password) = (dir.join(STORE), dir.join(PASSWORD));
    let file = bytes(&store, PUT_CERTIFICATE)?;
    let word = if password.exists() {
        text(&password, PUT_CERTIFICATE)?
    } else {
        Zeroizing::default()
    };
    let word = word.trim_end_matches(['\r', '\n']);
    certificates_from_pkcs12(&file, word).map_err(|why| AccessError::Credential {
        path: match why {
            CredentialError::Password if password.exists() => password,
            _ => store,
        },
        why,
    })
}

/// A text without the end of its line: editors and `echo` write one, and no secret has one.
fn line(path: &Path, way_out: &'static str) -> Result<SecretString, AccessError> {
    let text = text(path, way_out)?;
    match text.trim() {
        "" => Err(wrong(path, "is empty", way_out)),
        text => Ok(text.into()),
    }
}

fn text(path: &Path, way_out: &'static str) -> Result<Zeroizing<String>, AccessError> {
    let bytes = bytes(path, way_out)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(path, "is no text", way_out))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn bytes(path: &Path, way_out: &'static str) -> Result<Zeroizing<Vec<u8>>, AccessError> {
    let failed = |error: std::io::Error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "does not exist".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        wrong(path, why, way_out)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    // All at once: a buffer that grows leaves copies behind.
    let room = file.metadata().map_err(failed)?.len().min(MOST);
    let room = usize::try_from(room).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err(wrong(path, "is larger than 1 MiB", way_out));
    }
    Ok(bytes)
}

fn wrong(path: &Path, why: impl Into<String>, way_out: &'static str) -> AccessError {
    AccessError::File {
        path: PathBuf::from(path),
        why: why.into(),
        way_out,
    }
}
