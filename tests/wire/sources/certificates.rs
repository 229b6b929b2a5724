//! Certificates and keys as owners put them into Secrets: good ones and every bad one of the list.
//! Made at each run; PKCS#12 and encrypted keys by the `openssl` program, as owners make theirs.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    /// A Secret of type `kubernetes.io/tls`.
    pub fn data(&self) -> [(&'static str, &[u8]); 2] {
        [
            ("tls.crt", self.certificate.as_bytes()),
            ("tls.key", self.key.as_bytes()),
        ]
    }

    /// A line of the key's text, to be looked for where no key may be.
    pub fn canary(&self) -> &str {
        self.key.lines().nth(5).unwrap()
    }
}

/// An RSA certificate that is valid now and until 2100.
pub fn rsa(name: &str) -> Pair {
    signed_by_itself(name, &PKCS_RSA_SHA256, (2020, 2100))
}

/// One whose life is over.
pub fn expired(name: &str) -> Pair {
    signed_by_itself(name, &PKCS_RSA_SHA256, (2019, 2020))
}

/// One with a key on an elliptic curve.
pub fn elliptic(name: &str) -> Pair {
    signed_by_itself(name, &PKCS_ECDSA_P256_SHA256, (2020, 2100))
}

/// A leaf under an authority: its certificate text holds both, its authority's is given beside it.
pub fn chained(name: &str) -> (Pair, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "an authority");
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let root = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let leaf = params(name, (2020, 2100)).signed_by(&key, &issuer).unwrap();
    let pair = Pair {
        certificate: format!("{}{root}", leaf.pem()),
        key: key.serialize_pem(),
    };
    (pair, root)
}

fn params(name: &str, years: (i32, i32)) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

fn signed_by_itself(name: &str, algorithm: &'static SignatureAlgorithm, years: (i32, i32)) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = params(name, years).self_signed(&key).unwrap();
    Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

/// The key encrypted with a password, PEM.
pub fn encrypted(key: &str, password: &str) -> String {
    let password = format!("pass:{password}");
    let args = [
        "pkcs8",
        "-topk8",
        "-v2",
        "aes-256-cbc",
        "-passout",
        &password,
    ];
    String::from_utf8(openssl(&args, key)).unwrap()
}

/// A PKCS#12 store.
pub fn pkcs12(pair: &Pair, password: &str) -> Vec<u8> {
    let password = format!("pass:{password}");
    // Key and certificate come in one text.
    let args = ["pkcs12", "-export", "-passout", &password];
    openssl(&args, &format!("{}{}", pair.key, pair.certificate))
}

fn openssl(args: &[&str], input: &str) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl makes the fixtures: install it");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
    output.stdout
}

/// DER as PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
