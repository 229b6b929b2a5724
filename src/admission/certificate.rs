//! The webhook's certificate: read from two PEM files, or signed by itself with an authority that is
//! read from two. Files are looked at again and again, since kubelet replaces them.
//!
//! In: the paths, and whether they hold the certificate itself or its authority. Out: a TLS configuration
//! that always serves what is newest. Blocks on the file system, for a few kilobytes. Invariant: what
//! cannot be used never takes the place of a certificate that could.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::issue::{Authority, IssueError};
use super::metrics::Metrics;
use crate::serve::clock;

/// Kubelet itself takes up to a minute to bring a changed Secret.
const LOOK: Duration = Duration::from_secs(10);
/// Of something that is due: not in a circle.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The files hold it: somebody else renews it.
    Files(Files),
    /// The files hold an authority, which signs one for `host` that lives for `life`.
    Issued {
        /// The authority.
        authority: Files,
        /// The name that API servers call the webhook by.
        host: String,
        /// How long each certificate lasts; the next one comes after two thirds of it.
        life: Duration,
    },
}

/// Two files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// The first one's private key, PEM (PKCS#8, PKCS#1 or SEC1).
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
    /// The authority signs nothing.
    #[error("{}: {source}", path.display())]
    Issue {
        /// The authority's certificate.
        path: PathBuf,
        /// What is wrong.
        source: IssueError,
    },
}

/// What is served now.
#[derive(Debug)]
pub(super) struct Current {
    source: Source,
    provider: Arc<CryptoProvider>,
    served: ArcSwap<Served>,
}

#[derive(Debug)]
struct Served {
    /// The bytes that it was made from (the chain's: a key alone does not change).
    origin: Vec<u8>,
    pair: Arc<CertifiedKey>,
    /// When it is to be signed anew; `None` where somebody else renews it.
    due: Option<Timestamp>,
}

