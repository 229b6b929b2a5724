//! A client assertion: header, claims, RSA signature.

use std::time::Instant;

use lanyard::azure::credential::{AssertionAlgorithm, AssertionRequest, certificates_from_pem};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

use crate::azure::client_id;

/// A new certificate with its key, both in PEM.
pub fn pair() -> (String, String) {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let params = CertificateParams::new(Vec::new()).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Times in milliseconds, by algorithm.
pub fn measure() -> Vec<(String, Vec<f64>)> {
    let (certificate, key) = pair();
    let certificates = certificates_from_pem(&certificate, &key).unwrap();
    let algorithms = [AssertionAlgorithm::Ps256, AssertionAlgorithm::Rs256];
    let times = algorithms.map(|algorithm| {
        let request = AssertionRequest {
            client_id: client_id(1).parse().unwrap(),
            audience: "https://login.microsoftonline.com/tenant/oauth2/v2.0/token",
            now: lanyard::serve::clock::since_epoch(),
            algorithm,
            send_chain: false,
        };
        let once = || {
            let begun = Instant::now();
            certificates[0].assertion(&request).unwrap();
            begun.elapsed().as_secs_f64() * 1e3
        };
        let what = format!("certificate assertion, RSA-2048, {algorithm:?}");
        (what, (0..1000).map(|_| once()).collect())
    });
    times.into()
}
