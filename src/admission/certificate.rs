//! The webhook's certificate: two PEM files, looked at again and again, since kubelet replaces them.
//!
//! In: the paths of a chain and of its key. Out: a TLS configuration that always serves what was read
//! last. Blocks on the file system, for a few kilobytes. Invariant: files that cannot be used never take
//! the place of a certificate that could.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Kubelet itself takes up to a minute to bring a changed Secret.
const LOOK: Duration = Duration::from_secs(10);

/// Where the certificate is.
#[derive(Clone, Debug)]
pub struct Files {
    /// The chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// The leaf's private key, PEM (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A file holds no PEM of the kind that is needed.
    #[error("{}: no {what} in it ({source})", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not belong together, or the key is of no known kind.
    #[error("certificate and key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
}

/// What is served now.
#[derive(Debug)]
pub(super) struct Current {
    files: Files,
    provider: Arc<CryptoProvider>,
    read: ArcSwap<(Vec<u8>, Arc<CertifiedKey>)>,
}

impl Current {
    /// Reads it for the first time.
    pub(super) fn open(files: Files) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let read = ArcSwap::from_pointee(load(&files, &provider)?);
        Ok(Arc::new(Self {
            files,
            provider,
            read,
        }))
    }

    /// The TLS configuration.
    pub(super) fn tls(self: &Arc<Self>) -> Result<ServerConfig, CertificateError> {
        let config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        Ok(config)
    }

    /// Takes what is in the files now; whether it is another certificate.
    fn look(&self) -> Result<bool, CertificateError> {
        let found = load(&self.files, &self.provider)?;
        let another = found.0 != self.read.load().0;
        if another {
            self.read.store(Arc::new(found));
        }
        Ok(another)
    }

    /// Looks for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.look() {
                Ok(true) => tracing::info!("serving with another certificate"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the certificate stays what it was"),
            }
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read.load().1.clone())
    }
}

/// The certificate with the bytes that it was read from (the chain's: a key alone does not change).
fn load(
    files: &Files,
    provider: &CryptoProvider,
) -> Result<(Vec<u8>, Arc<CertifiedKey>), CertificateError> {
    let chain = file(&files.certificate)?;
    let pem = |what, path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, what, source }
    };
    let certificates = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem("certificate", &files.certificate))?;
    let key = PrivateKeyDer::from_pem_slice(&file(&files.key)?)
        .map_err(pem("private key", &files.key))?;
    let pair = CertifiedKey::from_der(certificates, key, provider)?;
    Ok((chain, Arc::new(pair)))
}

fn file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &Files, key: &rcgen::KeyPair, signer: &rcgen::KeyPair) -> Vec<u8> {
        let params = rcgen::CertificateParams::new(vec!["webhook.test".to_owned()]).unwrap();
        let pem = params.self_signed(signer).unwrap().pem();
        std::fs::write(&files.certificate, &pem).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        pem.into_bytes()
    }

    #[test]
    fn a_changed_certificate_is_served_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
        };
        assert!(matches!(
            Current::open(files.clone()),
            Err(CertificateError::File { .. })
        ));
        let (one, two) = (
            rcgen::KeyPair::generate().unwrap(),
            rcgen::KeyPair::generate().unwrap(),
        );
        write(&files, &one, &one);
        let current = Current::open(files.clone()).unwrap();
        assert!(!current.look().unwrap());
        let second = write(&files, &two, &two);
        assert!(current.look().unwrap());
        assert_eq!(current.read.load().0, second);
        write(&files, &one, &two);
        assert!(matches!(current.look(), Err(CertificateError::Pair(_))));
        std::fs::write(&files.key, "nothing").unwrap();
        assert!(matches!(current.look(), Err(CertificateError::Pem { .. })));
        assert_eq!(current.read.load().0, second, "what worked stays");
    }
}
