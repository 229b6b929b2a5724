//! What keeps a compute resource or an identity from being in order, in words. Pure.
//!
//! In: an error of ARM. Out: a reason of one word and a message that ends with what to do; no times and no
//! request ids in it, so that the same trouble is the same text, and written once.

use std::sync::Arc;

use crate::azure::arm::{ArmError, ArmErrorKind};
use crate::controller::board::Trouble;
use crate::model::ids::ArmId;

/// Reason and message.
pub type Words = (Arc<str>, Arc<str>);

/// About the compute resource as a whole.
#[must_use]
pub fn trouble(error: &ArmError) -> Trouble {
    let reason = match error.kind {
        ArmErrorKind::NotFound | ArmErrorKind::GroupOrSubscriptionGone => "ComputeGone",
        kind => kind.reason(),
    };
    Trouble {
        reason: reason.into(),
        message: error.in_full().into(),
        until: None,
    }
}

/// About one identity that Azure minds.
#[must_use]
pub fn setback(error: &ArmError, identity: &ArmId) -> Words {
    let about = ArmError {
        identities: vec![identity.clone()],
        ..error.clone()
    };
    (error.kind.reason().into(), about.in_full().into())
}

/// Trouble without an error of ARM's.
#[must_use]
pub fn plainly(reason: &str, message: &str) -> Trouble {
    Trouble {
        reason: reason.into(),
        message: message.into(),
        until: None,
    }
}
