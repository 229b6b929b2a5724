//! Client assertions: which certificate may sign what, and the `AADSTS` code of everything else.

use lanyard::sim::faults::{Fault, Target};
use lanyard::sim::{Exchange, Simulator};
use serde_json::{Value, json};

use crate::client::{Answer, request, send};
use crate::signer::{Authority, ROBOT, Signer, now};
use crate::world::{PAYMENTS, TENANT, start};

/// A world in which the application `robot` has what the YAML says.
pub async fn start_with(robot: &str, more: &str) -> Simulator {
    use lanyard::sim::{Listen, World};
    let text = crate::world::WORLD.replace(
        "    secrets: [old, new]\n",
        &format!("    secrets: [old, {{value: gone, expires: 2020-01-01T00:00:00Z}}]\n{robot}\n"),
    );
    let world = World::from_yaml(&format!("{text}\n{more}\n")).expect("a valid world");
    Simulator::start(world, Listen::loopback())
        .await
        .expect("a started simulator")
}

pub async fn post(simulator: &Simulator, path: &str, form: &str) -> Answer {
    let text = format!(
        "POST /{TENANT}/{path} HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let entra = simulator.addresses().entra.unwrap();
    Answer::parse(&send(entra, &text).await.unwrap())
}

pub async fn present(simulator: &Simulator, client: &str, jwt: &str, more: &str) -> Answer {
    let form = format!(
        "grant_type=client_credentials&client_id={client}&scope=https://vault.azure.net/.default\
         &client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer\
         &client_assertion={jwt}{more}"
    );
    post(simulator, "oauth2/v2.0/token", &form).await
}

/// The claims of a granted token; its signature is the business of others.
pub fn claims(answer: &Answer) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let token = json["access_token"].as_str().unwrap();
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Status and code of a refusal, and its words.
pub fn refusal(answer: &Answer) -> (u16, u64, String) {
    let body = answer.json();
    let code = body["error_codes"][0].as_u64().unwrap_or_default();
    let words = body["error_description"].as_str().unwrap_or_default();
    assert!(words.starts_with(&format!("AADSTS{code}: ")), "{words}");
    (answer.status, code, words.to_owned())
}

pub fn last_exchange(simulator: &Simulator) -> Exchange {
    let entry = simulator.journal().pop().unwrap();
    entry.exchange.unwrap()
}

type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);

#[tokio::test]
async fn a_registered_certificate_proves_the_application() {
    let signer = Signer::new();
    let certificates = format!("    certificates: [{}]", signer.yaml());
    let simulator = start_with(&certificates, "").await;
    let host = format!("http://h:1/{TENANT}/oauth2/v2.0/token");
    let issuer = format!("https://sts.windows.net/{TENANT}/");
    let government = format!("https://login.microsoftonline.us/{TENANT}/v2.0");
    let rs256: Change<'_> = &|header, _| header["alg"] = json!("RS256");
    let sha1: Change<'_> = &|header, _| {
        *header = json!({"alg": "PS256", "x5t": signer.x5t(), "x5c": [signer.x5c()]});
    };
    let here: Change<'_> = &|_, claims| claims["aud"] = json!(host);
    let named: Change<'_> = &|_, claims| claims["aud"] = json!([issuer, "other"]);
    let other_cloud: Change<'_> = &|_, claims| claims["aud"] = json!(government);
    let capital: Change<'_> = &|_, claims| claims["sub"] = json!(ROBOT.to_uppercase());
    let old: Change<'_> = &|_, claims| claims["exp"] = json!(now() - 290);
    for change in [rs256, sha1, here, named, other_cloud, capital, old] {
        let jwt = signer.assertion(change);
        let token = claims(&present(&simulator, ROBOT, &jwt, "").await);
        assert_eq!(token["appid"], ROBOT);
        assert_eq!(token["appidacr"], "2", "proved by more than a secret");
        assert!(token.get("xms_mirid").is_none());
        let exchange = last_exchange(&simulator);
        let want = format!("certificate:{}", signer.thumbprint());
        assert_eq!(exchange.credential, Some(want));
        assert!(exchange.jti.is_some());
    }
}

