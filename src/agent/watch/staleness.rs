//! All that an agent knows gets too old at some time: then it says so and nobody gets a token.
//!
//! In: what the watchdog saw. Out: a flag beside the directory, a log line at its turns. Holds
//! invariant 7: refused after `--max-staleness`.

use std::sync::Arc;
use std::time::Duration;

use crate::agent::directory::Published;
use crate::kubernetes::watch::{Look, Verdict};

/// Who hears of the watchdog's looks.
pub fn told_to(published: Arc<Published>, most: Duration) -> Look {
    Box::new(move |verdict, age| {
        // A quiet watch that works is as good as news.
        let is_too_old = *verdict != Verdict::Well && age > most;
        if !published.set_too_old(is_too_old) {
            return;
        }
        if is_too_old {
            tracing::error!(
                age_seconds = age.as_secs(),
                max_staleness_seconds = most.as_secs(),
                "what is known of the cluster is too old: no tokens until the API server is back (--max-staleness)"
            );
        } else {
            tracing::info!("what is known of the cluster is fresh again");
        }
    })
}
