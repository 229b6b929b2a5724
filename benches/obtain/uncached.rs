//! One uncached token after another: what a pod waits for, less what the stand-in took.

use std::time::Instant;

use lanyard::agent::obtain::{ObtainConfig, TurnLimits};
use lanyard::agent::rate::Rate;

use crate::agent::{Agent, PODS, Source, ask};
use crate::azure::Azure;

/// Uncached tokens for each pod.
const EACH: usize = 4;

/// Times in milliseconds, network included. The governor's pace is not part of it: it lets everything pass.
pub async fn measure(source: Source) -> Vec<f64> {
    let plenty = Rate {
        per_second: 100_000,
        burst: 100_000,
    };
    let usual = ObtainConfig::default();
    let config = ObtainConfig {
        upstream: TurnLimits {
            rate: plenty,
            ..usual.upstream
        },
        entra: TurnLimits {
            rate: plenty,
            ..usual.entra
        },
        ..usual
    };
    let azure = Azure::start().await;
    let agent = Agent::start(&azure, source, config).await;
    let mut times = Vec::new();
    for pod in 0..PODS {
        let mut stream = agent.connect(pod).await;
        for resource in 0..EACH {
            let begun = Instant::now();
            ask(&mut stream, &format!("https%3A%2F%2F{resource}.example")).await;
            let own = begun.elapsed().saturating_sub(azure.took());
            times.push(own.as_secs_f64() * 1e3);
        }
    }
    assert_eq!(azure.calls(), PODS * EACH);
    // The first call makes connections that all others use.
    times.split_off(EACH)
}
