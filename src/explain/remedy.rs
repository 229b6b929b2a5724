//! What to change: commands and manifests that can be applied as they stand, the likeliest first.
//! Where somebody else must act (an operator), it says so.

use super::bindings::{misplaced, offers};
use super::commands::{
    annotate, apply, binding_yaml, default, identity_yaml, label, patch_json, subject, unannotate,
};
use super::found::{Found, PodView};
use super::yaml::scalar;
use super::{Question, Remedy, admission, identities, near_names, workload};
use crate::agent::conditions::{Unmet, binds, unmet};
use crate::agent::grants::{Missing, PodGrants};
use crate::agent::select::Refusal;
use crate::api::IDENTITY_ANNOTATION;
use crate::model::facts::{BindingFacts, IdentityFacts, Operator, PodFacts};
use crate::model::ids::ObjectName;
use crate::model::query::Selector;

/// The remedies for a refusal.
pub(super) fn of(
    found: &Found,
    view: &PodView,
    grants: &PodGrants,
    question: &Question,
    refusal: &Refusal,
) -> Vec<Remedy> {
    let pod = &view.facts;
    let mut remedies: Vec<Remedy> = respell(view).into_iter().collect();
    remedies.extend(match refusal {
        Refusal::NothingGranted(Some((name, missing)))
        | Refusal::AnnotationNotGranted(name, missing) => lacking(found, view, name, *missing),
        Refusal::NothingGranted(None) if pod.wanted.is_none() => {
            let mut remedies = workload::remedies(found, view);
            remedies.extend(nothing(found, view));
            remedies
        }
        Refusal::NothingGranted(None) => nothing(found, view),
        Refusal::Ambiguous => ambiguous(view, grants),
        Refusal::NotGranted => not_granted(found, view, grants, &question.selector),
        Refusal::ResourceNotAllowed(name) => {
            let resource = question.resource.as_deref().unwrap_or_default();
            let value = serde_json::json!([{"op": "add", "path": "/spec/allowedResources/-", "value": resource}]);
            vec![Remedy {
                what: format!(
                    "let AzureIdentity {name} be used for {resource} (pod {})",
                    pod.name
                ),
                how: patch_json("azureidentity", name, &value),
            }]
        }
    });
    remedies
}

/// One identity is named, and something of it is missing.
fn lacking(found: &Found, view: &PodView, name: &ObjectName, missing: Missing) -> Vec<Remedy> {
    let pod = &view.facts;
    match missing {
        Missing::NoIdentity => {
            if let Some(broken) = found.broken("AzureIdentity", name) {
                return vec![Remedy {
                    what: format!("correct AzureIdentity {name}: {}", broken.problem),
                    how: format!(
                        "kubectl -n {} edit azureidentity {}",
                        name.namespace, name.name
                    ),
                }];
            }
            let mut remedies = Vec::new();
            if let Some(other) = identities::likely(found, name) {
                remedies.push(rename(view, name, &other));
            }
            remedies.push(Remedy {
                what: format!("create the AzureIdentity {name}"),
                how: apply(&identity_yaml(name)),
            });
            remedies
        }
        Missing::NoBinding => bind(found, pod, name),
        Missing::NoPolicy | Missing::NoWorkloadPolicy => admission::admit(found, name),
    }
}

/// The name was a slip: where it stands, in the annotation or in a binding.
fn rename(view: &PodView, wrong: &ObjectName, right: &ObjectName) -> Remedy {
    let own = &view.facts.name.namespace;
    let written = |name: &ObjectName| as_annotated(name, own);
    match &view.facts.wanted {
        Some(names) => {
            let corrected: Vec<String> = names
                .iter()
                .map(|name| {
                    if *name == written(wrong) || *name == wrong.to_string() {
                        written(right)
                    } else {
                        name.clone()
                    }
                })
                .collect();
            Remedy {
                what: format!("name {right} in the annotation, if that is meant"),
                how: annotate(view, &corrected.join(",")),
            }
        }
        None => Remedy {
            what: format!("let the binding name {}, if that is meant", right.name),
            how: format!(
                "kubectl -n {own} get azureidentitybindings   # the one whose identity is {}\nkubectl -n {own} patch azureidentitybinding NAME --type=merge -p '{{\"spec\":{{\"identity\":\"{}\"}}}}'",
                wrong.name, right.name
            ),
        },
    }
}

