//! Why we have no token. Each names the file or the service, and the way out; none holds a secret.

use std::path::PathBuf;
use std::time::Duration;

use crate::azure::credential::CredentialError;
use crate::azure::entra::EntraError;
use crate::azure::imds::ImdsError;

/// Why we have no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// A file cannot be read.
    #[error("the credential file {} {why}; {}", path.display(), way_out)]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, as "cannot be read: …".
        why: String,
        /// What to do.
        way_out: &'static str,
    },
    /// A file holds no usable credential.
    #[error("the credential file {}: {why}", path.display())]
    Credential {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: CredentialError,
    },
    /// Entra ID gives none.
    #[error("{error}{}", hint(way_out))]
    Entra {
        /// What it says.
        error: EntraError,
        /// What to do; may be empty.
        way_out: String,
    },
    /// The node's IMDS gives none.
    #[error("{error}{}", hint(way_out))]
    Imds {
        /// What it says.
        error: ImdsError,
        /// What to do; may be empty.
        way_out: String,
    },
    /// None within the limit.
    #[error("no token for Azure Resource Manager within {0:?}")]
    Late(Duration),
}

fn hint(way_out: &str) -> String {
    if way_out.is_empty() {
        return String::new();
    }
    format!("; {way_out}")
}

impl AccessError {
    /// Whether waiting alone may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Late(_) => true,
            Self::Config(_) | Self::File { .. } | Self::Credential { .. } => false,
            Self::Entra { error, .. } => matches!(
                error,
                EntraError::Throttled { .. }
                    | EntraError::Unavailable { .. }
                    | EntraError::Invalid(_)
            ),
            Self::Imds { error, .. } => matches!(
                error,
                ImdsError::Updating(_)
                    | ImdsError::Throttled { .. }
                    | ImdsError::Unavailable(_)
                    | ImdsError::Invalid(_)
            ),
        }
    }

    /// How long the service wants to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Entra {
                error:
                    EntraError::Throttled { retry_after } | EntraError::Unavailable { retry_after, .. },
                ..
            }
            | Self::Imds {
                error: ImdsError::Throttled { retry_after },
                ..
            } => *retry_after,
            _ => None,
        }
    }
}
