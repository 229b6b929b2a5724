//! X.509 certificates as Entra registers them with an application.
//!
//! In: PEM text or DER bytes. Out: both thumbprints, the RSA public key, the common name, the times of validity.
//! Only RSA keys: Entra takes no other. Says what is wrong with a PEM, and what would be right. Pure.
//! Source: RFC 5280 section 4.1; RFC 7515 sections 4.1.7 and 4.1.8 for the thumbprints.

mod der;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use jsonwebtoken::DecodingKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use der::Reader;

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// `rsaEncryption`, 1.2.840.113549.1.1.1.
const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is no certificate in the text.
    #[error("no certificate; give PEM that has a `BEGIN CERTIFICATE` block")]
    Pem,
    /// The bytes are not an X.509 certificate.
    #[error("not an X.509 certificate")]
    Malformed,
    /// The key is none that Entra takes.
    #[error("its key is not RSA, and Entra takes no other")]
    NotRsa,
}

/// A certificate, looked into.
pub(super) struct Certificate {
    pub der: CertificateDer<'static>,
    /// SHA-1 of the DER; `x5t`, and what the portal shows as thumbprint.
    pub sha1: Vec<u8>,
    /// SHA-256 of the DER; `x5t#S256`.
    pub sha256: Vec<u8>,
    pub key: DecodingKey,
    /// The subject's common name; empty where it has none.
    pub common_name: String,
    /// Validity in epoch seconds, both ends included.
    pub not_before: i64,
    pub not_after: i64,
}

impl Certificate {
    /// The first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        Self::from_der(der.map_err(|_| CertificateError::Pem)?)
    }

    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let parts = Parts::of(&der).ok_or(CertificateError::Malformed)?;
        let key = parts.rsa_key().ok_or(CertificateError::NotRsa)?;
        let time = |element| parse_time(element).ok_or(CertificateError::Malformed);
        Ok(Self {
            sha1: digest(&SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref().to_vec(),
            sha256: digest(&SHA256, &der).as_ref().to_vec(),
            key: DecodingKey::from_rsa_der(key),
            common_name: parts.common_name().unwrap_or_default(),
            not_before: time(parts.not_before)?,
            not_after: time(parts.not_after)?,
            der,
        })
    }

    /// The thumbprint as Azure's portal shows it: SHA-1, capital hexadecimal.
    pub fn thumbprint(&self) -> String {
        hex(&self.sha1).to_ascii_uppercase()
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes all that is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The fields of a certificate that matter here, still encoded.
struct Parts<'a> {
    not_before: (u8, &'a [u8]),
    not_after: (u8, &'a [u8]),
    subject: &'a [u8],
    public_key: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(der: &'a [u8]) -> Option<Self> {
        let certificate = Reader::new(der).expect(der::SEQUENCE)?;
        let mut body = Reader::new(Reader::new(certificate).expect(der::SEQUENCE)?);
        if body.tag() == Some(der::VERSION) {
            body.next()?;
        }
        let (_serial, _algorithm, _issuer) = (body.next()?, body.next()?, body.next()?);
        let mut validity = Reader::new(body.expect(der::SEQUENCE)?);
        Some(Self {
            not_before: validity.next()?,
            not_after: validity.next()?,
            subject: body.expect(der::SEQUENCE)?,
            public_key: body.expect(der::SEQUENCE)?,
        })
    }

    /// The key as PKCS#1 has it, which is what the bit string of an RSA key holds.
    fn rsa_key(&self) -> Option<&'a [u8]> {
        let mut info = Reader::new(self.public_key);
        let algorithm = Reader::new(info.expect(der::SEQUENCE)?).expect(der::OBJECT_ID)?;
        let (unused_bits, key) = info.expect(der::BIT_STRING)?.split_first()?;
        (algorithm == RSA && *unused_bits == 0).then_some(key)
    }

    fn common_name(&self) -> Option<String> {
        let mut names = Reader::new(self.subject);
        while let Some(set) = names.expect(der::SET) {
            let mut attribute = Reader::new(Reader::new(set).expect(der::SEQUENCE)?);
            if attribute.expect(der::OBJECT_ID)? == COMMON_NAME {
                return Some(String::from_utf8_lossy(attribute.next()?.1).into_owned());
            }
        }
        None
    }
}

/// Epoch seconds of a `Time` of RFC 5280 section 4.1.2.5: always UTC, always with seconds.
fn parse_time((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let full = match tag {
        der::GENERALIZED_TIME => text.to_owned(),
        // Two digits of a year: 1950 to 2049.
        der::UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        der::UTC_TIME => format!("19{text}"),
        _ => return None,
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", full).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let names = &mut params.distinguished_name;
        names.push(DnType::OrganizationName, "contoso");
        names.push(DnType::CommonName, "robot.contoso.com");
        params.not_before = rcgen::date_time_ymd(2020, 2, 3);
        params.not_after = rcgen::date_time_ymd(2051, 1, 2);
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn names_times_and_thumbprints_are_found() {
        let found = Certificate::from_pem(&certificate(&PKCS_RSA_SHA256)).unwrap();
        assert_eq!(found.common_name, "robot.contoso.com");
        assert_eq!(found.not_before, 1_580_688_000);
        assert_eq!(found.not_after, 2_556_230_400, "beyond 2050 in four digits");
        assert_eq!((found.sha1.len(), found.sha256.len()), (20, 32));
        assert_eq!(found.thumbprint().len(), 40);
    }

    #[test]
    fn what_entra_would_not_take_is_told_apart() {
        let not_rsa = Certificate::from_pem(&certificate(&PKCS_ECDSA_P256_SHA256));
        assert_eq!(not_rsa.err(), Some(CertificateError::NotRsa));
        let nothing = Certificate::from_pem("hello");
        assert_eq!(nothing.err(), Some(CertificateError::Pem));
        let broken = Certificate::from_der(vec![0x30, 3, 1, 2, 3].into());
        assert_eq!(broken.err(), Some(CertificateError::Malformed));
    }
}
