//! What Azure Resource Manager (ARM) can say instead of yes, typed by what can be done about it.
//!
//! In: what was asked and what came back. Out: an [`ArmError`], whose texts are ARM's own, shortened,
//! and hold nothing that could be a token. Pure. How an answer becomes one is in `answer`, what a
//! person is to do about it in `advice`.

use std::fmt;
use std::time::Duration;

use crate::model::ids::{ArmId, Guid};

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArmErrorKind {
    /// The resource itself does not exist.
    NotFound,
    /// Its resource group or its subscription does not exist, or the caller does not see it.
    GroupOrSubscriptionGone,
    /// Too many requests; see [`ArmError::retry_after`].
    Throttled,
    /// Another operation on the resource runs: it passes.
    Conflict,
    /// The resource changed since it was read (`ETag`).
    Precondition,
    /// No token, or one that ARM does not take: the credential of the caller.
    Unauthenticated,
    /// The caller has no role that allows it.
    Forbidden,
    /// The caller may change the compute resource, and may not assign one or more of the identities.
    LinkedAuthorization,
    /// One or more of the identities cannot be assigned: deleted, in another tenant, misspelt.
    BadIdentity,
    /// A limit of Azure's is reached: more identities, or federated credentials, than it takes.
    TooMany,
    /// Any other final answer: a lock, a policy, a name that is taken.
    Refused,
    /// ARM in trouble, no connection, or silence. Whether a write was done is not known.
    Unavailable,
    /// An answer that is none: HTML, cut off JSON, too large.
    Nonsense,
}

impl ArmErrorKind {
    /// All kinds, for metrics.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::GroupOrSubscriptionGone,
        Self::Throttled,
        Self::Conflict,
        Self::Precondition,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::LinkedAuthorization,
        Self::BadIdentity,
        Self::TooMany,
        Self::Refused,
        Self::Unavailable,
        Self::Nonsense,
    ];

    /// As a condition's reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::GroupOrSubscriptionGone => "GroupOrSubscriptionGone",
            Self::Throttled => "Throttled",
            Self::Conflict => "Conflict",
            Self::Precondition => "Changed",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::LinkedAuthorization => "LinkedAuthorizationFailed",
            Self::BadIdentity => "BadIdentity",
            Self::TooMany => "LimitReached",
            Self::Refused => "Refused",
            Self::Unavailable => "AzureUnavailable",
            Self::Nonsense => "UnreadableAnswer",
        }
    }
}

/// Why ARM did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmError {
    /// What can be done about it.
    pub kind: ArmErrorKind,
    /// HTTP status; `None`: no answer.
    pub status: Option<u16>,
    /// ARM's error code, as `LinkedAuthorizationFailed`; empty where it gave none.
    pub code: String,
    /// ARM's words, shortened.
    pub message: String,
    /// How long to wait at least, from when the answer came.
    pub retry_after: Option<Duration>,
    /// The user-assigned identities that ARM names as the cause. May be none.
    pub identities: Vec<ArmId>,
    /// ARM's id of the request, for Azure's support.
    pub request_id: Option<Box<str>>,
    /// Who asked about what, for the advice.
    pub origin: Option<Box<Origin>>,
}

/// Who asked about what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// What was asked for or about.
    pub resource: Option<ArmId>,
    /// Object id of the caller in Entra ID, where ARM or the token says it.
    pub caller: Option<Guid>,
}

impl ArmError {
    /// An error of this kind with nothing else known.
    #[must_use]
    pub fn new(kind: ArmErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            code: String::new(),
            message: message.into(),
            retry_after: None,
            identities: Vec::new(),
            request_id: None,
            origin: None,
        }
    }

    /// The same about this resource.
    #[must_use]
    pub fn about(mut self, resource: &ArmId) -> Self {
        self.origin.get_or_insert_default().resource = Some(resource.clone());
        self
    }

    /// The same, and who asked, where ARM did not say it.
    #[must_use]
    pub fn asked_by(mut self, caller: Option<Guid>) -> Self {
        if caller.is_some() {
            let origin = self.origin.get_or_insert_default();
            origin.caller = origin.caller.or(caller);
        }
        self
    }

    /// Whether waiting alone may help: nobody has to do anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ArmErrorKind::Throttled
                | ArmErrorKind::Conflict
                | ArmErrorKind::Precondition
                | ArmErrorKind::Unavailable
                | ArmErrorKind::Nonsense
        )
    }

    /// Whether what was asked for does not exist, for sure: an identity went with its resource group, too. A
    /// subscription that is not seen may be another tenant's view.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self.kind {
            ArmErrorKind::NotFound => true,
            ArmErrorKind::GroupOrSubscriptionGone => {
                self.code.eq_ignore_ascii_case("ResourceGroupNotFound")
            }
            _ => false,
        }
    }

    /// Whether a write that ended so may have been done, or is being done.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        matches!(
            self.kind,
            ArmErrorKind::Unavailable | ArmErrorKind::Nonsense
        )
    }
}

impl fmt::Display for ArmError {
    /// Code, status and ARM's words; what to do is [`ArmError::advice`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.is_empty(), self.status) {
            (false, Some(status)) => write!(f, "{} ({status}): {}", self.code, self.message),
            (false, None) => write!(f, "{}: {}", self.code, self.message),
            (true, Some(status)) => write!(f, "Azure answered {status}: {}", self.message),
            (true, None) => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ArmError {}