/// An identity as the annotation of a pod in namespace `own` names it.
fn as_annotated(name: &ObjectName, own: &str) -> String {
    if *name.namespace == *own {
        name.name.to_string()
    } else {
        name.to_string()
    }
}

/// An identity of a known name must be bound to the pod.
fn bind(found: &Found, pod: &PodFacts, name: &ObjectName) -> Vec<Remedy> {
    let mut remedies = Vec::new();
    let existing = found
        .world
        .bindings(&name.namespace)
        .find(|binding| binding.identity == name.name);
    if let Some(binding) = existing {
        let value = serde_json::json!([{"op": "add", "path": "/spec/subjects/-", "value": subject(pod, name)}]);
        remedies.push(Remedy {
            what: format!(
                "let the binding {} name the pods of service account {}",
                binding.name, pod.service_account
            ),
            how: patch_json("azureidentitybinding", &binding.name, &value),
        });
    } else {
        remedies.push(Remedy {
            what: format!(
                "bind {name} to the pods of service account {}",
                pod.service_account
            ),
            how: apply(&binding_yaml(name, &name.name, pod)),
        });
    }
    if *pod.service_account == *"default" {
        remedies.push(Remedy {
            what: "first give the pods a service account of their own: every pod that names none shares `default`".to_owned(),
            how: "# in the pod's template\nspec:\n  serviceAccountName: NAME".to_owned(),
        });
    }
    remedies
}

/// Nothing is granted, and no binding would give anything.
fn nothing(found: &Found, view: &PodView) -> Vec<Remedy> {
    let pod = &view.facts;
    if pod.wanted.as_ref().is_some_and(Vec::is_empty) {
        return vec![Remedy {
            what: "take the empty annotation away, or name an identity in it".to_owned(),
            how: unannotate(view),
        }];
    }
    let own = &pod.name.namespace;
    let mut remedies = Vec::new();
    if let Some(offer) = offers(found, pod).min_by_key(|binding| &binding.name) {
        let name = format!("{}/{}", offer.name.namespace, offer.identity);
        remedies.push(Remedy {
            what: format!("ask for {name}, which is offered to the pod, by the annotation"),
            how: annotate(view, &name),
        });
    }
    let bindings = found.world.bindings(own);
    for binding in bindings
        .filter(|binding| !binds(binding, pod, &found.world))
        .take(2)
    {
        remedies.extend(relabel(found, view, binding));
        remedies.extend(bind(
            found,
            pod,
            &ObjectName::new(own.clone(), binding.identity.clone()),
        ));
    }
    if let Some(binding) = misplaced(found, pod).min_by_key(|binding| &binding.name) {
        let name = ObjectName::new(binding.name.namespace.clone(), binding.identity.clone());
        let value = serde_json::json!([{"op": "add", "path": "/spec/subjects/-", "value": subject(pod, &name)}]);
        remedies.push(Remedy {
            what: format!("let the binding {} name pods of namespace {own}, and name {name} in the pod's annotation", binding.name),
            how: format!("{}\n{}", patch_json("azureidentitybinding", &binding.name, &value), annotate(view, &name.to_string())),
        });
    }
    let mut here: Vec<_> = found
        .world
        .all_identities()
        .filter(|identity| identity.name.namespace == *own)
        .collect();
    here.sort_by_key(|identity| &identity.name);
    if remedies.is_empty()
        && let Some(identity) = here.first()
    {
        remedies = bind(found, pod, &identity.name);
    }
    if remedies.is_empty() {
        let name = ObjectName::new(own.clone(), pod.service_account.clone());
        remedies.push(Remedy {
            what: "create an identity and bind it (an AzureIdentityPolicy must admit it, which is an operator's)".to_owned(),
            how: apply(&format!("{}---\n{}", identity_yaml(&name), binding_yaml(&name, &name.name, pod))),
        });
    }
    remedies
}

/// The labels that an entry of a binding asks for, where nothing else of it fails.
fn relabel(found: &Found, view: &PodView, binding: &BindingFacts) -> Option<Remedy> {
    let pod = &view.facts;
    let mut subjects = binding.subjects.iter();
    let subject = subjects
        .find(|subject| unmet(subject, binding, pod, &found.world).eq([Unmet::PodSelector]))?;
    let missing: Vec<_> = subject.pod_selector.as_ref()?.unmet(&pod.labels).collect();
    let [only] = missing[..] else { return None };
    let value = only
        .values
        .first()
        .filter(|_| only.operator == Operator::In)?;
    Some(Remedy {
        what: format!(
            "give the pod the label {}={value}, which the binding {} looks for",
            only.key, binding.name
        ),
        how: label(view, only.key, value),
    })
}

