//! All listeners inside pods, as sandboxes come and go and pods change their minds.
//!
//! In: bundles, the directory, who owns the node's rules. Out: for each sandbox a listener, or nothing of ours. Blocks on
//! the kernel and the disk, in tasks. What somebody laid before us where nothing is to be (this node's mode was another
//! one) is taken away, and so is all of it where Lanyard leaves the node, or an instance takes over that enters no pod.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::answer::Inside;
use super::bundles::{Bundles, Noticed};
use super::enter::Door;
use super::errands::{Did, Errands};
use super::holder::{Holder, Place};
use super::lay::Taken;
use super::namespace::Number;
use super::stage::{Errand, Stage};
use super::{Face, InsideConfig, InsideMetrics, Leaving, roster};
use crate::agent::intercept::Ownership;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::pipeline::Pipeline;
use crate::serve::series::value;
use crate::serve::{self, Admission, ConnMetrics, Drain, Limits, Pool};

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
    /// What all of them share beyond what each has for itself.
    pub pool: Pool,
    /// The way into pods.
    pub door: Door,
    /// With whom listeners outlive us.
    pub holder: Holder,
}

/// A sandbox, and how far it is.
struct Standing {
    noticed: Noticed,
    stage: Stage,
    /// The namespace that listeners of ours are in.
    inside: Option<Number>,
    /// What is in the way, as it was last told.
    wrong: Option<String>,
}

impl Standing {
    fn new(noticed: &Noticed, stage: Stage) -> Self {
        Self {
            noticed: noticed.clone(),
            stage,
            inside: None,
            wrong: None,
        }
    }
}

/// What is to be done in pods, by who owns the node's rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// They are served.
    Serve,
    /// They are left to the instance that has taken over.
    Rest,
    /// Nothing of ours may be there: Lanyard leaves the node, or who has taken over enters no pod.
    Clear,
}

impl Part {
    const fn of(owned: Ownership) -> Self {
        match owned {
            Ownership::Pending | Ownership::Owner { .. } => Self::Serve,
            Ownership::StoodDown { enters_pods, .. } if enters_pods => Self::Rest,
            Ownership::StoodDown { .. } | Ownership::Removed => Self::Clear,
        }
    }
}

/// Whether listeners are to outlive us, once that is known: not where another agent listens in pods. Beside it, a listener
/// that nobody accepts at would take half of their connections.
const fn outlives(owned: Ownership) -> Option<bool> {
    match owned {
        Ownership::Pending => None,
        Ownership::Owner { alone, .. } => Some(alone),
        Ownership::StoodDown { .. } | Ownership::Removed => Some(false),
    }
}

/// A bundle's key, and what is served there.
type Spot = (String, Face);
type Done = (Spot, io::Result<Did>);
type Stages = BTreeMap<Spot, Standing>;

