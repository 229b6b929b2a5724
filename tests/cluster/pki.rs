//! The cluster's certificate authority, its certificates, and kubeconfigs made of them.
//!
//! In: a folder. Out: PEM files in it, keys readable by their owner only. Made anew for each
//! cluster. Invariant: each part has a name of its own, with only what Kubernetes' roles give it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::plan::{CONTROL, NODES};

/// The authority and where its files are.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Makes everything that the control plane needs in `dir`.
pub fn make(dir: &Path) -> Result<Authority> {
    std::fs::create_dir_all(dir)?;
    let authority = Authority::new(dir)?;
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ];
    let addresses = [
        "127.0.0.1".to_owned(),
        "10.96.0.1".to_owned(),
        CONTROL.to_string(),
    ];
    let names = names.map(str::to_owned).into_iter().chain(addresses);
    authority.certify("apiserver", &[], names.collect())?;
    authority.certify("apiserver-to-kubelet", &["system:masters"], Vec::new())?;
    authority.certify("admin", &["system:masters"], Vec::new())?;
    for part in [
        "system:kube-controller-manager",
        "system:kube-scheduler",
        "system:kube-proxy",
    ] {
        authority.certify(part, &[], Vec::new())?;
    }
    for node in NODES {
        authority.certify(
            &format!("system:node:{}", node.name()),
            &["system:nodes"],
            Vec::new(),
        )?;
    }
    // RSA, as every managed Kubernetes has: Entra ID takes no other service account tokens.
    let tokens = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
    write(&dir.join("service-accounts.key"), &tokens.serialize_pem())?;
    write(&dir.join("service-accounts.pub"), &tokens.public_key_pem())?;
    Ok(authority)
}

impl Authority {
    fn new(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "Lanyard's test cluster");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        write(&dir.join("ca.crt"), &pem)?;
        write(&dir.join("ca.key"), &key.serialize_pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// A certificate for client and server use: `NAME.crt`, `NAME.key`.
    fn certify(&self, name: &str, groups: &[&str], hosts: Vec<String>) -> Result<()> {
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(&self.file(name, "crt"), &certificate.pem())?;
        write(&self.file(name, "key"), &key.serialize_pem())
    }

    /// The certificate's or key's file.
    pub fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{}.{kind}", name.replace(':', "-")))
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A kubeconfig for `name` with everything inside it.
    pub fn kubeconfig(&self, name: &str, server: &str) -> Result<String> {
        use base64::Engine as _;
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let read = |kind| {
            let path = self.file(name, kind);
            let text = std::fs::read_to_string(&path);
            Ok::<_, anyhow::Error>(encode(text.with_context(|| path.display().to_string())?))
        };
        Ok(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lanyard\nclusters:\n- name: lanyard\n  \
             cluster:\n    server: {server}\n    certificate-authority-data: {}\nusers:\n- name: \
             {name:?}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\ncontexts:\
             \n- name: lanyard\n  context: {{cluster: lanyard, user: {name:?}}}\n",
            encode(self.pem.clone()),
            read("crt")?,
            read("key")?,
        ))
    }
}

/// Writes a file that only its owner reads.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let file = options.open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}
