//! `AzureIdentity.spec.tokenSources`: where an identity's tokens come from. One field of each entry
//! is set, and it says which source the entry is.
//!
//! `nodeSystemAssigned` is in the schema and is refused by [`facts`]: an identity that quietly went
//! without it would be a riddle.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::formats::{HOST, HTTPS_URL, OBJECT_NAME, PEM, SECRET_KEY};
use super::rules::{List, Rule, Rules};
use crate::model::facts::{CredentialFacts, CredentialForm, EndpointFacts, SourceFacts};

/// One source of tokens. Exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[ONE_OF]))]
pub struct TokenSource {
    /// The node's IMDS, by client id: the identity must be assigned to the node's virtual machine or
    /// scale set. It has no settings: `imds: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imds: Option<ImdsSource>,
    /// The pod's own service-account token, exchanged at Entra ID: nothing is assigned to nodes. Needs
    /// a federated credential on the identity: the cluster's issuer, the subject
    /// `system:serviceaccount:<namespace>:<service account>` and the audience
    /// `api://AzureADTokenExchange`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federated: Option<FederatedSource>,
    /// An application registered in Entra ID, by a secret or a certificate from a Secret of this
    /// namespace. Agents may read only the Secrets that Lanyard was installed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_principal: Option<ServicePrincipalSource>,
    /// The system-assigned identity of the node's virtual machine or scale set: every pod that gets it
    /// acts as the node. A policy must say `allowNodeIdentity`. It has no settings. Comes with a later
    /// version of Lanyard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_system_assigned: Option<NodeSystemAssignedSource>,
}

/// The node's IMDS. No settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImdsSource {}

/// The exchange of the pod's service-account token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[ENDPOINT_MISSING]))]
pub struct FederatedSource {
    /// Exchange the token here and not at Entra ID, for example `https://tokens.example.com/exchange`. A
    /// policy must list it under `tokenEndpoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = HTTPS_URL.schema())]
    pub token_endpoint: Option<String>,
    /// Certificates that sign the endpoint's, in PEM. Left out: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = PEM.schema())]
    pub ca_bundle: Option<String>,
    /// Name in the endpoint's certificate, where it is not the URL's host, for example
    /// `tokens.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = HOST.schema())]
    pub sni: Option<String>,
}

/// An application's credential. Exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[ONE_CREDENTIAL]))]
pub struct ServicePrincipalSource {
    /// A client secret, kept in a Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A certificate with its key, kept in a Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ref: Option<CertificateRef>,
}

/// Where a client secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the Secret, in this namespace.
    #[schemars(transform = OBJECT_NAME.schema())]
    pub name: String,
    /// Key of the Secret that holds the client secret.
    #[serde(default = "client_secret")]
    #[schemars(transform = SECRET_KEY.schema())]
    pub key: String,
}

/// Where a certificate and its private key are: in PEM, or in a PKCS#12 store. Entra ID takes RSA keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[ONE_FORM, PASSWORD_UNUSED]))]
pub struct CertificateRef {
    /// Name of the Secret, in this namespace. With nothing else stated it is one of type
    /// `kubernetes.io/tls`, as cert-manager writes it.
    #[schemars(transform = OBJECT_NAME.schema())]
    pub name: String,
    /// Key of the Secret that holds the certificate in PEM, perhaps with its chain; several
    /// certificates while one replaces the other. Left out: `tls.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = SECRET_KEY.schema())]
    pub certificate_key: Option<String>,
    /// Key of the Secret that holds the private key in PEM (PKCS#8 or PKCS#1, not encrypted). Left out:
    /// `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = SECRET_KEY.schema())]
    pub private_key_key: Option<String>,
    /// Key of the Secret that holds a PKCS#12 store with the certificate and its key, for example
    /// `keystore.p12`; instead of `certificateKey` and `privateKeyKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = SECRET_KEY.schema())]
    pub pkcs12_key: Option<String>,
    /// Key of the Secret that holds the store's password. Left out: the password is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = SECRET_KEY.schema())]
    pub password_key: Option<String>,
    /// Send the certificate with its chain (`x5c`): for an application that trusts a subject name and
    /// an issuer, so that a renewed certificate needs no registration.
    #[serde(default)]
    pub send_chain: bool,
}

