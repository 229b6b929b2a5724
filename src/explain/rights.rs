//! What Lanyard's agents may do in a namespace, by the Roles that the chart made there: documents come
//! in, yes or no goes out, or that nobody could look. Pure.
//!
//! A Role counts by the chart's labels. Rights that somebody gave in another way are not seen, which is
//! why a "no" comes with a command that asks the API server itself.

use std::collections::BTreeMap;

use serde_json::Value;

/// One of the agents' rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right<'a> {
    /// To read the Secret of this name.
    Secret(&'a str),
    /// To ask for tokens of the namespace's service accounts.
    Tokens,
}

/// The rules of the agents' Roles, by namespace; a namespace that was not looked at is not there.
#[derive(Clone, Debug, Default)]
pub struct Rights(BTreeMap<String, Vec<Value>>);

impl Rights {
    /// All Roles of a namespace, as the API server has them.
    pub fn take(&mut self, namespace: &str, roles: &[Value]) {
        let agents = |role: &&Value| {
            let label = |name: &str| role.pointer("/metadata/labels")?.get(name)?.as_str();
            label("app.kubernetes.io/name") == Some("lanyard")
                && label("app.kubernetes.io/component") == Some("agent")
        };
        let rules = roles.iter().filter(agents);
        let rules = rules.flat_map(|role| role["rules"].as_array().into_iter().flatten());
        self.0
            .insert(namespace.to_owned(), rules.cloned().collect());
    }

    /// Whether agents have a right in a namespace; `None`: nobody could look.
    pub fn has(&self, namespace: &str, right: Right<'_>) -> Option<bool> {
        let rules = self.0.get(namespace)?;
        Some(rules.iter().any(|rule| right.is_given_by(rule)))
    }
}

impl Right<'_> {
    fn is_given_by(self, rule: &Value) -> bool {
        let (resource, verb, name) = match self {
            Self::Secret(name) => ("secrets", "get", Some(name)),
            Self::Tokens => ("serviceaccounts/token", "create", None),
        };
        let list = |field: &str| rule[field].as_array().into_iter().flatten();
        let has =
            |field: &str, wanted: &str| list(field).any(|entry| entry == wanted || entry == "*");
        let every = list("resourceNames").next().is_none();
        let named = every || name.is_some_and(|name| list("resourceNames").any(|n| n == name));
        list("apiGroups").any(|group| group == "" || group == "*")
            && has("resources", resource)
            && has("verbs", verb)
            && named
    }

    /// The chart's value that gives the right in a namespace.
    pub fn value(self, namespace: &str) -> String {
        match self {
            Self::Secret(name) => {
                format!("agent.secrets: [{{namespace: {namespace}, names: [{name}]}}]")
            }
            Self::Tokens => format!("agent.federated.namespaces: [{namespace}]"),
        }
    }

    /// A command that asks the API server whether `agent` (a user's name) has the right.
    pub fn question(self, namespace: &str, agent: &str) -> String {
        let what = match self {
            Self::Secret(name) => format!("get secrets/{name}"),
            Self::Tokens => "create serviceaccounts --subresource=token".to_owned(),
        };
        format!("kubectl auth can-i {what} -n {namespace} --as={agent}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(labels: &Value, rule: &Value) -> Value {
        json!({"metadata": {"labels": labels}, "rules": [rule]})
    }

    #[test]
    fn a_right_is_what_the_agents_own_roles_give_by_name() {
        let agents =
            json!({"app.kubernetes.io/name": "lanyard", "app.kubernetes.io/component": "agent"});
        let secrets = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["app"], "verbs": ["get", "watch"]});
        let tokens =
            json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]});
        let mut rights = Rights::default();
        rights.take("shop", &[role(&agents, &secrets)]);
        rights.take(
            "other",
            &[role(&json!({}), &secrets), role(&agents, &tokens)],
        );
        let has = |namespace: &str, right| rights.has(namespace, right);
        assert_eq!(has("shop", Right::Secret("app")), Some(true));
        assert_eq!(has("shop", Right::Secret("another")), Some(false));
        assert_eq!(has("shop", Right::Tokens), Some(false));
        assert_eq!(
            has("other", Right::Secret("app")),
            Some(false),
            "another's role"
        );
        assert_eq!(has("other", Right::Tokens), Some(true));
        assert_eq!(has("unseen", Right::Tokens), None);
    }
}
