//! The world that is simulated: tenant, identities, virtual machines, vaults, standing faults.
//!
//! In: YAML. Out: a checked [`World`], or an error that names the place and the field. Pure but for
//! [`World::load`], which reads one file. Field names are those of Azure's own documents where it has one.

mod arm;
mod check;
mod credentials;
mod entra;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use jiff::fmt::serde::unsigned_duration::friendly::compact as friendly;
use serde::{Deserialize, Serialize};

use super::faults::Fault;
pub use arm::{Arm, IdCase, Instance, Role, RoleAssignment, ScaleSet};
pub use credentials::{CertificateSubject, FederatedCredential, Issuer, Pem, PemFile, Secret};
pub use entra::{AssertionAlgorithm, Entra, Throttle};

/// Everything the simulator knows, as a YAML file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// The one Entra tenant.
    pub tenant: Tenant,
    /// User-assigned managed identities that exist, assigned somewhere or not.
    #[serde(default)]
    pub identities: Vec<Identity>,
    /// Applications that Entra issues tokens to for a secret, a certificate or a federated token.
    #[serde(default)]
    pub applications: Vec<Application>,
    /// Virtual machines. The first answers where no machine's `sources` hold the asker's address.
    #[serde(default)]
    pub vms: Vec<Vm>,
    /// Virtual machine scale sets.
    #[serde(default)]
    pub scale_sets: Vec<ScaleSet>,
    /// Who may do what at ARM; where it is left out, everybody may do everything.
    #[serde(default)]
    pub role_assignments: Option<Vec<RoleAssignment>>,
    /// Key Vaults.
    #[serde(default)]
    pub vaults: Vec<Vault>,
    /// How tokens are made.
    #[serde(default)]
    pub tokens: Tokens,
    /// How IMDS behaves as a whole.
    #[serde(default)]
    pub imds: Imds,
    /// How Entra ID behaves as a whole.
    #[serde(default)]
    pub entra: Entra,
    /// How Azure Resource Manager behaves as a whole.
    #[serde(default)]
    pub arm: Arm,
    /// How issuers of federated tokens are reached.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Faults that stand from the start; more can be added by command.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// An Entra tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Tenant id, a GUID.
    pub id: String,
    /// Display name; only for people.
    #[serde(default)]
    pub name: Option<String>,
}

/// A user-assigned managed identity.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// Name by which the rest of the file and the commands speak of it.
    pub name: String,
    /// Application (client) id, a GUID: the token's `appid`.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Object id of the service principal, a GUID: the token's `oid` and `sub`.
    #[serde(rename = "principalID")]
    pub principal_id: String,
    /// ARM resource id: the token's `xms_mirid`.
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    /// Whose tokens Entra takes for it.
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
}

/// An application with credentials: Entra issues it tokens by `client_credentials`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Application {
    /// Name by which vaults' access lists speak of it.
    pub name: String,
    /// Application (client) id, a GUID.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Object id of its service principal, a GUID.
    #[serde(rename = "principalID")]
    pub principal_id: String,
    /// Secrets that are accepted: several while one is rotated.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Certificates whose keys may sign its assertions.
    #[serde(default)]
    pub certificates: Vec<Pem>,
    /// Certificates that may sign them by their name and issuer, sent along as `x5c`.
    #[serde(default)]
    pub certificate_subjects: Vec<CertificateSubject>,
    /// Whose tokens Entra takes for it.
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
}

/// A virtual machine and what is assigned to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vm {
    /// Name, as `compute.name` says it.
    pub name: String,
    /// ARM resource id; made up from the name where absent.
    #[serde(default, rename = "resourceID")]
    pub resource_id: Option<String>,
    /// Networks whose addresses are this machine.
    #[serde(default)]
    pub sources: Vec<IpNet>,
    /// Azure region.
    #[serde(default = "default_location")]
    pub location: String,
    /// Names of the user-assigned identities it carries.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Its system-assigned identity, if it has one.
    #[serde(default)]
    pub system_assigned: Option<SystemAssigned>,
    /// `compute.userData`, base64 as Azure gives it; a secret more often than not.
    #[serde(default)]
    pub user_data: String,
    /// `compute.customData`.
    #[serde(default)]
    pub custom_data: String,
    /// Name of the scale set that it is an instance of; not written but made from [`ScaleSet`].
    #[serde(skip)]
    pub scale_set: Option<String>,
}

/// A system-assigned managed identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemAssigned {
    /// Application (client) id, a GUID.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Object id of the service principal, a GUID.
    #[serde(rename = "principalID")]
    pub principal_id: String,
}

/// A Key Vault, served over TLS as `<name>.vault.azure.net`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vault {
    /// First label of the host name.
    pub name: String,
    /// Further host names or addresses it answers to.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Secret name → value.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Who may do what.
    #[serde(default)]
    pub allow: Allow,
}