/// The node's own identity. No settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSystemAssignedSource {}

fn client_secret() -> String {
    "clientSecret".to_owned()
}

/// The bounds of the list.
pub const LIST: List =
    List::at_most(4).not_empty("is empty: leave it out for the node's IMDS, or name a source");

/// No source twice: the second would never be tried.
pub const TWICE: Rule = Rule::new(
    "self.filter(source, has(source.imds)).size() <= 1 && self.filter(source, has(source.federated)).size() <= 1 && self.filter(source, has(source.servicePrincipal)).size() <= 1 && self.filter(source, has(source.nodeSystemAssigned)).size() <= 1",
    "names a source twice: the second would never be tried",
);
const ONE_OF: Rule = Rule::new(
    "[has(self.imds), has(self.federated), has(self.servicePrincipal), has(self.nodeSystemAssigned)].filter(given, given).size() == 1",
    "must have exactly one of imds, federated, servicePrincipal, nodeSystemAssigned; several sources are several entries",
);
const ENDPOINT_MISSING: Rule = Rule::new(
    "has(self.tokenEndpoint) || !(has(self.caBundle) || has(self.sni))",
    "caBundle and sni are about tokenEndpoint: state it, or leave them out",
);
const ONE_CREDENTIAL: Rule = Rule::new(
    "has(self.secretRef) != has(self.certificateRef)",
    "must have either secretRef or certificateRef",
);

const ONE_FORM: Rule = Rule::new(
    "!has(self.pkcs12Key) || !(has(self.certificateKey) || has(self.privateKeyKey))",
    "pkcs12Key is instead of certificateKey and privateKeyKey",
);
const PASSWORD_UNUSED: Rule = Rule::new(
    "has(self.pkcs12Key) || !has(self.passwordKey)",
    "passwordKey is about pkcs12Key: state it, or leave the password out; an encrypted PEM is not read",
);

/// What the API server checks at admission.
pub fn check(field: &str, sources: &[TokenSource]) -> Result<(), Malformed> {
    LIST.check_size(field, sources.len())?;
    let mut seen = [0; 4];
    for (at, source) in sources.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let given = source.given();
        let count = given.iter().filter(|given| **given).count();
        ONE_OF.check(count == 1, field.as_str())?;
        for (count, given) in seen.iter_mut().zip(given) {
            *count += usize::from(given);
        }
        source.federated.as_ref().map_or(Ok(()), |federated| {
            federated.check(&format!("{field}.federated"))
        })?;
        source.service_principal.as_ref().map_or(Ok(()), |source| {
            source.check(&format!("{field}.servicePrincipal"))
        })?;
    }
    TWICE.check(seen.iter().all(|count| *count <= 1), field)
}

/// The sources that this version serves; another one is refused. The list was checked.
pub fn facts(sources: &[TokenSource]) -> Result<Vec<SourceFacts>, Malformed> {
    let mut facts = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let later = |name: &str| {
            let problem = "comes with a later version of Lanyard: this one serves imds, federated and servicePrincipal";
            Malformed::at(format!("spec.tokenSources[{at}].{name}"), problem)
        };
        match source.given() {
            [true, ..] => facts.push(SourceFacts::Imds),
            [_, true, ..] => facts.push(SourceFacts::Federated(
                source
                    .federated
                    .as_ref()
                    .and_then(FederatedSource::endpoint),
            )),
            [_, _, true, _] => facts.extend(
                source
                    .service_principal
                    .as_ref()
                    .and_then(ServicePrincipalSource::credential)
                    .map(|credential| SourceFacts::ServicePrincipal(Arc::new(credential))),
            ),
            _ => return Err(later("nodeSystemAssigned")),
        }
    }
    Ok(facts)
}

