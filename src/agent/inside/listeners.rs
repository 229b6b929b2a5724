//! All listeners inside pods, as sandboxes come and go and pods change their minds.
//!
//! In: bundles, the directory. Out: for each sandbox a listener, or nothing of ours. Blocks on the kernel and the disk, in
//! tasks. What somebody laid before us where nothing is to be (this node's mode was another one) is taken away.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answer::Inside;
use super::bundles::Bundles;
use super::namespace::Namespace;
use super::sandbox::Sandbox;
use super::{Face, InsideConfig, enter, lay, roster};
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::pipeline::Pipeline;
use crate::model::backoff;
use crate::serve::{self, ConnMetrics, Drain, Limits};

/// The first pause after a failure, and the longest.
const PAUSES: backoff::Bounds = (Duration::from_millis(50), Duration::from_mins(1));

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
    /// The series of all of them together.
    pub metrics: ConnMetrics,
}

/// How far a sandbox is.
enum Stage {
    /// Somebody is in its namespace, after so many failures in a row.
    Busy { failures: u32 },
    /// It is served.
    Open(Drain),
    /// Nothing of ours is there.
    Clear,
    /// What was tried failed so many times in a row.
    Failed { again: Instant, failures: u32 },
}

/// What was done in a namespace.
enum Did {
    Laid(Vec<TcpListener>),
    Cleared,
}

/// A container id, and where.
type Spot = (String, Face);
type Done = (Spot, io::Result<Did>);
type Stages = BTreeMap<Spot, (Sandbox, Stage)>;

impl<S: TokenSource> Listeners<S> {
    /// Serves until the agent ends.
    pub async fn run(self) -> anyhow::Result<()> {
        let _member = self.drain.member();
        let mut bundles = Bundles::of(&self.config.folders.bundles)?;
        let mut known = self.pipeline.directory.subscribe();
        let mut stages = Stages::new();
        let mut work: JoinSet<Done> = JoinSet::new();
        loop {
            forget(&mut stages, &bundles);
            self.begin(&mut stages, &bundles, &mut work);
            let waits = |(_, stage): &(Sandbox, Stage)| match stage {
                Stage::Failed { again, .. } => Some(*again),
                _ => None,
            };
            let again = stages.values().filter_map(waits).min();
            tokio::select! {
                () = self.drain.begun() => break,
                looked = bundles.next() => looked?,
                _ = known.changed() => {}
                Some(done) = work.join_next() => self.take(&mut stages, done?)?,
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
        self.end(&stages).await;
        Ok(())
    }

    /// Begins what is to be done.
    fn begin(&self, stages: &mut Stages, bundles: &Bundles, work: &mut JoinSet<Done>) {
        let directory = self.pipeline.directory.load();
        let spots = bundles
            .sandboxes()
            .flat_map(|one| Face::ALL.map(|face| (one, face)));
        for ((id, sandbox), face) in spots {
            let spot = (id.to_owned(), face);
            let served = roster::is_served(sandbox, face, &directory, &self.config);
            let failures = match (stages.get(&spot).map(|(_, stage)| stage), served) {
                (Some(Stage::Busy { .. }), _)
                | (Some(Stage::Open(_)), true)
                | (Some(Stage::Clear), false) => continue,
                (Some(Stage::Failed { again, .. }), _) if *again > Instant::now() => continue,
                (Some(Stage::Failed { failures, .. }), _) => *failures,
                (Some(Stage::Open(drain)), false) => {
                    drain.cut();
                    0
                }
                (Some(Stage::Clear) | None, _) => 0,
            };
            work.spawn(self.enter(spot.clone(), sandbox.clone(), served));
            stages.insert(spot, (sandbox.clone(), Stage::Busy { failures }));
        }
    }

    fn enter(
        &self,
        spot: Spot,
        sandbox: Sandbox,
        served: bool,
    ) -> impl Future<Output = Done> + Send + use<S> {
        let folder = self.config.folders.namespaces.clone();
        async move {
            let did = async {
                let open = || Namespace::open(&folder, &sandbox.namespace);
                match (spot.1, served) {
                    (Face::Imds, true) => {
                        let laid = enter::enter(open()?, lay::lay).await?;
                        return Ok(Did::Laid(vec![laid]));
                    }
                    (Face::VmExtension, true) => {
                        return enter::enter(open()?, lay::vm_extension)
                            .await
                            .map(Did::Laid);
                    }
                    (Face::Imds, false) => {
                        enter::enter(open()?, lay::clear).await?;
                    }
                    // There is nothing but the listeners.
                    (Face::VmExtension, false) => {}
                }
                Ok(Did::Cleared)
            };
            let did = did.await;
            (spot, did)
        }
    }

    fn take(&self, stages: &mut Stages, (spot, did): Done) -> io::Result<()> {
        // A sandbox that went meanwhile took all of it along.
        let Some((sandbox, stage)) = stages.get_mut(&spot) else {
            return Ok(());
        };
        *stage = match did {
            Ok(Did::Laid(listeners)) => Stage::Open(self.serve(listeners, sandbox, spot.1)?),
            Ok(Did::Cleared) => Stage::Clear,
            Err(error) => {
                let failures = match stage {
                    Stage::Busy { failures } => *failures,
                    _ => 0,
                };
                // Once: a pod whose own program has the address stays so.
                if failures == 0 {
                    let (uid, namespace) = (&*sandbox.uid, &sandbox.namespace);
                    tracing::warn!(uid, namespace, %error, "a pod's network cannot be entered; trying again");
                }
                Stage::Failed {
                    again: Instant::now() + backoff::pause(PAUSES, failures),
                    failures: failures.saturating_add(1),
                }
            }
        };
        Ok(())
    }

    fn serve(
        &self,
        listeners: Vec<TcpListener>,
        sandbox: &Sandbox,
        face: Face,
    ) -> io::Result<Drain> {
        let drain = Drain::new();
        for listener in listeners {
            let answer = Inside {
                pipeline: self.pipeline.clone(),
                origin: Origin::Inside(sandbox.uid.clone()),
                face,
            };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (drain, metrics) = (drain.clone(), self.metrics.clone());
            tokio::spawn(serve::serve(listener, self.limits, answer, drain, metrics));
        }
        tracing::debug!(uid = &*sandbox.uid, ?face, "a pod is served from inside");
        Ok(drain)
    }

    /// The agent ends: nothing new, and then what is left is cut. Rules and addresses stay, for the next one.
    async fn end(&self, stages: &Stages) {
        let drains = || stages.values().filter_map(|(_, stage)| open(stage));
        drains().for_each(Drain::begin);
        self.drain.cut_off().await;
        drains().for_each(Drain::cut);
    }
}

const fn open(stage: &Stage) -> Option<&Drain> {
    match stage {
        Stage::Open(drain) => Some(drain),
        _ => None,
    }
}

/// Closes what is gone, at once: an open connection would keep a namespace from its end.
fn forget(stages: &mut Stages, bundles: &Bundles) {
    stages.retain(|(id, _), (_, stage)| {
        let stays = bundles.has(id);
        if let Some(drain) = open(stage).filter(|_| !stays) {
            drain.cut();
        }
        stays
    });
}
