//! What went wrong, as data: whose fault, whether to try again, what the caller may read, and what
//! only the log gets. A closed list: `agent::respond` maps each kind to one status in one table,
//! and each kind has a heading in TROUBLESHOOTING.md.

use std::borrow::Cow;
use std::time::Duration;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The program in the pod asked wrongly, or for what it may not have.
    Caller,
    /// IMDS, Entra or another service behind us.
    Upstream,
    /// The node or the cluster is not (yet) in the state that an answer needs.
    Cluster,
    /// Lanyard itself.
    Internal,
}

/// Every way a request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// No `Metadata: true` header.
    MetadataHeaderMissing,
    /// The request came through a proxy (`X-Forwarded-For`).
    Forwarded,
    /// Malformed query or path.
    BadRequest,
    /// In App Service's dialects: not the secret of the pod's own spec.
    AppServiceHeader,
    /// At the host's own endpoint: no token of a service account that proves who asks.
    HostTokenUnproven,
    /// At the host's own endpoint: who asks is known, and may not.
    HostTokenForbidden,
    /// A method other than GET.
    MethodNotAllowed,
    /// No such path here.
    PathNotFound,
    /// A metadata path that no exception opens for this pod.
    PathForbidden,
    /// The pod has no identity, or not the one it asked for.
    IdentityNotFound,
    /// Several identities and nothing says which.
    IdentityAmbiguous,
    /// At the host's own endpoint: no such pod on this node.
    PodNotHere,
    /// No pod is known (yet) at the caller's address.
    PodUnknown,
    /// Several live pods claim the caller's address.
    PodAmbiguous,
    /// The address is not where it was when the pod was seen.
    PodMoved,
    /// The pod is served inside its own network namespace, and the request came from outside of it.
    AskedFromOutside,
    /// What is known of the cluster is too old to be believed: the API server has been away for long.
    StateTooOld,
    /// The API server could not say who asks, or whether he may.
    ReviewUnavailable,
    /// The identity was granted lately and Azure does not show it on the node yet.
    NotYetAssigned,
    /// What the identity needs for tokens of its own is missing or broken: its Secret, what is in it, its
    /// tenant or its token endpoint.
    CredentialUnusable,
    /// The pod sends more uncached requests than its share.
    PodThrottled,
    /// Too many requests wait already.
    Overloaded,
    /// The source refused this resource or identity for good (its own words are passed on).
    UpstreamRefused,
    /// The source asked us to slow down.
    UpstreamThrottled,
    /// The source failed, or did not answer in time.
    UpstreamUnavailable,
    /// The source answered nonsense, or a token for somebody else.
    UpstreamInvalid,
    /// A bug of ours.
    Internal,
}

impl FaultKind {
    /// All kinds, in the order of declaration.
    pub const ALL: [Self; 27] = [
        Self::MetadataHeaderMissing,
        Self::Forwarded,
        Self::BadRequest,
        Self::AppServiceHeader,
        Self::HostTokenUnproven,
        Self::HostTokenForbidden,
        Self::MethodNotAllowed,
        Self::PathNotFound,
        Self::PathForbidden,
        Self::IdentityNotFound,
        Self::IdentityAmbiguous,
        Self::PodNotHere,
        Self::PodUnknown,
        Self::PodAmbiguous,
        Self::PodMoved,
        Self::AskedFromOutside,
        Self::StateTooOld,
        Self::ReviewUnavailable,
        Self::NotYetAssigned,
        Self::CredentialUnusable,
        Self::PodThrottled,
        Self::Overloaded,
        Self::UpstreamRefused,
        Self::UpstreamThrottled,
        Self::UpstreamUnavailable,
        Self::UpstreamInvalid,
        Self::Internal,
    ];

