//! The webhook's own certificates: signed here, in memory, with the authority that the API server was
//! told to trust.
//!
//! In: the authority's certificate and key (PEM), a host name, `now`. Out: a leaf with its key, and when
//! the next one is due. Pure, but for the randomness of keys. Nothing of it is written anywhere: the
//! process needs no right to renew its certificate, and neither its authority nor what the API server
//! trusts changes by that.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Clocks of API servers may be that far behind ours.
const CLOCKS_DIFFER: Duration = Duration::from_hours(1);

/// Why no certificate can be signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// There is no PEM of that kind.
    #[error("the authority has no {what} in PEM: {source}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate is none of X.509.
    #[error("the authority's certificate cannot be read")]
    Malformed,
    /// It is a certificate that API servers would accept nothing of.
    #[error("the authority's certificate is no certificate of an authority (basicConstraints CA)")]
    NoAuthority,
    /// Another authority's key.
    #[error("the authority's key is not the one of its certificate")]
    OtherKey,
    /// It has ended.
    #[error("the authority's certificate has ended at {0}: `helm upgrade` makes another one")]
    Ended(Timestamp),
    /// The library refused.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
}

/// Who signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ends: Timestamp,
}

/// A certificate with its key.
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
    /// When the next one is to take its place: after two thirds of its life.
    pub(super) due: Timestamp,
}

impl Authority {
    /// Reads it from PEM texts: a certificate (the first one counts) and its key (PKCS#8, PKCS#1 or SEC1).
    pub(super) fn read(certificate: &[u8], key: &[u8]) -> Result<Self, IssueError> {
        let pem = |what| move |source| IssueError::Pem { what, source };
        let der = CertificateDer::from_pem_slice(certificate).map_err(pem("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("private key"))?;
        let key = KeyPair::try_from(&key)?;
        let read = x509_parser::parse_x509_certificate(&der);
        let (_, read) = read.map_err(|_| IssueError::Malformed)?;
        if !read.is_ca() {
            return Err(IssueError::NoAuthority);
        }
        if read.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(IssueError::OtherKey);
        }
        let ends = Timestamp::from_second(read.validity().not_after.timestamp());
        let ends = ends.map_err(|_| IssueError::Malformed)?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, ends })
    }

    /// A new key and its certificate for that host, for `life` or for as long as the authority's lasts.
    pub(super) fn leaf(
        &self,
        host: &str,
        life: Duration,
        now: Timestamp,
    ) -> Result<Leaf, IssueError> {
        let left = Duration::try_from(self.ends.duration_since(now)).unwrap_or_default();
        if left.is_zero() {
            return Err(IssueError::Ended(self.ends));
        }
        let life = life.min(left);
        let mut leaf = CertificateParams::new(vec![host.to_owned()])?;
        // Not the host: a common name has no room for every name that a Service may have.
        leaf.distinguished_name
            .push(DnType::CommonName, "lanyard admission");
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let begins = epoch + Duration::from_secs(now.as_second().unsigned_abs());
        leaf.not_before = begins - CLOCKS_DIFFER;
        leaf.not_after = begins + life;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Leaf {
            certificate,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            due: now + life * 2 / 3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "lanyard-admission.lanyard-system.svc";
    const DAY: Duration = Duration::from_hours(24);

    fn authority(ends: (i32, u8, u8), is_ca: bool) -> (String, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        if is_ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests, and nobody else");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(ends.0, ends.1, ends.2);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key)
    }

    fn read(pem: &str, key: &KeyPair) -> Result<Authority, IssueError> {
        Authority::read(pem.as_bytes(), key.serialize_pem().as_bytes())
    }

    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_leaf_is_for_the_host_and_by_the_authority_and_due_before_it_ends() {
        let (pem, key) = authority((2036, 1, 1), true);
        let leaf = read(&pem, &key).unwrap();
        let leaf = leaf.leaf(HOST, 90 * DAY, now()).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(&leaf.certificate).unwrap();
        let by = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, by) = x509_parser::parse_x509_certificate(&by).unwrap();
        // Go compares the bytes.
        assert_eq!(read.issuer().as_raw(), by.subject().as_raw());
        read.verify_signature(Some(by.public_key())).unwrap();
        let names = read.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names,
            [x509_parser::extensions::GeneralName::DNSName(HOST)]
        );
        let (begins, ends) = (read.validity().not_before, read.validity().not_after);
        let second = now().as_second();
        assert_eq!(begins.timestamp(), second - 3600);
        assert_eq!(ends.timestamp(), second + 90 * 24 * 3600);
        assert_eq!(leaf.due.as_second(), second + 60 * 24 * 3600);
        assert!(!read.is_ca());
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority_and_an_ended_one_signs_none() {
        let (pem, key) = authority((2026, 6, 3), true);
        let authority = read(&pem, &key).unwrap();
        let leaf = authority.leaf(HOST, 90 * DAY, now()).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(&leaf.certificate).unwrap();
        let ends = "2026-06-03T00:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(read.validity().not_after.timestamp(), ends.as_second());
        assert!(leaf.due < ends);
        let ended = authority.leaf(HOST, DAY, ends);
        assert!(matches!(ended, Err(IssueError::Ended(_))));
    }

    #[test]
    fn what_is_no_authority_is_refused_with_its_fault() {
        let (pem, key) = authority((2036, 1, 1), true);
        let (plain, plains) = authority((2036, 1, 1), false);
        let told = |result: Result<Authority, IssueError>| result.err().unwrap().to_string();
        assert!(told(read(&plain, &plains)).contains("no certificate of an authority"));
        assert!(told(read(&pem, &plains)).contains("not the one of its certificate"));
        assert!(told(Authority::read(b"", b"")).contains("no certificate in PEM"));
        assert!(told(Authority::read(pem.as_bytes(), b"x")).contains("no private key in PEM"));
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(told(read(broken, &key)).contains("cannot be read"));
    }
}
