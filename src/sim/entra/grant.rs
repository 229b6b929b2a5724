//! The form of a token request: what is asked, for whom, and the answer's fields.
//!
//! In: the body of a `client_credentials` request. Out: its fields or the refusal with Entra's `AADSTS…` code. Form of
//! requests and answers: RFC 6749 section 4.4, and "Client credentials flow" of the Microsoft identity platform. Pure.

use serde_json::{Map, Value, json};

use super::refusal::{Refusal, Words};
use crate::sim::imds::decode;
use crate::sim::token::Token;

/// A decoded form.
pub(super) struct Form(Vec<(String, String)>);

fn refuse(code: u32, value: &str) -> Refusal {
    let words = Words {
        value,
        ..Words::default()
    };
    Refusal::of(code, &words)
}

impl Form {
    pub fn of(body: &str) -> Self {
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        let decoded = pairs.map(|(name, value)| (decode(name, true), decode(value, true)));
        Self(decoded.collect())
    }

    /// The field, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, value)| other == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The field, or the refusal that names it.
    pub fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| refuse(900_144, name))
    }

    /// That it asks for `client_credentials`, and nothing twice.
    pub fn check(&self) -> Result<(), Refusal> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|(other, _)| other == name) {
                return Err(refuse(9_000_411, name));
            }
        }
        match self.need("grant_type")? {
            "client_credentials" => Ok(()),
            other => Err(refuse(70_003, other)),
        }
    }

    /// The resource asked for: version 2 has it in `scope`, version 1 in `resource`. Byte for byte.
    pub fn resource(&self, v2: bool) -> Result<&str, Refusal> {
        if !v2 {
            return self.need("resource");
        }
        let scope = self.need("scope")?;
        let resource = scope.strip_suffix("/.default");
        resource.ok_or_else(|| refuse(1_002_012, scope))
    }

    /// The `claims` parameter, which is JSON (`OpenID` Connect Core 1.0 section 5.5).
    pub fn claims(&self) -> Result<Option<Value>, Refusal> {
        let Some(text) = self.get("claims") else {
            return Ok(None);
        };
        let claims: Option<Value> = serde_json::from_str(text).ok();
        match claims.filter(Value::is_object) {
            Some(claims) => Ok(Some(claims)),
            None => Err(refuse(9_000_410, "")),
        }
    }
}

/// The client's capabilities that a `claims` parameter asks to have in the token (`xms_cc`).
pub(super) fn capabilities(claims: Option<&Value>) -> Vec<String> {
    let values = claims.map(|claims| &claims["access_token"]["xms_cc"]["values"]);
    let values = values.and_then(Value::as_array).into_iter().flatten();
    values
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}

/// The answer's fields: numbers in version 2, strings and more of them in version 1.
pub(super) fn body(token: &Token, resource: &str, v2: bool, now: i64) -> Map<String, Value> {
    let left = token.expires_on - now;
    let fields = if v2 {
        json!({
            "access_token": &*token.jwt,
            "expires_in": left,
            "ext_expires_in": left,
            "token_type": "Bearer",
        })
    } else {
        json!({
            "access_token": &*token.jwt,
            "expires_in": left.to_string(),
            "expires_on": token.expires_on.to_string(),
            "ext_expires_in": left.to_string(),
            "not_before": token.not_before.to_string(),
            "resource": resource,
            "token_type": "Bearer",
        })
    };
    fields.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_taken_byte_for_byte() {
        for (scope, want) in [
            ("https://r/.default", "https://r"),
            ("https://r//.default", "https://r/"),
            ("api%3A%2F%2Fx%2F.default", "api://x"),
        ] {
            let form = Form::of(&format!("scope={scope}&resource=other"));
            assert_eq!(form.resource(true), Ok(want));
            assert_eq!(form.resource(false), Ok("other"));
        }
        let refused = Form::of("scope=https://r").resource(true).unwrap_err();
        assert_eq!(refused.code, 1_002_012);
    }

    #[test]
    fn claims_are_an_object_and_may_ask_for_capabilities() {
        let form = Form::of(r#"claims={"access_token":{"xms_cc":{"values":["cp1"]}}}"#);
        assert_eq!(capabilities(form.claims().unwrap().as_ref()), ["cp1"]);
        assert_eq!(Form::of("claims=").claims(), Ok(None));
        for text in ["claims=x", "claims=[1]"] {
            assert_eq!(Form::of(text).claims().unwrap_err().code, 9_000_410);
        }
    }
}
