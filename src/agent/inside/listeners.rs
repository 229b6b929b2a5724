//! All listeners inside pods, as sandboxes come and go and pods change their minds.
//!
//! In: bundles, the directory. Out: for each sandbox a listener, or nothing of ours. Blocks on the kernel and the disk, in
//! tasks. What somebody laid before us where nothing is to be (this node's mode was another one) is taken away.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answer::Inside;
use super::bundles::{Bundles, Noticed};
use super::lay::Taken;
use super::namespace::Namespace;
use super::stage::{Errand, Stage};
use super::{Face, InsideConfig, InsideMetrics, Leaving, enter, lay, roster};
use crate::agent::intercept::Ownership;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::pipeline::Pipeline;
use crate::serve::series::value;
use crate::serve::{self, ConnMetrics, Drain, Limits};

/// All listeners inside pods.
pub struct Listeners<S: TokenSource> {
    /// What is served where.
    pub config: InsideConfig,
    /// Who answers.
    pub pipeline: Arc<Pipeline<S>>,
    /// Bounds of each listener.
    pub limits: Limits,
    /// The agent's end.
    pub drain: Drain,
    /// The node is left while the agent goes on.
    pub leaving: Leaving,
    /// An instance that has been replaced lays nothing any more: what its successor takes away stays away.
    pub owned: watch::Receiver<Ownership>,
    /// The series of all of them together.
    pub metrics: InsideMetrics,
    /// The series of their connections.
    pub connections: ConnMetrics,
}

/// What was done in a namespace.
enum Did {
    Laid(Vec<TcpListener>),
    Taken(Taken),
    /// Whether anything was amiss.
    Mended(bool),
    Cleared,
}

/// A container id, and where.
type Spot = (String, Face);
type Done = (Spot, io::Result<Did>);
type Stages = BTreeMap<Spot, (Noticed, Stage)>;

