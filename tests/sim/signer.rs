//! Keys, certificates and assertions as a client makes them: by the plain algorithms, without the library that the
//! simulator checks with, so that a mistake in that library's use shows.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};

use crate::world::TENANT;

/// The application of the shared world.
pub const ROBOT: &str = "cccccccc-0000-4000-8000-000000000001";

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A key pair with a certificate.
pub struct Signer {
    pub pem: String,
    pub der: Vec<u8>,
    pub key: KeyPair,
}

/// A certificate authority, to issue signers' certificates.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn signer(&self, common_name: &str) -> Signer {
        Signer::make(common_name, None, Some(self))
    }
}

impl Signer {
    /// With a self-signed certificate that is valid for long.
    pub fn new() -> Self {
        Self::make("robot", None, None)
    }

    /// With a certificate whose time is over.
    pub fn expired() -> Self {
        Self::make("robot", Some(2021), None)
    }

    fn make(common_name: &str, end: Option<i32>, by: Option<&Authority>) -> Self {
        let pair = rcgen::KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let names = &mut params.distinguished_name;
        names.push(DnType::CommonName, common_name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(end.unwrap_or(2090), 1, 1);
        let certificate = match by {
            Some(authority) => params.signed_by(&pair, &authority.issuer),
            None => params.self_signed(&pair),
        };
        let certificate = certificate.unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            key: KeyPair::from_pkcs8(&pair.serialize_der()).unwrap(),
        }
    }

    pub fn x5t(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der))
    }

    pub fn x5t_s256(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der))
    }

    /// SHA-1 in capital hexadecimal, as the portal shows it.
    pub fn thumbprint(&self) -> String {
        let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der);
        let digits = sum.as_ref().iter().map(|byte| format!("{byte:02X}"));
        digits.collect()
    }

    pub fn x5c(&self) -> String {
        STANDARD.encode(&self.der)
    }

    /// The certificate as it is put into a world file.
    pub fn yaml(&self) -> String {
        format!("{:?}", self.pem)
    }

    /// The public key as a JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        let public = self.key.public_key();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
            "n": encode(public.modulus().big_endian_without_leading_zero()),
            "e": encode(public.exponent().big_endian_without_leading_zero()),
        })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let padding: &'static dyn RsaEncoding = match header["alg"].as_str() {
            Some("PS256") => &RSA_PSS_SHA256,
            _ => &RSA_PKCS1_SHA256,
        };
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        self.key
            .sign(padding, &random, message.as_bytes(), &mut signature)
            .unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The right client assertion of the shared world's application, changed as the test likes.
    pub fn assertion(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": self.x5t_s256()});
        let mut claims = json!({
            "aud": format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"),
            "iss": ROBOT,
            "sub": ROBOT,
            "jti": format!("{:032x}", fastrand::u128(..)),
            "nbf": now() - 300,
            "exp": now() + 600,
        });
        change(&mut header, &mut claims);
        self.sign(&header, &claims)
    }
}
