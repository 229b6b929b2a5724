//! Who writes what agents believe, on a real API server: the controller writes `AzureAssignment`s and
//! statuses, nobody else does, and of an `AzureIdentity` it changes what is its own.
//!
//! In: the server, the chart's objects of the controller. Out: a trial for each question. Blocks on the
//! server. The policies are taken away again: other trials write as they like.

use serde_json::{Value, json};

use crate::server::{Refused, Server};
use crate::thief::{NAMESPACE, rendered, stage};

const ASSIGNMENTS: &str = "/apis/lanyard.dev/v1alpha1/azureassignments";
const IDENTITIES: &str = "/apis/lanyard.dev/v1alpha1/namespaces/shop/azureidentities";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const SET: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1";
const NAME: &str = "vmss-pool1-a6a1ed7c";
const RESOURCE: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments";

/// What is asked of a server, and under which name.
pub type Trial = (&'static str, fn(&Server));

/// The trials of this file.
pub const TRIALS: &[Trial] = &[
    (
        "only_the_controller_writes_what_agents_believe",
        only_the_controller_writes_what_agents_believe,
    ),
    (
        "of_an_identity_the_controller_changes_what_is_its_own",
        of_an_identity_the_controller_changes_what_is_its_own,
    ),
    (
        "the_controller_has_its_lease_and_no_secrets",
        the_controller_has_its_lease_and_no_secrets,
    ),
    (
        "the_server_takes_every_rendering_of_the_controller",
        the_server_takes_every_rendering_of_the_controller,
    ),
];

fn assignment() -> Value {
    json!({
        "apiVersion": "lanyard.dev/v1alpha1",
        "kind": "AzureAssignment",
        "metadata": {"name": NAME},
        "spec": {"computeID": SET, "identities": [{"resourceID": RESOURCE, "owned": true}]},
    })
}

/// One whom nobody has the word of: a cluster's administrator, and the controller with a token of its own.
struct Stage<'a> {
    server: &'a Server,
    controller: kube::Client,
}

impl<'a> Stage<'a> {
    fn set(server: &'a Server) -> Self {
        stage(server);
        let tenant = "72f988bf-0000-4000-8000-00000000000a";
        let objects = rendered(&[
            "--set",
            "controller.enabled=true,controller.azure.clientID=11111111-1111-4111-8111-111111111111",
            "--set",
            &format!("azure.tenantID={tenant}"),
        ]);
        let of_it: Vec<_> = objects
            .into_iter()
            .filter(|object| {
                object["metadata"]["labels"]["app.kubernetes.io/component"] == "controller"
            })
            .collect();
        let all = json!({"apiVersion": "v1", "kind": "List", "items": of_it});
        server.apply(&all.to_string());
        let path =
            format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/lanyard-controller/token");
        let made = server.made(&path, &json!({"spec": {"audiences": []}}));
        let controller = server.client(made["status"]["token"].as_str().unwrap());
        let stage = Self { server, controller };
        // They come into force by a watch.
        let identity = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"name": "till"}, "spec": {"resourceID": RESOURCE}});
        server.made(IDENTITIES, &identity);
        server.patiently("the policies", || {
            let written = stage.admin("POST", &format!("{ASSIGNMENTS}?dryRun=All"), &assignment());
            let path = format!("{IDENTITIES}/till?dryRun=All");
            let labelled = stage.controller("PATCH", &path, &labels());
            match (written, labelled) {
                (Err(_), Err(_)) => Ok(()),
                _ => Err("not yet in force".to_owned()),
            }
        });
        stage
    }

    fn admin(&self, method: &str, path: &str, object: &Value) -> Result<Value, Refused> {
        self.server.send(method, path, object)
    }

    fn controller(&self, method: &str, path: &str, object: &Value) -> Result<Value, Refused> {
        self.server.send_as(&self.controller, method, path, object)
    }

    fn end(&self) {
        for path in [BINDINGS, POLICIES] {
            for name in ["lanyard-controller", "lanyard-controller-writes"] {
                self.admin("DELETE", &format!("{path}/{name}"), &Value::Null)
                    .unwrap();
            }
        }
        self.admin("DELETE", &format!("{IDENTITIES}/till"), &Value::Null)
            .unwrap();
        self.server.patiently("without the policies", || {
            let path = format!("{ASSIGNMENTS}?dryRun=All");
            let written = self.admin("POST", &path, &assignment());
            written.map(drop).map_err(|refused| refused.message)
        });
    }
}

fn labels() -> Value {
    json!({"metadata": {"labels": {"team": "till"}}})
}

/// Refused with these words.
fn refused(outcome: Result<Value, Refused>, words: &str) {
    let told = outcome.expect_err("it was taken").message;
    assert!(told.contains(words), "{told}");
}

