//! The dialects of App Service: the calling pod is found as for IMDS, and besides it must show the secret
//! that its own spec holds.
//!
//! In: the caller's address, what it asked. Out: a token, or a fault. Blocks as asking for a token does, but
//! for those with a wrong secret, who cost no look at anything else. Such requests are never passed on, also
//! where the agent only observes: IMDS has no such path, and is nobody to show the secret to.

use super::Pipeline;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::receive::AppServiceAsk;
use crate::agent::respond::Answer;
use crate::model::facts::PodFacts;
use crate::model::fault::{Fault, FaultKind};

impl<S: TokenSource> Pipeline<S> {
    /// A token, to who shows the secret.
    pub(super) async fn app_service(
        &self,
        origin: &Origin,
        ask: &AppServiceAsk,
    ) -> Result<Answer, Fault> {
        let pod = self.locator.locate(origin).await;
        let pod = pod.inspect_err(|fault| {
            if let Ok(query) = &ask.query {
                self.record_nobody(origin, query, fault);
            }
        })?;
        if let Err(fault) = has_shown(ask, &pod.pod) {
            if let Ok(query) = &ask.query {
                self.record_fault(origin, &pod, None, query, &fault, None);
            }
            return Err(fault);
        }
        let query = ask.query.as_ref().map_err(Clone::clone)?;
        self.token_of(pod, origin, query).await
    }
}

/// Whether the request shows the secret of the pod's own spec. Which of the ways it does not is for the
/// log only.
fn has_shown(ask: &AppServiceAsk, pod: &PodFacts) -> Result<(), Fault> {
    let refused = |detail: &str| {
        let public = "The X-IDENTITY-HEADER (2019-08-01) or secret (2017-09-01) header is missing or wrong: it must be the value of the variable IDENTITY_HEADER or MSI_SECRET in this pod's own spec";
        Err(Fault::new(FaultKind::AppServiceHeader, public).with_detail(detail))
    };
    let Some(shown) = &ask.secret else {
        return refused("the header is missing, empty, or there twice");
    };
    if pod.secrets.is_empty() {
        return refused(
            "the pod's spec has neither IDENTITY_HEADER nor MSI_SECRET with a value written out",
        );
    }
    // All of them, whichever fits.
    let fits = pod
        .secrets
        .iter()
        .fold(false, |any, secret| any | secret.is_same(shown));
    if fits {
        Ok(())
    } else {
        refused("the header is another one than the spec's")
    }
}
