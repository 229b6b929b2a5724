//! The way around a call, on paused time: who is called, who is told at once, what is counted.

use tokio::sync::watch;

use super::*;
use crate::agent::obtain::ObtainConfig;
use crate::agent::obtain::circuit::FAILURES;
use crate::agent::obtain::fake::{MS, S, Steps, call};
use crate::model::fault::FaultKind;

/// An answer of a service in memory.
#[derive(Clone, Copy, Debug)]
struct Said(CallOutcome, Option<Duration>);

impl Judged for Said {
    fn outcome(&self) -> CallOutcome {
        self.0
    }

    fn retry_after(&self) -> Option<Duration> {
        self.1
    }
}

const DOWN: Result<(), Said> = Err(Said(CallOutcome::Unavailable, None));
const REFUSED: Result<(), Said> = Err(Said(CallOutcome::Refused, None));

fn upstream(service: Service) -> Upstream {
    let [metrics, ..] = UpstreamMetrics::register(&prometheus::Registry::new()).unwrap();
    let limits = ObtainConfig::default().entra;
    Upstream::new(service, limits, Steps::default().clock(), metrics)
}

/// Calls for identity `n`; the service answers so after 10 ms.
async fn ask(upstream: &Upstream, n: u32, said: Result<(), Said>) -> Result<bool, Fault> {
    let (_switch, urgent) = watch::channel(true);
    let mut urgency = Urgency::follow(urgent);
    let attempt = |_| async move {
        tokio::time::sleep(MS(10)).await;
        said
    };
    let answer = upstream.call(&call(n), &mut urgency, S(5), attempt).await;
    answer.map(|answer| answer.is_ok())
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_is_left_alone_and_callers_are_told_at_once() {
    let upstream = upstream(Service::Entra);
    for n in 0..FAILURES {
        assert_eq!(upstream.metrics.open_circuits(), 0);
        assert_eq!(ask(&upstream, n, DOWN).await, Ok(false));
    }
    assert_eq!(upstream.metrics.open_circuits(), 1);
    let begun = Instant::now();
    let fault = ask(&upstream, 50, Ok(())).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
    assert_eq!(fault.retry_after, Some(S(1)));
    assert_eq!(begun.elapsed(), S(0));
    // One tries; the others are still told at once.
    tokio::time::sleep(S(1)).await;
    let (tried, other) = tokio::join!(ask(&upstream, 1, Ok(())), ask(&upstream, 2, Ok(())));
    assert_eq!(tried, Ok(true));
    assert_eq!(other.unwrap_err().kind, FaultKind::UpstreamUnavailable);
    assert_eq!(upstream.metrics.open_circuits(), 0);
    assert_eq!(ask(&upstream, 2, Ok(())).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn refusals_and_throttling_are_answers() {
    let upstream = upstream(Service::Entra);
    for n in 0..30 {
        let said = match n % 3 {
            0 => REFUSED,
            1 => Err(Said(CallOutcome::Throttled, Some(S(1)))),
            _ => Err(Said(CallOutcome::Invalid, None)),
        };
        assert_eq!(ask(&upstream, n + 1, said).await, Ok(false));
    }
    assert_eq!(upstream.metrics.open_circuits(), 0);
}

#[tokio::test(start_paused = true)]
async fn whose_caller_goes_away_counts_as_a_failure_and_blocks_nobody() {
    let upstream = upstream(Service::Imds);
    for n in 0..FAILURES {
        let call = ask(&upstream, n, Ok(()));
        assert!(tokio::time::timeout(MS(5), call).await.is_err());
    }
    tokio::time::sleep(S(1)).await;
    // The one that tries is broken off, too: the next may try two seconds later.
    let probe = ask(&upstream, 1, Ok(()));
    assert!(tokio::time::timeout(MS(5), probe).await.is_err());
    let fault = ask(&upstream, 1, Ok(())).await.unwrap_err();
    assert!(fault.retry_after.unwrap() > S(1));
    tokio::time::sleep(S(2)).await;
    assert_eq!(ask(&upstream, 1, Ok(())).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn who_had_no_time_left_learned_nothing_of_the_service() {
    let upstream = upstream(Service::Entra);
    for n in 0..2 * FAILURES {
        let (_switch, urgent) = watch::channel(true);
        let mut late = call(n + 1);
        late.deadline = Instant::now() + MS(100);
        let attempt = |limit| async move {
            tokio::time::sleep(limit).await;
            DOWN
        };
        let mut urgency = Urgency::follow(urgent);
        let answer = upstream.call(&late, &mut urgency, S(5), attempt).await;
        assert_eq!(answer.map(|answer| answer.is_ok()), Ok(false));
    }
    assert_eq!(upstream.metrics.open_circuits(), 0);
    assert_eq!(ask(&upstream, 1, Ok(())).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_imds_for_everybody_and_entra_for_the_application() {
    for (service, everybody) in [(Service::Imds, true), (Service::Entra, false)] {
        let upstream = upstream(service);
        let throttled = Err(Said(CallOutcome::Throttled, Some(S(30))));
        assert_eq!(ask(&upstream, 1, throttled).await, Ok(false));
        let own = ask(&upstream, 1, Ok(())).await.unwrap_err();
        assert_eq!(own.kind, FaultKind::UpstreamThrottled, "{service:?}");
        let other = ask(&upstream, 2, Ok(())).await;
        assert_eq!(other.is_err(), everybody, "{service:?}");
        tokio::time::sleep(S(30)).await;
        assert_eq!(ask(&upstream, 1, Ok(())).await, Ok(true));
    }
}
