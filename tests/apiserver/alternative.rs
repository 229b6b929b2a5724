//! What a policy without a webhook would do: a `ValidatingAdmissionPolicy` whose parameters are the
//! namespace's pods. Not what the chart has; the figures in ARCHITECTURE.md come from here.
//!
//! In: the server, with the release's objects. Out: printed figures. Ignored unless asked for
//! (`make test-cluster` does not; run the test program with `--ignored`). Asserts nothing about time.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::Server;
use crate::thief::{ask, pod, request, stage, thief};

const TRIES: usize = 200;
/// Answers that are timed in a round; fewer where each takes a second.
const SAMPLES: usize = 100;
const FEW: usize = 20;
const WEBHOOK: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: over-pods}
spec:
  failurePolicy: Fail
  paramKind: {apiVersion: v1, kind: Pod}
  matchConstraints:
    resourceRules:
      - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE], resources: [serviceaccounts/token]}
  matchConditions:
    - name: agents
      expression: request.userInfo.username == "system:serviceaccount:lanyard-system:lanyard-agent"
  variables:
    - name: claim
      expression: request.userInfo.?extra[?"authentication.kubernetes.io/node-name"].orValue([])
  validations:
    - expression: >-
        params.metadata.uid != object.spec.boundObjectRef.uid ||
        (variables.claim.size() == 1 && params.spec.?nodeName.orValue("") == variables.claim[0] &&
        params.spec.serviceAccountName == request.name)
      message: another node's pod
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: over-pods}
spec:
  policyName: over-pods
  validationActions: [Deny]
  paramRef: {selector: {}, parameterNotFoundAction: Deny}
"#;

/// The race, and the price.
pub fn what_a_policy_over_pods_lets_through(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    let own = pod(server, "shop", "alt-own", Some("node-a"), "app");
    let theirs = pod(server, "shop", "alt-theirs", Some("node-b"), "app");
    let round = |what: &str, samples| {
        let took = sample(server, &client, &own, samples);
        println!(
            "{what}: median {:?}, p99 {:?}",
            took[samples / 2],
            took[samples * 99 / 100]
        );
    };
    round("with the webhook", SAMPLES);
    let path = format!("{WEBHOOK}/lanyard-agent-tokens");
    let mut webhook = server.send("GET", &path, &Value::Null).unwrap();
    server.send("DELETE", &path, &Value::Null).unwrap();
    let theirs = request("alt-theirs", &theirs);
    server.patiently("the webhook's end", || {
        let answer = ask(server, &client, "shop", "app", &theirs);
        answer.map(drop).map_err(|refused| refused.message)
    });
    round("without webhook or policy", SAMPLES);
    server.apply(POLICY);
    server.patiently("the policy", || {
        match ask(server, &client, "shop", "app", &theirs) {
            Ok(_) => Err("not yet in force".to_owned()),
            Err(refused) => refused
                .message
                .contains("another node's pod")
                .then_some(())
                .ok_or(refused.message),
        }
    });
    round("a few pods", SAMPLES);
    let mut passed = 0;
    for number in 0..TRIES {
        let name = format!("alt-{number}");
        let uid = pod(server, "shop", &name, Some("node-b"), "app");
        passed += usize::from(ask(server, &client, "shop", "app", &request(&name, &uid)).is_ok());
    }
    println!("just-created pods of another node: {passed} of {TRIES} tokens given");
    round("200 pods", SAMPLES);
    for (from, to) in [(200, 1000), (1000, 5000)] {
        for number in from..to {
            pod(
                server,
                "shop",
                &format!("alt-{number}"),
                Some("node-b"),
                "app",
            );
        }
        round(&format!("{to} pods"), FEW);
    }
    server.kubectl(&["delete", "validatingadmissionpolicybinding", "over-pods"]);
    server.kubectl(&["delete", "validatingadmissionpolicy", "over-pods"]);
    webhook["metadata"]["resourceVersion"] = Value::Null;
    server.made(WEBHOOK, &webhook);
    server.patiently("the webhook's return", || {
        match ask(server, &client, "shop", "app", &theirs) {
            Ok(_) => Err("not yet in force".to_owned()),
            Err(_) => Ok(()),
        }
    });
    round("5000 pods, with the webhook", SAMPLES);
}

fn sample(server: &Server, client: &kube::Client, uid: &str, samples: usize) -> Vec<Duration> {
    let mut took: Vec<Duration> = (0..samples)
        .map(|_| {
            let begun = Instant::now();
            ask(server, client, "shop", "app", &request("alt-own", uid)).unwrap();
            begun.elapsed()
        })
        .collect();
    took.sort();
    took
}
