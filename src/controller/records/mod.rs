//! Where records are kept between runs: `AzureAssignment`s, which agents read and a new leader begins
//! with.
//!
//! In: how far a compute resource is. Out: the objects. Blocks on the API server, with a deadline for
//! each call. Holds that what is written before a PATCH is there when the PATCH is sent (invariant 8).

mod document;
mod folder;
mod kubernetes;
#[cfg(test)]
pub(super) mod memory;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use document::{record, spec, status};
pub use folder::FolderRecords;
pub use kubernetes::KubernetesRecords;

use super::board::Told;
use super::record::Record;
use crate::kubernetes::CallError;
use crate::model::compute::Compute;

/// A record that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of which compute resource.
    pub compute: Arc<Compute>,
    /// What it says.
    pub record: Record,
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The API server, or the way to it.
    #[error("AzureAssignment {name}: {source}")]
    Call {
        /// Which object; `*` for all.
        name: String,
        /// What failed.
        source: CallError,
    },
    /// A file, where records are kept in a folder.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// Somebody else writes it all the time.
    #[error(
        "AzureAssignment {0} is changed by others while it is written: only one controller may write it"
    )]
    Contended(String),
}

/// Keeps records.
pub trait Records: Send + Sync + 'static {
    /// All that were kept. A malformed one is left out and told in the log: what it owned is owned no
    /// more, and so never removed.
    fn all(&self) -> impl Future<Output = Result<Vec<Kept>, RecordError>> + Send;

    /// Keeps a record, and what it says of the compute resource as a whole. Nothing is written where
    /// nothing differs. `now`: since the epoch.
    fn write(
        &self,
        told: &Told,
        now: Duration,
    ) -> impl Future<Output = Result<(), RecordError>> + Send;

    /// Whether what was written last is still there, as far as is known.
    fn holds(&self, compute: &Compute) -> bool;

    /// The record of this name was deleted. Whether that was not known.
    fn lost(&self, name: &str) -> bool;

    /// Keeps it no more.
    fn forget(&self, compute: &Compute) -> impl Future<Output = Result<(), RecordError>> + Send;
}
