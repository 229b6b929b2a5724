//! What a Secret holds → credentials. Pure.
//!
//! In: the Secret's values and which of its keys are meant. Out: credentials, newest first, or what is
//! wrong in words that quote nothing. Exactly the named keys are read: a guess may pick the wrong one.

use std::sync::Arc;

use secrecy::SecretString;

use super::material::{Credential, Material};
use super::unusable::Problem;
use crate::azure::credential::{
    Certificate, CredentialError, certificates_from_pem, certificates_from_pkcs12,
};
use crate::kubernetes::SecretData;
use crate::model::facts::CredentialForm;

/// The credentials of this form.
pub fn load(form: &CredentialForm, data: &SecretData) -> Result<Vec<Credential>, Problem> {
    match form {
        CredentialForm::Secret { key } => {
            let secret = line(key, data)?;
            let secret = SecretString::from(secret);
            Ok(vec![Credential::new(Material::Secret(secret))])
        }
        CredentialForm::Pem {
            certificate,
            private_key,
            ..
        } => {
            let (certificates, keys) = (text(certificate, data)?, text(private_key, data)?);
            let read = certificates_from_pem(certificates, keys);
            credentials(read, |error| match error {
                CredentialError::NoCertificate
                | CredentialError::Certificate { .. }
                | CredentialError::TooMany { .. } => certificate,
                _ => private_key,
            })
        }
        CredentialForm::Pkcs12 {
            store, password, ..
        } => {
            let file = value(store, data)?;
            let word = password.as_ref().map_or(Ok(""), |key| line(key, data))?;
            let read = certificates_from_pkcs12(file, word);
            credentials(read, |error| match (error, password) {
                (CredentialError::Password, Some(password)) => password,
                _ => store,
            })
        }
    }
}

fn credentials<'a>(
    read: Result<Vec<Certificate>, CredentialError>,
    key: impl FnOnce(&CredentialError) -> &'a Arc<str>,
) -> Result<Vec<Credential>, Problem> {
    let credential = |certificate| Credential::new(Material::Certificate(certificate));
    match read {
        Ok(certificates) => Ok(certificates.into_iter().map(credential).collect()),
        Err(error) => Err(wrong(key(&error), error.to_string())),
    }
}

fn wrong(key: &Arc<str>, what: impl Into<String>) -> Problem {
    Problem::Value {
        key: key.clone(),
        what: what.into(),
    }
}

fn value<'a>(key: &Arc<str>, data: &'a SecretData) -> Result<&'a [u8], Problem> {
    match data.get(key) {
        None => Err(Problem::KeyMissing {
            key: key.clone(),
            there: data.keys().map(str::to_owned).collect(),
        }),
        Some([]) => Err(wrong(key, "is empty")),
        Some(value) => Ok(value),
    }
}

fn text<'a>(key: &Arc<str>, data: &'a SecretData) -> Result<&'a str, Problem> {
    std::str::from_utf8(value(key, data)?).map_err(|_| wrong(key, "is no text"))
}

/// A text without the end of its line: editors and `echo` write one, and no secret has one.
fn line<'a>(key: &Arc<str>, data: &'a SecretData) -> Result<&'a str, Problem> {
    match text(key, data)?.trim_end_matches(['\r', '\n']) {
        "" => Err(wrong(key, "is empty")),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests;
