//! What an application or an identity proves itself with, and whom Entra believes: as the world file says it.
//!
//! In: YAML of the world file, JSON of the control socket. Out: plain values. A certificate may be given as a
//! file; [`Pem::read`] puts its text in place. Nothing else here does IO.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A client secret: its text, or `{value, expires}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "WrittenSecret")]
pub struct Secret {
    /// What the client sends as `client_secret`.
    pub value: String,
    /// From this instant on it is refused as expired (AADSTS7000222).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Secret(***, expires: {:?})", self.expires)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenSecret {
    Text(String),
    Full(FullSecret),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FullSecret {
    value: String,
    #[serde(default)]
    expires: Option<Timestamp>,
}

impl From<WrittenSecret> for Secret {
    fn from(written: WrittenSecret) -> Self {
        match written {
            WrittenSecret::Text(value) => Self {
                value,
                expires: None,
            },
            WrittenSecret::Full(FullSecret { value, expires }) => Self { value, expires },
        }
    }
}

/// Certificates as PEM: the text, or `{file: PATH}` beside the world file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Pem {
    /// The PEM itself.
    Text(String),
    /// A file that holds it.
    File(PemFile),
}

/// A file with PEM text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PemFile {
    /// Its path; a relative one is taken from the world file's folder.
    pub file: PathBuf,
}

impl Pem {
    /// The text; empty as long as it is in a file.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::File(_) => "",
        }
    }

    /// Puts the text of a file in place; `folder` is where relative paths begin.
    pub fn read(&mut self, folder: &Path) -> Result<(), (PathBuf, std::io::Error)> {
        if let Self::File(PemFile { file }) = self {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).map_err(|error| (path, error))?;
            *self = Self::Text(text);
        }
        Ok(())
    }
}

/// A registration by subject name and issuer: any certificate of that name, if that authority issued it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSubject {
    /// Common name that the certificate must carry.
    pub subject: String,
    /// The authority's certificate, from which the chain in `x5c` must lead to it.
    pub authority: Pem,
}

/// A federated identity credential: whose tokens are taken for this application or identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCredential {
    /// Its name, unique for one application or identity.
    pub name: String,
    /// `iss` of the tokens, byte for byte.
    pub issuer: String,
    /// `sub` of the tokens, byte for byte.
    pub subject: String,
    /// One of these must be in `aud`.
    #[serde(default = "exchange")]
    pub audiences: Vec<String>,
}

fn exchange() -> Vec<String> {
    vec!["api://AzureADTokenExchange".to_owned()]
}

/// How to reach an issuer of federated tokens; one that is not listed is fetched from its own name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// `iss` of its tokens.
    pub issuer: String,
    /// Address to fetch `/.well-known/openid-configuration` from instead of the issuer's name.
    #[serde(default)]
    pub discovery: Option<String>,
    /// Address of its keys instead of what the discovery document says.
    #[serde(default)]
    pub keys: Option<String>,
    /// Authorities that vouch for its TLS, as a file.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The same as PEM text.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_text_or_has_an_end_and_never_shows() {
        let secrets: Vec<Secret> =
            serde_saphyr::from_str("[plain, {value: timed, expires: 2030-01-01T00:00:00Z}]")
                .unwrap();
        assert_eq!(
            (secrets[0].value.as_str(), secrets[0].expires),
            ("plain", None)
        );
        assert!(secrets[1].expires.is_some());
        let shown = format!("{secrets:?}");
        assert!(
            !shown.contains("plain") && !shown.contains("timed"),
            "{shown}"
        );
        let json = serde_json::to_string(&secrets[1]).unwrap();
        assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secrets[1]);
    }

    #[test]
    fn a_certificate_is_text_or_a_file_beside_the_world() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("c.pem"), "PEM").unwrap();
        let mut all: Vec<Pem> =
            serde_saphyr::from_str("[TEXT, {file: c.pem}, {file: absent.pem}]").unwrap();
        all[0].read(folder.path()).unwrap();
        all[1].read(folder.path()).unwrap();
        assert_eq!((all[0].text(), all[1].text()), ("TEXT", "PEM"));
        let (path, _) = all[2].read(folder.path()).unwrap_err();
        assert!(path.ends_with("absent.pem"));
    }
}