#[tokio::test]
async fn each_wrong_assertion_has_its_code() {
    let signer = Signer::new();
    let expired = Signer::expired();
    let certificates = format!("    certificates: [{}, {}]", signer.yaml(), expired.yaml());
    let simulator = start_with(&certificates, "").await;
    let stranger = Signer::new();
    let lie = |header: &mut Value, _: &mut Value| header["x5t#S256"] = json!(signer.x5t_s256());
    let set =
        |name: &'static str, value: Value| signer.assertion(move |_, claims| claims[name] = value);
    let head =
        |name: &'static str, value: Value| signer.assertion(move |header, _| header[name] = value);
    let v1_of_another = format!("https://login.microsoftonline.com/{ROBOT}/oauth2/token");
    let elsewhere = format!("https://login.example.com/{TENANT}/oauth2/v2.0/token");
    for (jwt, status, code, named) in [
        ("a.b.c".to_owned(), 400, 50_027, "malformed"),
        (
            stranger.assertion(|_, _| {}),
            401,
            700_027,
            "The key was not found",
        ),
        (
            stranger.assertion(lie),
            401,
            700_027,
            "verify the signature failed",
        ),
        (
            expired.assertion(|_, _| {}),
            401,
            700_027,
            "The key used is expired",
        ),
        (head("alg", json!("none")), 401, 5_002_738, "'none'"),
        (
            head("alg", json!("HS256")),
            401,
            5_002_738,
            "'PS256, RS256'",
        ),
        (head("x5t#S256", Value::Null), 400, 50_027, "thumbprint"),
        (set("sub", json!("another")), 401, 700_021, "'client_id'"),
        (set("aud", json!(v1_of_another)), 401, 700_023, "audience"),
        (set("aud", json!(elsewhere)), 401, 700_023, "audience"),
        (
            set("exp", json!(now() - 310)),
            401,
            700_024,
            "Current time: 20",
        ),
        (
            set("nbf", json!(now() + 310)),
            401,
            700_024,
            "assertion valid from",
        ),
        (set("exp", Value::Null), 400, 50_027, "'exp'"),
        (set("jti", Value::Null), 400, 50_027, "'jti'"),
    ] {
        let answer = present(&simulator, ROBOT, &jwt, "").await;
        let (got, found, words) = refusal(&answer);
        assert_eq!((got, found), (status, code), "{words}");
        assert!(words.contains(named), "{words}");
        assert_eq!(
            simulator.journal().pop().unwrap().aadsts.map(u64::from),
            Some(code)
        );
    }
}

#[tokio::test]
async fn an_assertion_is_taken_once() {
    let signer = Signer::new();
    let certificates = format!("    certificates: [{}]", signer.yaml());
    let simulator = start_with(&certificates, "").await;
    let jwt = signer.assertion(|_, claims| claims["jti"] = json!("one"));
    assert_eq!(present(&simulator, ROBOT, &jwt, "").await.status, 200);
    let (status, code, words) = refusal(&present(&simulator, ROBOT, &jwt, "").await);
    assert_eq!((status, code), (401, 50_013), "{words}");
    assert!(words.contains("'one'"), "{words}");
    // Another assertion with the same id is no better.
    let again = signer.assertion(|_, claims| claims["jti"] = json!("one"));
    assert_eq!(present(&simulator, ROBOT, &again, "").await.status, 401);
    // A refused assertion uses up no id.
    let early = |exp: i64| {
        signer.assertion(move |_, claims| {
            claims["jti"] = json!("two");
            claims["exp"] = json!(exp);
        })
    };
    assert_eq!(present(&simulator, ROBOT, &early(0), "").await.status, 401);
    let late = early(now() + 60);
    assert_eq!(present(&simulator, ROBOT, &late, "").await.status, 200);
}

#[tokio::test]
async fn an_authority_may_refuse_an_algorithm() {
    let signer = Signer::new();
    let certificates = format!("    certificates: [{}]", signer.yaml());
    let simulator = start_with(&certificates, "entra: {assertionAlgorithms: [RS256]}").await;
    let jwt = signer.assertion(|_, _| {});
    let (status, code, words) = refusal(&present(&simulator, ROBOT, &jwt, "").await);
    assert_eq!((status, code), (401, 5_002_738));
    assert!(
        words.contains("'PS256' is not") && words.contains("'RS256'"),
        "{words}"
    );
    let jwt = signer.assertion(|header, _| header["alg"] = json!("RS256"));
    assert_eq!(present(&simulator, ROBOT, &jwt, "").await.status, 200);
}

