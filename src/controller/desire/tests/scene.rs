//! Builders: changes of a world, and a world with its ledger.

use super::*;

pub fn arm(group: &str, name: &str) -> String {
    format!(
        "/subscriptions/s/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

pub fn guid(n: u64) -> Guid {
    format!("00000000-0000-4000-8000-{n:012x}").parse().unwrap()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub fn selector(pairs: &[(&str, &str)]) -> LabelSelector {
    LabelSelector {
        match_labels: labels(pairs),
        expressions: Vec::new(),
    }
}

pub fn compute(name: &str) -> Arc<Compute> {
    let id = format!(
        "azure:///subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/{name}/virtualMachines/0"
    );
    Arc::new(id.parse().unwrap())
}

pub fn node(name: &str, set: &str) -> Change {
    let node = Node {
        uid: name.into(),
        compute: Ok(compute(set)),
    };
    Change::Node(name.into(), Some(node))
}

/// A pod with the label `app: NAME` and the service account `sa`.
pub fn pod(namespace: &str, name: &str, uid: &str, node: &str, wanted: Option<&str>) -> Change {
    let wanted = wanted.map(|names| {
        names
            .split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into()
    });
    let pod = Pod {
        uid: uid.into(),
        node: node.into(),
        account: "sa".into(),
        labels: Arc::new(labels(&[("app", name)])),
        wanted,
    };
    Change::Pod(ObjectName::new(namespace, name), Some(pod))
}

pub fn no_pod(namespace: &str, name: &str) -> Change {
    Change::Pod(ObjectName::new(namespace, name), None)
}

pub fn namespace(name: &str, team: &str) -> Change {
    Change::Namespace(name.into(), Some(Arc::new(labels(&[("team", team)]))))
}

pub fn meta(namespace: &str, name: &str) -> Meta {
    Meta {
        name: Some(ObjectName::new(namespace, name)),
        uid: format!("uid-{namespace}-{name}").into(),
        generation: 1,
        version: "1".into(),
        ..Meta::default()
    }
}

/// An identity of this ARM id, by IMDS.
pub fn stated(resource_id: Option<&str>) -> Stated {
    Stated {
        client_id: None,
        tenant_id: None,
        object_id: None,
        resource_id: resource_id.map(|id| id.parse().unwrap()),
        sources: vec![SourceFacts::Imds],
        authority_host: None,
        immutable: false,
        managed: None,
    }
}

pub type SeenStated = Seen<Arc<Stated>, Option<Arc<AzureIdentityStatus>>>;

pub fn seen(namespace: &str, name: &str, stated: Stated) -> SeenStated {
    Seen {
        meta: meta(namespace, name),
        said: Ok(Arc::new(stated)),
        status: None,
    }
}

pub fn put(seen: SeenStated) -> Change {
    let name = seen.meta.name.clone().unwrap();
    Change::Identity(name, Some(Arc::new(seen)))
}

pub fn identity(namespace: &str, name: &str, group: &str, arm_name: &str) -> Change {
    put(seen(namespace, name, stated(Some(&arm(group, arm_name)))))
}

pub fn anyone() -> Subject {
    Subject {
        pod_selector: Some(LabelSelector::default()),
        service_accounts: Vec::new(),
        namespace_selector: None,
    }
}

/// A binding `NAME` of an identity.
pub fn binding(namespace: &str, name: &str, identity: &str, subject: Subject) -> Change {
    let facts = BindingFacts {
        name: ObjectName::new(namespace, name),
        identity: identity.into(),
        subjects: vec![subject],
        default: false,
    };
    let seen = Seen {
        meta: meta(namespace, name),
        said: Ok(facts),
        status: (),
    };
    Change::Binding(ObjectName::new(namespace, name), Some(Arc::new(seen)))
}

pub fn policy(name: &str, team: &str, scope: PolicyScope) -> Change {
    let facts = PolicyFacts {
        name: name.into(),
        namespaces: selector(&[("team", team)]),
        scope: Arc::new(scope),
    };
    let seen = Seen {
        meta: meta("", name),
        said: Ok(facts),
        status: (),
    };
    Change::Policy(name.into(), Some(Arc::new(seen)))
}

pub fn prefix(group: &str) -> PolicyScope {
    PolicyScope {
        resource_id_prefixes: vec![format!("/subscriptions/s/resourceGroups/{group}")],
        ..PolicyScope::default()
    }
}

/// A world with its ledger.
#[derive(Default)]
pub struct Observed {
    pub world: World,
    pub ledger: Ledger,
}

impl Observed {
    pub fn change(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<ArmId> {
        let mut touched = Touched::default();
        for change in changes {
            touched.note(&change);
            self.world.apply(change);
        }
        self.ledger.update(&self.world, &touched)
    }

    /// Two teams with a namespace, a policy and an identity `id` each; two nodes in two scale sets.
    pub fn teams() -> Self {
        let mut observed = Self::default();
        observed.change([
            namespace("a", "a"),
            namespace("b", "b"),
            policy("a", "a", prefix("rg-a")),
            policy("b", "b", prefix("rg-b")),
            identity("a", "id", "rg-a", "id"),
            identity("b", "id", "rg-b", "id"),
            binding("a", "id", "id", anyone()),
            node("n1", "pool1"),
            node("n2", "pool2"),
        ]);
        observed
    }

    pub fn wanted(&self, set: &str) -> Vec<(String, usize)> {
        let desire = self.ledger.desire(&compute(set));
        let all = desire.wanted.into_iter();
        all.map(|(id, want)| (id.to_string(), want.pods)).collect()
    }

    pub fn of(&self, namespace: &str, name: &str) -> Use {
        self.ledger.identity(&ObjectName::new(namespace, name))
    }
}