/// The annotation is there under another name.
fn respell(view: &PodView) -> Option<Remedy> {
    if view.facts.wanted.is_some() {
        return None;
    }
    let keys = view.annotations.keys().map(String::as_str);
    let slip = near_names(IDENTITY_ANNOTATION, keys).into_iter().next();
    let as_label = view.facts.labels.get(IDENTITY_ANNOTATION);
    let value = as_label.or_else(|| view.annotations.get(slip?))?;
    let meant = if as_label.is_some() {
        "the label"
    } else {
        "that annotation"
    };
    Some(Remedy {
        what: format!(
            "call it by its name: {meant} was meant to be the annotation {IDENTITY_ANNOTATION}"
        ),
        how: annotate(view, value),
    })
}

/// Several are granted and nothing says which.
fn ambiguous(view: &PodView, grants: &PodGrants) -> Vec<Remedy> {
    let Some(first) = grants.granted.first() else {
        return Vec::new();
    };
    let name = &first.identity.name;
    let others = grants
        .granted
        .iter()
        .skip(1)
        .map(|grant| &*grant.identity.name.name);
    let others: Vec<&str> = others.collect();
    let defaults: Vec<_> = grants
        .granted
        .iter()
        .filter(|grant| grant.default)
        .collect();
    let mut remedies = vec![Remedy {
        what: format!(
            "say in the pod's annotation which identities it uses, the default first (here {}; or {})",
            name.name,
            others.join(", ")
        ),
        how: annotate(view, &[&[&*name.name][..], &others[..]].concat().join(",")),
    }];
    if let [_, second, ..] = defaults[..] {
        remedies.push(Remedy {
            what: format!(
                "leave only one binding marked default; {} is, too",
                second.binding
            ),
            how: default(&second.binding, false),
        });
    } else {
        remedies.push(Remedy {
            what: format!(
                "mark the binding {} as default, for all pods that it names",
                first.binding
            ),
            how: default(&first.binding, true),
        });
    }
    remedies.push(Remedy {
        what: "let the program name one by its client id".to_owned(),
        how: format!("# in the pod's template, for programs that use Azure's SDKs\nenv:\n- {{name: AZURE_CLIENT_ID, value: {}}}", scalar(&first.identity.client_id.to_string())),
    });
    remedies
}

/// The request names an identity that the pod is not granted.
fn not_granted(
    found: &Found,
    view: &PodView,
    grants: &PodGrants,
    selector: &Selector,
) -> Vec<Remedy> {
    let pod = &view.facts;
    let mut named: Vec<&IdentityFacts> = found
        .world
        .all_identities()
        .map(AsRef::as_ref)
        .filter(|identity| match selector {
            Selector::ClientId(id) => identity.client_id == *id,
            Selector::ObjectId(id) => identity.object_id == Some(*id),
            Selector::ResourceId(id) => identity.resource_id.as_ref() == Some(id),
            Selector::Default | Selector::Unmatchable => false,
        })
        .collect();
    named.sort_by_key(|identity| {
        (
            identity.name.namespace != pod.name.namespace,
            identity.name.clone(),
        )
    });
    if let Some(identity) = named.first() {
        let name = &identity.name;
        let bound = found
            .world
            .bindings(&name.namespace)
            .any(|binding| binding.identity == name.name && binds(binding, pod, &found.world));
        if !bound {
            return bind(found, pod, name);
        }
        let name = as_annotated(name, &pod.name.namespace);
        let mut names = pod.wanted.clone().unwrap_or_default();
        names.push(name.clone());
        return vec![Remedy {
            what: format!(
                "name {name} in the pod's annotation, too: what it does not name is not granted"
            ),
            how: annotate(view, &names.join(",")),
        }];
    }
    let ids = grants
        .granted
        .iter()
        .map(|grant| format!("{} # {}", grant.identity.client_id, grant.identity.name));
    vec![Remedy {
        what: "no AzureIdentity states that id: let the program ask for one that the pod has (often by AZURE_CLIENT_ID)".to_owned(),
        how: ids.collect::<Vec<_>>().join("\n"),
    }]
}
