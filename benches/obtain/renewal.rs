//! 250 identities whose tokens are due in the same minute, all of them asked for all the time.

use std::time::{Duration, Instant};

use lanyard::agent::obtain::ObtainConfig;
use tokio::task::JoinSet;

use crate::agent::{Agent, PODS, Source, ask};
use crate::azure::{Azure, LIFE};

/// What a call takes at the stand-in: as long as a real one.
const LATENCY: Duration = Duration::from_millis(100);
/// An answer that took longer waited for a call.
const WAITED: f64 = 80.0;
const MINUTE: Duration = Duration::from_mins(1);

/// What was found.
pub struct Found {
    pub most: usize,
    pub limit: usize,
    pub answers: usize,
    pub waited: usize,
    /// Milliseconds.
    pub slowest: f64,
    /// Seconds until the last renewal was done.
    pub renewed_after: f64,
}

pub async fn measure(source: Source) -> Found {
    let config = ObtainConfig::default();
    let limit = match source {
        Source::Imds => config.upstream.concurrency,
        Source::Certificate => config.entra.concurrency,
    };
    let azure = Azure::start().await;
    let agent = Agent::start(&azure, source, config).await;
    let mut pods = Vec::new();
    for pod in 0..PODS {
        let mut stream = agent.connect(pod).await;
        ask(&mut stream, "r").await;
        pods.push(stream);
    }
    assert_eq!(azure.calls(), PODS);
    // Half of a life and the tenth over which renewals are spread: everything is due.
    agent.let_pass(LIFE * 6 / 10 + 60);
    azure.set_latency(LATENCY);
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for mut stream in pods {
        asking.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < MINUTE {
                let asked = Instant::now();
                ask(&mut stream, "r").await;
                times.push(asked.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            times
        });
    }
    let mut renewed_after = f64::NAN;
    while begun.elapsed() < MINUTE && renewed_after.is_nan() {
        if azure.calls() == 2 * PODS {
            renewed_after = begun.elapsed().as_secs_f64();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let times: Vec<f64> = asking.join_all().await.concat();
    Found {
        most: azure.most(),
        limit,
        answers: times.len(),
        waited: times.iter().filter(|time| **time >= WAITED).count(),
        slowest: times.iter().copied().fold(0.0, f64::max),
        renewed_after,
    }
}
