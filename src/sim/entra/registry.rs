//! Who may ask Entra for tokens, and with what: applications, and identities by federated credentials.
//!
//! In: the world at the start, then commands that add and revoke credentials while the simulator runs. Out: a snapshot
//! of one client for each token request, so that a request sees one state. Locks are short. Names are the world's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::sim::certificate::{Certificate, CertificateError, hex};
use crate::sim::token::Principal;
use crate::sim::world::{Application, CertificateSubject, FederatedCredential, Secret, World};

/// Why credentials cannot be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nobody of that name has credentials.
    #[error("no application or identity is named `{0}`")]
    Unknown(String),
    /// It has no such credential.
    #[error("`{name}` has no {kind} `{credential}`")]
    Absent {
        /// Application or identity.
        name: String,
        /// `secret`, `certificate` or `federated credential`.
        kind: &'static str,
        /// Id, thumbprint or name; never a secret.
        credential: String,
    },
    /// An identity proves itself by federated tokens and nothing else.
    #[error("`{0}` is a managed identity; only applications have secrets and certificates")]
    Managed(String),
    /// Not a certificate that Entra takes.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// One application or identity with what it may prove itself by.
#[derive(Clone)]
pub(in crate::sim) struct Client {
    pub who: Principal,
    pub secrets: Vec<Secret>,
    pub certificates: Vec<Arc<Certificate>>,
    pub subjects: Vec<Subject>,
    pub federated: Vec<FederatedCredential>,
    /// From then on Entra knows it; always where absent.
    pub known_from: Option<Instant>,
}

/// A registration by subject name and issuer.
#[derive(Clone)]
pub(in crate::sim) struct Subject {
    pub common_name: String,
    pub authorities: Arc<RootCertStore>,
}

/// All clients, by name.
pub(in crate::sim) struct Registry(RwLock<BTreeMap<String, Arc<Client>>>);

/// How the journal names a secret: the beginning of its SHA-256.
pub fn secret_id(secret: &str) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
    hex(&sum.as_ref()[..4])
}

/// Certificate authorities of a PEM text.
pub(in crate::sim) fn authorities(pem: &str) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| CertificateError::Pem)?;
        let added = roots.add(certificate);
        added.map_err(|_| CertificateError::Malformed)?;
    }
    if roots.is_empty() {
        return Err(CertificateError::Pem);
    }
    Ok(roots)
}

impl Subject {
    fn of(written: &CertificateSubject) -> Result<Self, CertificateError> {
        Ok(Self {
            common_name: written.subject.clone(),
            authorities: Arc::new(authorities(written.authority.text())?),
        })
    }
}

impl Client {
    fn of_application(application: &Application) -> Result<Self, CertificateError> {
        let certificates = application.certificates.iter();
        let subjects = application.certificate_subjects.iter();
        Ok(Self {
            who: Principal {
                name: application.name.clone(),
                client_id: application.client_id.clone(),
                object_id: application.principal_id.clone(),
                resource_id: None,
            },
            secrets: application.secrets.clone(),
            certificates: certificates
                .map(|pem| Certificate::from_pem(pem.text()).map(Arc::new))
                .collect::<Result<_, _>>()?,
            subjects: subjects.map(Subject::of).collect::<Result<_, _>>()?,
            federated: application.federated_credentials.clone(),
            known_from: None,
        })
    }
}

type Outcome<T> = Result<T, CredentialError>;

impl Registry {
    /// What the world says; a certificate that cannot be read is an error.
    pub fn new(world: &World) -> Result<Self, CertificateError> {
        let mut clients = BTreeMap::new();
        for identity in &world.identities {
            let client = Client {
                who: Principal {
                    name: identity.name.clone(),
                    client_id: identity.client_id.clone(),
                    object_id: identity.principal_id.clone(),
                    resource_id: Some(identity.resource_id.clone()),
                },
                secrets: Vec::new(),
                certificates: Vec::new(),
                subjects: Vec::new(),
                federated: identity.federated_credentials.clone(),
                known_from: None,
            };
            clients.insert(identity.name.clone(), Arc::new(client));
        }
        for application in &world.applications {
            let client = Client::of_application(application)?;
            clients.insert(application.name.clone(), Arc::new(client));
        }
        Ok(Self(RwLock::new(clients)))
    }