    /// The stable name: metric label, log field and anchor in TROUBLESHOOTING.md (with `-`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MetadataHeaderMissing => "metadata_header_missing",
            Self::Forwarded => "forwarded",
            Self::BadRequest => "bad_request",
            Self::AppServiceHeader => "app_service_header",
            Self::HostTokenUnproven => "host_token_unproven",
            Self::HostTokenForbidden => "host_token_forbidden",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PathNotFound => "path_not_found",
            Self::PathForbidden => "path_forbidden",
            Self::IdentityNotFound => "identity_not_found",
            Self::IdentityAmbiguous => "identity_ambiguous",
            Self::PodNotHere => "pod_not_here",
            Self::PodUnknown => "pod_unknown",
            Self::PodAmbiguous => "pod_ambiguous",
            Self::PodMoved => "pod_moved",
            Self::AskedFromOutside => "asked_from_outside",
            Self::StateTooOld => "state_too_old",
            Self::ReviewUnavailable => "review_unavailable",
            Self::NotYetAssigned => "not_yet_assigned",
            Self::CredentialUnusable => "credential_unusable",
            Self::PodThrottled => "pod_throttled",
            Self::Overloaded => "overloaded",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamThrottled => "upstream_throttled",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::Internal => "internal",
        }
    }

    /// Whose fault.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::MetadataHeaderMissing
            | Self::Forwarded
            | Self::BadRequest
            | Self::AppServiceHeader
            | Self::HostTokenUnproven
            | Self::HostTokenForbidden
            | Self::PodNotHere
            | Self::MethodNotAllowed
            | Self::PathNotFound
            | Self::PathForbidden
            | Self::IdentityNotFound
            | Self::IdentityAmbiguous
            | Self::PodThrottled => Blame::Caller,
            Self::PodUnknown
            | Self::PodAmbiguous
            | Self::PodMoved
            | Self::AskedFromOutside
            | Self::StateTooOld
            | Self::ReviewUnavailable
            | Self::NotYetAssigned
            | Self::CredentialUnusable => Blame::Cluster,
            Self::UpstreamRefused
            | Self::UpstreamThrottled
            | Self::UpstreamUnavailable
            | Self::UpstreamInvalid => Blame::Upstream,
            Self::Overloaded | Self::Internal => Blame::Internal,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub const fn may_retry(self) -> bool {
        matches!(
            self,
            Self::PodUnknown
                | Self::PodAmbiguous
                | Self::PodMoved
                | Self::AskedFromOutside
                | Self::StateTooOld
                | Self::ReviewUnavailable
                | Self::NotYetAssigned
                | Self::PodThrottled
                | Self::Overloaded
                | Self::UpstreamThrottled
                | Self::UpstreamUnavailable
                | Self::UpstreamInvalid
        )
    }
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {public}{}{detail}", kind.as_str(), if detail.is_empty() { "" } else { ": " })]
pub struct Fault {
    /// Which of the closed list.
    pub kind: FaultKind,
    /// When to try again; only for kinds that may be retried.
    pub retry_after: Option<Duration>,
    /// `error` of the answer's JSON; empty = the kind's usual word.
    pub code: Cow<'static, str>,
    /// `error_description` of the answer's JSON: what the caller may read.
    pub public: Cow<'static, str>,
    /// What only the log gets. Never a token or a key.
    pub detail: String,
}

impl Fault {
    /// A fault with the text that the caller may read.
    pub fn new(kind: FaultKind, public: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = kind.may_retry().then_some(Duration::from_secs(1));
        Self {
            kind,
            retry_after,
            code: Cow::Borrowed(""),
            public: public.into(),
            detail: String::new(),
        }
    }

    /// Adds what only the log gets.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says when to try again. Ignored for kinds that are final: SDKs would retry a refusal.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = self.kind.may_retry().then_some(after);
        self
    }

    /// Passes the source's own error word on.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = code.into();
        self
    }

    /// The refusal that SDKs know from Azure.
    #[must_use]
    pub fn identity_not_found(detail: impl Into<String>) -> Self {
        Self::new(FaultKind::IdentityNotFound, "Identity not found").with_detail(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_fault_never_carries_retry_after() {
        let fault = Fault::identity_not_found("x").with_retry_after(Duration::from_secs(3));
        assert_eq!(fault.retry_after, None);
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FaultKind::ALL.len());
    }
}
