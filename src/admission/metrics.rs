//! Series of the webhooks: what was asked of which, how it was answered, how long that took, how long the certificate lasts.
//!
//! In: answers, certificates. Out: counts. Never waits. Names nobody who asked: that is in the API server's audit log.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::{Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, Registry, Result};
use serde_json::Value;

use super::review::ReviewError;
use crate::serve::series::{counter, family, registered, seconds};

/// Which webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Judges agents' requests for tokens.
    TokenRequests,
    /// Adds App Service's variables.
    AppService,
}

/// What a review came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Allowed as it was.
    Allowed,
    /// Allowed, with changes.
    Changed,
    /// Denied; the answer says why.
    Denied,
    /// No answer: what came was no review, or did not come.
    Unreadable,
}

const HOOKS: [&str; 2] = ["token-requests", "app-service"];
const OUTCOMES: [&str; 4] = ["allowed", "changed", "denied", "unreadable"];
/// The API server waits for 5 s.
const BUCKETS: [f64; 8] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0];

impl Outcome {
    pub(super) fn of(answer: &std::result::Result<Value, ReviewError>) -> Self {
        let Ok(answer) = answer else {
            return Self::Unreadable;
        };
        let response = &answer["response"];
        match (response["allowed"].as_bool(), response.get("patch")) {
            (Some(true), None) => Self::Allowed,
            (Some(true), Some(_)) => Self::Changed,
            _ => Self::Denied,
        }
    }
}

/// The series.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    reviews: [[IntCounter; OUTCOMES.len()]; HOOKS.len()],
    seconds: [Histogram; HOOKS.len()],
    /// Clients that began no TLS with us.
    pub(super) without_tls: IntCounter,
    certificate_ends: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self> {
        let reviews = family(
            registry,
            "lanyard_admission_reviews_total",
            "Reviews of a webhook, by what they came to.",
            &["webhook", "outcome"],
        )?;
        let took = HistogramOpts::new(
            "lanyard_admission_review_seconds",
            "Time to answer a review, from its head to its answer.",
        );
        let took = HistogramVec::new(took.buckets(BUCKETS.to_vec()), &["webhook"])?;
        let took = registered(registry, took)?;
        Ok(Self {
            reviews: HOOKS
                .map(|hook| OUTCOMES.map(|outcome| reviews.with_label_values(&[hook, outcome]))),
            seconds: HOOKS.map(|hook| took.with_label_values(&[hook])),
            without_tls: counter(
                registry,
                "lanyard_admission_tls_failures_total",
                "Clients that did not agree on TLS: an API server that does not trust the certificate, say.",
            )?,
            certificate_ends: seconds(
                registry,
                "lanyard_admission_certificate_expiry_seconds",
                "When the certificate ends that is served, since the epoch.",
            )?,
        })
    }

    pub(super) fn answered(&self, hook: Hook, outcome: Outcome, took: Duration) {
        self.reviews[hook as usize][outcome as usize].inc();
        self.seconds[hook as usize].observe(took.as_secs_f64());
    }

    pub(super) fn serving_until(&self, ends: Timestamp) {
        self.certificate_ends.set(ends.as_duration().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::super::review::{answer, changed};
    use super::*;

    #[test]
    fn an_outcome_is_what_the_api_server_reads() {
        let add = [serde_json::json!({"op": "add"})];
        let nothing_read = serde_json::from_str::<Value>("").unwrap_err();
        for (given, outcome) in [
            (Ok(answer("u", Ok(()))), Outcome::Allowed),
            (Ok(changed("u", &[], &["w".to_owned()])), Outcome::Allowed),
            (Ok(changed("u", &add, &[])), Outcome::Changed),
            (Ok(answer("u", Err((503, "late")))), Outcome::Denied),
            (Err(nothing_read.into()), Outcome::Unreadable),
        ] {
            assert_eq!(Outcome::of(&given), outcome, "{given:?}");
        }
    }

    #[test]
    fn each_webhook_is_counted_for_itself() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let took = Duration::from_millis(2);
        metrics.answered(Hook::AppService, Outcome::Changed, took);
        metrics.serving_until(Timestamp::from_second(1_800_000_000).unwrap());
        let text = prometheus::TextEncoder::new();
        let text = text.encode_to_string(&registry.gather()).unwrap();
        for line in [
            "lanyard_admission_reviews_total{outcome=\"changed\",webhook=\"app-service\"} 1",
            "lanyard_admission_reviews_total{outcome=\"changed\",webhook=\"token-requests\"} 0",
            "lanyard_admission_review_seconds_count{webhook=\"app-service\"} 1",
            "lanyard_admission_certificate_expiry_seconds 1800000000",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
