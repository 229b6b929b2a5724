//! At the size that the project promises: 1,000 nodes in 50 scale sets, 20,000 pods, 500 identities
//! in 50 namespaces. Times are the best of several: a busy machine makes one slow, not all.

use std::time::{Duration, Instant};

use super::*;
use crate::controller::known::Shown;
use crate::controller::plan::{Situation, plan};
use crate::controller::record::Record;

fn big() -> Observed {
    let mut it = Observed::default();
    let mut changes = vec![policy("all", "t", prefix("rg"))];
    for n in 0..1000 {
        changes.push(node(&format!("node{n}"), &format!("pool{}", n % 50)));
    }
    for team in 0..50 {
        let space = format!("team{team}");
        changes.push(namespace(&space, "t"));
        for n in 0..10 {
            let name = format!("id{n}");
            changes.push(identity(&space, &name, "rg", &format!("{space}-{name}")));
            let app = selector(&[("app", &name)]);
            let subject = Subject {
                pod_selector: Some(app),
                ..anyone()
            };
            changes.push(binding(&space, &name, &name, subject));
        }
    }
    for n in 0..20_000 {
        changes.push(numbered(n, "first"));
    }
    it.change(changes);
    it
}

fn numbered(n: usize, uid: &str) -> Change {
    let change = pod(
        &format!("team{}", n % 50),
        &format!("p{n}"),
        &format!("{uid}{n}"),
        &format!("node{}", n / 20),
        None,
    );
    let Change::Pod(name, Some(mut pod)) = change else {
        unreachable!("a pod")
    };
    pod.labels = Arc::new(labels(&[("app", &format!("id{}", n % 10))]));
    Change::Pod(name, Some(pod))
}

fn best(times: usize, mut run: impl FnMut(usize)) -> Duration {
    let measured = (0..times).map(|at| {
        let begin = Instant::now();
        run(at);
        begin.elapsed()
    });
    measured.min().unwrap_or_default()
}

#[test]
fn an_event_costs_what_it_bears_on() {
    let mut it = big();
    let record = Record::default();
    let nothing = BTreeSet::new();
    let shown = Shown {
        at: Duration::ZERO,
        identities: BTreeMap::new(),
    };
    let pool = compute("pool7");
    let event = best(50, |at| {
        let gone = no_pod(&format!("team{}", at % 50), &format!("p{at}"));
        it.change([if at % 2 == 0 {
            gone
        } else {
            numbered(at, "second")
        }]);
        let desire = it.ledger.desire(&pool);
        let plan = plan(&Situation {
            desire: &desire,
            immutable: &nothing,
            mutable: &nothing,
            record: &record,
            shown: Some(&shown),
            existence: &BTreeMap::new(),
            setbacks: &BTreeMap::new(),
            grace: Duration::ZERO,
            now: Duration::ZERO,
        });
        assert!(plan.patch.is_some());
    });
    assert!(
        event < Duration::from_millis(5),
        "{event:?} for a pod's event"
    );
    let rebound = best(5, |_| {
        it.change([binding("team1", "id1", "id1", anyone())]);
        it.change([binding("team1", "id1", "id2", anyone())]);
    });
    let anew = best(2, |_| {
        let mut ledger = Ledger::default();
        ledger.update(&it.world, &Touched::all(&it.world));
        assert_eq!(ledger.computes().count(), 50);
    });
    assert!(
        anew < Duration::from_secs(10),
        "{anew:?} for everything, unoptimised"
    );
    println!("event {event:?}, two bindings {rebound:?}, everything {anew:?}");
}