/// A vault's access list. Entries are principal ids, names of identities, or `*` for everybody with a good token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allow {
    /// Who may read a secret's value.
    #[serde(default)]
    pub get: Vec<String>,
    /// Who may list secrets; those who may get, where absent.
    #[serde(default)]
    pub list: Option<Vec<String>>,
}

/// How tokens are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokens {
    /// Life of a new token (`24h`, `90s`); whole seconds count.
    #[serde(default = "day", with = "friendly::required")]
    pub lifetime: Duration,
    /// Hand out one token for each (identity, resource) again, as IMDS does.
    #[serde(default = "yes")]
    pub cache: bool,
    /// A cached token with less than this left is replaced; half the lifetime where absent.
    #[serde(default, with = "friendly::optional")]
    pub renew_before: Option<Duration>,
    /// Puts a `refresh_in` of this length into the answer, which IMDS mostly does not.
    #[serde(default, with = "friendly::optional")]
    pub refresh_in: Option<Duration>,
    /// How far simulated Azure's clock is ahead of this machine's (`4m`; `-4m`: behind).
    #[serde(default)]
    pub clock_skew: SignedDuration,
}

/// How IMDS behaves as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Imds {
    /// Time each answer to an identity request takes.
    #[serde(default, with = "friendly::required")]
    pub latency: Duration,
    /// 20 requests a second and 5 at once for each machine; false switches it off.
    #[serde(default = "yes")]
    pub throttle: bool,
    /// Time from a finished assignment (or removal) at ARM until IMDS knows of it.
    #[serde(default, with = "friendly::required")]
    pub assignment_delay: Duration,
}

/// Why a world cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A file could not be read: the world's own, or one that it names.
    #[error("cannot read world file {}", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not the YAML that is expected; the message has line and field.
    #[error("world {origin}: {message}")]
    Parse {
        /// File name, or `text`.
        origin: String,
        /// The parser's words.
        message: String,
    },
    /// It parses but contradicts itself.
    #[error("world: {field}: {problem}")]
    Invalid {
        /// Path of the field, as `vms[0].identities`.
        field: String,
        /// What is wrong, and the way out.
        problem: String,
    },
}

impl World {
    /// Reads and checks a world file.
    pub fn load(path: &Path) -> Result<Self, WorldError> {
        let text = std::fs::read_to_string(path).map_err(|source| WorldError::Read {
            path: path.to_owned(),
            source,
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, &path.display().to_string(), folder)
    }

    /// Reads and checks a world given as YAML text; files it names are looked for where the process is.
    pub fn from_yaml(text: &str) -> Result<Self, WorldError> {
        Self::parse(text, "text", Path::new("."))
    }

    fn parse(text: &str, origin: &str, folder: &Path) -> Result<Self, WorldError> {
        let mut world: Self = serde_saphyr::from_str(text).map_err(|error| WorldError::Parse {
            origin: origin.to_owned(),
            message: error.to_string(),
        })?;
        world.read_files(folder)?;
        world.check()?;
        Ok(world)
    }

    /// Puts the texts of the files it names in place.
    fn read_files(&mut self, folder: &Path) -> Result<(), WorldError> {
        let failed = |(path, source)| WorldError::Read { path, source };
        for application in &mut self.applications {
            let subjects = application.certificate_subjects.iter_mut();
            let authorities = subjects.map(|subject| &mut subject.authority);
            for pem in application.certificates.iter_mut().chain(authorities) {
                pem.read(folder).map_err(failed)?;
            }
        }
        for issuer in &mut self.issuers {
            if let Some(file) = issuer.ca_file.take() {
                let mut pem = Pem::File(PemFile { file });
                pem.read(folder).map_err(failed)?;
                issuer.ca_pem = Some(pem.text().to_owned());
            }
        }
        Ok(())
    }

    /// The object id of the identity or application of that name.
    pub fn principal_id(&self, name: &str) -> Option<&str> {
        let application = || {
            self.applications
                .iter()
                .find(|application| application.name == name)
        };
        let identity = self
            .identity(name)
            .map(|identity| identity.principal_id.as_str());
        identity.or_else(|| application().map(|application| application.principal_id.as_str()))
    }

    /// The identity of that name.
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        self.identities
            .iter()
            .find(|identity| identity.name == name)
    }
}

impl Vm {
    /// Its ARM resource id, made up where the file has none.
    pub fn arm_id(&self) -> String {
        self.resource_id.clone().unwrap_or_else(|| {
            format!(
                "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/simulated\
                 /providers/Microsoft.Compute/virtualMachines/{}",
                self.name
            )
        })
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            lifetime: day(),
            cache: true,
            renew_before: None,
            refresh_in: None,
            clock_skew: SignedDuration::ZERO,
        }
    }
}

impl Default for Imds {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            throttle: true,
            assignment_delay: Duration::ZERO,
        }
    }
}

fn day() -> Duration {
    Duration::from_hours(24)
}

fn yes() -> bool {
    true
}

fn default_location() -> String {
    "westeurope".to_owned()
}

#[cfg(test)]
mod tests;