fn only_the_controller_writes_what_agents_believe(server: &Server) {
    let stage = Stage::set(server);
    let one = format!("{ASSIGNMENTS}/{NAME}");
    let status = json!({"status": {"assigned": 1}});
    let theirs = json!({"spec": {"identities": []}});

    refused(
        stage.admin("POST", ASSIGNMENTS, &assignment()),
        "Only Lanyard's controller creates",
    );
    stage
        .controller("POST", ASSIGNMENTS, &assignment())
        .unwrap();
    stage
        .controller("PATCH", &format!("{one}/status"), &status)
        .unwrap();
    let other = json!({"status": {"assigned": 2}});
    refused(
        stage.admin("PATCH", &format!("{one}/status"), &other),
        "writes the status",
    );
    refused(
        stage.admin("PATCH", &one, &theirs),
        "changes AzureAssignments",
    );
    stage.controller("PATCH", &one, &theirs).unwrap();
    // What the garbage collector and migrations do, and a repair.
    stage.admin("PATCH", &one, &labels()).unwrap();
    let finalizer = json!({"metadata": {"finalizers": ["example.com/held"]}});
    stage.admin("PATCH", &one, &finalizer).unwrap();
    stage.admin("DELETE", &one, &Value::Null).unwrap();
    let released = json!({"metadata": {"finalizers": null}});
    stage.admin("PATCH", &one, &released).unwrap();
    refused(stage.admin("GET", &one, &Value::Null), "not found");

    let identity = format!("{IDENTITIES}/till/status");
    let ids = json!({"status": {"clientID": "11111111-1111-4111-8111-111111111111"}});
    refused(stage.admin("PATCH", &identity, &ids), "writes the status");
    stage.controller("PATCH", &identity, &ids).unwrap();
    stage.end();
}

fn of_an_identity_the_controller_changes_what_is_its_own(server: &Server) {
    let stage = Stage::set(server);
    let identity = format!("{IDENTITIES}/till");
    let changes =
        |metadata: Value| stage.controller("PATCH", &identity, &json!({"metadata": metadata}));
    let finalizers = |names: &[&str]| changes(json!({"finalizers": names}));

    finalizers(&["lanyard.dev/managed-identity"]).unwrap();
    changes(json!({"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "till", "uid": "0b5a9b52-0000-4000-8000-000000000001"}
    ]}))
    .unwrap();
    refused(
        finalizers(&["lanyard.dev/managed-identity", "example.com/held"]),
        "sets and removes",
    );
    for metadata in [
        labels()["metadata"].clone(),
        json!({"annotations": {"a": "b"}}),
    ] {
        refused(changes(metadata), "the finalizer, the owner and the status");
    }
    let another = json!({"spec": {"resourceID": RESOURCE.replace("payments", "safe")}});
    refused(
        stage.controller("PATCH", &identity, &another),
        "the finalizer, the owner and the status",
    );
    refused(
        stage.controller("DELETE", &identity, &Value::Null),
        "forbidden",
    );
    finalizers(&[]).unwrap();
    stage.end();
}

/// Rights that RBAC alone bounds: its Lease, and no Secrets.
fn the_controller_has_its_lease_and_no_secrets(server: &Server) {
    let stage = Stage::set(server);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    for (name, its_own) in [("lanyard-controller", true), ("another", false)] {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
        let mut lease = stage.controller("POST", &leases, &lease).unwrap();
        lease["spec"]["holderIdentity"] = json!("one");
        let path = format!("{leases}/{name}");
        let renewed = stage.controller("PUT", &path, &lease);
        if its_own {
            renewed.unwrap();
        } else {
            refused(renewed, "forbidden");
        }
        stage.admin("DELETE", &path, &Value::Null).unwrap();
    }
    for path in ["/api/v1/secrets", "/api/v1/namespaces/shop/secrets/any"] {
        refused(stage.controller("GET", path, &Value::Null), "forbidden");
    }
    let marker = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/lanyard-removal");
    refused(stage.controller("GET", &marker, &Value::Null), "not found");
    let issuer = stage.controller("GET", "/.well-known/openid-configuration", &Value::Null);
    assert_eq!(issuer.unwrap()["issuer"], "https://kubernetes.default.svc");
    stage.end();
}

/// A field that the API server does not know would be dropped without a word.
fn the_server_takes_every_rendering_of_the_controller(server: &Server) {
    stage(server);
    let ids = "azure.tenantID=72f988bf-0000-4000-8000-00000000000a,controller.azure.clientID=11111111-1111-4111-8111-111111111111";
    for (auth, more) in [
        ("federated", "controller.networkPolicy.enabled=true"),
        ("federated", "controller.dryRun=true"),
        ("certificate", "controller.azure.secretName=arm"),
        ("secret", "controller.azure.secretName=arm"),
        ("nodeIdentity", "azure.caBundle=-----BEGIN CERTIFICATE-----"),
    ] {
        let values = format!("controller.enabled=true,controller.azure.auth={auth},{ids},{more}");
        for object in rendered(&["--set", &values]) {
            let name = object["metadata"]["name"].as_str().unwrap();
            if !name.contains("controller") {
                continue;
            }
            let file = format!("{name}-{auth}.yaml");
            let file = server.file(&file, object.to_string().as_bytes());
            let file = file.display().to_string();
            // Another trial may have left the same objects.
            let dry = [
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
            ];
            server.kubectl(&[&dry[..], &["--validate=strict", "-f", &file]].concat());
        }
    }
}
