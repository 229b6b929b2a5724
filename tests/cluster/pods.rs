//! Pods for trials: manifests of a small Debian with curl that sleeps.
//!
//! In: names and wishes. Out: YAML to be applied. No IO. Invariant: every pod knows the vaults',
//! Entra ID's and Resource Manager's host names (there is no DNS in the cluster) and, by a `ConfigMap`, their authority.

use std::fmt::Write as _;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::images::BASE;
use crate::plan::{ARM, ARM_HOST, ENTRA_HOST, VAULT, VAULT_HOSTS};

/// Where pods find the simulated vaults' authority.
pub const CA_PATH: &str = "/azure/ca.pem";

/// A pod that sleeps.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    /// Its namespace, which must exist.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// 1 or 2: it is scheduled there and nowhere else.
    pub node: usize,
    /// The annotation `lanyard.dev/identity`.
    pub identity: Option<&'a str>,
    /// Its other annotations.
    pub annotations: &'a [(&'a str, &'a str)],
    /// Its labels, as `key: value` pairs.
    pub labels: &'a [(&'a str, &'a str)],
    /// Its image.
    pub image: &'a str,
    /// Its service account.
    pub account: &'a str,
    /// Its container's variables.
    pub variables: &'a [(&'a str, &'a str)],
}

impl<'a> Pod<'a> {
    /// A pod without an identity.
    pub fn new(namespace: &'a str, name: &'a str, node: usize) -> Self {
        Self {
            namespace,
            name,
            node,
            identity: None,
            annotations: &[],
            labels: &[],
            image: BASE,
            account: "default",
            variables: &[],
        }
    }

    /// With the annotation.
    pub fn identity(mut self, names: &'a str) -> Self {
        self.identity = Some(names);
        self
    }

    /// With other annotations.
    pub fn annotations(mut self, annotations: &'a [(&'a str, &'a str)]) -> Self {
        self.annotations = annotations;
        self
    }

    /// With labels.
    pub fn labels(mut self, labels: &'a [(&'a str, &'a str)]) -> Self {
        self.labels = labels;
        self
    }

    /// With another image; it must have `sleep`.
    pub fn image(mut self, image: &'a str) -> Self {
        self.image = image;
        self
    }

    /// With another service account; it must exist.
    pub fn account(mut self, account: &'a str) -> Self {
        self.account = account;
        self
    }

    /// With variables written out in its spec.
    pub fn variables(mut self, variables: &'a [(&'a str, &'a str)]) -> Self {
        self.variables = variables;
        self
    }

    /// The manifest.
    pub fn yaml(&self) -> String {
        let Self {
            namespace,
            name,
            node,
            image,
            account,
            ..
        } = self;
        let mut yaml = format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
        );
        // Writing to a String does not fail.
        let _ = writeln!(yaml, "  labels:\n    app.kubernetes.io/name: {name}");
        for (key, value) in self.labels {
            let _ = writeln!(yaml, "    {key}: {value:?}");
        }
        let identity = self.identity.map(|names| ("lanyard.dev/identity", names));
        let annotations = identity.iter().chain(self.annotations);
        for (index, (key, value)) in annotations.enumerate() {
            if index == 0 {
                yaml += "  annotations:\n";
            }
            let _ = writeln!(yaml, "    {key}: {value:?}");
        }
        let hosts = [&VAULT_HOSTS[..], &[ENTRA_HOST]].concat().join(", ");
        let _ = write!(
            yaml,
            "spec:\n  nodeSelector: {{kubernetes.io/hostname: node-{node}}}\n  \
             terminationGracePeriodSeconds: 0\n  enableServiceLinks: false\n  \
             serviceAccountName: {account}\n  \
             hostAliases: [{{ip: {VAULT}, hostnames: [{hosts}]}}, {{ip: {ARM}, hostnames: [{ARM_HOST}]}}]\n  containers:\n  - name: main\n    \
             image: {image}\n    imagePullPolicy: Never\n    command: [sleep, infinity]\n    \
             volumeMounts: [{{name: azure, mountPath: /azure}}]\n"
        );
        if !self.variables.is_empty() {
            yaml += "    env:\n";
        }
        for (name, value) in self.variables {
            let _ = writeln!(yaml, "    - {{name: {name}, value: {value:?}}}");
        }
        yaml += "  volumes:\n  - {name: azure, configMap: {name: azure-ca, optional: true}}\n";
        yaml
    }
}

impl Cluster {
    /// Makes a namespace with the `ConfigMap` `azure-ca`, and waits for its default service account.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let ca = self.azure_ca()?.replace('\n', "\n    ");
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\napiVersion: v1\nkind: ConfigMap\n\
             metadata: {{name: azure-ca, namespace: {name}}}\ndata:\n  ca.pem: |\n    {ca}\n"
        ))
        .await?;
        let account = ["get", "serviceaccount", "default", "-n", name];
        let there = async || Ok(self.kubectl(&account).await.is_ok());
        self.wait_for(
            "the default service account",
            std::time::Duration::from_secs(20),
            there,
        )
        .await
    }

    /// Applies a pod and waits until it is Ready.
    pub async fn run_pod(&self, pod: &Pod<'_>) -> Result<()> {
        self.apply(&pod.yaml()).await?;
        self.pod_ready(pod.namespace, pod.name).await
    }

    /// Deletes a namespace with everything in it, and waits.
    pub async fn drop_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&[
            "delete",
            "namespace",
            name,
            "--ignore-not-found",
            "--timeout=90s",
        ])
        .await
        .map(drop)
    }
}
