//! The API group `lanyard.dev`, version `v1alpha1`: the kinds as users write them, and their
//! conversion to the facts that selection works with. Conversion is where a malformed object is
//! refused, with the field named.

pub mod account;
pub mod assignment;
pub mod binding;
pub mod crd;
pub mod exception;
pub mod formats;
pub mod identity;
pub mod kind;
pub mod managed;
pub mod object;
pub mod pod;
pub mod policy;
pub mod removal;
pub mod rules;
pub mod selector;
pub mod source;

use crate::model::facts::Labels;

/// `apiVersion` of all kinds here.
pub const API_VERSION: &str = "lanyard.dev/v1alpha1";

/// The annotation by which a pod asks for identities: `NAME[,NAME…]`, the first is the default.
pub const IDENTITY_ANNOTATION: &str = "lanyard.dev/identity";
/// The annotation by which a pod asks for the virtual machine extension's endpoint, or asks for it not to be there.
pub const VM_EXTENSION_ANNOTATION: &str = "lanyard.dev/vm-extension-endpoint";
/// The label by which a pod asks for the variables of App Service's dialect; its value is `true`.
pub const APP_SERVICE_LABEL: &str = "lanyard.dev/app-service";
/// The annotation by which such a pod asks for the older pair of variables, too.
pub const APP_SERVICE_2017_ANNOTATION: &str = "lanyard.dev/app-service-2017";
/// Where agents answer App Service's dialects, as programs find it in their variables.
pub const APP_SERVICE_ENDPOINT: &str = "http://169.254.169.254/msi/token";
/// The annotation by which a pod says how its requests are to come to the agent: `redirect` or `in-pod`.
pub const MODE_ANNOTATION: &str = "lanyard.dev/mode";

/// The taint that keeps pods off a node until its agent is ready, with any value and effect.
pub const STARTUP_TAINT: &str = "lanyard.dev/agent-not-ready";

/// Label of a namespace whose pods are refused although the agent observes; its value is `true`.
pub const ENFORCE_LABEL: &str = "lanyard.dev/enforce";

/// Whether a namespace with these labels is enforced although the agent only observes.
#[must_use]
pub fn is_enforced(labels: &Labels) -> bool {
    labels.get(ENFORCE_LABEL).is_some_and(|on| on == "true")
}

/// An object that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// Path of the field, as in the manifest.
    pub field: String,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl Malformed {
    /// A problem at a field.
    pub fn at(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }
}

/// Parses an optional field, naming it when it is wrong.
fn parse_optional<T>(field: &str, text: Option<&String>) -> Result<Option<T>, Malformed>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.map(|text| {
        text.parse()
            .map_err(|error: T::Err| Malformed::at(field, error))
    })
    .transpose()
}
