//! Random histories: whatever happens, a token is served only for its own key and never at or
//! after 30 s before its end, by either clock.

use proptest::prelude::*;

use super::super::fake::{audience, bench_with};
use super::*;
use crate::agent::rate::Rate;

#[derive(Clone, Debug)]
enum Event {
    Ask {
        identity: u32,
        resource: u8,
        pod: u8,
    },
    /// Somebody names `identity`'s client id in an object of his own.
    Steal {
        identity: u32,
        resource: u8,
    },
    Wait(u64),
    Step(i64),
    Say {
        identity: u32,
        reply: u8,
    },
    Retain(u32),
    Drain,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (1u32..4, 0u8..3, 0u8..3)
            .prop_map(|(identity, resource, pod)| Event::Ask { identity, resource, pod }),
        1 => (1u32..4, 0u8..3).prop_map(|(identity, resource)| Event::Steal { identity, resource }),
        4 => prop_oneof![0u64..50, 0u64..4_000, Just(270u64), Just(3_570)].prop_map(Event::Wait),
        1 => (-4_000i64..4_000).prop_map(Event::Step),
        2 => (1u32..4, 0u8..7).prop_map(|(identity, reply)| Event::Say { identity, reply }),
        1 => (1u32..4).prop_map(Event::Retain),
        1 => Just(Event::Drain),
    ];
    proptest::collection::vec(event, 1..60)
}

fn reply(n: u8) -> Reply {
    match n {
        0 => Reply::Lives(S(3600)),
        1 => Reply::Lives(S(31)),
        2 => Reply::Lives(S(330)),
        3 => Reply::Fails(fault(FaultKind::UpstreamUnavailable)),
        4 => Reply::Fails(SourceError::NotHere(String::new())),
        5 => Reply::Foreign,
        _ => Reply::Silent,
    }
}

async fn check(events: Vec<Event>) {
    let bench = bench_with(ObtainConfig {
        pod_fetches: Rate {
            per_second: 100,
            burst: 100,
        },
        ..ObtainConfig::default()
    });
    for event in events {
        match event {
            Event::Ask {
                identity,
                resource,
                pod,
            } => {
                let (grant, pod) = (grant(identity), asker(&pod.to_string()));
                let resource = resource.to_string();
                let cached = bench
                    .broker
                    .try_cached(Request::new(&grant, &resource, &pod));
                let obtained = match cached {
                    Some(obtained) => Ok(obtained),
                    None => {
                        bench
                            .broker
                            .obtain(Request::new(&grant, &resource, &pod))
                            .await
                    }
                };
                let Ok(obtained) = obtained else { continue };
                let wall = bench.broker.clock.wall();
                assert!(wall + S(30) < obtained.token.expires_on);
                assert!(obtained.left > S(30));
                assert_eq!(audience(&obtained.token), resource);
                assert_eq!(obtained.token.client_id, Some(grant.identity.client_id));
            }
            Event::Steal { identity, resource } => {
                let mut mine = grant(identity + 10);
                let mut facts = (*mine.identity).clone();
                facts.client_id = grant(identity).identity.client_id;
                facts.resource_id = None;
                mine.identity = Arc::new(facts);
                assert!(ask(&bench, &mine, &resource.to_string()).await.is_err());
            }
            Event::Wait(seconds) => tokio::time::sleep(S(seconds)).await,
            Event::Step(seconds) => bench.steps.step(seconds),
            Event::Say { identity, reply: n } => bench.fake.say(identity, reply(n)),
            Event::Retain(identity) => {
                let key =
                    IdentityKey::of(&SourceFacts::Imds, &grant(identity).identity, &asker("p"));
                bench.broker.retain(|alive| *alive == key);
            }
            Event::Drain => bench.broker.set_draining(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_token_is_served_too_late_or_for_another_key(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(events));
    }
}
