//! Against an API server of a few lines: objects with versions, a status of its own, conflicts.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response};
use kube::client::Body;

use super::*;
use crate::api::assignment::AssignmentState;
use crate::controller::board::Trouble;
use crate::controller::record::{Entry, Record};
use crate::model::ids::ArmId;

const GROUP: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/g";
const NOW: Duration = Duration::from_hours(500_000);

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    object: Option<Value>,
    version: u64,
    asked: Vec<String>,
}

impl Stored {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let is_status = path.contains("/status");
        let ending = if is_status { " status" } else { "" };
        self.asked.push(format!("{method}{ending}"));
        let version = self.version.to_string();
        match (method.as_str(), &mut self.object) {
            ("POST", Some(_)) => return failure(409),
            ("POST", object @ None) => *object = Some(body.clone()),
            ("GET" | "PATCH" | "DELETE", None) => return failure(404),
            ("GET", Some(object)) => return (200, object.clone()),
            ("DELETE", object) => {
                *object = None;
                return (200, json!({"kind": "Status", "status": "Success"}));
            }
            ("PATCH", Some(object)) => {
                if body["metadata"]["resourceVersion"] != version {
                    return failure(409);
                }
                let part = if is_status { "status" } else { "spec" };
                assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
                object[part] = body[part].clone();
            }
            _ => return failure(405),
        }
        self.touch();
        (200, self.object.clone().unwrap())
    }

    fn touch(&mut self) {
        self.version += 1;
        if let Some(object) = &mut self.object {
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            object["metadata"]["generation"] = 1.into();
        }
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "message": "no",
        "reason": reason});
    (code, status)
}

impl tower_service::Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let answered = server
                .0
                .lock()
                .answer(&parts.method, parts.uri.path(), &body);
            let mut answer = Response::new(Body::from(answered.1.to_string().into_bytes()));
            *answer.status_mut() = answered.0.try_into().unwrap();
            Ok(answer)
        })
    }
}

fn rig() -> (Server, KubernetesRecords) {
    let server = Server::default();
    let client = kube::Client::new(server.clone(), "default");
    (server, KubernetesRecords::new(Cluster { client }))
}

fn told(states: &[AssignmentState]) -> Told {
    let compute = format!("{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/pool1");
    let entry = |state| Entry {
        owned: true,
        immutable: false,
        remove_after: None,
        state,
        since: NOW,
        client_id: None,
        principal_id: None,
        reason: None,
        message: None,
    };
    let id = |at| -> ArmId {
        let id =
            format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i{at}");
        id.parse().unwrap()
    };
    let entries = states.iter().enumerate();
    Told {
        compute: Arc::new(compute.parse().unwrap()),
        record: Arc::new(Record {
            entries: entries.map(|(at, state)| (id(at), entry(*state))).collect(),
        }),
        trouble: None,
    }
}

fn asked(server: &Server) -> Vec<String> {
    std::mem::take(&mut server.0.lock().asked)
}

const PENDING: &[AssignmentState] = &[AssignmentState::Pending];
const ASSIGNED: &[AssignmentState] = &[AssignmentState::Assigned];

#[tokio::test]
async fn the_spec_is_written_first_and_only_what_differs() {
    let (server, records) = rig();
    records.write(&told(PENDING), NOW).await.unwrap();
    assert_eq!(asked(&server), ["POST", "PATCH status"]);
    records.write(&told(ASSIGNED), NOW).await.unwrap();
    assert_eq!(asked(&server), ["PATCH status"]);
    let later = NOW + Duration::from_mins(1);
    records.write(&told(ASSIGNED), later).await.unwrap();
    assert_eq!(asked(&server), [""; 0]);
    // The last identity goes: an empty list is written, too.
    let mut none = told(&[]);
    none.trouble = Some(Trouble {
        reason: "Throttled".into(),
        message: "wait".into(),
        until: Some(later),
    });
    records.write(&none, later).await.unwrap();
    assert_eq!(asked(&server), ["PATCH", "PATCH status"]);
    let object = server.0.lock().object.clone().unwrap();
    assert_eq!(object["spec"]["identities"], json!([]));
    assert_eq!(object["status"]["conditions"][0]["reason"], "Throttled");
    records.forget(&none.compute).await.unwrap();
    records.forget(&none.compute).await.unwrap();
    assert!(server.0.lock().object.is_none());
}

#[tokio::test]
async fn what_somebody_else_changed_is_read_again_and_then_written() {
    let (server, records) = rig();
    records.write(&told(PENDING), NOW).await.unwrap();
    server.0.lock().touch();
    asked(&server);
    records.write(&told(ASSIGNED), NOW).await.unwrap();
    let expected = ["PATCH status", "GET", "PATCH status"];
    assert_eq!(asked(&server), expected);
    // Deleted by somebody.
    server.0.lock().object = None;
    assert!(records.lost(&told(ASSIGNED).compute.assignment_name()));
    assert!(!records.holds(&told(ASSIGNED).compute));
    records.write(&told(ASSIGNED), NOW).await.unwrap();
    assert_eq!(asked(&server), ["POST", "PATCH status"]);
    // Deleted, and nobody told.
    server.0.lock().object = None;
    records.write(&told(PENDING), NOW).await.unwrap();
    let expected = ["PATCH status", "GET", "POST", "PATCH status"];
    assert_eq!(asked(&server), expected);
}

#[tokio::test]
async fn one_who_begins_takes_over_what_is_there() {
    let (server, records) = rig();
    records.write(&told(ASSIGNED), NOW).await.unwrap();
    let client = kube::Client::new(server.clone(), "default");
    let next = KubernetesRecords::new(Cluster { client });
    asked(&server);
    // It did not even read before: what is there is found.
    next.write(&told(ASSIGNED), NOW).await.unwrap();
    assert_eq!(asked(&server), ["POST", "GET"]);
}