#[tokio::test]
async fn a_name_and_issuer_registration_wants_the_chain() {
    let (authority, impostor) = (Authority::new("contoso CA"), Authority::new("contoso CA"));
    let subjects = format!(
        "    certificateSubjects: [{{subject: robot.contoso.com, authority: {:?}}}]",
        authority.pem
    );
    let simulator = start_with(&subjects, "").await;
    let with_chain = |signer: &Signer| {
        let chain = json!([signer.x5c()]);
        signer.assertion(|header, _| header["x5c"] = chain)
    };
    let signer = authority.signer("robot.contoso.com");
    let answer = present(&simulator, ROBOT, &with_chain(&signer), "").await;
    assert_eq!(claims(&answer)["appid"], ROBOT);
    // The renewed certificate needs no registration.
    let renewed = authority.signer("robot.contoso.com");
    let answer = present(&simulator, ROBOT, &with_chain(&renewed), "").await;
    assert_eq!(answer.status, 200);
    for (jwt, code) in [
        (signer.assertion(|_, _| {}), 700_027),
        (with_chain(&authority.signer("other.contoso.com")), 700_030),
        (with_chain(&impostor.signer("robot.contoso.com")), 50_012),
    ] {
        let (status, found, words) = refusal(&present(&simulator, ROBOT, &jwt, "").await);
        assert_eq!((status, found), (401, code), "{words}");
    }
}

#[tokio::test]
async fn a_certificate_sent_along_counts_for_nothing_without_a_registration() {
    let simulator = start("").await;
    let signer = Signer::new();
    let chain = json!([signer.x5c()]);
    let jwt = signer.assertion(|header, _| header["x5c"] = chain);
    let (_, code, _) = refusal(&present(&simulator, ROBOT, &jwt, "").await);
    assert_eq!(code, 700_027);
    // Nor may an identity be had by a self-signed assertion.
    let jwt = signer.assertion(|_, claims| {
        claims["iss"] = json!(PAYMENTS);
        claims["sub"] = json!(PAYMENTS);
    });
    let (_, code, _) = refusal(&present(&simulator, PAYMENTS, &jwt, "").await);
    assert_eq!(code, 700_027);
}

#[tokio::test]
async fn version_1_takes_assertions_too() {
    let signer = Signer::new();
    let certificates = format!("    certificates: [{}]", signer.yaml());
    let simulator = start_with(&certificates, "").await;
    let jwt = signer.assertion(|_, _| {});
    let form = format!(
        "grant_type=client_credentials&client_id={ROBOT}&resource=https://vault.azure.net\
         &client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer\
         &client_assertion={jwt}"
    );
    let answer = post(&simulator, "oauth2/token", &form).await;
    assert_eq!(claims(&answer)["aud"], "https://vault.azure.net");
    assert_eq!(answer.json()["resource"], "https://vault.azure.net");
}

#[tokio::test]
async fn an_expired_secret_and_malformed_requests_have_their_codes() {
    let resources = "entra: {resources: ['https://vault.azure.net']}";
    let simulator = start_with("", resources).await;
    let form = |rest: &str| {
        format!(
            "grant_type=client_credentials&client_id={ROBOT}&scope=https://vault.azure.net/.default{rest}"
        )
    };
    let unknown = form("&client_secret=old").replace("vault", "graph");
    for (form, status, code, named) in [
        (form("&client_secret=gone"), 401, 7_000_222, "are expired"),
        (
            form("&client_secret=never"),
            401,
            7_000_215,
            "Invalid client secret",
        ),
        (
            form("&client_secret=a&client_assertion=b"),
            400,
            90_023,
            "not both",
        ),
        (
            form("&client_assertion=b"),
            400,
            900_144,
            "client_assertion_type",
        ),
        (
            form("&client_assertion=b&client_assertion_type=x"),
            400,
            90_023,
            "client_assertion_type",
        ),
        (
            form("&client_secret=old&client_secret=old"),
            400,
            9_000_411,
            "'client_secret'",
        ),
        (
            form("&client_secret=old&claims=x"),
            400,
            9_000_410,
            "Malformed JSON",
        ),
        (unknown, 400, 500_011, "https://graph.azure.net"),
    ] {
        let (got, found, words) = refusal(&post(&simulator, "oauth2/v2.0/token", &form).await);
        assert_eq!((got, found), (status, code), "{words}");
        assert!(words.contains(named), "{words}");
        assert!(!words.contains("never"), "no secret comes back: {words}");
    }
    let answer = post(&simulator, "oauth2/v2.0/token", &form("&client_secret=old")).await;
    assert_eq!(claims(&answer)["appidacr"], "1");
    let want = format!("secret:{}", lanyard::sim::secret_id("old"));
    assert_eq!(last_exchange(&simulator).credential, Some(want));
}