impl TokenSource {
    fn given(&self) -> [bool; 4] {
        [
            self.imds.is_some(),
            self.federated.is_some(),
            self.service_principal.is_some(),
            self.node_system_assigned.is_some(),
        ]
    }
}

impl FederatedSource {
    fn endpoint(&self) -> Option<Arc<EndpointFacts>> {
        let url = self.token_endpoint.as_deref()?.into();
        Some(Arc::new(EndpointFacts {
            url,
            ca_bundle: self.ca_bundle.as_deref().map(Into::into),
            sni: self.sni.as_deref().map(Into::into),
        }))
    }

    fn check(&self, field: &str) -> Result<(), Malformed> {
        let endpoint = format!("{field}.tokenEndpoint");
        HTTPS_URL.check_optional(&endpoint, self.token_endpoint.as_ref())?;
        PEM.check_optional(&format!("{field}.caBundle"), self.ca_bundle.as_ref())?;
        HOST.check_optional(&format!("{field}.sni"), self.sni.as_ref())?;
        let about = self.ca_bundle.is_some() || self.sni.is_some();
        ENDPOINT_MISSING.check(self.token_endpoint.is_some() || !about, field)
    }
}

impl ServicePrincipalSource {
    /// The list was checked: one of the two is there.
    fn credential(&self) -> Option<CredentialFacts> {
        let of_secret = self.secret_ref.as_ref().map(|secret| CredentialFacts {
            secret: secret.name.as_str().into(),
            form: CredentialForm::Secret {
                key: secret.key.as_str().into(),
            },
        });
        let certificate = self.certificate_ref.as_ref();
        of_secret.or_else(|| certificate.map(CertificateRef::credential))
    }

    fn check(&self, field: &str) -> Result<(), Malformed> {
        ONE_CREDENTIAL.check(
            self.secret_ref.is_some() != self.certificate_ref.is_some(),
            field,
        )?;
        if let Some(secret) = &self.secret_ref {
            OBJECT_NAME.check(format!("{field}.secretRef.name"), &secret.name)?;
            SECRET_KEY.check(format!("{field}.secretRef.key"), &secret.key)?;
        }
        self.certificate_ref.as_ref().map_or(Ok(()), |certificate| {
            certificate.check(&format!("{field}.certificateRef"))
        })
    }
}

impl CertificateRef {
    fn credential(&self) -> CredentialFacts {
        let send_chain = self.send_chain;
        let or = |key: &Option<String>, usual: &str| key.as_deref().unwrap_or(usual).into();
        let form = match &self.pkcs12_key {
            Some(store) => CredentialForm::Pkcs12 {
                store: store.as_str().into(),
                password: self.password_key.as_deref().map(Into::into),
                send_chain,
            },
            None => CredentialForm::Pem {
                certificate: or(&self.certificate_key, "tls.crt"),
                private_key: or(&self.private_key_key, "tls.key"),
                send_chain,
            },
        };
        CredentialFacts {
            secret: self.name.as_str().into(),
            form,
        }
    }

    fn check(&self, field: &str) -> Result<(), Malformed> {
        OBJECT_NAME.check(format!("{field}.name"), &self.name)?;
        for (name, key) in [
            ("certificateKey", &self.certificate_key),
            ("privateKeyKey", &self.private_key_key),
            ("pkcs12Key", &self.pkcs12_key),
            ("passwordKey", &self.password_key),
        ] {
            SECRET_KEY.check_optional(&format!("{field}.{name}"), key.as_ref())?;
        }
        let pem = self.certificate_key.is_some() || self.private_key_key.is_some();
        ONE_FORM.check(self.pkcs12_key.is_none() || !pem, field)?;
        PASSWORD_UNUSED.check(
            self.pkcs12_key.is_some() || self.password_key.is_none(),
            field,
        )
    }
}
