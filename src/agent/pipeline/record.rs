//! Who is told of a refusal: the audit, the metrics, the pod's owner.
//!
//! In: a fault, and how far its request had come. Out: an audit line, counts, an Event. Never waits. Where
//! the agent only observes it says what would have been refused, and nobody else is told.

use super::Pipeline;
use crate::agent::audit::{self, Caller};
use crate::agent::events::Refused;
use crate::agent::grants::PodGrants;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::select::Refusal;
use crate::model::facts::PodFacts;
use crate::model::fault::Fault;
use crate::model::grant::Grant;
use crate::model::ids::ObjectName;
use crate::model::query::{Dialect, TokenQuery};

impl<S: TokenSource> Pipeline<S> {
    pub(super) fn record_fault(
        &self,
        origin: &Origin,
        pod: &PodGrants,
        grant: Option<&Grant>,
        query: &TokenQuery,
        fault: &Fault,
        refusal: Option<&Refusal>,
    ) {
        let identity = grant.map(|grant| &grant.identity.name);
        if self.passes_on(Some(&pod.pod), query) {
            self.record_observed(Caller::Pod(&pod.pod), identity, query, fault);
            return;
        }
        if let Some(refusal) = refusal {
            self.metrics.refused(refusal);
        }
        self.events.refused(&Refused {
            pod: &pod.pod,
            fault,
            refusal,
            identity,
            resource: Some(&query.resource),
        });
        self.audit.record(&audit::Decision {
            caller: Caller::Pod(&pod.pod),
            asked_by: origin.asked_by(),
            identity,
            resource: &query.resource,
            outcome: fault.kind.as_str(),
            reason: reason(fault),
            cache: "-",
            dialect: query.dialect.as_str(),
        });
    }

    /// Whether what is refused goes to IMDS instead: never in a dialect that IMDS does not have.
    fn passes_on(&self, pod: Option<&PodFacts>, query: &TokenQuery) -> bool {
        query.dialect == Dialect::Imds && self.only_observes(pod)
    }

    /// What would have been refused, and was not.
    fn record_observed(
        &self,
        caller: Caller<'_>,
        identity: Option<&ObjectName>,
        query: &TokenQuery,
        fault: &Fault,
    ) {
        self.audit.record(&audit::Decision {
            caller,
            asked_by: None,
            identity,
            resource: &query.resource,
            outcome: "observed",
            reason: reason(fault),
            cache: "-",
            dialect: query.dialect.as_str(),
        });
    }

    /// Whoever has no known pod is told of by address: on the node nothing else shows who waits.
    pub(super) fn record_nobody(&self, origin: &Origin, query: &TokenQuery, fault: &Fault) {
        let peer = origin.to_string();
        if self.passes_on(None, query) {
            return self.record_observed(Caller::Unknown(&peer), None, query, fault);
        }
        self.audit.record(&audit::Decision {
            caller: Caller::Unknown(&peer),
            asked_by: origin.asked_by(),
            identity: None,
            resource: &query.resource,
            outcome: fault.kind.as_str(),
            reason: reason(fault),
            cache: "-",
            dialect: query.dialect.as_str(),
        });
    }

    /// Tells the pod's owner of a refusal that is not about a token.
    pub(super) fn tell_owner(&self, pod: &PodGrants, fault: &Fault, refusal: Option<&Refusal>) {
        if self.only_observes(Some(&pod.pod)) {
            return;
        }
        self.events.refused(&Refused {
            pod: &pod.pod,
            fault,
            refusal,
            identity: None,
            resource: None,
        });
    }
}

/// Why, for the audit: what only the log gets, else what the caller was told.
pub(super) fn reason(fault: &Fault) -> &str {
    if fault.detail.is_empty() {
        &fault.public
    } else {
        &fault.detail
    }
}
