//! Looks after the watches: tells whether they work, and wakes them where they cannot know by
//! themselves that the API server is back.
//!
//! In: the watches' health and, now and then, an answer of the API server to a call of its own.
//! Out: a latch, metrics, a log line at the beginning and the end of each trouble.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::health::Health;
use super::metrics::WatchMetrics;
use super::timing::Timing;
use super::verdict::{Verdict, judge};
use crate::kubernetes::Cluster;
use crate::serve::ready::Latch;

/// Who hears of each of the watchdog's looks, with the age of what is known.
pub type Look = Box<dyn Fn(&Verdict, Duration) + Send + Sync>;

/// What the watchdog needs.
pub struct Watchdog {
    /// The API server.
    pub cluster: Cluster,
    /// The watches' health.
    pub health: Arc<Health>,
    /// Closed while the watches work or cannot work.
    pub latch: Latch,
    /// The series.
    pub metrics: WatchMetrics,
    /// What an API server out of reach means here, in words.
    pub meanwhile: &'static str,
    /// Who hears of each look, with the age of what is known.
    pub look: Look,
    /// Raised when the API server is back: begin again.
    pub back: watch::Sender<u64>,
    /// How often what is done.
    pub timing: Timing,
}

/// What the API server's answers were like.
struct Reach {
    asked: Instant,
    /// Calls in a row without an answer.
    missed: u32,
    why: String,
}

impl Watchdog {
    /// Watches for ever.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut reach = Reach {
            asked: Instant::now(),
            missed: 0,
            why: String::new(),
        };
        let (mut before, mut since) = (Verdict::Well, Instant::now());
        let mut tick = tokio::time::interval(self.timing.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let was_away = before == Verdict::Away;
            let away = self.is_away(&mut reach, was_away).await;
            let verdict = judge(&self.health.pulses(), !away);
            if verdict != before {
                self.tell(&before, &verdict, since, &reach.why);
                since = Instant::now();
                before = verdict.clone();
            }
            self.measure(&verdict);
            if was_away && !away {
                // A connection that died without a word does not know it yet.
                self.back.send_modify(|times| *times += 1);
            }
            match verdict {
                Verdict::Stalled(why) => self.latch.not_ready(why),
                Verdict::Well | Verdict::Away => self.latch.ready(),
            }
        }
    }

    fn measure(&self, verdict: &Verdict) {
        for pulse in self.health.pulses() {
            self.metrics.age(pulse.kind, pulse.age.as_secs_f64());
        }
        let age = self.health.state_age();
        self.metrics.state_age(age.as_secs_f64());
        (self.look)(verdict, age);
    }

    /// Asks the API server where that is due. One missed answer counts only together with a watch
    /// that fails, too.
    async fn is_away(&self, reach: &mut Reach, was_away: bool) -> bool {
        let pulses = self.health.pulses();
        if pulses
            .iter()
            .any(|pulse| pulse.known && pulse.age < reach.asked.elapsed())
        {
            // It told somebody else something since.
            reach.missed = 0;
        }
        let in_trouble = pulses.iter().any(|pulse| pulse.trouble.is_some());
        let pause = if in_trouble || was_away || reach.missed > 0 {
            self.timing.urgent_ask
        } else {
            self.timing.routine_ask
        };
        let first_sign = in_trouble && reach.missed == 0 && !was_away;
        if reach.asked.elapsed() >= pause
            || (first_sign && reach.asked.elapsed() >= self.timing.tick)
        {
            match self.cluster.answers(self.timing.ask).await {
                Ok(()) => reach.missed = 0,
                Err(failure) => {
                    reach.missed += 1;
                    reach.why = failure.to_string();
                }
            }
            reach.asked = Instant::now();
        }
        reach.missed > 1 || (reach.missed == 1 && (in_trouble || was_away))
    }

    fn tell(&self, before: &Verdict, now: &Verdict, since: Instant, why: &str) {
        self.metrics.unreachable(*now == Verdict::Away);
        let seconds = since.elapsed().as_secs();
        match (before, now) {
            (_, Verdict::Away) => {
                let meanwhile = self.meanwhile;
                tracing::warn!(why, meanwhile, "the API server cannot be reached");
            }
            (_, Verdict::Stalled(why)) => tracing::warn!(why, "not ready: the watch does not work"),
            (Verdict::Away, Verdict::Well) => {
                tracing::info!(seconds, "the API server can be reached again");
            }
            (_, Verdict::Well) => tracing::info!(seconds, "the watches work again"),
        }
    }
}
