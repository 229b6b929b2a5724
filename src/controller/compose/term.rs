//! One term of leadership: what works while this process holds the lease, and ends with it.
//!
//! In: what is wanted, from the core. Out: workers for compute resources and managed identities, the
//! directory of identities, the report. Begins with records that were read anew: what the last leader
//! wrote an instant ago counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::core::{Core, Taken};
use super::parts::Parts;
use crate::azure::arm::ArmClient;
use crate::controller::apply::{Applier, Surroundings};
use crate::controller::identities::Directory;
use crate::controller::lease::Guard;
use crate::controller::managed::outside::KubernetesObjects;
use crate::controller::managed::{Managed, Settings};
use crate::controller::plan::plan;
use crate::controller::records::{KubernetesRecords, Records};
use crate::controller::report::Reporter;
use crate::kubernetes::Cluster;
use crate::model::ids::ArmId;
use crate::serve::clock;
use std::collections::BTreeSet;

/// Between attempts to read the records.
const AGAIN: Duration = Duration::from_secs(1);

/// What works during one term.
pub struct Term {
    applier: Applier<ArmClient, KubernetesRecords, Guard>,
    managed: Managed<ArmClient, KubernetesObjects, Guard>,
    reporter: Reporter,
    named: watch::Sender<BTreeSet<ArmId>>,
    _tasks: JoinSet<()>,
}
