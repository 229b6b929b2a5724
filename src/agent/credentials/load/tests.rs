use secrecy::ExposeSecret;

use super::super::testkit::{KEYS, certificate_pem, data};
use super::*;

fn pem() -> CredentialForm {
    CredentialForm::Pem {
        certificate: "tls.crt".into(),
        private_key: "tls.key".into(),
        send_chain: false,
    }
}

fn pkcs12() -> CredentialForm {
    CredentialForm::Pkcs12 {
        store: "app.p12".into(),
        password: Some("password".into()),
        send_chain: false,
    }
}

fn secret() -> CredentialForm {
    CredentialForm::Secret {
        key: "clientSecret".into(),
    }
}

fn problem(form: &CredentialForm, values: &[(&str, &[u8])]) -> String {
    load(form, &data(values.iter().copied()))
        .unwrap_err()
        .to_string()
}

#[test]
fn a_secret_full_of_certificates_is_refused() {
    // Each would be one more thing to present to Entra, and to compare with all others.
    let key = &KEYS[0];
    let many: String = (1..=60)
        .map(|year| certificate_pem(key, 1960 + year))
        .collect();
    let private = key.serialize_pem();
    let held = data([
        ("tls.crt", many.as_bytes()),
        ("tls.key", private.as_bytes()),
    ]);
    let problem = load(&pem(), &held).unwrap_err().to_string();
    assert!(problem.contains("more than"), "{problem}");
}

#[test]
fn exactly_the_named_key_is_read_without_the_end_of_its_line() {
    for (value, read) in [
        ("hunter2", "hunter2"),
        ("hunter2\r\n", "hunter2"),
        (" a b ", " a b "),
    ] {
        let loaded = load(&secret(), &data([("clientSecret", value.as_bytes())])).unwrap();
        let [one] = &loaded[..] else { panic!() };
        let Material::Secret(text) = one.material() else {
            panic!()
        };
        assert_eq!(text.expose_secret(), read);
    }
    assert_eq!(
        problem(
            &secret(),
            &[("client-secret", b"hunter2"), ("tenant", b"t")]
        ),
        "has no key `clientSecret` (it has client-secret, tenant)"
    );
    assert_eq!(
        problem(&secret(), &[]),
        "has no key `clientSecret` (it has none)"
    );
    for nothing in [&b""[..], b"\n"] {
        assert_eq!(
            problem(&secret(), &[("clientSecret", nothing)]),
            "key `clientSecret`: is empty"
        );
    }
    assert!(problem(&secret(), &[("clientSecret", b"\xff")]).ends_with("is no text"));
}

#[test]
fn several_certificates_are_read_the_newest_first() {
    let [one, two] = &*KEYS;
    let certificates = certificate_pem(one, 2024) + &certificate_pem(two, 2026);
    let keys = one.serialize_pem() + &two.serialize_pem();
    let values = [
        ("tls.crt", certificates.as_bytes()),
        ("tls.key", keys.as_bytes()),
    ];
    let loaded = load(&pem(), &data(values)).unwrap();
    let begin = |credential: &Credential| credential.not_after().unwrap();
    assert_eq!(loaded.len(), 2);
    assert!(begin(&loaded[0]) > begin(&loaded[1]));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_of_the_key_that_has_it() {
    let [one, two] = &*KEYS;
    let (certificate, key) = (certificate_pem(one, 2024), one.serialize_pem());
    let said = |certificate: &str, key: &str| {
        problem(
            &pem(),
            &[
                ("tls.crt", certificate.as_bytes()),
                ("tls.key", key.as_bytes()),
            ],
        )
    };
    let encrypted = include_str!("../../../azure/credential/testdata/encrypted.pem");
    let other = two.serialize_pem();
    let ec = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (certificate, private, names, words) in [
        (
            &*certificate,
            &*other,
            "`tls.key`",
            "belongs to none of the certificates",
        ),
        (&certificate, encrypted, "`tls.key`", "encrypted"),
        (&certificate, &ec, "`tls.key`", "RSA only"),
        (&certificate, "garbage", "`tls.key`", "no private key"),
        ("garbage", &key, "`tls.crt`", "no certificate"),
    ] {
        let said = said(certificate, private);
        assert!(said.contains(names) && said.contains(words), "{said}");
        assert!(!said.contains("garbage"), "{said}");
    }
    assert!(problem(&pem(), &[("ca.crt", b"x"), ("tls.crt", b"x")]).contains("no key `tls.key`"));
}

#[test]
fn a_store_opens_with_its_password_only() {
    let text = include_str!("../../../azure/credential/testdata/modern.p12.b64");
    let text: String = text.split_ascii_whitespace().collect();
    let store = crate::kubernetes::decoded(&text).unwrap();
    let said = problem(&pkcs12(), &[("app.p12", &store), ("password", b"not it")]);
    assert_eq!(
        said,
        "key `password`: the password does not open the PKCS#12 file"
    );
    assert!(problem(&pkcs12(), &[("app.p12", &store)]).contains("no key `password`"));
    let said = problem(&pkcs12(), &[("app.p12", b"garbage"), ("password", b"x")]);
    assert!(
        said.starts_with("key `app.p12`: ") && !said.contains("garbage"),
        "{said}"
    );
}