    /// The client with that id, without letter case.
    pub fn client(&self, client_id: &str) -> Option<Arc<Client>> {
        let clients = self.0.read();
        let known = |client: &&Arc<Client>| {
            let from = client.known_from;
            client.who.client_id.eq_ignore_ascii_case(client_id)
                && from.is_none_or(|from| from <= Instant::now())
        };
        clients.values().find(known).cloned()
    }

    /// Adds a managed identity that was made just now; Entra knows it from then on.
    pub fn add_managed(&self, who: Principal, known_from: Instant) {
        let client = Client {
            who: who.clone(),
            secrets: Vec::new(),
            certificates: Vec::new(),
            subjects: Vec::new(),
            federated: Vec::new(),
            known_from: Some(known_from),
        };
        self.0.write().insert(who.name, Arc::new(client));
    }

    /// Forgets an application or identity with all its credentials.
    pub fn remove(&self, name: &str) {
        self.0.write().remove(name);
    }

    /// The client of that name.
    pub fn named(&self, name: &str) -> Outcome<Arc<Client>> {
        let clients = self.0.read();
        let client = clients.get(name).cloned();
        client.ok_or_else(|| CredentialError::Unknown(name.to_owned()))
    }

    fn change<T>(&self, name: &str, change: impl FnOnce(&mut Client) -> Outcome<T>) -> Outcome<T> {
        let mut clients = self.0.write();
        let unknown = || CredentialError::Unknown(name.to_owned());
        let client = clients.get_mut(name).ok_or_else(unknown)?;
        change(Arc::make_mut(client))
    }

    /// Lets a secret be accepted from now on, beside the others. Returns its id.
    pub fn add_secret(&self, name: &str, secret: Secret) -> Outcome<String> {
        self.change(name, |client| {
            client.check_application()?;
            let id = secret_id(&secret.value);
            client.secrets.retain(|other| other.value != secret.value);
            client.secrets.push(secret);
            Ok(id)
        })
    }

    /// Refuses the secret with that id from now on (AADSTS7000215).
    pub fn revoke_secret(&self, name: &str, id: &str) -> Outcome<()> {
        self.change(name, |client| {
            let secrets = &mut client.secrets;
            remove(name, "secret", id, secrets, |one| {
                secret_id(&one.value) == id
            })
        })
    }

    /// Registers a certificate. Returns its thumbprint.
    pub fn add_certificate(&self, name: &str, pem: &str) -> Outcome<String> {
        let certificate = Certificate::from_pem(pem)?;
        self.change(name, |client| {
            client.check_application()?;
            let thumbprint = certificate.thumbprint();
            let others = &mut client.certificates;
            others.retain(|other| other.sha256 != certificate.sha256);
            others.push(Arc::new(certificate));
            Ok(thumbprint)
        })
    }

    /// Refuses the certificate with that thumbprint from now on (AADSTS700027).
    pub fn revoke_certificate(&self, name: &str, thumbprint: &str) -> Outcome<()> {
        self.change(name, |client| {
            let certificates = &mut client.certificates;
            remove(name, "certificate", thumbprint, certificates, |one| {
                one.thumbprint().eq_ignore_ascii_case(thumbprint)
            })
        })
    }

    /// Adds a federated credential; one of the same name is replaced.
    pub fn add_federated(&self, name: &str, credential: FederatedCredential) -> Outcome<()> {
        self.change(name, |client| {
            let others = &mut client.federated;
            others.retain(|other| other.name != credential.name);
            others.push(credential);
            Ok(())
        })
    }

    /// Removes the federated credential of that name.
    pub fn remove_federated(&self, name: &str, credential: &str) -> Outcome<()> {
        self.change(name, |client| {
            let federated = &mut client.federated;
            remove(name, "federated credential", credential, federated, |one| {
                one.name == credential
            })
        })
    }
}

impl Client {
    fn check_application(&self) -> Outcome<()> {
        match self.who.resource_id {
            None => Ok(()),
            Some(_) => Err(CredentialError::Managed(self.who.name.clone())),
        }
    }
}

fn remove<T>(
    name: &str,
    kind: &'static str,
    credential: &str,
    list: &mut Vec<T>,
    is: impl Fn(&T) -> bool,
) -> Outcome<()> {
    let before = list.len();
    list.retain(|one| !is(one));
    if list.len() < before {
        return Ok(());
    }
    Err(CredentialError::Absent {
        name: name.to_owned(),
        kind,
        credential: credential.to_owned(),
    })
}
