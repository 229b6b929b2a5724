//! A credential that Entra may accept: what is presented, and how long it is valid. Shows nothing of a
//! secret or a key in `Debug`, and wipes it from memory when the last user lets go of it. Pure.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::azure::credential::Certificate;

/// What is presented to Entra.
#[derive(Debug)]
pub enum Material {
    /// A client secret.
    Secret(SecretString),
    /// A certificate with its private key, which signs client assertions.
    Certificate(Certificate),
}

/// One credential of an application.
#[derive(Debug)]
pub struct Credential {
    material: Material,
}

impl Credential {
    /// A credential of this.
    #[must_use]
    pub const fn new(material: Material) -> Self {
        Self { material }
    }

    /// What to present.
    #[must_use]
    pub const fn material(&self) -> &Material {
        &self.material
    }

    /// Whether both are the same secret, or the same certificate.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.material, &other.material) {
            (Material::Secret(one), Material::Secret(two)) => {
                one.expose_secret() == two.expose_secret()
            }
            (Material::Certificate(one), Material::Certificate(two)) => {
                one.thumbprint() == two.thumbprint()
            }
            _ => false,
        }
    }

    /// When it ends (since the epoch); `None`: nothing here says so.
    #[must_use]
    pub fn not_after(&self) -> Option<Duration> {
        match &self.material {
            Material::Secret(_) => None,
            Material::Certificate(certificate) => Some(certificate.not_after()),
        }
    }

    /// Whether it is valid at `now` (since the epoch), as far as it says.
    #[must_use]
    pub fn is_valid(&self, now: Duration) -> bool {
        match &self.material {
            Material::Secret(_) => true,
            Material::Certificate(certificate) => {
                certificate.not_before() <= now && now < certificate.not_after()
            }
        }
    }
}

impl std::fmt::Display for Credential {
    /// Which one it is, in words that are no secret: a certificate by the beginning of its thumbprint.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.material {
            Material::Secret(_) => f.write_str("the client secret"),
            Material::Certificate(certificate) => {
                let thumbprint = certificate.thumbprint();
                write!(
                    f,
                    "the certificate with SHA-256 {}…",
                    thumbprint.get(..16).unwrap_or_default()
                )
            }
        }
    }
}
