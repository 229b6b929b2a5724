//! Azure Resource Manager by what is on the wire: what a controller of identities relies on, and what it must survive.

mod access;
mod commands;
mod computes;
mod faults;
mod identities;
mod operations;
mod throttle;

use lanyard::sim::{Listen, Simulator, World};
use serde_json::{Value, json};

use crate::client::{Answer, send};

const SUB: &str = "/subscriptions/5b5b5b5b-0000-4000-8000-000000000001";

const WORLD: &str = "
tenant: {id: 7f6d1c1a-0000-4000-8000-000000000001, name: contoso}
identities:
  - name: payments
    clientID: aaaaaaaa-0000-4000-8000-000000000001
    principalID: aaaaaaaa-0000-4000-8000-000000000002
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
  - name: reports
    clientID: bbbbbbbb-0000-4000-8000-000000000001
    principalID: bbbbbbbb-0000-4000-8000-000000000002
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reports
applications:
  - name: controller
    clientID: cccccccc-0000-4000-8000-000000000001
    principalID: cccccccc-0000-4000-8000-000000000002
    secrets: [secret]
scaleSets:
  - name: pool
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachineScaleSets/pool
    instances: [{name: pool_0, sources: [127.0.0.1/32]}, {name: pool_1, sources: [127.0.0.2/32]}]
vms:
  - name: lone
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachines/lone
    sources: [127.0.0.3/32]
    systemAssigned: {clientID: dddddddd-0000-4000-8000-000000000001, principalID: dddddddd-0000-4000-8000-000000000002}
";

/// A simulator, and a token of the controller's for ARM.
struct Rig {
    simulator: Simulator,
    token: String,
}

/// The resource id of a user-assigned identity of the shop.
fn identity(name: &str) -> String {
    format!(
        "{SUB}/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

fn pool() -> String {
    format!("{SUB}/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachineScaleSets/pool")
}

fn lone() -> String {
    format!("{SUB}/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachines/lone")
}

/// The body of a PATCH.
fn body(kind: &str, add: &[&str], remove: &[&str]) -> Value {
    let add = add.iter().map(|name| (identity(name), json!({})));
    let remove = remove.iter().map(|name| (identity(name), Value::Null));
    let map: serde_json::Map<String, Value> = add.chain(remove).collect();
    let mut identity = json!({"type": kind});
    if !map.is_empty() {
        identity["userAssignedIdentities"] = Value::Object(map);
    }
    json!({"identity": identity})
}

impl Rig {
    async fn start(more: &str) -> Self {
        let world = World::from_yaml(&format!("{WORLD}\n{more}\n")).expect("a valid world");
        let simulator = Simulator::start(world, Listen::loopback())
            .await
            .expect("a started simulator");
        let token = token(&simulator, "https://management.azure.com/").await;
        Self { simulator, token }
    }

    /// A request with the controller's token; the target is a resource id, perhaps with a query.
    async fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        self.call_with(method, target, "", body).await
    }

    async fn call_with(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: Option<&Value>,
    ) -> Answer {
        let headers = format!("Authorization: Bearer {}\r\n{headers}", self.token);
        Answer::parse(
            &self
                .raw(method, target, &headers, body)
                .await
                .expect("an answer"),
        )
    }

    async fn raw(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: Option<&Value>,
    ) -> std::io::Result<Vec<u8>> {
        let mark = if target.contains('?') { '&' } else { '?' };
        let version = if target.contains("api-version") {
            String::new()
        } else {
            format!("{mark}api-version=2024-11-01")
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let text = format!(
            "{method} {target}{version} HTTP/1.1\r\nHost: arm.test:1\r\n{headers}Content-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        send(self.simulator.addresses().arm.expect("ARM"), &text).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.call("GET", target, None).await
    }

    async fn patch(&self, target: &str, body: &Value) -> Answer {
        self.call("PATCH", target, Some(body)).await
    }

    /// Names of the identities that ARM shows on a resource, in lower case.
    async fn shown(&self, target: &str) -> Vec<String> {
        let body = self.get(target).await.json();
        let map = body["identity"]["userAssignedIdentities"].as_object();
        let ids = map.into_iter().flat_map(serde_json::Map::keys);
        ids.map(|id| id.rsplit('/').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// The status of a token request to IMDS for a client id.
    async fn imds(&self, client_id: &str) -> (u16, String) {
        let target = crate::client::token_target(&format!("&client_id={client_id}"));
        let answer =
            crate::client::get(self.simulator.addresses().imds.expect("IMDS"), &target).await;
        (answer.status, answer.text().to_owned())
    }

    /// `error.code` of an answer, with its status.
    fn refusal(answer: &Answer) -> (u16, String) {
        let code = answer.json()["error"]["code"].as_str().map(str::to_owned);
        (answer.status, code.unwrap_or_default())
    }
}

/// A token of the controller's from Entra.
async fn token(simulator: &Simulator, resource: &str) -> String {
    let body = format!(
        "grant_type=client_credentials&client_id=cccccccc-0000-4000-8000-000000000001&client_secret=secret&resource={resource}"
    );
    let text = format!(
        "POST /7f6d1c1a-0000-4000-8000-000000000001/oauth2/token HTTP/1.1\r\nHost: login\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let bytes = send(simulator.addresses().entra.expect("Entra"), &text)
        .await
        .expect("an answer");
    let answer = Answer::parse(&bytes).json();
    answer["access_token"].as_str().expect("a token").to_owned()
}
