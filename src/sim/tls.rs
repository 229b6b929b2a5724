//! TLS by a certificate authority of the simulator's own: SDKs send no token over plain HTTP.
//!
//! In: the host names and addresses to vouch for. Out: an acceptor, and the authority's certificate as PEM for
//! clients to trust. Made anew at each start; the private keys never leave the process.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate could not be made.
    #[error(
        "no certificate for the vaults; is one of `vaults[].hosts` or `entra.hosts` not a host name?"
    )]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused it.
    #[error("no TLS for the vaults")]
    Config(#[from] rustls::Error),
}

/// The authority's certificate as PEM, and an acceptor with a certificate for `hosts`.
pub(super) fn acceptor(hosts: Vec<String>) -> Result<(String, TlsAcceptor), TlsError> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "Lanyard simulator, not Microsoft");
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let ca_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(hosts)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "simulated Azure");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &issuer)?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((ca_pem, TlsAcceptor::from(Arc::new(config))))
}
