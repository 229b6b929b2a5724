//! Entra ID: what verifies a token, and how a request for one is refused.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use lanyard::sim::Simulator;
use lanyard::sim::faults::{Fault, Target};
use serde_json::Value;

use crate::client::{Answer, get, request, send, token_target};
use crate::world::{PAYMENTS, PAYMENTS_OID, TENANT, start};

async fn keys(simulator: &Simulator) -> JwkSet {
    let entra = simulator.addresses().entra.unwrap();
    let discovery = get(
        entra,
        &format!("/{TENANT}/v2.0/.well-known/openid-configuration"),
    )
    .await;
    let uri = discovery.json()["jwks_uri"].as_str().unwrap().to_owned();
    let path = uri
        .strip_prefix("https://login.microsoftonline.com")
        .unwrap();
    serde_json::from_slice(&get(entra, path).await.body).unwrap()
}

async fn token(simulator: &Simulator) -> String {
    let target = token_target(&format!("&client_id={PAYMENTS}"));
    let answer = get(simulator.addresses().imds.unwrap(), &target).await;
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// The claims, if one of the published keys has signed.
fn verify(token: &str, keys: &JwkSet) -> Option<Value> {
    let kid = decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid)?).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["https://vault.azure.net"]);
    validation.set_issuer(&[format!("https://sts.windows.net/{TENANT}/")]);
    Some(
        decode::<Value>(token, &key, &validation)
            .expect("a valid token")
            .claims,
    )
}

#[tokio::test]
async fn a_token_has_a_managed_identity_s_claims_and_verifies_by_the_published_keys() {
    let simulator = start("").await;
    let claims = verify(&token(&simulator).await, &keys(&simulator).await).unwrap();
    for (name, want) in [
        ("aud", "https://vault.azure.net"),
        ("oid", PAYMENTS_OID),
        ("sub", PAYMENTS_OID),
        ("appid", PAYMENTS),
        ("tid", TENANT),
        ("idtyp", "app"),
        ("ver", "1.0"),
    ] {
        assert_eq!(claims[name], want, "{name}");
    }
    assert!(
        claims["xms_mirid"]
            .as_str()
            .unwrap()
            .ends_with("/userAssignedIdentities/payments")
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        86_400
    );
    assert!(claims["nbf"].is_i64() && claims["uti"].is_string());
}

#[tokio::test]
async fn keys_roll_over_and_the_old_one_is_published_until_dropped() {
    let simulator = start("").await;
    let old = token(&simulator).await;
    let kid = simulator.roll_keys().unwrap();
    let new = token(&simulator).await;
    assert_eq!(
        decode_header(&new).unwrap().kid.unwrap(),
        kid,
        "the new key signs at once"
    );
    let both = keys(&simulator).await;
    assert_eq!(both.keys.len(), 2);
    assert!(verify(&old, &both).is_some() && verify(&new, &both).is_some());
    simulator.drop_old_keys();
    let left = keys(&simulator).await;
    assert_eq!(left.keys.len(), 1);
    assert!(verify(&old, &left).is_none() && verify(&new, &left).is_some());
}

#[tokio::test]
async fn both_discovery_documents_name_their_issuer() {
    let simulator = start("").await;
    let entra = simulator.addresses().entra.unwrap();
    let v1 = get(
        entra,
        &format!("/{TENANT}/.well-known/openid-configuration"),
    )
    .await
    .json();
    assert_eq!(v1["issuer"], format!("https://sts.windows.net/{TENANT}/"));
    let v2 = get(entra, "/common/v2.0/.well-known/openid-configuration")
        .await
        .json();
    assert_eq!(
        v2["issuer"],
        format!("https://login.microsoftonline.com/{TENANT}/v2.0")
    );
    assert_eq!(
        get(entra, "/common/discovery/keys").await.json()["keys"][0]["kty"],
        "RSA"
    );
}

async fn post(simulator: &Simulator, path: &str, form: &str) -> Answer {
    let text = format!(
        "POST /{path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    Answer::parse(
        &send(simulator.addresses().entra.unwrap(), &text)
            .await
            .unwrap(),
    )
}

