//! Credentials with which a client proves to Entra that it is who it says.
//!
//! In: the bytes of a Secret or a file. Out: certificates that sign client assertions, or in words why
//! there are none. Pure but for random numbers: reads no file, no clock, no network. Private keys are
//! zeroized when dropped and shown by no `Debug` and no error. Nothing is guessed: what is not exactly a
//! usable key with its certificate is an error that says what to do.

mod assertion;
mod certificate;
mod der;
mod key;
mod pem;
mod pkcs12;

pub use assertion::{AssertionAlgorithm, AssertionRequest};
pub use certificate::{Certificate, certificates_from_pem};
pub use pkcs12::certificates_from_pkcs12;

/// Why a credential cannot be used. Holds subjects and fingerprints of public keys, never a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The text has no private key at all.
    #[error("no private key (expected PEM: -----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// The text has no certificate at all.
    #[error("no certificate (expected PEM: -----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// A PEM block is cut off or no base64.
    #[error("the PEM block {block} cannot be read: {why}")]
    Pem {
        /// Its label.
        block: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A private key in PEM that wants a password.
    #[error(
        "the private key is encrypted; store it decrypted (openssl pkey -in KEY -out tls.key), or as PKCS#12 with its password"
    )]
    Encrypted,
    /// A private key of another kind.
    #[error("the private key is {0}; Entra takes RSA only: make an RSA key of 2048 bits or more")]
    NotRsa(&'static str),
    /// An RSA key that nobody should use.
    #[error("the RSA key has {0} bits; at least 2048 are needed")]
    TooSmall(usize),
    /// A private key that cannot be read.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// A certificate that cannot be read.
    #[error("certificate {number} cannot be read: {why}")]
    Certificate {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// A private key without its certificate.
    #[error(
        "the private key (public key SHA-256 {key}…) belongs to none of the certificates ({certificates})"
    )]
    Mismatch {
        /// Start of the SHA-256 of its public key (`RSAPublicKey` in DER), hexadecimal.
        key: String,
        /// The subjects that are there.
        certificates: String,
    },
    /// More of something than any use of it needs.
    #[error("there are more than {most} {what}; leave those that count")]
    TooMany {
        /// So many are taken.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// The password does not open the PKCS#12 file.
    #[error("the password does not open the PKCS#12 file")]
    Password,
    /// No PKCS#12 file, or a damaged one.
    #[error("the PKCS#12 file cannot be read: {0}")]
    Pkcs12(String),
    /// The signature could not be made.
    #[error("the assertion could not be signed: {0}")]
    Signing(String),
}
