//! An object of ours, as text → its metadata, what it says or why that cannot be used, and a fingerprint
//! of what counts. Pure.
//!
//! Holds that a malformed object keeps its name, uid and finalizers: it is reported on itself, and
//! harms no other; and that edits of labels, annotations and managed fields are no change.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::Malformed;
use crate::api::assignment::AzureAssignment;
use crate::api::binding::{AzureIdentityBinding, AzureIdentityBindingSpec};
use crate::api::exception::{AzureMetadataException, AzureMetadataExceptionSpec};
use crate::api::identity::{AzureIdentity, AzureIdentitySpec, Stated};
use crate::api::kind::Kind;
use crate::api::policy::{AzureIdentityPolicy, AzureIdentityPolicySpec};
use crate::controller::world::{Meta, Seen, SeenIdentity};
use crate::kubernetes::watch::check_size;
use crate::model::facts::{BindingFacts, ExceptionFacts, PolicyFacts};
use crate::model::ids::ObjectName;

#[derive(Deserialize)]
struct Slim<'a> {
    metadata: Metadata,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    generation: i64,
    deletion_timestamp: Option<String>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
struct Owner {
    uid: Arc<str>,
}

/// The texts of an object's parts, with its metadata.
pub struct Parts<'a> {
    /// Its metadata.
    pub meta: Meta,
    /// Its name.
    pub name: ObjectName,
    kind: Kind,
    whole: &'a RawValue,
    spec: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
}

impl<'a> Parts<'a> {
    /// Takes the text apart. An error only where not even metadata can be read.
    pub fn of(kind: Kind, text: &'a RawValue) -> Result<Self, Malformed> {
        let slim: Slim<'a> =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("metadata", error))?;
        let Metadata {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            deletion_timestamp,
            finalizers,
            owner_references,
        } = slim.metadata;
        let name = ObjectName::new(namespace, name);
        let owners = owner_references.unwrap_or_default();
        Ok(Self {
            meta: Meta {
                name: Some(name.clone()),
                uid: uid.into(),
                generation,
                version: resource_version.into(),
                deleting: deletion_timestamp.is_some(),
                finalizers: finalizers.unwrap_or_default(),
                owners: owners.into_iter().map(|owner| owner.uid).collect(),
            },
            name,
            kind,
            whole: text,
            spec: slim.spec,
            status: slim.status,
        })
    }

    /// What counts of it: all but its version, its labels and annotations, and a status that says what
    /// the controller itself wrote there and nobody else reads.
    pub fn counting(&self) -> impl std::hash::Hash + use<'_, 'a> {
        let meta = &self.meta;
        let status = self.status.filter(|_| self.kind == Kind::Identities);
        (
            (&meta.uid, meta.generation, meta.deleting),
            (&meta.finalizers, &meta.owners),
            (self.spec.map(RawValue::get), status.map(RawValue::get)),
        )
    }

    /// An `AzureIdentity`.
    pub fn identity(self) -> SeenIdentity {
        let said = self.said(|spec: AzureIdentitySpec, _| {
            let stated: Stated = AzureIdentity::new("", spec).stated()?;
            Ok(Arc::new(stated))
        });
        // A status that cannot be read is one that is to be written.
        let status = self.status.map(|status| serde_json::from_str(status.get()));
        Seen {
            meta: self.meta,
            said,
            status: status.and_then(Result::ok).map(Arc::new),
        }
    }

    /// An `AzureIdentityBinding`.
    pub fn binding(self) -> Seen<BindingFacts> {
        let said = self.said(|spec: AzureIdentityBindingSpec, name| {
            AzureIdentityBinding::new("", spec).facts(name.clone())
        });
        self.seen(said)
    }

    /// An `AzureIdentityPolicy`.
    pub fn policy(self) -> Seen<PolicyFacts> {
        let said = self.said(|spec: AzureIdentityPolicySpec, name| {
            AzureIdentityPolicy::new("", spec).facts(&name.name)
        });
        self.seen(said)
    }

    /// An `AzureMetadataException`.
    pub fn exception(self) -> Seen<ExceptionFacts> {
        let said = self.said(|spec: AzureMetadataExceptionSpec, name| {
            AzureMetadataException::new("", spec).facts(&name.name)
        });
        self.seen(said)
    }

    /// An `AzureAssignment`, whole but for the metadata that nobody reads.
    pub fn assignment(self) -> Result<AzureAssignment, Malformed> {
        let text = self.whole.get();
        let whole: AzureAssignment =
            serde_json::from_str(text).map_err(|error| Malformed::at("object", error))?;
        Ok(AzureAssignment {
            metadata: ObjectMeta {
                managed_fields: None,
                annotations: None,
                ..whole.metadata
            },
            ..whole
        })
    }

    fn said<S: DeserializeOwned, F>(
        &self,
        facts: impl FnOnce(S, &ObjectName) -> Result<F, Malformed>,
    ) -> Result<F, Malformed> {
        check_size(self.kind, self.whole)?;
        let spec = self.spec.ok_or_else(|| {
            let problem = format!(
                "is missing: see `kubectl explain {}.spec`",
                self.kind.as_str()
            );
            Malformed::at("spec", problem)
        })?;
        let spec: S =
            serde_json::from_str(spec.get()).map_err(|error| Malformed::at("spec", error))?;
        facts(spec, &self.name)
    }

    fn seen<F>(self, said: Result<F, Malformed>) -> Seen<F> {
        Seen {
            meta: self.meta,
            said,
            status: (),
        }
    }
}