impl<S: TokenSource> Listeners<S> {
    /// Serves until the agent ends.
    pub async fn run(self) -> anyhow::Result<()> {
        let _member = self.drain.member();
        let mut bundles = Bundles::of(&self.config.folders.bundles)?;
        let mut known = self.pipeline.directory.subscribe();
        let mut owned = self.owned.clone();
        let mut stages = Stages::new();
        let mut work: JoinSet<Done> = JoinSet::new();
        let _following = AbortOnDropHandle::new(tokio::spawn(self.holder.clone().follow()));
        self.holder.until_looked().await;
        loop {
            forget(&mut stages, &bundles);
            let whose = *self.owned.borrow();
            let part = Part::of(whose);
            if part != Part::Rest {
                self.begin(part, &mut stages, &bundles, &mut work);
            }
            self.count(&stages);
            self.holder.keep_only(listening(&stages), outlives(whose));
            let again = stages.values().filter_map(|one| one.stage.again()).min();
            let again = again.filter(|_| part != Part::Rest);
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
        self.holder.leave_behind();
        // What is laid while nobody takes it would be a listener that nobody accepts at.
        drop(work);
        self.end(&stages).await;
        Ok(())
    }

    /// Nothing is laid any more, and nobody answers inside; until the agent ends.
    async fn leave(&self, stages: &Stages, mut work: JoinSet<Done>) -> anyhow::Result<()> {
        while work.join_next().await.is_some() {}
        let drains = stages.values().filter_map(|one| one.stage.drain());
        drains.for_each(Drain::cut);
        self.holder.keep_only(std::iter::empty(), Some(false));
        self.metrics.pods.set(0);
        self.leaving.done();
        self.drain.begun().await;
        Ok(())
    }

    /// Begins what is to be done.
    fn begin(&self, part: Part, stages: &mut Stages, bundles: &Bundles, work: &mut JoinSet<Done>) {
        let errands = self.errands();
        let (directory, now) = (self.pipeline.directory.load(), Instant::now());
        // Then nothing is taken away where we have done nothing yet: an agent before us may have served the pod, and known why.
        let is_nobody_known = self.pipeline.directory.is_empty();
        let spots = bundles
            .sandboxes()
            .flat_map(|one| Face::ALL.map(|face| (one, face)));
        for ((id, noticed), face) in spots {
            let spot = (id.to_owned(), face);
            let served = part == Part::Serve
                && roster::is_served(&noticed.sandbox, face, &directory, &self.config);
            let stage = stages.get(&spot).map(|one| &one.stage);
            let Some((errand, next)) = Stage::next(stage, served, now) else {
                continue;
            };
            if stage.is_none() && errand == Errand::Clear && part == Part::Serve && is_nobody_known
            {
                continue;
            }
            if let Some(drain) = stage.and_then(Stage::drain).filter(|_| !served) {
                drain.cut();
            }
            let (errands, sandbox, at) = (errands.clone(), noticed.sandbox.clone(), spot.clone());
            work.spawn(async move {
                let did = errands.run(sandbox, at.1, errand).await;
                (at, did)
            });
            if let Some(one) = stages.get_mut(&spot) {
                one.stage = next;
            } else {
                stages.insert(spot, Standing::new(noticed, next));
            }
        }
    }

    fn errands(&self) -> Errands {
        let (owned, leaving) = (self.owned.clone(), self.leaving.clone());
        let is_to_be_clear = move || leaving.is_asked() || Part::of(*owned.borrow()) == Part::Clear;
        Errands {
            folders: self.config.folders.clone(),
            door: self.door.clone(),
            is_to_be_clear: Arc::new(is_to_be_clear),
            holder: self.holder.clone(),
        }
    }

    fn take(&self, stages: &mut Stages, (spot, did): Done) -> io::Result<()> {
        // A sandbox that went meanwhile took all of it along.
        let Some(Standing {
            noticed,
            stage,
            inside,
            wrong,
        }) = stages.get_mut(&spot)
        else {
            return Ok(());
        };
        let now = Instant::now();
        let (next, trouble) = match did {
            Ok(Did::Laid(number, listeners)) => {
                self.holder.hold((number, spot.1), &listeners);
                *inside = Some(number);
                let drain = self.serve(listeners, noticed, spot.1)?;
                if spot.1 == Face::Imds {
                    self.metrics.ready(now - noticed.since);
                }
                (Stage::open(drain, now), None)
            }
            Ok(Did::Mended(anything)) => {
                self.metrics.mended.inc_by(u64::from(anything));
                let next = stage.drain().map_or_else(
                    || Stage::clear(now),
                    |drain| Stage::open(drain.clone(), now),
                );
                (next, None)
            }
            Ok(Did::Cleared) => (Stage::clear(now), None),
            Ok(Did::Taken(taken)) => {
                self.metrics.taken.inc();
                self.tell_owner(noticed, taken);
                (stage.failed(now), Some(taken.to_string()))
            }
            Err(error) => {
                self.metrics.failed.inc();
                let trouble = format!("its network cannot be entered or changed: {error}");
                (stage.failed(now), Some(trouble))
            }
        };
        *stage = next;
        tell(noticed, wrong, trouble);
        Ok(())
    }

    fn tell_owner(&self, noticed: &Noticed, taken: Taken) {
        if let Some(grants) = self.pipeline.directory.load().of_uid(&noticed.sandbox.uid) {
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
            let admission = Admission::sharing(&self.limits, face.own_part(), &self.pool);
            tokio::spawn(serve::serve_admitting(
                listener,
                admission,
                self.limits,
                answer,
                drain,
                metrics,
            ));
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
            .filter(|((_, face), one)| *face == Face::Imds && one.stage.drain().is_some());
        self.metrics.pods.set(value(served.count()));
    }

    /// The agent ends: nothing new, and what does not end is cut. Rules and addresses stay, for the next one, unless that
    /// one enters no pod.
    async fn end(&self, stages: &Stages) {
        let drains = || stages.values().filter_map(|one| one.stage.drain());
        drains().for_each(Drain::begin);
        let all_end = async {
            for one in drains() {
                one.complete(Duration::MAX, self.drain.cut_off()).await;
            }
        };
        let mut owned = self.owned.clone();
        let gives_way = async {
            let seen = owned.wait_for(|owned| Part::of(*owned) == Part::Clear);
            seen.await.is_ok()
        };
        tokio::select! {
            biased;
            true = gives_way => {
                drains().for_each(Drain::cut);
                if let Err(error) = self.config.folders.clear(&self.door).await {
                    tracing::warn!(%error, "what was laid in pods is left behind");
                }
            }
            () = all_end => {}
        }
    }
}

/// Where listeners of ours are.
fn listening(stages: &Stages) -> impl Iterator<Item = Place> {
    let open = stages.iter().filter(|(_, one)| one.stage.drain().is_some());
    open.filter_map(|((_, face), one)| Some((one.inside?, *face)))
}

/// Closes what is gone, at once: an open connection would keep a namespace from its end.
fn forget(stages: &mut Stages, bundles: &Bundles) {
    stages.retain(|(id, _), one| {
        let stays = bundles.has(id);
        if let Some(drain) = one.stage.drain().filter(|_| !stays) {
            drain.cut();
        }
        stays
    });
}

/// In the log once for each change: some pods stay as they are for as long as they live.
fn tell(noticed: &Noticed, wrong: &mut Option<String>, trouble: Option<String>) {
    if !changes(wrong, trouble) {
        return;
    }
    let (uid, namespace) = (&*noticed.sandbox.uid, &noticed.sandbox.namespace);
    if let Some(why) = wrong {
        tracing::warn!(uid, namespace, why, "trouble in a pod; trying again");
    } else {
        tracing::info!(uid, namespace, "the trouble in a pod is over");
    }
}

/// Remembers what is wrong now; whether it is something else than before.
fn changes(wrong: &mut Option<String>, trouble: Option<String>) -> bool {
    let differs = *wrong != trouble;
    *wrong = trouble;
    differs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_when_it_changes() {
        let mut wrong = None;
        let mut told = |trouble: Option<&str>| changes(&mut wrong, trouble.map(str::to_owned));
        let steps = [
            None,
            Some("a"),
            Some("a"),
            Some("a"),
            Some("b"),
            Some("a"),
            None,
            None,
        ];
        assert_eq!(
            steps.map(&mut told),
            [false, true, false, false, true, true, true, false]
        );
    }

    #[test]
    fn an_instance_that_goes_leaves_pods_to_one_that_enters_them_and_to_no_other() {
        let after = |enters_pods| Part::of(Ownership::StoodDown { by: 2, enters_pods });
        assert!(after(true) == Part::Rest && after(false) == Part::Clear);
        assert!(Part::of(Ownership::Removed) == Part::Clear);
        for alone in [true, false] {
            assert!(Part::of(Ownership::Owner { epoch: 1, alone }) == Part::Serve);
        }
    }
}
