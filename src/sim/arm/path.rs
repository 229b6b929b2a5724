//! What a request to ARM is about.
//!
//! In: the path as sent. Out: the resource, with its ids spelled as in the request, or that there is no such thing here.
//! Names of types and fixed segments are compared without letter case. Pure.

use super::estate::Kind;
use crate::sim::imds::decode;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Compute(Kind),
    Identity,
    /// All identities of a resource group, or of a subscription.
    Identities,
    Federated {
        credential: String,
    },
    /// All federated credentials of an identity.
    FederatedList,
    /// A running or finished operation, by its GUID.
    Operation,
}

/// A path that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub subject: Subject,
    pub subscription: String,
    /// Empty where the path names none.
    pub group: String,
    /// Name of the compute resource or identity; an operation's GUID; empty for a list.
    pub name: String,
    /// Resource id of the compute resource or identity; the scope of a list.
    pub id: String,
}

/// The place that a path names.
pub(super) fn read(path: &str) -> Option<Place> {
    let parts = path.trim_matches('/').split('/');
    let parts: Vec<String> = parts.map(|part| decode(part, false)).collect();
    if parts
        .iter()
        .any(|part| part.is_empty() || part.contains('/'))
    {
        return None;
    }
    let lower = parts.iter().map(|part| part.to_ascii_lowercase());
    let lower: Vec<String> = lower.collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let place = |subject: Subject, count: usize| Place {
        subject,
        subscription: parts[1].clone(),
        group: String::new(),
        name: parts
            .get(7)
            .filter(|_| count > 4)
            .cloned()
            .unwrap_or_default(),
        id: format!("/{}", parts[..count].join("/")),
    };
    match lower.as_slice() {
        [
            "subscriptions",
            _,
            "resourcegroups",
            _,
            "providers",
            provider,
            rest @ ..,
        ] => {
            let (subject, count) = in_group(provider, rest, parts.last()?)?;
            Some(Place {
                group: parts[3].clone(),
                ..place(subject, count)
            })
        }
        ["subscriptions", _, "providers", IDENTITY, IDENTITIES] => {
            Some(place(Subject::Identities, 2))
        }
        [
            "subscriptions",
            _,
            "providers",
            COMPUTE,
            "locations",
            _,
            "operations",
            _,
        ] => Some(place(Subject::Operation, 8)),
        _ => None,
    }
}

const COMPUTE: &str = "microsoft.compute";
const IDENTITY: &str = "microsoft.managedidentity";
const IDENTITIES: &str = "userassignedidentities";
const CREDENTIALS: &str = "federatedidentitycredentials";

/// What is meant inside a resource group, and how many segments its id has (of a list: its scope's).
fn in_group(provider: &str, rest: &[&str], last: &str) -> Option<(Subject, usize)> {
    Some(match (provider, rest) {
        (COMPUTE, ["virtualmachines", _]) => (Subject::Compute(Kind::Vm), 8),
        (COMPUTE, ["virtualmachinescalesets", _]) => (Subject::Compute(Kind::ScaleSet), 8),
        (IDENTITY, [IDENTITIES]) => (Subject::Identities, 4),
        (IDENTITY, [IDENTITIES, _]) => (Subject::Identity, 8),
        (IDENTITY, [IDENTITIES, _, CREDENTIALS]) => (Subject::FederatedList, 8),
        (IDENTITY, [IDENTITIES, _, CREDENTIALS, _]) => {
            let credential = last.to_owned();
            (Subject::Federated { credential }, 8)
        }
        _ => return None,
    })
}

impl Place {
    /// Type of the resource, for the journal and Azure's texts.
    pub fn kind(&self) -> &'static str {
        match self.subject {
            Subject::Compute(kind) => kind.segment(),
            Subject::Identity | Subject::Identities => "userAssignedIdentities",
            Subject::Federated { .. } | Subject::FederatedList => "federatedIdentityCredentials",
            Subject::Operation => "operations",
        }
    }

    /// The action that a method is, as roles name it.
    pub fn action(&self, verb: &str) -> String {
        let name = match self.subject {
            Subject::Compute(kind) => format!("Microsoft.Compute/{}", kind.segment()),
            Subject::Identity | Subject::Identities => {
                "Microsoft.ManagedIdentity/userAssignedIdentities".to_owned()
            }
            Subject::Federated { .. } | Subject::FederatedList => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials"
                    .to_owned()
            }
            Subject::Operation => "Microsoft.Compute/locations/operations".to_owned(),
        };
        format!("{name}/{verb}")
    }

    /// The scope that a right must cover.
    pub fn scope(&self) -> String {
        match &self.subject {
            Subject::Federated { credential } => {
                format!("{}/federatedIdentityCredentials/{credential}", self.id)
            }
            _ => self.id.clone(),
        }
    }
}

impl Kind {
    /// The segment of resource ids.
    pub fn segment(self) -> &'static str {
        match self {
            Self::Vm => "virtualMachines",
            Self::ScaleSet => "virtualMachineScaleSets",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case_of_fixed_parts_means_nothing_and_ids_stay_as_sent() {
        let path = "/SUBSCRIPTIONS/S/resourcegroups/G.(1)/providers/microsoft.COMPUTE/VirtualMachineScaleSets/Pool";
        let place = read(path).unwrap();
        assert_eq!(place.subject, Subject::Compute(Kind::ScaleSet));
        assert_eq!(
            (place.subscription.as_str(), place.group.as_str()),
            ("S", "G.(1)")
        );
        assert_eq!((place.name.as_str(), place.id.as_str()), ("Pool", path));
    }

    #[test]
    fn lists_credentials_and_operations_are_told_apart() {
        let group = "/subscriptions/s/resourceGroups/g";
        let identities = "/providers/Microsoft.ManagedIdentity/userAssignedIdentities";
        let subject = |path: &str| read(path).map(|place| (place.subject, place.id));
        let (list, id) = subject(&format!("{group}{identities}")).unwrap();
        assert_eq!((list, id.as_str()), (Subject::Identities, group));
        let (all, id) = subject(&format!("/subscriptions/s{identities}")).unwrap();
        assert_eq!(
            (all, id.as_str()),
            (Subject::Identities, "/subscriptions/s")
        );
        let one = format!("{group}{identities}/a");
        let (credential, id) = subject(&format!("{one}/federatedIdentityCredentials/c")).unwrap();
        assert_eq!(
            credential,
            Subject::Federated {
                credential: "c".into()
            }
        );
        assert_eq!(id, one);
        assert!(subject(&format!("{one}/other/c")).is_none());
        assert!(subject("/subscriptions/s/resourceGroups/g%2Fh/providers/x/y").is_none());
    }
}
