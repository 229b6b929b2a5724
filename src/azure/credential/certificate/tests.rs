//! Certificates as they come: made here, or by OpenSSL (`testdata/make.sh`).

use std::sync::LazyLock;

use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519,
    PKCS_RSA_SHA256,
};

use super::*;

static KEYS: LazyLock<[KeyPair; 2]> = LazyLock::new(|| [rsa(), rsa()]);

fn rsa() -> KeyPair {
    KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()
}

fn params(name: &str, first_year: i32) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(first_year, 1, 1);
    params.not_after = rcgen::date_time_ymd(first_year + 2, 1, 1);
    params
}

fn own(name: &str, first_year: i32, key: &KeyPair) -> String {
    params(name, first_year).self_signed(key).unwrap().pem()
}

fn subjects(found: &[Certificate]) -> Vec<&str> {
    found.iter().map(Certificate::subject).collect()
}

fn error(certificates: &str, keys: &str) -> CredentialError {
    certificates_from_pem(certificates, keys).unwrap_err()
}

const LEAF: &str = include_str!("../testdata/leaf.pem");
const PKCS1: &str = include_str!("../testdata/pkcs1.pem");

#[test]
fn a_certificate_says_what_it_is_and_never_its_key() {
    let [key, _] = &*KEYS;
    let pem = own("payments", 2024, key);
    let found = certificates_from_pem(&pem, &key.serialize_pem()).unwrap();
    let [one] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(one.subject().contains("CN=payments"), "{}", one.subject());
    assert_eq!(one.not_before().as_secs(), 1_704_067_200);
    assert_eq!(one.not_after().as_secs(), 1_767_225_600);
    let der = STANDARD.decode(
        pem.lines()
            .filter(|line| !line.starts_with('-'))
            .collect::<String>(),
    );
    let hash = digest(&SHA256, &der.unwrap());
    assert_eq!(
        URL_SAFE_NO_PAD.decode(one.x5t_s256()).unwrap(),
        hash.as_ref()
    );
    assert_eq!(one.thumbprint().len(), 64);
    let shown = format!("{one:?}");
    let secret = STANDARD.encode(key.serialize_der());
    assert!(
        !shown.contains(&secret[40..80]) && shown.contains(&one.thumbprint()),
        "{shown}"
    );
}

#[test]
fn older_keys_and_texts_with_both_are_read() {
    let found = certificates_from_pem(LEAF, PKCS1).unwrap();
    assert_eq!(subjects(&found), ["CN=payments"]);
    let both = format!("{PKCS1}\nsome words\n{LEAF}").replace('\n', "\r\n");
    assert_eq!(
        subjects(&certificates_from_pem(&both, &both).unwrap()),
        ["CN=payments"]
    );
    assert_eq!(
        subjects(&certificates_from_pem(&both, "").unwrap()),
        ["CN=payments"]
    );
}

#[test]
fn several_at_once_come_newest_first_each_with_its_key() {
    let [first, second] = &*KEYS;
    let certificates = [
        own("old", 2020, first),
        own("newest", 2024, second),
        // Renewed with the same key.
        own("newer", 2022, first),
    ];
    let keys = [first.serialize_pem(), second.serialize_pem()];
    let found = certificates_from_pem(&certificates.concat(), &keys.concat()).unwrap();
    assert_eq!(subjects(&found), ["CN=newest", "CN=newer", "CN=old"]);
    assert_eq!(found[1].key.public, found[2].key.public);
    assert_ne!(found[0].key.public, found[1].key.public);
}

