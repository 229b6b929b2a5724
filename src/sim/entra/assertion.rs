//! A JWT that a client presents to prove itself: taken apart, not yet believed.
//!
//! In: the text of `client_assertion`. Out: header, claims, and whether a key has signed it, each check on its own,
//! so that each has a refusal of its own. Pure. Source: RFC 7515, RFC 7519, RFC 7523 section 3.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::refusal::{Refusal, Words};

/// Clock difference that Entra forgives, in seconds.
pub(super) const SKEW: i64 = 300;

/// The header's fields that matter. All optional: what lacks is for the checks to name.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    pub alg: String,
    #[serde(default)]
    pub kid: Option<String>,
    /// SHA-1 of the certificate, base64url.
    #[serde(default)]
    x5t: Option<String>,
    /// SHA-256 of the certificate, base64url.
    #[serde(default, rename = "x5t#S256")]
    x5t_s256: Option<String>,
    /// The certificate and its chain, base64 of the DER each.
    #[serde(default)]
    x5c: Vec<String>,
}

/// The claims that matter.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub sub: String,
    #[serde(default)]
    pub aud: Audience,
    pub exp: Option<i64>,
    pub nbf: Option<i64>,
    pub jti: Option<String>,
}

/// `aud`: one, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audience {
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(all) => all,
        }
    }
}

/// A presented JWT.
#[derive(Debug)]
pub(super) struct Assertion<'a> {
    /// What is signed.
    message: &'a str,
    signature: &'a str,
    pub header: Header,
    pub claims: Claims,
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl<'a> Assertion<'a> {
    /// Takes a JWT apart; refuses what is none (AADSTS50027).
    pub fn parse(jwt: &'a str) -> Result<Self, Refusal> {
        let malformed = || Refusal::of(50_027, &Words::default());
        let (message, signature) = jwt.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = message.split_once('.').ok_or_else(malformed)?;
        Ok(Self {
            message,
            signature,
            header: part(header).ok_or_else(malformed)?,
            claims: part(claims).ok_or_else(malformed)?,
        })
    }

    /// Its algorithm, if it is one of those (AADSTS5002738).
    pub fn algorithm(&self, allowed: &[&str]) -> Result<Algorithm, Refusal> {
        let name = self.header.alg.as_str();
        let known = match name {
            "PS256" => Some(Algorithm::PS256),
            "RS256" => Some(Algorithm::RS256),
            _ => None,
        };
        known.filter(|_| allowed.contains(&name)).ok_or_else(|| {
            let words = Words {
                value: name,
                more: &allowed.join(", "),
                ..Words::default()
            };
            Refusal::of(5_002_738, &words)
        })
    }

    /// Whether it is valid at `now` (AADSTS700024). Entra sets no limit to how long.
    pub fn check_time(&self, now: i64) -> Result<(), Refusal> {
        let Some(expires) = self.claims.exp else {
            let words = Words {
                value: "The 'exp' claim is missing.",
                ..Words::default()
            };
            return Err(Refusal::of(50_027, &words));
        };
        let begins = self.claims.nbf.unwrap_or_default();
        if expires.saturating_add(SKEW) > now && begins.saturating_sub(SKEW) <= now {
            return Ok(());
        }
        let time = |second| {
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            time.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string()
        };
        let value = format!(
            "Current time: {}, assertion valid from {}, expiry time of assertion {}",
            time(now),
            time(begins),
            time(expires),
        );
        let words = Words {
            value: &value,
            ..Words::default()
        };
        Err(Refusal::of(700_024, &words))
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &DecodingKey, algorithm: Algorithm) -> bool {
        jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, algorithm)
            .unwrap_or(false)
    }

    /// The certificate's thumbprints that it names: SHA-256, SHA-1.
    pub fn thumbprints(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let decode = |text: &Option<String>| {
            let text = text.as_ref()?.trim_end_matches('=');
            URL_SAFE_NO_PAD.decode(text).ok()
        };
        (decode(&self.header.x5t_s256), decode(&self.header.x5t))
    }

    /// The certificates it carries, its signer's first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let decode = |text: &String| Some(STANDARD.decode(text).ok()?.into());
        self.header.x5c.iter().filter_map(decode).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(claims))
    }

    #[test]
    fn what_is_no_jwt_is_refused() {
        for text in ["", "a.b", "a.b.c", &jwt("[]", "{}"), &jwt("{}", "{}")] {
            assert_eq!(Assertion::parse(text).unwrap_err().code, 50_027, "{text}");
        }
    }

    #[test]
    fn five_minutes_are_forgiven_and_no_second_more() {
        let text = jwt(r#"{"alg":"RS256"}"#, r#"{"aud":"a","nbf":1000,"exp":2000}"#);
        let assertion = Assertion::parse(&text).unwrap();
        assert_eq!(assertion.claims.aud.all(), ["a"]);
        for now in [700, 1500, 2299] {
            assert_eq!(assertion.check_time(now), Ok(()), "{now}");
        }
        for now in [699, 2300] {
            let refusal = assertion.check_time(now).unwrap_err();
            assert_eq!(refusal.code, 700_024, "{now}");
            let named = "expiry time of assertion 1970-01-01T00:33:20.0000000Z";
            assert!(refusal.message.contains(named), "{}", refusal.message);
        }
        let text = jwt(r#"{"alg":"RS256"}"#, r#"{"aud":["a","b"]}"#);
        let endless = Assertion::parse(&text).unwrap();
        assert_eq!(endless.claims.aud.all(), ["a", "b"]);
        assert_eq!(endless.check_time(0).unwrap_err().code, 50_027);
    }

    #[test]
    fn the_algorithm_is_one_of_those_allowed() {
        let with = |alg: &str| jwt(&format!(r#"{{"alg":"{alg}"}}"#), "{}");
        let check = |alg: &str, allowed: &[&str]| {
            let text = with(alg);
            let assertion = Assertion::parse(&text).unwrap();
            assertion
                .algorithm(allowed)
                .map_err(|refusal| refusal.message)
        };
        assert_eq!(check("PS256", &["PS256", "RS256"]), Ok(Algorithm::PS256));
        for alg in ["none", "HS256", "PS256"] {
            let message = check(alg, &["RS256"]).unwrap_err();
            assert!(message.contains(&format!("'{alg}' is not")), "{message}");
            assert!(message.contains("are: 'RS256'"), "{message}");
        }
    }
}
