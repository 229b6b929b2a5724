//! May this token be given? Pure: the question and the pod as it is stand in, a verdict comes out.
//!
//! What is decided on cannot change after it was read: a pod's node (once it has one) and service
//! account stay for as long as its uid does, and the API server itself gives the token only to the
//! pod of that uid. So no time lies between this verdict and the token in which it could become wrong.

use super::review::{Bound, Question};

/// A pod, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its uid.
    pub(super) uid: String,
    /// Its node; empty before it has one.
    pub(super) node: String,
    /// Its service account.
    pub(super) account: String,
}

/// Why a token is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    #[error(
        "Lanyard's agents may ask for service account tokens only with a token of the node that they run on"
    )]
    NoNode,
    #[error(
        "Lanyard's agents may ask only for service account tokens that are bound to a pod by its name and uid"
    )]
    NotBound,
    #[error("there is no pod {namespace}/{name} with the uid that the token is to be bound to")]
    NoPod { namespace: String, name: String },
    #[error(
        "Lanyard's agents may ask for tokens of pods on the node that they run on: this token is of node {own}, and pod \
         {namespace}/{name} is on {node}"
    )]
    OtherNode {
        own: String,
        namespace: String,
        name: String,
        node: String,
    },
    #[error("pod {namespace}/{name} runs as another service account than {account}")]
    OtherAccount {
        namespace: String,
        name: String,
        account: String,
    },
}

/// The one node and the pod that a question is about, before the pod is read.
pub(super) fn subject(question: &Question) -> Result<(&str, &Bound), Denial> {
    let [node] = question.nodes.as_slice() else {
        return Err(Denial::NoNode);
    };
    if node.is_empty() {
        return Err(Denial::NoNode);
    }
    let bound = question.bound.as_ref().ok_or(Denial::NotBound)?;
    if bound.uid.is_empty() || !is_name(&bound.name) || !is_name(&question.account.namespace) {
        return Err(Denial::NotBound);
    }
    Ok((node, bound))
}

/// The verdict, with the pod as it is now (`None`: there is none of that name).
pub(super) fn judge(question: &Question, pod: Option<&Pod>) -> Result<(), Denial> {
    let (own, bound) = subject(question)?;
    let (namespace, name) = (question.account.namespace.clone(), bound.name.clone());
    let Some(pod) = pod.filter(|pod| pod.uid == bound.uid) else {
        return Err(Denial::NoPod { namespace, name });
    };
    if pod.node != own {
        let node = match pod.node.as_str() {
            "" => "no node yet".to_owned(),
            node => format!("node {node}"),
        };
        let own = own.to_owned();
        return Err(Denial::OtherNode {
            own,
            namespace,
            name,
            node,
        });
    }
    if pod.account != question.account.name {
        let account = question.account.name.clone();
        return Err(Denial::OtherAccount {
            namespace,
            name,
            account,
        });
    }
    Ok(())
}

/// A pod's or a namespace's name (RFC 1123 subdomain): it becomes part of a path, so that nothing else may be in it.
fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && bytes.iter().copied().all(plain)
        && edge(bytes.first())
        && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::review::Account;

    fn question() -> Question {
        Question {
            review: "r-1".to_owned(),
            user: "agent".to_owned(),
            nodes: vec!["node-a".to_owned()],
            account: Account {
                namespace: "shop".to_owned(),
                name: "app".to_owned(),
            },
            bound: Some(Bound {
                name: "till-0".to_owned(),
                uid: "u-1".to_owned(),
            }),
        }
    }

    fn pod() -> Pod {
        Pod {
            uid: "u-1".to_owned(),
            node: "node-a".to_owned(),
            account: "app".to_owned(),
        }
    }

    #[test]
    fn a_pod_of_the_own_node_is_allowed() {
        assert_eq!(judge(&question(), Some(&pod())), Ok(()));
    }

    #[test]
    fn anything_else_of_the_pod_is_denied() {
        let other = |change: fn(&mut Pod)| {
            let mut pod = pod();
            change(&mut pod);
            judge(&question(), Some(&pod)).unwrap_err().to_string()
        };
        assert!(other(|pod| "node-b".clone_into(&mut pod.node)).contains("on node node-b"));
        assert!(other(|pod| pod.node.clear()).contains("on no node yet"));
        assert!(other(|pod| "NODE-A".clone_into(&mut pod.node)).contains("NODE-A"));
        assert!(other(|pod| "u-2".clone_into(&mut pod.uid)).contains("no pod shop/till-0"));
        assert!(other(|pod| "till".clone_into(&mut pod.account)).contains("than app"));
        assert!(matches!(
            judge(&question(), None),
            Err(Denial::NoPod { .. })
        ));
    }

    #[test]
    fn a_token_of_no_node_or_of_several_is_denied() {
        for nodes in [vec![], vec![""], vec!["node-a", "node-b"]] {
            let mut question = question();
            question.nodes = nodes.into_iter().map(str::to_owned).collect();
            assert_eq!(judge(&question, Some(&pod())), Err(Denial::NoNode));
        }
    }

    #[test]
    fn what_is_bound_to_no_pod_or_to_no_name_of_one_is_denied() {
        let mut unbound = question();
        unbound.bound = None;
        assert_eq!(judge(&unbound, Some(&pod())), Err(Denial::NotBound));
        for (name, uid) in [
            ("till-0", ""),
            ("", "u-1"),
            ("till-0?resourceVersion=0", "u-1"),
            ("../secrets/till", "u-1"),
            ("till-0/status", "u-1"),
            ("%2e%2e", "u-1"),
            (".", "u-1"),
            ("Till", "u-1"),
        ] {
            let mut question = question();
            question.bound = Some(Bound {
                name: name.to_owned(),
                uid: uid.to_owned(),
            });
            assert_eq!(
                judge(&question, Some(&pod())),
                Err(Denial::NotBound),
                "{name}"
            );
        }
    }

    #[test]
    fn a_namespace_becomes_part_of_a_path_too() {
        for namespace in ["", "..", "shop/secrets/x?", "shop%2fsecrets", "Shop"] {
            let mut question = question();
            namespace.clone_into(&mut question.account.namespace);
            assert!(subject(&question).is_err(), "{namespace}");
        }
    }
}
