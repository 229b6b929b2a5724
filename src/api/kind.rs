//! The kinds of objects that decide, and what they are called: in a manifest, in a path, in a metric.

/// A kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pods.
    Pods,
    /// Namespaces, for their labels.
    Namespaces,
    /// Nodes, for the compute resource behind them.
    Nodes,
    /// `AzureIdentity`.
    Identities,
    /// `AzureIdentityBinding`.
    Bindings,
    /// `AzureIdentityPolicy`.
    Policies,
    /// `AzureMetadataException`.
    Exceptions,
    /// `AzureAssignment`.
    Assignments,
    /// Service accounts, for their annotations.
    ServiceAccounts,
}

impl Kind {
    /// All there are, in the order of declaration.
    pub const EVERY: [Self; 9] = [
        Self::Pods,
        Self::Namespaces,
        Self::Nodes,
        Self::Identities,
        Self::Bindings,
        Self::Policies,
        Self::Exceptions,
        Self::Assignments,
        Self::ServiceAccounts,
    ];

    /// The plural: metric label and resource.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
            Self::Identities => "azureidentities",
            Self::Bindings => "azureidentitybindings",
            Self::Policies => "azureidentitypolicies",
            Self::Exceptions => "azuremetadataexceptions",
            Self::Assignments => "azureassignments",
            Self::ServiceAccounts => "serviceaccounts",
        }
    }

    /// The kind as in a manifest.
    #[must_use]
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Pods => "Pod",
            Self::Namespaces => "Namespace",
            Self::Nodes => "Node",
            Self::Identities => "AzureIdentity",
            Self::Bindings => "AzureIdentityBinding",
            Self::Policies => "AzureIdentityPolicy",
            Self::Exceptions => "AzureMetadataException",
            Self::Assignments => "AzureAssignment",
            Self::ServiceAccounts => "ServiceAccount",
        }
    }

    /// Whether it is a kind of ours, whose CRD may be missing.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        !matches!(
            self,
            Self::Pods | Self::Namespaces | Self::Nodes | Self::ServiceAccounts
        )
    }
}
