//! An Azure for the tests of apply: compute resources with identities, operations that take their time,
//! refusals on demand, and a journal of what was asked when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::azure::arm::{
    ArmError, ArmErrorKind, ComputeShown, IdentityPatch, Principal, Progress, ProvisioningState,
};
use crate::controller::apply::{Arm, Lease, Sent};
use crate::model::compute::Compute;
use crate::model::ids::{ArmId, Guid};

/// Clones are the same Azure.
#[derive(Clone, Debug, Default)]
pub struct FakeArm(Arc<Mutex<Azure>>);

/// What there is.
#[derive(Debug, Default)]
pub struct Azure {
    pub machines: BTreeMap<ArmId, Machine>,
    /// Identities that spoil a PATCH.
    pub bad: BTreeSet<ArmId>,
    /// Whether the refusal names them.
    pub names: bool,
    /// Whether the refusal says that it is about identities.
    pub vague: bool,
    /// How long an operation takes; zero: done at once.
    pub takes: Duration,
    /// What each next PATCH is answered, after it was done or not.
    pub answers: VecDeque<(bool, ArmError)>,
    /// What the next reads are answered.
    pub reads: VecDeque<ArmError>,
    /// What the next questions about an operation are answered.
    pub asked: VecDeque<ArmError>,
    /// Before a token is at hand.
    pub prepares: Duration,
    /// Before a PATCH is answered.
    pub answer_after: Duration,
    /// Compute resources whose operations never end.
    pub stuck: BTreeSet<ArmId>,
    /// Principal of identities that are assigned from now on.
    pub principal: Option<Guid>,
    pub journal: Vec<Asked>,
}

#[derive(Debug, Default)]
pub struct Machine {
    pub identities: BTreeMap<ArmId, Principal>,
    version: u64,
    running: Option<(Instant, IdentityPatch, Option<ArmError>)>,
    failed: Option<ArmError>,
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    /// `None`: a read.
    pub patch: Option<IdentityPatch>,
}

impl FakeArm {
    /// Looks at it, or changes it.
    pub fn with<T>(&self, f: impl FnOnce(&mut Azure) -> T) -> T {
        f(&mut self.0.lock())
    }

    /// Every PATCH so far.
    pub fn patches(&self) -> Vec<Asked> {
        let journal = self.with(|azure| azure.journal.clone());
        let is_patch = |asked: &Asked| asked.patch.is_some();
        journal.into_iter().filter(is_patch).collect()
    }

    /// How many reads so far.
    pub fn reads(&self) -> usize {
        self.with(|azure| azure.journal.len()) - self.patches().len()
    }

    /// What is assigned.
    pub fn assigned(&self, compute: &Compute) -> BTreeSet<ArmId> {
        self.with(|azure| {
            azure.settle();
            let machine = azure.machines.get(&compute.id);
            machine.map_or_else(BTreeSet::new, |machine| {
                machine.identities.keys().cloned().collect()
            })
        })
    }
}

impl Azure {
    /// A machine without identities.
    pub fn machine(&mut self, compute: &Compute) -> &mut Machine {
        self.machines.entry(compute.id.clone()).or_default()
    }

    fn settle(&mut self) {
        let now = Instant::now();
        let principal = Principal {
            client_id: None,
            principal_id: self.principal,
        };
        for machine in self.machines.values_mut() {
            let is_over = machine.running.as_ref().is_some_and(|(at, ..)| *at <= now);
            if let Some((_, patch, error)) = machine.running.take_if(|_| is_over) {
                machine.version += 1;
                machine.failed = error;
                if machine.failed.is_none() {
                    for id in patch.add {
                        machine.identities.insert(id, principal);
                    }
                    for id in patch.remove {
                        machine.identities.remove(&id);
                    }
                }
            }
        }
    }

    fn show(&mut self, id: &ArmId) -> Result<ComputeShown, ArmError> {
        self.settle();
        let gone = || ArmError::new(ArmErrorKind::NotFound, "was not found");
        let machine = self.machines.get(id).ok_or_else(gone)?;
        Ok(ComputeShown {
            etag: Some(machine.version.to_string()),
            location: None,
            system_assigned: true,
            identities: machine.identities.clone(),
            unreadable: 0,
            state: match (&machine.running, &machine.failed) {
                (Some(_), _) => ProvisioningState::Updating,
                (None, Some(_)) => ProvisioningState::Failed,
                (None, None) => ProvisioningState::Succeeded,
            },
            tenant: None,
        })
    }

