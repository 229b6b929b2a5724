//! Operations that outlive their request: where to ask how far one is, and how the answer is read. Pure.
//!
//! Source: "Track asynchronous Azure operations" (`Azure-AsyncOperation`, `Location`, `Retry-After`,
//! `provisioningState`). Holds that nobody is asked but the ARM endpoint itself, whatever an answer's
//! headers say: our token goes along.

use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderMap;
use serde_json::Value;

use super::compute::{ComputeShown, ProvisioningState};
use super::error::ArmError;
use crate::model::compute::Compute;
use crate::model::ids::ArmId;

/// When to ask next where ARM does not say.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// A write that ARM took.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// It is done; this is what there is now.
    Done(ComputeShown),
    /// It is being done.
    Running(Operation),
}

/// A write that is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// On what.
    pub compute: Compute,
    /// When to ask first, from when the answer came.
    pub after: Duration,
    /// Identities that are being assigned: an error may name their group only.
    pub(super) added: Vec<ArmId>,
    pub(super) place: Place,
}

/// Who knows how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A resource of its own, which says a status.
    Status(Uri),
    /// A page that is 202 until it is done.
    Location(Uri),
    /// The changed resource itself: no other place was named that may be asked.
    Resource,
}

/// How far a write is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Running {
        /// When to ask again.
        after: Duration,
    },
    /// It is done.
    Succeeded,
    /// It ended without success.
    Failed(ArmError),
    /// Somebody stopped it.
    Canceled,
}

/// Where to ask by these headers.
pub(super) fn place(headers: &HeaderMap, endpoint: &Uri) -> Option<Place> {
    let named = |name: &str| {
        let uri: Uri = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        is_same_origin(&uri, endpoint).then_some(uri)
    };
    named("azure-asyncoperation")
        .map(Place::Status)
        .or_else(|| named("location").map(Place::Location))
}

/// Whether both are the same scheme, host and port.
pub(super) fn is_same_origin(uri: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        let usual = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        uri.port_u16().unwrap_or(usual)
    };
    let (Some(one), Some(two)) = (uri.authority(), other.authority()) else {
        return false;
    };
    uri.scheme() == other.scheme()
        && one.host().eq_ignore_ascii_case(two.host())
        && port(uri) == port(other)
        && !one.as_str().contains('@')
}

/// The word of an operation's own resource.
pub(super) enum Word {
    Running,
    Succeeded,
    Failed,
    Canceled,
}

/// What an operation's own resource says. `None`: nothing that is known.
pub(super) fn word(body: &Value) -> Option<Word> {
    let word = body.get("status")?.as_str()?.to_ascii_lowercase();
    Some(match word.as_str() {
        "succeeded" => Word::Succeeded,
        "failed" => Word::Failed,
        "canceled" | "cancelled" => Word::Canceled,
        "" => return None,
        // Each resource provider has words of its own for this.
        _ => Word::Running,
    })
}

/// What the changed resource says.
pub(super) const fn word_of(state: ProvisioningState) -> Word {
    match state {
        ProvisioningState::Updating | ProvisioningState::Deleting => Word::Running,
        ProvisioningState::Failed => Word::Failed,
        ProvisioningState::Canceled => Word::Canceled,
        ProvisioningState::Succeeded | ProvisioningState::Unknown => Word::Succeeded,
    }
}
