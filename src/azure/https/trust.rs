//! Whose certificates are believed.
//!
//! In: which certificate authorities. Out: a TLS configuration (1.2 and 1.3, aws-lc-rs), or why there
//! is none. Reads the system's authorities from disk where they are asked for (`SSL_CERT_FILE` names
//! another place), nothing else. Never "no verification".

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Certificate authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The system's.
    #[default]
    System,
    /// The system's, where there are any, and those of a PEM text.
    SystemAnd(String),
    /// Those of a PEM text and no other.
    Only(String),
}

/// Why nobody would be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// The system has none that can be read.
    #[error(
        "no certificate authorities: the system has none that can be read ({0}); give some with --azure-ca-file"
    )]
    System(String),
    /// The given text holds none.
    #[error("the CA bundle holds no certificate (expected PEM: -----BEGIN CERTIFICATE-----)")]
    Empty,
    /// One of the given text cannot be read.
    #[error("certificate {number} of the CA bundle cannot be read: {why}")]
    Broken {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// A TLS client that believes `roots`, with HTTP/1.1.
pub(super) fn client_config(roots: &Roots) -> Result<ClientConfig, RootsError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            let why = add_system(&mut store);
            if store.is_empty() {
                return Err(RootsError::System(why));
            }
        }
        Roots::SystemAnd(pem) => {
            add(&mut store, pem)?;
            add_system(&mut store);
        }
        Roots::Only(pem) => add(&mut store, pem)?,
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RootsError::System(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Adds what the system has; says in words what could not be read.
fn add_system(store: &mut RootCertStore) -> String {
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    let first = found.errors.first();
    first.map_or_else(|| "nothing found".to_owned(), ToString::to_string)
}

/// Adds every certificate of a PEM text. One that cannot be read is an error: it was meant.
fn add(store: &mut RootCertStore, pem: &str) -> Result<(), RootsError> {
    let before = store.len();
    for (index, read) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let broken = |why: String| RootsError::Broken {
            number: index + 1,
            why,
        };
        let certificate = read.map_err(|error| broken(error.to_string()))?;
        store
            .add(certificate)
            .map_err(|error| broken(error.to_string()))?;
    }
    if store.len() == before {
        return Err(RootsError::Empty);
    }
    Ok(())
}
