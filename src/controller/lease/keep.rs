//! Keeps the lease, or waits for it: the election's steps, one after the other, as calls.
//!
//! In: the Kubernetes API, when to step down. Out: what the [`Guard`] tells. Blocks on one call at a
//! time, each with its deadline; ends only when it was told to step down. A lost lease ends nothing:
//! this process is a candidate again.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::Settings;
use super::election::{Election, Step};
use super::guard::{Guard, Term};
use crate::kubernetes::Cluster;
use crate::serve::clock;

/// Keeps the lease once it is [run](Keeper::run).
pub struct Keeper {
    leases: Api<Lease>,
    settings: Settings,
    election: Election,
    term: watch::Sender<Option<Term>>,
}

/// A lease to be kept, and what the rest of the controller sees of it.
#[must_use]
pub fn lease(cluster: &Cluster, settings: Settings) -> (Guard, Keeper) {
    let (term, receiver) = watch::channel(None);
    let keeper = Keeper {
        leases: Api::namespaced(cluster.client.clone(), &settings.namespace),
        election: Election::new(settings.clone(), Instant::now()),
        settings,
        term,
    };
    (Guard::new(receiver), keeper)
}

/// Why a call did nothing, or may have.
enum Trouble {
    /// 409: somebody was faster.
    Outdated,
    /// 404.
    Missing,
    /// The rest, in words.
    Failed(String),
}

impl Trouble {
    /// Where something is to be created, it is its namespace that is missing.
    fn of_creation(self) -> Self {
        match self {
            Self::Missing => Self::Failed("there is no such namespace".to_owned()),
            other => other,
        }
    }
}

impl Keeper {
    /// Keeps the lease until `stop` resolves. From then on the guard says that it is not held; when
    /// `stopped` resolves (nothing that was begun under the lease is under way any more), it is given
    /// back, so that another candidate need not wait for its end.
    pub async fn run(mut self, stop: impl Future<Output = ()>, stopped: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.keep() => {}
        }
        let given_back = self.election.step_down(clock::now());
        self.publish();
        stopped.await;
        let Some(lease) = given_back else {
            return;
        };
        match self.replace(&lease).await {
            Ok(_) => tracing::info!(lease = self.settings.name, "the lease is given back"),
            Err(Trouble::Outdated | Trouble::Missing) => {}
            Err(Trouble::Failed(error)) => {
                tracing::warn!(lease = self.settings.name, %error, "the lease could not be given back; it ends by itself");
            }
        }
    }

    async fn keep(&mut self) {
        loop {
            match self.election.next(Instant::now(), clock::now()) {
                Step::Wait(until) => sleep_until(until).await,
                step => self.act(step).await,
            }
            self.election.lapse(Instant::now());
            self.publish();
        }
    }

    async fn act(&mut self, step: Step) {
        let begun = Instant::now();
        let answer = match step {
            Step::Wait(_) => return,
            Step::Look => {
                let found = self.call(self.leases.get(&self.settings.name)).await;
                let now = Instant::now();
                return match found {
                    Ok(lease) => self.election.looked(Some(lease), now),
                    Err(Trouble::Missing) => self.election.looked(None, now),
                    Err(trouble) => self.stumble(trouble, now),
                };
            }
            Step::Create(lease) => {
                let params = PostParams::default();
                let created = self.call(self.leases.create(&params, &lease)).await;
                created.map_err(Trouble::of_creation)
            }
            Step::Replace(lease) => self.replace(&lease).await,
        };
        let now = Instant::now();
        match answer {
            Ok(lease) => self.election.written(lease, begun, now),
            Err(trouble) => self.stumble(trouble, now),
        }
    }

    fn stumble(&mut self, trouble: Trouble, now: Instant) {
        match trouble {
            Trouble::Outdated | Trouble::Missing => self.election.outdated(now),
            Trouble::Failed(error) => {
                tracing::warn!(lease = self.settings.name, %error, "the lease was not read or written; it is tried again");
                self.election.failed(now);
            }
        }
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, Trouble> {
        let params = PostParams::default();
        let name = &self.settings.name;
        self.call(self.leases.replace(name, &params, lease)).await
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Trouble> {
        match timeout(self.settings.call, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Trouble::Missing),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Trouble::Outdated),
            Ok(Err(error)) => Err(Trouble::Failed(error.to_string())),
            Err(_) => Err(Trouble::Failed(format!(
                "no answer within {} s",
                self.settings.call.as_secs_f32()
            ))),
        }
    }

    /// Tells the guard, and the log where something changed.
    fn publish(&self) {
        let term = self.election.term();
        let number = |term: Option<Term>| term.map(|term| term.number);
        let mut before = None;
        self.term.send_if_modified(|told| {
            before = *told;
            let changed = *told != term;
            *told = term;
            changed
        });
        if number(before) == number(term) {
            return;
        }
        let (lease, identity) = (&self.settings.name, &self.settings.identity);
        if term.is_some() {
            tracing::info!(lease, identity, "this controller holds the lease");
        } else {
            let holder = self.election.holder();
            tracing::warn!(
                lease,
                identity,
                holder,
                "this controller does not hold the lease any more: it writes nothing"
            );
        }
    }
}

#[cfg(test)]
mod tests;
