//! What a pod asks for.

use super::ids::{ArmId, Guid};

/// The identity that a request names, if any. At most one; compared as Azure compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// No selector: the pod's default identity.
    Default,
    /// `client_id`.
    ClientId(Guid),
    /// `object_id` or `principal_id`.
    ObjectId(Guid),
    /// `msi_res_id`, `mi_res_id` or `resource_id`.
    ResourceId(ArmId),
    /// A selector whose value is no GUID or ARM id: it can match nothing.
    Unmatchable,
}

impl Selector {
    /// The selector as a query writes it, as in `client_id=…`; `None` where it names no identity.
    #[must_use]
    pub fn parameter(&self) -> Option<String> {
        match self {
            Self::ClientId(id) => Some(format!("client_id={id}")),
            Self::ObjectId(id) => Some(format!("object_id={id}")),
            Self::ResourceId(id) => Some(format!("msi_res_id={id}")),
            Self::Default | Self::Unmatchable => None,
        }
    }
}

/// The dialect that a token is asked for and answered in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// IMDS, as virtual machines have it.
    #[default]
    Imds,
    /// App Service, `api-version=2019-08-01`: `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    AppService2019,
    /// App Service, `api-version=2017-09-01`: `MSI_ENDPOINT` and `MSI_SECRET`.
    AppService2017,
    /// The virtual machine extension's, `http://localhost:50342/oauth2/token`.
    VmExtension,
    /// `/host/token`, for somebody on the node who asks on behalf of a pod that he names.
    HostToken,
}

impl Dialect {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 5] = [
        Self::Imds,
        Self::AppService2019,
        Self::AppService2017,
        Self::VmExtension,
        Self::HostToken,
    ];

    /// Metric label and log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::AppService2019 => "app_service_2019",
            Self::AppService2017 => "app_service_2017",
            Self::VmExtension => "vm_extension",
            Self::HostToken => "host_token",
        }
    }
}

/// A token request, after the wire's rules were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenQuery {
    /// The dialect that it came in.
    pub dialect: Dialect,
    /// The audience asked for, byte for byte after URL decoding.
    pub resource: String,
    /// Which identity.
    pub selector: Selector,
    /// `claims`: a challenge to pass on, a JSON object. Such a token is never cached.
    pub claims: Option<String>,
    /// `bypass_cache=true`: a new token is wanted.
    pub bypass_cache: bool,
}