#[test]
fn the_chain_goes_up_without_the_root_in_any_order() {
    let [leaf_key, key] = &*KEYS;
    let authority = |name| {
        let mut params = params(name, 2020);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let (root_key, middle_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority("root").self_signed(&root_key).unwrap();
    let by_root = Issuer::new(authority("root"), root_key);
    let middle = authority("middle")
        .signed_by(&middle_key, &by_root)
        .unwrap();
    let by_middle = Issuer::new(authority("middle"), middle_key);
    let leaf = params("leaf", 2024)
        .signed_by(leaf_key, &by_middle)
        .unwrap();
    let pem = [
        root.pem(),
        own("stranger", 2020, key),
        leaf.pem(),
        middle.pem(),
    ]
    .concat();
    let found = certificates_from_pem(&pem, &leaf_key.serialize_pem()).unwrap();
    assert_eq!(subjects(&found), ["CN=leaf"]);
    let expected = [leaf.der().to_vec(), middle.der().to_vec()];
    assert_eq!(found[0].chain, expected);
}

#[test]
fn a_circle_of_issuers_ends() {
    let [leaf_key, _] = &*KEYS;
    let (a, b) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (by_a, by_b) = (
        Issuer::new(params("a", 2020), &a),
        Issuer::new(params("b", 2020), &b),
    );
    let pem = [
        params("leaf", 2020)
            .signed_by(leaf_key, &by_a)
            .unwrap()
            .pem(),
        params("a", 2020).signed_by(&a, &by_b).unwrap().pem(),
        params("b", 2020).signed_by(&b, &by_a).unwrap().pem(),
    ];
    let found = certificates_from_pem(&pem.concat(), &leaf_key.serialize_pem()).unwrap();
    assert_eq!(found[0].chain.len(), 3);
}

#[test]
fn a_key_without_its_certificate_names_both() {
    let [key, other] = &*KEYS;
    let pem = own("payments", 2024, key);
    let wrong = error(&pem, &other.serialize_pem()).to_string();
    assert!(
        wrong.contains("CN=payments") && wrong.contains("SHA-256"),
        "{wrong}"
    );
    let both = [key.serialize_pem(), other.serialize_pem()].concat();
    assert!(matches!(
        error(&pem, &both),
        CredentialError::Mismatch { .. }
    ));
}

#[test]
fn what_is_not_there_is_missed() {
    assert_eq!(error(LEAF, ""), CredentialError::NoKey);
    assert_eq!(error(LEAF, LEAF), CredentialError::NoKey);
    assert_eq!(error("", PKCS1), CredentialError::NoCertificate);
    assert_eq!(error("", ""), CredentialError::NoKey);
    assert_eq!(error("rubbish", "\u{0}"), CredentialError::NoKey);
}

#[test]
fn keys_that_entra_or_reason_forbid_are_refused_in_words() {
    let ec = KeyPair::generate().unwrap();
    let refused = error(&own("ec", 2024, &ec), &ec.serialize_pem());
    assert_eq!(refused, CredentialError::NotRsa("an EC key"));
    assert!(refused.to_string().contains("RSA only"), "{refused}");
    let sec1 = "-----BEGIN EC PARAMETERS-----\nAAEC\n-----END EC PARAMETERS-----\n-----BEGIN EC PRIVATE KEY-----\nAAEC\n-----END EC PRIVATE KEY-----\n";
    assert_eq!(error(LEAF, sec1), CredentialError::NotRsa("an EC key"));
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let refused = error(&own("ed", 2024, &ed), &ed.serialize_pem());
    assert_eq!(refused, CredentialError::NotRsa("an Ed25519 key"));
    let weak = include_str!("../testdata/weak.pem");
    assert_eq!(error(LEAF, weak), CredentialError::TooSmall(1024));
    for encrypted in [
        include_str!("../testdata/encrypted.pem"),
        include_str!("../testdata/encrypted-pkcs1.pem"),
    ] {
        let refused = error(LEAF, encrypted);
        assert_eq!(refused, CredentialError::Encrypted);
        assert!(refused.to_string().contains("PKCS#12"), "{refused}");
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn damaged_keys_and_certificates_are_errors_wherever_the_damage_is() {
    let [key, _] = &*KEYS;
    let pkcs8 = key.serialize_der();
    for length in [0, 1, 2, 3, 10, 26, 30, 100, pkcs8.len() - 1] {
        let cut = &pkcs8[..length];
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY"] {
            let refused = error(LEAF, &pem(label, cut));
            assert!(
                matches!(refused, CredentialError::Key(_)),
                "{length} {refused:?}"
            );
        }
    }
    // A key whose numbers do not belong together.
    let mut odd = pkcs8.clone();
    let at = odd.len() / 2;
    odd[at] ^= 0x55;
    assert!(matches!(
        error(LEAF, &pem("PRIVATE KEY", &odd)),
        CredentialError::Key(_)
    ));
    let certificate = params("x", 2024).self_signed(key).unwrap().der().to_vec();
    let more = [&certificate[..], &[0]].concat();
    for broken in [&certificate[..0], &certificate[..200], &more] {
        let text = format!("{LEAF}{}", pem("CERTIFICATE", broken));
        let refused = error(&text, PKCS1);
        assert!(
            matches!(refused, CredentialError::Certificate { number: 2, .. }),
            "{refused:?}"
        );
    }
}