impl<S: TokenSource> Listeners<S> {
    /// Serves until the agent ends.
    pub async fn run(self) -> anyhow::Result<()> {
        let _member = self.drain.member();
        let mut bundles = Bundles::of(&self.config.folders.bundles)?;
        let mut known = self.pipeline.directory.subscribe();
        let mut owned = self.owned.clone();
        let mut stages = Stages::new();
        let mut work: JoinSet<Done> = JoinSet::new();
        loop {
            forget(&mut stages, &bundles);
            if self.lays() {
                self.begin(&mut stages, &bundles, &mut work);
            }
            self.count(&stages);
            let again = stages.values().filter_map(|(_, stage)| stage.again()).min();
            let again = again.filter(|_| self.lays());
            tokio::select! {
                () = self.drain.begun() => break,
                () = self.leaving.asked() => return self.leave(&stages, work).await,
                looked = bundles.next() => looked?,
                _ = known.changed() => {}
                Ok(()) = owned.changed() => {}
                Some(done) = work.join_next() => self.take(&mut stages, done?)?,
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
        self.end(&stages).await;
        Ok(())
    }

    fn lays(&self) -> bool {
        let owned = *self.owned.borrow();
        matches!(owned, Ownership::Pending | Ownership::Owner { .. })
    }

    /// Nothing is laid any more, and nobody answers inside; until the agent ends.
    async fn leave(&self, stages: &Stages, mut work: JoinSet<Done>) -> anyhow::Result<()> {
        while work.join_next().await.is_some() {}
        let drains = stages.values().filter_map(|(_, stage)| stage.drain());
        drains.for_each(Drain::cut);
        self.metrics.pods.set(0);
        self.leaving.done();
        self.drain.begun().await;
        Ok(())
    }

    /// Begins what is to be done.
    fn begin(&self, stages: &mut Stages, bundles: &Bundles, work: &mut JoinSet<Done>) {
        let (directory, now) = (self.pipeline.directory.load(), Instant::now());
        let spots = bundles
            .sandboxes()
            .flat_map(|one| Face::ALL.map(|face| (one, face)));
        for ((id, noticed), face) in spots {
            let spot = (id.to_owned(), face);
            let served = roster::is_served(&noticed.sandbox, face, &directory, &self.config);
            let stage = stages.get(&spot).map(|(_, stage)| stage);
            let Some((errand, next)) = Stage::next(stage, served, now) else {
                continue;
            };
            if let Some(drain) = stage.and_then(Stage::drain).filter(|_| !served) {
                drain.cut();
            }
            work.spawn(self.enter(spot.clone(), noticed, errand));
            stages.insert(spot, (noticed.clone(), next));
        }
    }

    fn enter(
        &self,
        spot: Spot,
        noticed: &Noticed,
        errand: Errand,
    ) -> impl Future<Output = Done> + Send + use<S> {
        let folder = self.config.folders.namespaces.clone();
        let name = noticed.sandbox.namespace.clone();
        async move {
            let open = || Namespace::open(&folder, &name);
            let did = async {
                let laid = match (spot.1, errand) {
                    (Face::Imds, Errand::Lay) => enter::enter(open()?, lay::lay).await?,
                    (Face::VmExtension, Errand::Lay) => {
                        enter::enter(open()?, lay::vm_extension).await?
                    }
                    (Face::Imds, Errand::Mend) => {
                        return enter::enter(open()?, lay::mend).await.map(Did::Mended);
                    }
                    (Face::Imds, Errand::Clear) => {
                        enter::enter(open()?, lay::clear).await?;
                        return Ok(Did::Cleared);
                    }
                    // There is nothing but the listeners.
                    (Face::VmExtension, Errand::Mend) => return Ok(Did::Mended(false)),
                    (Face::VmExtension, Errand::Clear) => return Ok(Did::Cleared),
                };
                Ok(match laid {
                    Ok(listeners) => Did::Laid(listeners),
                    Err(taken) => Did::Taken(taken),
                })
            };
            let did = did.await;
            (spot, did)
        }
    }

    fn take(&self, stages: &mut Stages, (spot, did): Done) -> io::Result<()> {
        // A sandbox that went meanwhile took all of it along.
        let Some((noticed, stage)) = stages.get_mut(&spot) else {
            return Ok(());
        };
        let now = Instant::now();
        *stage = match did {
            Ok(Did::Laid(listeners)) => {
                let drain = self.serve(listeners, noticed, spot.1)?;
                if spot.1 == Face::Imds {
                    self.metrics.ready(now - noticed.since);
                }
                Stage::open(drain, now)
            }
            Ok(Did::Mended(anything)) => {
                self.metrics.mended.inc_by(u64::from(anything));
                stage.drain().map_or_else(
                    || Stage::clear(now),
                    |drain| Stage::open(drain.clone(), now),
                )
            }
            Ok(Did::Cleared) => Stage::clear(now),
            Ok(Did::Taken(taken)) => {
                self.metrics.taken.inc();
                self.tell(noticed, taken, stage.is_first());
                stage.failed(now)
            }
            Err(error) => {
                self.metrics.failed.inc();
                // Once: some stay so.
                if stage.is_first() {
                    let (uid, namespace) = (&*noticed.sandbox.uid, &noticed.sandbox.namespace);
                    tracing::warn!(uid, namespace, %error, "a pod's network cannot be entered; trying again");
                }
                stage.failed(now)
            }
        };
        Ok(())
    }

    /// The pod's owner is told; the log once.
    fn tell(&self, noticed: &Noticed, taken: Taken, first: bool) {
        let uid = &noticed.sandbox.uid;
        if first {
            tracing::warn!(uid = &**uid, %taken, "a pod is not served from inside");
        }
        if let Some(grants) = self.pipeline.directory.load().of_uid(uid) {
            self.pipeline.events.taken(&grants.pod, &taken.to_string());
        }
    }

    fn serve(
        &self,
        listeners: Vec<TcpListener>,
        noticed: &Noticed,
        face: Face,
    ) -> io::Result<Drain> {
        let drain = Drain::new();
        for listener in listeners {
            let answer = Inside {
                pipeline: self.pipeline.clone(),
                origin: Origin::Inside(noticed.sandbox.uid.clone()),
                face,
            };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (drain, metrics) = (drain.clone(), self.connections.clone());
            tokio::spawn(serve::serve(listener, self.limits, answer, drain, metrics));
        }
        tracing::debug!(
            uid = &*noticed.sandbox.uid,
            ?face,
            "a pod is served from inside"
        );
        Ok(drain)
    }

    fn count(&self, stages: &Stages) {
        let served = stages
            .iter()
            .filter(|((_, face), (_, stage))| *face == Face::Imds && stage.drain().is_some());
        self.metrics.pods.set(value(served.count()));
    }

    /// The agent ends: nothing new, and then what is left is cut. Rules and addresses stay, for the next one.
    async fn end(&self, stages: &Stages) {
        let drains = || stages.values().filter_map(|(_, stage)| stage.drain());
        drains().for_each(Drain::begin);
        self.drain.cut_off().await;
        drains().for_each(Drain::cut);
    }
}

/// Closes what is gone, at once: an open connection would keep a namespace from its end.
fn forget(stages: &mut Stages, bundles: &Bundles) {
    stages.retain(|(id, _), (_, stage)| {
        let stays = bundles.has(id);
        if let Some(drain) = stage.drain().filter(|_| !stays) {
            drain.cut();
        }
        stays
    });
}