    fn refusal(&self, patch: &IdentityPatch) -> Option<ArmError> {
        let bad = patch.add.iter().filter(|id| self.bad.contains(*id));
        let bad: Vec<ArmId> = bad.cloned().collect();
        let kind = if self.vague {
            ArmErrorKind::Refused
        } else {
            ArmErrorKind::BadIdentity
        };
        let mut error = ArmError::new(kind, "an identity was not found");
        error.status = Some(400);
        if self.names {
            error.identities.clone_from(&bad);
        }
        (!bad.is_empty()).then_some(error)
    }

    fn patch(&mut self, id: &ArmId, patch: &IdentityPatch) -> Result<Sent<ArmId>, ArmError> {
        self.settle();
        assert!(
            patch.add.len() + patch.remove.len() <= 150,
            "too many for Azure"
        );
        assert!(patch.system_assigned, "the system-assigned identity stays");
        let answer = self.answers.pop_front();
        if let Some((false, error)) = &answer {
            return Err(error.clone());
        }
        let version = self.show(id)?.etag;
        if patch.etag != version {
            return Err(ArmError::new(ArmErrorKind::Precondition, "it changed"));
        }
        if self.machines[id].running.is_some() {
            return Err(ArmError::new(ArmErrorKind::Conflict, "another operation"));
        }
        let refusal = self.refusal(patch);
        if let Some(error) = refusal {
            return Err(error);
        }
        let ends = if self.stuck.contains(id) {
            Instant::now() + Duration::from_hours(1000)
        } else {
            Instant::now() + self.takes
        };
        let is_done = ends <= Instant::now();
        let machine = self.machines.entry(id.clone()).or_default();
        machine.running = Some((ends, patch.clone(), None));
        if let Some((_, error)) = answer {
            return Err(error);
        }
        if is_done {
            return Ok(Sent::Done(self.show(id)?));
        }
        Ok(Sent::Running {
            operation: id.clone(),
            after: Duration::from_secs(5),
        })
    }

    /// The operation that runs ends so.
    pub fn end(&mut self, compute: &Compute, error: Option<ArmError>) {
        let machine = self.machines.entry(compute.id.clone()).or_default();
        if let Some(running) = &mut machine.running {
            (running.0, running.2) = (Instant::now(), error);
        }
    }

    /// Somebody else changes something.
    pub fn touch(&mut self, compute: &Compute) {
        self.machine(compute).version += 1;
    }
}

impl Arm for FakeArm {
    type Operation = ArmId;

    async fn prepare(&self, _: Duration) -> Result<(), ArmError> {
        let takes = self.with(|azure| azure.prepares);
        sleep(takes).await;
        Ok(())
    }

    async fn compute(&self, compute: &Compute, _: Duration) -> Result<ComputeShown, ArmError> {
        self.with(|azure| {
            azure.journal.push(Asked {
                at: Instant::now(),
                patch: None,
            });
            match azure.reads.pop_front() {
                Some(error) => Err(error),
                None => azure.show(&compute.id),
            }
        })
    }

    async fn patch(
        &self,
        compute: &Compute,
        patch: &IdentityPatch,
        _: Duration,
    ) -> Result<Sent<ArmId>, ArmError> {
        self.with(|azure| {
            azure.journal.push(Asked {
                at: Instant::now(),
                patch: Some(patch.clone()),
            });
        });
        let takes = self.with(|azure| azure.answer_after);
        sleep(takes).await;
        self.with(|azure| azure.patch(&compute.id, patch))
    }

    async fn progress(&self, operation: &ArmId, _: Duration) -> Result<Progress, ArmError> {
        self.with(|azure| {
            azure.settle();
            azure.journal.push(Asked {
                at: Instant::now(),
                patch: None,
            });
            if let Some(error) = azure.asked.pop_front() {
                return Err(error);
            }
            let machine = &azure.machines[operation];
            Ok(match (&machine.running, &machine.failed) {
                (Some(_), _) => Progress::Running {
                    after: Duration::from_secs(5),
                },
                (None, Some(error)) => Progress::Failed(error.clone()),
                (None, None) => Progress::Succeeded,
            })
        })
    }
}

/// A lease that is held, until it is taken away.
#[derive(Clone, Debug)]
pub struct FakeLease(Arc<watch::Sender<Option<Duration>>>);

impl Default for FakeLease {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Some(Duration::from_secs(12)))))
    }
}

impl FakeLease {
    /// It always lasts this long from now on.
    pub fn lasts(&self, left: Option<Duration>) {
        self.0.send_replace(left);
    }
}

impl Lease for FakeLease {
    fn until(&self) -> Option<Instant> {
        self.0.borrow().map(|left| Instant::now() + left)
    }
}
