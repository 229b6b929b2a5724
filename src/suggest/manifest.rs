//! The manifests in words: each document is preceded by who asked for what, and how often.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Gathered;
use super::group::{Asked, Used, is_grantable, object_name};
use crate::agent::observe::table::{Line, What};
use crate::api::API_VERSION;
use crate::explain::yaml::{scalar, sequence};

/// Labels that name an application, the most usual first.
const APP_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];
/// Paths that an exception opens only with `allowNodeIdentity`.
const NODE_SECRETS: [&str; 2] = ["userdata", "customdata"];

/// Writes the documents one after another.
#[derive(Debug, Default)]
pub struct Writer {
    text: String,
}

impl Writer {
    /// What was written.
    pub fn text(self) -> String {
        self.text
    }

    fn comment(&mut self, words: &str) {
        // One line: what pods sent is quoted in it.
        let line: String = words
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let _ = writeln!(self.text, "# {}", line.trim_end());
    }

    fn document(&mut self, kind: &str, namespace: Option<&str>, name: &str) {
        let namespace =
            namespace.map_or(String::new(), |ns| format!("namespace: {}, ", scalar(ns)));
        let _ = writeln!(
            self.text,
            "apiVersion: {API_VERSION}\nkind: {kind}\nmetadata: {{{namespace}name: {}}}\nspec:",
            scalar(name)
        );
    }

    fn field(&mut self, line: &str) {
        let _ = writeln!(self.text, "  {line}");
    }

    /// Whose observations these are.
    pub fn head(&mut self, gathered: &Gathered) {
        if gathered.asked.is_empty() && !gathered.silent.is_empty() {
            self.comment("No agent answered.");
        } else if gathered.asked.is_empty() {
            self.comment(
                "No agent that observes was asked: `agent.enforcement: observe` makes them.",
            );
        } else {
            let nodes = gathered.asked.join(", ");
            self.comment(&format!(
                "What pods asked for on {nodes} and would not get, and what would grant it."
            ));
            self.comment("Read it, cut it to what is right, then: kubectl apply -f FILE");
        }
        for (node, why) in &gathered.silent {
            self.comment(&format!("NOT ASKED: {node}: {why}"));
        }
        if !gathered.enforcing.is_empty() {
            let nodes = gathered.enforcing.join(", ");
            self.comment(&format!("These enforce, and observed nothing: {nodes}"));
        }
        if gathered.untold > 0 {
            self.comment(&format!(
                "{} more requests are not in this list: there was no room for them",
                gathered.untold
            ));
        }
    }

    /// The operator's part: which resource groups the namespace's identities are of.
    pub fn policy(&mut self, namespace: &str, asked: &Asked<'_>) {
        let groups: BTreeSet<String> = asked
            .identities
            .values()
            .filter_map(|used| group_of(used.answerer.resource_id.as_deref()?))
            .collect();
        if groups.is_empty() {
            return;
        }
        self.text.push_str("---\n");
        self.comment(&format!(
            "FOR AN OPERATOR: lets namespace {namespace} use identities of these resource groups."
        ));
        self.document("AzureIdentityPolicy", None, namespace);
        let label = format!("kubernetes.io/metadata.name: {}", scalar(namespace));
        self.field(&format!("namespaces: {{matchLabels: {{{label}}}}}"));
        self.field(&format!(
            "resourceIDPrefixes: {}",
            sequence(groups.iter().map(String::as_str))
        ));
    }

    /// Identities and who is bound to them.
    pub fn identities(&mut self, namespace: &str, asked: &Asked<'_>) {
        for (name, used) in &asked.identities {
            self.text.push_str("---\n");
            self.document("AzureIdentity", Some(namespace), name);
            let ids = used.answerer;
            for (field, id) in [
                ("clientID", &ids.client_id),
                ("tenantID", &ids.tenant_id),
                ("resourceID", &ids.resource_id),
            ] {
                if let Some(id) = id {
                    self.field(&format!("{field}: {}", scalar(id)));
                }
            }
            self.text.push_str("---\n");
            for (account, lines) in &used.accounts {
                self.who(account, lines);
            }
            self.document("AzureIdentityBinding", Some(namespace), name);
            self.field(&format!("identity: {}", scalar(name)));
            self.field("subjects:");
            self.subjects(used);
            if used.default {
                self.field("default: true");
            }
        }
    }

    fn subjects(&mut self, used: &Used<'_>) {
        for (account, lines) in &used.accounts {
            // Whoever names no service account shares `default`: labels tell more.
            let label = lines.iter().find_map(|line| {
                let mut keys = APP_LABELS.iter();
                keys.find_map(|key| Some((*key, line.labels.get(*key)?)))
            });
            if *account != "default" {
                self.field(&format!("- serviceAccounts: {}", sequence([*account])));
            } else if let Some((key, value)) = label {
                self.field(&format!(
                    "- podSelector: {{matchLabels: {{{key}: {}}}}}",
                    scalar(value)
                ));
            } else {
                self.field(
                    "- serviceAccounts: [default]  # every pod that names no service account",
                );
            }
        }
    }

