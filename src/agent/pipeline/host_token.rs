//! A token on behalf of a pod that somebody on the node names, who was found to be allowed to.
//!
//! In: the pod's name, who asks, what. Out: a token in the predecessor's words, or a fault. Blocks as a pod's own
//! request does. Never passed on, also where the agent only observes: IMDS has no such path.

use std::sync::Arc;

use super::Pipeline;
use crate::agent::audit::{self, Caller};
use crate::agent::obtain::TokenSource;
use crate::agent::origin::{Named, Origin};
use crate::agent::respond::Answer;
use crate::model::fault::Fault;
use crate::model::query::TokenQuery;

use super::record::reason;

impl<S: TokenSource> Pipeline<S> {
    /// A token of the pod that is named.
    pub(in crate::agent) async fn on_behalf(
        &self,
        named: Named,
        query: &TokenQuery,
    ) -> Result<Answer, Fault> {
        self.token(&Origin::Named(Arc::new(named)), query).await
    }

    /// Somebody was refused before the pod was looked for: from `whence`, by the name that the API server gave him.
    pub(in crate::agent) fn turned_away(
        &self,
        whence: &str,
        asked_by: Option<&str>,
        query: &TokenQuery,
        fault: &Fault,
    ) {
        self.audit.record(&audit::Decision {
            caller: Caller::Unknown(whence),
            asked_by,
            identity: None,
            resource: &query.resource,
            outcome: fault.kind.as_str(),
            reason: reason(fault),
            cache: "-",
            dialect: query.dialect.as_str(),
        });
    }
}