#[tokio::test]
async fn claims_come_through_and_are_seen() {
    let simulator = start("").await;
    let form = |rest: &str| {
        format!(
            "grant_type=client_credentials&client_id={ROBOT}&client_secret=old&scope=r/.default{rest}"
        )
    };
    let plain = post(&simulator, "oauth2/v2.0/token", &form("")).await;
    assert!(claims(&plain).get("xms_cc").is_none());
    assert!(!last_exchange(&simulator).claims);
    let wanted = "&claims=%7B%22access_token%22%3A%7B%22xms_cc%22%3A%7B%22values%22%3A%5B%22cp1%22%5D%7D%7D%7D";
    let capable = post(&simulator, "oauth2/v2.0/token", &form(wanted)).await;
    assert_eq!(claims(&capable)["xms_cc"], json!(["cp1"]));
    assert!(last_exchange(&simulator).claims);
}

#[tokio::test]
async fn a_fault_answers_a_whole_aadsts_error() {
    let simulator =
        start("faults: [{target: entra, aadsts: 90033, retryAfter: 3, count: 1}]").await;
    let form = format!(
        "grant_type=client_credentials&client_id={ROBOT}&client_secret=old&scope=r/.default"
    );
    let entra = simulator.addresses().entra.unwrap();
    let keys = request(entra, "GET", &format!("/{TENANT}/discovery/keys"), "").await;
    assert_eq!(keys.status, 200, "only token requests are hit");
    let struck = post(&simulator, "oauth2/v2.0/token", &form).await;
    assert_eq!(struck.header("retry-after"), Some("3"));
    let (status, code, _) = refusal(&struck);
    assert_eq!((status, code), (503, 90_033));
    let entry = simulator.journal().pop().unwrap();
    assert_eq!(
        (entry.fault.as_deref(), entry.aadsts),
        (Some("aadsts"), Some(90_033))
    );
    simulator.add_fault(Fault::aadsts(7_000_222).for_client(ROBOT).times(1));
    let struck = post(&simulator, "oauth2/v2.0/token", &form).await;
    assert!(refusal(&struck).2.contains(ROBOT), "{}", struck.text());
    assert_eq!(
        post(&simulator, "oauth2/v2.0/token", &form).await.status,
        200
    );
    let mut other = Fault::aadsts(700_016);
    other.target = Target::Imds;
    assert!(serde_json::from_str::<Fault>(&serde_json::to_string(&other).unwrap()).is_err());
}

#[tokio::test]
async fn an_application_that_asks_too_much_is_told_when_to_come_back() {
    let limit = "entra: {throttle: {perSecond: 0.001, burst: 2, retryAfter: 7}}";
    let simulator = start(limit).await;
    let form = format!(
        "grant_type=client_credentials&client_id={ROBOT}&client_secret=old&scope=r/.default"
    );
    for _ in 0..2 {
        let answer = post(&simulator, "oauth2/v2.0/token", &form).await;
        assert_eq!(answer.status, 200);
    }
    let answer = post(&simulator, "oauth2/v2.0/token", &form).await;
    assert_eq!(answer.header("retry-after"), Some("7"));
    let (status, code, _) = refusal(&answer);
    assert_eq!((status, code), (429, 90_055));
    // Another client has its own bucket: this one is refused for its credential.
    let other = form.replace(ROBOT, PAYMENTS);
    let (_, code, _) = refusal(&post(&simulator, "oauth2/v2.0/token", &other).await);
    assert_eq!(code, 7_000_215);
}
