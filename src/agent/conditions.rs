//! The conditions of [`crate::model::conditions`] for what the agent keeps: its pods, its identities,
//! its world. [`super::grants`] asks whether any fails, `lanyard explain` asks which.

use super::world::World;
use crate::model::account::is_accounts;
use crate::model::conditions::{self, IdentityView, PodView};
pub use crate::model::conditions::{Clause, Unmet};
use crate::model::facts::{BindingFacts, IdentityFacts, Labels, PodFacts, PolicyFacts, Subject};

/// What of an entry of `binding` the pod does not meet; nothing: the entry names it.
pub fn unmet(
    subject: &Subject,
    binding: &BindingFacts,
    pod: &PodFacts,
    world: &World,
) -> impl Iterator<Item = Unmet> + use<> {
    conditions::unmet(subject, &binding.name.namespace, pod_view(pod, world))
}

/// Whether a binding names the pod: one of its entries does.
#[must_use]
pub fn binds(binding: &BindingFacts, pod: &PodFacts, world: &World) -> bool {
    conditions::binds(binding, pod_view(pod, world))
}

/// What of a policy refuses an identity of a namespace with these labels; nothing: it admits it.
pub fn refusing(
    policy: &PolicyFacts,
    identity: &IdentityFacts,
    namespace: &Labels,
) -> impl Iterator<Item = Clause> + use<> {
    let view = IdentityView {
        uid: &identity.uid,
        client_id: Some(identity.client_id),
        resource_id: identity.resource_id.as_ref(),
        tenant_id: identity.tenant_id,
        authority_host: identity.authority_host.as_deref(),
        sources: &identity.sources,
        is_accounts: is_accounts(&identity.name),
    };
    conditions::refusing(policy, view, namespace)
}

fn pod_view<'a>(pod: &'a PodFacts, world: &'a World) -> PodView<'a> {
    PodView {
        namespace: &pod.name.namespace,
        namespace_labels: world.namespace(&pod.name.namespace),
        account: &pod.service_account,
        labels: &pod.labels,
    }
}