const ROBOT: &str = "grant_type=client_credentials&client_id=CCCCCCCC-0000-4000-8000-000000000001";

#[tokio::test]
async fn an_application_gets_a_token_for_either_of_its_secrets() {
    let simulator = start("").await;
    let form = format!("{ROBOT}&client_secret=old&scope=https%3A%2F%2Fvault.azure.net%2F.default");
    let v2 = post(&simulator, &format!("{TENANT}/oauth2/v2.0/token"), &form)
        .await
        .json();
    assert!(v2["expires_in"].as_i64().unwrap() > 3000);
    let claims = verify(
        v2["access_token"].as_str().unwrap(),
        &keys(&simulator).await,
    )
    .unwrap();
    assert_eq!(claims["oid"], "cccccccc-0000-4000-8000-000000000002");
    assert!(claims.get("xms_mirid").is_none());
    let form = format!("{ROBOT}&client_secret=new&resource=https%3A%2F%2Fvault.azure.net");
    let v1 = post(&simulator, &format!("{TENANT}/oauth2/token"), &form)
        .await
        .json();
    assert_eq!(v1["resource"], "https://vault.azure.net");
    assert!(v1.as_object().unwrap().values().all(Value::is_string));
    let entry = simulator.journal().pop().unwrap();
    assert_eq!(
        (entry.identity.as_deref(), entry.status),
        (Some("robot"), Some(200))
    );
}

#[tokio::test]
async fn entra_s_tokens_have_faults_too() {
    let simulator = start("faults: [{target: entra, lifetime: 90s, count: 1}]").await;
    let form = format!("{ROBOT}&client_secret=old&scope=r/.default");
    let path = format!("{TENANT}/oauth2/v2.0/token");
    let short = post(&simulator, &path, &form).await.json();
    assert!(short["expires_in"].as_i64().unwrap() <= 90);
    simulator.add_fault(Fault::status(Target::Entra, 503).times(1));
    assert_eq!(post(&simulator, &path, &form).await.status, 503);
}

#[tokio::test]
async fn token_requests_are_refused_with_their_aadsts_code() {
    let simulator = start("").await;
    let entra = simulator.addresses().entra.unwrap();
    let robot = |rest: &str| format!("{ROBOT}{rest}");
    for (tenant, form, status, error, code) in [
        (TENANT, String::new(), 400, "invalid_request", 900_144),
        (
            TENANT,
            "grant_type=password&username=x".to_owned(),
            400,
            "unsupported_grant_type",
            70_003,
        ),
        (
            TENANT,
            "grant_type=client_credentials&client_id=a%2Db".to_owned(),
            400,
            "unauthorized_client",
            700_016,
        ),
        (TENANT, robot(""), 401, "invalid_client", 7_000_218),
        (
            TENANT,
            robot("&client_secret=wrong&scope=r/.default"),
            401,
            "invalid_client",
            7_000_215,
        ),
        (
            TENANT,
            robot("&client_secret=old&scope=r"),
            400,
            "invalid_scope",
            1_002_012,
        ),
        (
            TENANT,
            robot("&client_secret=old"),
            400,
            "invalid_request",
            900_144,
        ),
        (
            "ffffffff-0000-4000-8000-000000000001",
            "grant_type=x".to_owned(),
            400,
            "invalid_tenant",
            90_002,
        ),
    ] {
        let answer = post(&simulator, &format!("{tenant}/oauth2/v2.0/token"), &form).await;
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["error"]),
            (status, &Value::from(error)),
            "{form}"
        );
        assert_eq!(body["error_codes"][0], code, "{form}");
        let description = body["error_description"].as_str().unwrap();
        assert!(
            description.starts_with(&format!("AADSTS{code}: ")),
            "{description}"
        );
        assert!(body["trace_id"].is_string() && body["correlation_id"].is_string());
    }
    let get = request(entra, "GET", &format!("/{TENANT}/oauth2/token"), "").await;
    assert_eq!(get.json()["error_codes"][0], 900_561);
}
