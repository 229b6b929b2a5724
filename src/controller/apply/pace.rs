//! How often ARM may be asked: token buckets per subscription and per compute resource, and the waits
//! that Azure itself asked for. One for the process: a change of leader in it forgets nothing.
//!
//! In: who is about to read or write, and 429s. Out: now, or not before when. Blocks on nothing. Holds
//! invariant 8: no call before Retry-After has passed; all workers of a subscription share its rate,
//! which stays below what Azure gives (reads 25/s of 250, writes 10/s of 200 for a subscription; 4
//! changes a minute of 12 for a scale set), since others use it, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::compute::Compute;
use crate::model::ids::ArmId;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// One more after this time.
    pub every: Duration,
    /// So many at once after a quiet time.
    pub burst: u32,
}

/// The rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Reads in a subscription.
    pub reads: Refill,
    /// Writes in a subscription.
    pub writes: Refill,
    /// Writes of one compute resource.
    pub changes: Refill,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            reads: Refill {
                every: Duration::from_millis(100),
                burst: 100,
            },
            writes: Refill {
                every: Duration::from_millis(200),
                burst: 80,
            },
            changes: Refill {
                every: Duration::from_secs(20),
                burst: 9,
            },
        }
    }
}

/// Writes of identities in a subscription: Azure takes 40 creations in 20 s.
const IDENTITY_WRITES: Refill = Refill {
    every: Duration::from_millis(500),
    burst: 20,
};

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A GET.
    Read,
    /// A PATCH, or another change.
    Write,
}

/// Why not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBefore {
    /// Then.
    pub at: Instant,
    /// Whether Azure asked for it; else our own rate does.
    pub asked: bool,
}

/// All rates and waits. Memory: an entry for each compute resource that there is, and each subscription.
#[derive(Debug)]
pub struct Paces {
    rates: Rates,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    subscriptions: HashMap<Arc<str>, Subscription>,
    computes: HashMap<ArmId, Resource>,
}

#[derive(Debug, Default)]
struct Subscription {
    reads: Bucket,
    writes: Bucket,
    wait: Option<Instant>,
    identities: Identities,
}

/// Identities have a rate of their own: how many there are is up to whoever writes `AzureIdentity`s, and
/// compute resources must not wait for them.
#[derive(Debug, Default)]
struct Identities {
    reads: Bucket,
    writes: Bucket,
    wait: Option<Instant>,
}

#[derive(Debug, Default)]
struct Resource {
    changes: Bucket,
    wait: Option<Instant>,
}

/// When the next would be due if all came evenly.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    fn ready_at(self, refill: Refill, now: Instant) -> Instant {
        let ahead = refill.every * refill.burst.saturating_sub(1);
        match self.0 {
            Some(due) => due.checked_sub(ahead).unwrap_or(now).max(now),
            None => now,
        }
    }

    fn take(&mut self, refill: Refill, now: Instant) {
        self.0 = Some(self.0.unwrap_or(now).max(now) + refill.every);
    }
}

impl Paces {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self {
            rates,
            inner: Mutex::default(),
        }
    }

    /// Takes one, where that may be now.
    pub fn take(&self, compute: &Compute, access: Access) -> Result<(), NotBefore> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let Inner {
            subscriptions,
            computes,
        } = &mut *inner;
        let subscription = subscriptions
            .entry(subscription_of(&compute.id))
            .or_default();
        let resource = computes.entry(compute.id.clone()).or_default();
        let asked = subscription.wait.max(resource.wait);
        if let Some(at) = asked.filter(|at| *at > now) {
            return Err(NotBefore { at, asked: true });
        }
        let (bucket, refill) = match access {
            Access::Read => (&mut subscription.reads, self.rates.reads),
            Access::Write => (&mut subscription.writes, self.rates.writes),
        };
        let mut at = bucket.ready_at(refill, now);
        if access == Access::Write {
            at = at.max(resource.changes.ready_at(self.rates.changes, now));
        }
        if at > now {
            return Err(NotBefore { at, asked: false });
        }
        bucket.take(refill, now);
        if access == Access::Write {
            resource.changes.take(self.rates.changes, now);
        }
        Ok(())
    }

    /// Takes one read or write of an identity, where that may be now.
    pub fn identity(&self, id: &ArmId, access: Access) -> Result<(), NotBefore> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let subscription = inner.subscriptions.entry(subscription_of(id)).or_default();
        let Subscription {
            wait, identities, ..
        } = subscription;
        let asked = (*wait).max(identities.wait);
        if let Some(at) = asked.filter(|at| *at > now) {
            return Err(NotBefore { at, asked: true });
        }
        let (bucket, refill) = match access {
            Access::Read => (&mut identities.reads, self.rates.reads),
            Access::Write => (&mut identities.writes, IDENTITY_WRITES),
        };
        let at = bucket.ready_at(refill, now);
        if at > now {
            return Err(NotBefore { at, asked: false });
        }
        bucket.take(refill, now);
        Ok(())
    }

    /// Azure asks to leave the identities of a subscription alone; `all`: everything in it.
    pub fn identities_wait(&self, of: &ArmId, until: Instant, all: bool) {
        let mut inner = self.inner.lock();
        let subscription = inner.subscriptions.entry(subscription_of(of)).or_default();
        let wait = if all {
            &mut subscription.wait
        } else {
            &mut subscription.identities.wait
        };
        *wait = (*wait).max(Some(until));
    }

    /// Azure asks to wait; `all`: for the whole subscription.
    pub fn wait(&self, compute: &Compute, until: Instant, all: bool) {
        let mut inner = self.inner.lock();
        if all {
            let subscription = inner.subscriptions.entry(subscription_of(&compute.id));
            let wait = &mut subscription.or_default().wait;
            *wait = (*wait).max(Some(until));
        } else {
            let resource = inner.computes.entry(compute.id.clone());
            let wait = &mut resource.or_default().wait;
            *wait = (*wait).max(Some(until));
        }
    }

    /// Nobody asks for it any more. What Azure asked for is kept.
    pub fn forget(&self, compute: &ArmId) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let waits = |resource: &Resource| resource.wait.is_some_and(|until| until > now);
        if !inner.computes.get(compute).is_some_and(waits) {
            inner.computes.remove(compute);
        }
    }
}

