//! Connection metrics of one listener. Series exist at 0 from the start; labels are closed lists.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::admission::Refused;
use super::refusal::Refusal;
use super::series::registered;

/// Counters of one listener, with `listener` as a constant label.
#[derive(Clone, Debug)]
pub struct ConnMetrics {
    /// `lanyard_connections_accepted_total`
    pub accepted: IntCounter,
    /// `lanyard_connections_open`
    pub open: IntGauge,
    closed_total: IntCounter,
    closed_peer: IntCounter,
    closed_foreign: IntCounter,
    /// `lanyard_accept_errors_total`: the kernel could not hand out a connection (no file descriptors).
    pub accept_errors: IntCounter,
    refusals: [IntCounter; Refusal::ALL.len()],
}

impl ConnMetrics {
    /// Registers the counters of the listener `listener` (`metadata`, `admin`, …).
    pub fn new(registry: &Registry, listener: &'static str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("listener", listener);
        let limited = IntCounterVec::new(
            opts(
                "lanyard_connections_limited_total",
                "Connections closed at once, by the limit they met.",
            ),
            &["limit"],
        )?;
        let refused = IntCounterVec::new(
            opts(
                "lanyard_connections_refused_total",
                "Connections ended with an error before a request was understood, by reason.",
            ),
            &["reason"],
        )?;
        let (limited, refused) = (
            registered(registry, limited)?,
            registered(registry, refused)?,
        );
        let counter =
            |name: &str, help: &str| registered(registry, IntCounter::with_opts(opts(name, help))?);
        let open = opts("lanyard_connections_open", "Connections open now.");
        Ok(ConnMetrics {
            accepted: counter(
                "lanyard_connections_accepted_total",
                "Connections accepted, including those closed at once.",
            )?,
            open: registered(registry, IntGauge::with_opts(open)?)?,
            closed_total: limited.with_label_values(&["total"]),
            closed_peer: limited.with_label_values(&["peer"]),
            closed_foreign: limited.with_label_values(&["foreign"]),
            accept_errors: counter(
                "lanyard_accept_errors_total",
                "Times the kernel could not hand out a connection (out of file descriptors or memory).",
            )?,
            refusals: Refusal::ALL.map(|refusal| refused.with_label_values(&[refusal.reason()])),
        })
    }

    /// Connections closed at once for `why`.
    pub fn limited(&self, why: Refused) -> &IntCounter {
        match why {
            Refused::Total => &self.closed_total,
            Refused::Peer => &self.closed_peer,
            Refused::Foreign => &self.closed_foreign,
        }
    }

    /// Connections ended with `refusal`.
    pub fn refused(&self, refusal: Refusal) -> &IntCounter {
        &self.refusals[refusal as usize]
    }
}