impl Current {
    /// Reads it, or signs it, for the first time.
    pub(super) fn open(source: Source) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let origin = source.read()?;
        let served = source.serve(origin, clock::now(), &provider)?;
        Ok(Arc::new(Self {
            source,
            provider,
            served: ArcSwap::from_pointee(served),
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

    /// Takes what is in the files now, and signs anew what is due; whether it is another certificate.
    fn look(&self, now: Timestamp) -> Result<bool, CertificateError> {
        let origin = self.source.read()?;
        let served = self.served.load();
        let is_due = served.due.is_some_and(|due| due <= now);
        if origin == served.origin && !is_due {
            return Ok(false);
        }
        let another = self.source.serve(origin, now, &self.provider)?;
        self.served.store(Arc::new(another));
        Ok(true)
    }

    /// When the certificate ends that is served.
    fn ends(&self) -> Option<Timestamp> {
        let served = self.served.load();
        let leaf = served.pair.cert.first()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
        Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()
    }

    /// Looks for ever, and tells how long what is served lasts.
    pub(super) async fn follow(self: Arc<Self>, metrics: Metrics) {
        loop {
            if let Some(ends) = self.ends() {
                metrics.serving_until(ends);
            }
            let due = self.served.load().due;
            let left = due.map(|due| Duration::try_from(due.duration_since(clock::now())));
            let left = left.map_or(LOOK, |left| left.unwrap_or(AT_ONCE).max(AT_ONCE));
            tokio::time::sleep(left.min(LOOK)).await;
            match self.look(clock::now()) {
                Ok(true) => {
                    let due = self.served.load().due.map(tracing::field::display);
                    tracing::info!(due, "serving with another certificate");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the certificate stays what it was"),
            }
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load().pair.clone())
    }
}

impl Source {
    fn files(&self) -> &Files {
        match self {
            Self::Files(files) => files,
            Self::Issued { authority, .. } => authority,
        }
    }

    /// What a certificate is made from.
    fn read(&self) -> Result<Vec<u8>, CertificateError> {
        file(&self.files().certificate)
    }

    fn serve(
        &self,
        origin: Vec<u8>,
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<Served, CertificateError> {
        let key = file(&self.files().key)?;
        let (pair, due) = match self {
            Self::Files(files) => (load(files, &origin, &key, provider)?, None),
            Self::Issued {
                authority,
                host,
                life,
            } => {
                let issued = Authority::read(&origin, &key);
                let issued = issued.and_then(|authority| authority.leaf(host, *life, now));
                let leaf = issued.map_err(|source| CertificateError::Issue {
                    path: authority.certificate.clone(),
                    source,
                })?;
                let chain = vec![leaf.certificate];
                let pair = CertifiedKey::from_der(chain, leaf.key, provider)?;
                (pair, Some(leaf.due))
            }
        };
        Ok(Served {
            origin,
            pair: Arc::new(pair),
            due,
        })
    }
}

/// A certificate as somebody else made it.
fn load(
    files: &Files,
    chain: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let pem = |what, path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, what, source }
    };
    let certificates = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem("certificate", &files.certificate))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("private key", &files.key))?;
    Ok(CertifiedKey::from_der(certificates, key, provider)?)
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
            Current::open(Source::Files(files.clone())),
            Err(CertificateError::File { .. })
        ));
        let now = clock::now();
        let (one, two) = (
            rcgen::KeyPair::generate().unwrap(),
            rcgen::KeyPair::generate().unwrap(),
        );
        write(&files, &one, &one);
        let current = Current::open(Source::Files(files.clone())).unwrap();
        assert!(!current.look(now).unwrap());
        let second = write(&files, &two, &two);
        assert!(current.look(now).unwrap());
        assert_eq!(current.served.load().origin, second);
        write(&files, &one, &two);
        assert!(matches!(current.look(now), Err(CertificateError::Pair(_))));
        std::fs::write(&files.key, "nothing").unwrap();
        assert!(matches!(
            current.look(now),
            Err(CertificateError::Pem { .. })
        ));
        assert_eq!(current.served.load().origin, second, "what worked stays");
    }

    fn authority(files: &Files) -> rcgen::KeyPair {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        key
    }

    #[test]
    fn an_issued_certificate_rolls_when_it_is_due_or_its_authority_changes() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
        };
        authority(&files);
        let current = Current::open(Source::Issued {
            authority: files.clone(),
            host: "webhook.test".to_owned(),
            life: Duration::from_hours(3),
        })
        .unwrap();
        let leaf = || current.served.load().pair.cert.clone();
        let (first, now) = (leaf(), clock::now());
        assert!(!current.look(now).unwrap());
        assert_eq!(leaf(), first, "it was signed anew for nothing");
        let due = current.served.load().due.unwrap();
        let life = current.ends().unwrap().duration_since(now);
        assert!(life.as_secs().abs_diff(3 * 3600) < 60, "{life:?}");
        assert!(!current.look(due - Duration::from_secs(1)).unwrap());
        assert!(current.look(due).unwrap());
        let second = leaf();
        assert_ne!(second, first);
        assert!(current.served.load().due.unwrap() > due);
        authority(&files);
        assert!(current.look(due).unwrap(), "another authority");
        let third = leaf();
        assert_ne!(third, second);
        // Half of a replaced Secret: what worked stays, and the other half ends that.
        let (certificate, key) = (files.certificate.clone(), authority(&files));
        let whole = std::fs::read(&certificate).unwrap();
        std::fs::write(
            &files.key,
            rcgen::KeyPair::generate().unwrap().serialize_pem(),
        )
        .unwrap();
        assert!(matches!(
            current.look(due),
            Err(CertificateError::Issue { .. })
        ));
        assert_eq!(leaf(), third);
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        assert_eq!(std::fs::read(&certificate).unwrap(), whole);
        assert!(current.look(due).unwrap());
    }
}