/// Id of the subscription, in lower case.
#[must_use]
pub fn subscription_of(id: &ArmId) -> Arc<str> {
    let id = id.as_written().split('/').nth(2).unwrap_or_default();
    id.to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(name: &str) -> Compute {
        format!(
            "/subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/{name}"
        )
        .parse()
        .unwrap()
    }

    fn refill(seconds: u64, burst: u32) -> Refill {
        Refill {
            every: Duration::from_secs(seconds),
            burst,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriptions_rate_is_shared_and_a_resources_is_its_own() {
        let paces = Paces::new(Rates {
            reads: refill(1, 2),
            writes: refill(1, 4),
            changes: refill(10, 2),
        });
        let (one, other, third) = (compute("one"), compute("other"), compute("third"));
        let wait = |compute, access| {
            let taken = paces.take(compute, access);
            taken.map_err(|wait| (wait.at - Instant::now()).as_secs())
        };
        assert_eq!(wait(&one, Access::Write), Ok(()));
        assert_eq!(wait(&one, Access::Write), Ok(()));
        assert_eq!(wait(&one, Access::Write), Err(10));
        assert_eq!(wait(&other, Access::Write), Ok(()));
        assert_eq!(wait(&other, Access::Write), Ok(()));
        assert_eq!(wait(&third, Access::Write), Err(1));
        assert_eq!(wait(&one, Access::Read), Ok(()));
        assert_eq!(wait(&other, Access::Read), Ok(()));
        assert_eq!(wait(&one, Access::Read), Err(1));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(wait(&one, Access::Write), Ok(()));
        assert_eq!(wait(&one, Access::Write), Err(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_azure_asks_for_is_waited_for_and_not_forgotten() {
        let paces = Paces::new(Rates::default());
        let (one, other) = (compute("one"), compute("other"));
        let until = Instant::now() + Duration::from_secs(30);
        paces.wait(&one, until, false);
        paces.wait(&one, until - Duration::from_secs(9), false);
        paces.forget(&one.id);
        let refused = NotBefore {
            at: until,
            asked: true,
        };
        assert_eq!(paces.take(&one, Access::Read), Err(refused));
        assert_eq!(paces.take(&other, Access::Write), Ok(()));
        paces.wait(&one, until, true);
        assert_eq!(paces.take(&other, Access::Read), Err(refused));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(paces.take(&one, Access::Write), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_identities_delays_no_compute_resource() {
        let paces = Paces::new(Rates::default());
        let one = compute("one");
        for access in [Access::Read, Access::Write] {
            while paces.identity(&one.id, access).is_ok() {}
            assert_eq!(paces.take(&one, access), Ok(()));
        }
        let until = Instant::now() + Duration::from_secs(30);
        paces.identities_wait(&one.id, until, false);
        tokio::time::advance(Duration::from_secs(29)).await;
        let refused = NotBefore {
            at: until,
            asked: true,
        };
        assert_eq!(paces.identity(&one.id, Access::Write), Err(refused));
        assert_eq!(paces.take(&one, Access::Read), Ok(()));
        paces.identities_wait(&one.id, until, true);
        assert_eq!(paces.take(&one, Access::Read), Err(refused));
    }
}