    /// Who got tokens of the node's own identity: nothing grants that.
    pub fn node_identity(&mut self, namespace: &str, asked: &Asked<'_>) {
        for (account, lines) in &asked.of_node {
            self.text.push_str("---\n");
            self.who(account, lines);
            self.comment(
                "They were answered with the node's own identity, which Lanyard gives to nobody.",
            );
            self.comment("Make a user-assigned identity with just the rights that it needs, assign it to the nodes, then:");
            let name = object_name(account);
            for line in [
                format!("apiVersion: {API_VERSION}"),
                "kind: AzureIdentity".to_owned(),
                format!(
                    "metadata: {{namespace: {}, name: {}}}",
                    scalar(namespace),
                    scalar(&name)
                ),
                "spec: {clientID: CLIENT_ID, resourceID: ARM_ID}".to_owned(),
                "---".to_owned(),
                format!("apiVersion: {API_VERSION}"),
                "kind: AzureIdentityBinding".to_owned(),
                format!(
                    "metadata: {{namespace: {}, name: {}}}",
                    scalar(namespace),
                    scalar(&name)
                ),
                format!(
                    "spec: {{identity: {}, subjects: [{{serviceAccounts: {}}}]}}",
                    scalar(&name),
                    sequence([*account])
                ),
            ] {
                self.comment(&format!("  {line}"));
            }
        }
    }

    /// The operator's part: metadata paths.
    pub fn exceptions(&mut self, namespace: &str, asked: &Asked<'_>) {
        for (account, lines) in &asked.paths {
            let mut paths: Vec<&str> = lines.iter().copied().filter_map(path_of).collect();
            let secret = |path: &str| path.split('/').any(|part| NODE_SECRETS.contains(&part));
            let secrets: Vec<&str> = paths.iter().copied().filter(|path| secret(path)).collect();
            paths.retain(|path| !secret(path));
            self.text.push_str("---\n");
            self.who(account, lines);
            for path in secrets {
                self.comment(&format!("Left out: {path} often holds the node's secrets; it also needs allowNodeIdentity: true"));
            }
            if paths.is_empty() {
                continue;
            }
            self.comment("FOR AN OPERATOR: opens these paths. Many programs do without them.");
            self.document(
                "AzureMetadataException",
                None,
                &object_name(&format!("{namespace}-{account}")),
            );
            self.field(&format!("namespace: {}", scalar(namespace)));
            self.field(&format!("serviceAccounts: {}", sequence([*account])));
            self.field(&format!("paths: {}", sequence(paths)));
        }
    }

    /// What no object would change.
    pub fn rest(&mut self, lines: &[&Line]) {
        let rest: Vec<&&Line> = lines.iter().filter(|line| !is_grantable(line)).collect();
        if rest.is_empty() {
            return;
        }
        self.text.push_str("---\n");
        self.comment("Nothing to grant for these:");
        for line in rest {
            let who = if line.who.namespace.is_empty() {
                "pods that were not known (yet)".to_owned()
            } else {
                format!(
                    "{}, service account {}",
                    line.who.namespace, line.who.service_account
                )
            };
            let why = if line.who.namespace.is_empty() && line.status == 200 {
                String::new()
            } else {
                format!("; IMDS answered {}", line.status)
            };
            self.comment(&format!("  {who}: {}{why}", what(line)));
        }
    }

    fn who(&mut self, account: &str, lines: &[&Line]) {
        let pods: BTreeSet<&str> = lines
            .iter()
            .flat_map(|line| &line.pods)
            .map(String::as_str)
            .collect();
        let pods: Vec<&str> = pods.into_iter().take(3).collect();
        self.comment(&format!(
            "Service account {account} (pods like {}):",
            pods.join(", ")
        ));
        for line in lines {
            self.comment(&format!("  {}", what(line)));
        }
    }
}

/// A line in words.
fn what(line: &Line) -> String {
    let times = if line.count == 1 {
        "once".to_owned()
    } else {
        format!("{} times", line.count)
    };
    match &line.what {
        What::Token {
            resource,
            selector: None,
        } => {
            format!("{times} a token for {resource}, naming no identity")
        }
        What::Token {
            resource,
            selector: Some(selector),
        } => {
            format!("{times} a token for {resource}, naming {selector}")
        }
        What::Path { path } => format!("{times} {path}"),
        What::Other { fault } => format!("{times} what Lanyard answers with {fault}"),
    }
}

fn path_of(line: &Line) -> Option<&str> {
    match &line.what {
        What::Path { path } => Some(path),
        _ => None,
    }
}

/// The resource group of an ARM id, as a prefix.
fn group_of(id: &str) -> Option<String> {
    let segments: Vec<&str> = id.split('/').take(5).collect();
    (segments.len() == 5).then(|| segments.join("/"))
}
