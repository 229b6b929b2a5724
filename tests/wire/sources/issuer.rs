//! Signs service accounts' tokens as a cluster does, and publishes the key.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const KID: &str = "cluster-key";

/// One RSA key.
pub struct Signer {
    key: EncodingKey,
    jwk: Jwk,
}

impl Signer {
    pub fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = super::certificates::pem("PRIVATE KEY", der.as_ref());
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        jwk.common.key_id = Some(KID.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Self { key, jwk }
    }

    /// The published keys.
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// A token bound to a pod (name and UID), and when it ends, as RFC 3339.
    pub fn token(
        &self,
        issuer: &str,
        subject: &str,
        audiences: &Value,
        seconds: i64,
        pod: (&str, &str),
    ) -> (String, String) {
        let now = jiff::Timestamp::now().as_second();
        let end = jiff::Timestamp::from_second(now + seconds).unwrap();
        let claims = json!({
            "iss": issuer, "sub": subject, "aud": audiences,
            "iat": now, "nbf": now, "exp": end.as_second(),
            "kubernetes.io": {"pod": {"name": pod.0, "uid": pod.1}},
        });
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(KID.to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.key).unwrap();
        (token, end.to_string())
    }
}
