//! What an application's owner has: secrets, certificates with their keys, and the Secrets they are kept in.
//!
//! In: names. Out: PEM, PKCS#12 and manifests. Blocks on `openssl`, for what owners make with it.
//! Invariant: each is new, and carries a canary where text may be chosen, so that a trial can look for it.

use std::fmt::Write as _;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use crate::process;

/// Whoever finds this somewhere has found a secret.
pub const CANARY: &str = "canary-of-the-owners";

/// A certificate and its key.
#[derive(Clone)]
pub struct Paper {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PKCS#8 PEM.
    pub key: String,
}

/// A client secret that no one has had.
pub fn secret() -> String {
    let text = KeyPair::generate().map_or_else(|_| String::new(), |key| key.serialize_pem());
    let random: String = text
        .lines()
        .nth(2)
        .unwrap_or_default()
        .chars()
        .take(32)
        .collect();
    format!("{CANARY}~{random}")
}

impl Paper {
    /// With an RSA key of 2048 bits, valid now and for long.
    pub fn rsa(name: &str) -> Result<Self> {
        Self::of(name, &KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?, 2099)
    }

    /// The same, but it ended long ago.
    pub fn expired(name: &str) -> Result<Self> {
        Self::of(name, &KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?, 2021)
    }

    /// With an elliptic curve's key, which Entra ID does not take.
    pub fn elliptic(name: &str) -> Result<Self> {
        Self::of(name, &KeyPair::generate()?, 2099)
    }

    fn of(name: &str, key: &KeyPair, until: i32) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        Ok(Self {
            certificate: params.self_signed(key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The key as older tools write it (PKCS#1).
    pub async fn key_pkcs1(&self) -> Result<String> {
        openssl("rsa -traditional", &self.key).await
    }

    /// The key encrypted by a password.
    pub async fn key_encrypted(&self) -> Result<String> {
        openssl(&format!("pkcs8 -topk8 -passout pass:{CANARY}"), &self.key).await
    }

    /// Certificate and key as a PKCS#12 store, base64.
    pub async fn store(&self, password: &str) -> Result<String> {
        let made = format!("pkcs12 -export -passout pass:{password} | base64 -w0");
        openssl(&made, &format!("{}{}", self.key, self.certificate)).await
    }

    /// The Secret that cert-manager would write.
    pub fn manifest(&self, namespace: &str, name: &str) -> String {
        let data = [
            ("tls.crt", self.certificate.as_str()),
            ("tls.key", &self.key),
        ];
        manifest(namespace, name, "kubernetes.io/tls", &data)
    }
}

/// A Secret with these texts; what ends with `:base64` as a name is encoded already.
pub fn manifest(namespace: &str, name: &str, kind: &str, texts: &[(&str, &str)]) -> String {
    let mut yaml = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: {kind}\ndata:\n"
    );
    for (key, text) in texts {
        // Writing to a String does not fail.
        let _ = match key.strip_suffix(":base64") {
            Some(key) => writeln!(yaml, "  {key}: {text}"),
            None => writeln!(yaml, "  {key}: {}", STANDARD.encode(text)),
        };
    }
    yaml
}

async fn openssl(words: &str, input: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &format!("openssl {words}")]);
    process::run(command, input.as_bytes())
        .await?
        .success(&format!("openssl {words}"))
}
