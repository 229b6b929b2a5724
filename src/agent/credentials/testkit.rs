//! Credentials for tests: secrets, and certificates that are made here.

use std::sync::LazyLock;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use zeroize::Zeroizing;

use super::{Credential, Material};
use crate::azure::credential::certificates_from_pem;
use crate::kubernetes::SecretData;

/// Two RSA keys: making one takes its time.
pub static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [(); 2].map(|()| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()));

/// The first of January of a year, since the epoch.
pub fn year(year: i32) -> Duration {
    let seconds = rcgen::date_time_ymd(year, 1, 1).unix_timestamp();
    Duration::from_secs(seconds.try_into().unwrap())
}

/// A certificate of a key in PEM, valid for two years from the first of January of `first_year` on.
pub fn certificate_pem(key: &KeyPair, first_year: i32) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "payments");
    params.not_before = rcgen::date_time_ymd(first_year, 1, 1);
    params.not_after = rcgen::date_time_ymd(first_year + 2, 1, 1);
    params.self_signed(key).unwrap().pem()
}

/// The same as a credential.
pub fn certificate(key: usize, first_year: i32) -> Credential {
    let key = &KEYS[key];
    let found = certificates_from_pem(&certificate_pem(key, first_year), &key.serialize_pem());
    Credential::new(Material::Certificate(found.unwrap().remove(0)))
}

/// A client secret.
pub fn secret(text: &str) -> Credential {
    Credential::new(Material::Secret(text.into()))
}

/// A Secret of these values.
pub fn data<'a>(values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> SecretData {
    let mut data = SecretData::default();
    for (key, value) in values {
        data.insert(key.to_owned(), Zeroizing::new(value.to_vec()));
    }
    data
}
