//! Machines and scale sets: what they carry, changed by PATCH, perhaps by an operation that takes its time.
//!
//! In: a call whose caller is known. Out: the resource as ARM shows it, 202 with an operation to watch, or a refusal. The
//! order of checks is ARM's: right to write, existence, limits, the right to assign, then what Compute and the service of
//! managed identities check. Never waits.

use std::time::Instant;

use bytes::Bytes;
use hyper::header::{ETAG, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::call::{Call, Outcome};
use super::estate::{
    Change, Compute, Failure, Holdings, Kind, Operation, Pace, Poison, State, fold,
};
use super::patch::{Patch, Type};
use super::path::Place;
use super::refusal::{Refusal, identity_operation};
use crate::sim::azure::Azure;
use crate::sim::http::json;
use crate::sim::world::IdCase;

/// The right that assigning takes.
const ASSIGN: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";

/// A machine or scale set: GET and PATCH.
pub(super) fn answer(azure: &Azure, call: &mut Call, place: &Place, kind: Kind) -> Outcome {
    let reads = call.method == Method::GET;
    if !reads && call.method != Method::PATCH {
        return Err(Refusal::method(call.method.as_str()));
    }
    let action = place.action(if reads { "read" } else { "write" });
    call.authorize(azure, &action, &place.scope())?;
    let now = Instant::now();
    azure
        .arm
        .estate
        .look(now, |holdings| exists(holdings, place).map(drop))?;
    call.limit_compute(azure, place, kind, reads)?;
    if reads {
        return azure.arm.estate.look(now, |holdings| {
            let compute = exists(holdings, place)?;
            Ok(shown(azure, compute, StatusCode::OK))
        });
    }
    let patch = call.patch.take().unwrap_or_else(|| Ok(Patch::default()))?;
    may_assign(azure, call, place, &action, &patch)?;
    azure.arm.estate.look(now, |holdings| {
        let (change, failure) = prepare(holdings, call, place, &patch, now)?;
        Ok(carry_out(
            azure,
            holdings,
            call,
            place,
            (change, failure),
            now,
        ))
    })
}

/// The resource that a place names, or which part of its id leads nowhere.
fn exists<'a>(holdings: &'a Holdings, place: &Place) -> Result<&'a Compute, Refusal> {
    if let Some(compute) = holdings.computes.get(&fold(&place.id)) {
        return Ok(compute);
    }
    group_exists(holdings, place)?;
    let what = format!("Microsoft.Compute/{}/{}", place.kind(), place.name);
    Err(Refusal::no_resource(&what, &place.group))
}

/// Whether subscription and resource group exist.
pub(super) fn group_exists(holdings: &Holdings, place: &Place) -> Result<(), Refusal> {
    let subscription = format!("/subscriptions/{}", fold(&place.subscription));
    let mut groups = holdings.groups.iter();
    if !groups.any(|group| group.starts_with(&format!("{subscription}/"))) {
        return Err(Refusal::no_subscription(&place.subscription));
    }
    let group = format!("{subscription}/resourcegroups/{}", fold(&place.group));
    if !place.group.is_empty() && !holdings.groups.contains(&group) {
        return Err(Refusal::no_group(&place.group));
    }
    Ok(())
}

/// The check of what the body links to, which ARM makes before Compute sees the request.
fn may_assign(
    azure: &Azure,
    call: &Call,
    place: &Place,
    action: &str,
    patch: &Patch,
) -> Result<(), Refusal> {
    for id in &patch.add {
        let subscription = id.split('/').nth(2).unwrap_or_default();
        let mut foreign = azure.world.arm.foreign_subscriptions.keys();
        if foreign.any(|other| other.eq_ignore_ascii_case(subscription)) {
            let tenant = &azure.world.tenant.id;
            return Err(Refusal::foreign((action, &place.id), tenant, subscription));
        }
    }
    let (appid, oid) = call.client();
    let lacking = |id: &&str| !azure.arm.roles.allow(oid, ASSIGN, id);
    let linked: Vec<&str> = patch
        .add
        .iter()
        .map(String::as_str)
        .filter(lacking)
        .collect();
    if linked.is_empty() {
        return Ok(());
    }
    Err(Refusal::unlinked(
        (appid, oid),
        (action, &place.id),
        &linked,
    ))
}

/// What a PATCH changes, and why its operation will fail; or why it is refused.
fn prepare(
    holdings: &Holdings,
    call: &Call,
    place: &Place,
    patch: &Patch,
    now: Instant,
) -> Result<(Change, Option<Failure>), Refusal> {
    let compute = exists(holdings, place)?;
    if let Some(wanted) = &call.if_match
        && wanted != "*"
        && *wanted != compute.etag()
    {
        let message = format!(
            "The condition of the request is not met: the resource's ETag is {}, If-Match is {wanted}.",
            compute.etag()
        );
        return Err(Refusal::new(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            message,
        ));
    }
    match compute.provisioning() {
        State::Updating => return Err(Refusal::busy()),
        State::Deleting => {
            let message = format!(
                "Operation 'Update VM' is not allowed on VM '{}' since the VM is marked for deletion. \
                 You can only retry the Delete operation (or wait for an ongoing one to complete).",
                compute.name
            );
            return Err(Refusal::conflict("OperationNotAllowed", message));
        }
        State::Succeeded | State::Failed => {}
    }
    let Some(kind) = patch.kind else {
        return Ok((Change::default(), None));
    };
    let failure = usable(holdings, &compute.id, &patch.add)?;
    let add = patch
        .add
        .iter()
        .filter_map(|id| holdings.assignable(id, now));
    let change = Change {
        add: add.collect(),
        remove: patch.remove.clone(),
        remove_all: !kind.has_user(),
        system: Some(kind.has_system()),
    };
    if kind.has_user() && compute.left(&change) == 0 {
        let message = format!(
            "The identity ids must not be null or empty for '{}' identity type.",
            kind.text()
        );
        return Err(Refusal::bad("MissingIdentityIds", message));
    }
    Ok((change, failure))
}

/// Whether the service of managed identities takes all of them: one that it does not take fails the whole request.
fn usable(holdings: &Holdings, resource: &str, ids: &[String]) -> Result<Option<Failure>, Refusal> {
    let absent = |id: &str| format!("Resource '{id}' was not found.");
    let mut late = None;
    for id in ids {
        let identity = holdings.identities.get(&fold(id));
        let why = match identity.map(|one| one.poison) {
            Some(None) => continue,
            None | Some(Some(Poison::Named)) => absent(id),
            Some(Some(Poison::Unnamed)) => "Bad request.".to_owned(),
            Some(Some(Poison::Late)) => {
                late = Some(Failure {
                    code: "FailedIdentityOperation".to_owned(),
                    message: identity_operation(resource, &absent(id)),
                });
                continue;
            }
        };
        return Err(Refusal::identity_operation(resource, &why));
    }
    Ok(late)
}

fn carry_out(
    azure: &Azure,
    holdings: &mut Holdings,
    call: &mut Call,
    place: &Place,
    (change, failure): (Change, Option<Failure>),
    now: Instant,
) -> Response<Bytes> {
    let key = fold(&place.id);
    let pace = holdings.computes.get(&key).map(|compute| compute.pace);
    let takes = match pace.unwrap_or_default() {
        Pace::World => Some(azure.world.arm.operation_duration),
        Pace::Takes(time) => Some(time),
        Pace::Held => None,
    };
    // A failure that comes late needs an operation to come with.
    if takes.is_some_and(|time| time.is_zero()) && failure.is_none() {
        holdings.make(&key, &change, now);
        let compute = holdings.computes.get(&key);
        return compute.map_or_else(Response::default, |compute| {
            shown(azure, compute, StatusCode::OK)
        });
    }
    let id = holdings.start(&key, change, takes.map(|time| now + time), failure);
    call.record.operation = Some(id.clone());
    let Some(compute) = holdings.computes.get(&key) else {
        return Response::default();
    };
    let mut response = shown(azure, compute, StatusCode::ACCEPTED);
    let location = compute.location.replace(' ', "").to_ascii_lowercase();
    let watch = format!(
        "{}/subscriptions/{}/providers/Microsoft.Compute/locations/{location}/operations/{id}?p={}",
        call.base,
        place.subscription,
        crate::sim::keys::random_guid()
    );
    let version = &call.api_version;
    let wait = takes.map_or(1, |time| time.as_secs().clamp(1, 10));
    let headers = response.headers_mut();
    let urls = [
        (
            HeaderName::from_static("azure-asyncoperation"),
            format!("{watch}&api-version={version}"),
        ),
        (
            LOCATION,
            format!("{watch}&monitor=true&api-version={version}"),
        ),
    ];
    for (name, value) in urls {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers.insert(RETRY_AFTER, HeaderValue::from(wait));
    response
}

/// A running or finished operation: its status, or (`monitor=true`) the answer that the request would have had.
pub(super) fn operation(azure: &Azure, call: &Call, place: &Place) -> Outcome {
    if call.method != Method::GET {
        return Err(Refusal::method(call.method.as_str()));
    }
    Call::limit_operation(azure, place)?;
    azure.arm.estate.look(Instant::now(), |holdings| {
        let Some(operation) = holdings.operations.get(&place.name) else {
            let what = format!("Microsoft.Compute/locations/operations/{}", place.name);
            return Err(Refusal::no_resource(&what, ""));
        };
        let compute = holdings.computes.get(&operation.compute);
        if call.monitors {
            return Ok(monitored(azure, operation, compute));
        }
        let mut body = json!({
            "name": operation.id,
            "startTime": operation.started.to_string(),
            "status": operation.status(),
        });
        if let Some(ended) = operation.ended {
            body["endTime"] = json!(ended.to_string());
        }
        if let (true, Some(failure)) = (operation.ended.is_some(), &operation.failure) {
            body["error"] = json!(failure);
        }
        Ok(waiting(json(StatusCode::OK, &body), operation))
    })
}

fn monitored(azure: &Azure, operation: &Operation, compute: Option<&Compute>) -> Response<Bytes> {
    match (operation.status(), compute) {
        ("InProgress", _) => waiting(
            json(StatusCode::ACCEPTED, &Value::Object(Map::new())),
            operation,
        ),
        ("Succeeded", Some(compute)) => shown(azure, compute, StatusCode::OK),
        _ => {
            let (code, message) = match &operation.failure {
                Some(failure) => (failure.code.as_str(), failure.message.clone()),
                None => (
                    "OperationPreempted",
                    "The operation was canceled.".to_owned(),
                ),
            };
            Refusal::conflict(code, message).answer()
        }
    }
}

fn waiting(mut response: Response<Bytes>, operation: &Operation) -> Response<Bytes> {
    if operation.ended.is_none() {
        let left = operation
            .ends
            .map(|end| end.saturating_duration_since(Instant::now()));
        let wait = left.map_or(1, |left| left.as_secs().clamp(1, 10));
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    response
}

/// A resource id as answers spell it.
pub(super) fn spelled(azure: &Azure, id: &str) -> String {
    match azure.world.arm.id_case {
        IdCase::AsWritten => id.to_owned(),
        IdCase::Lower => id.to_ascii_lowercase(),
        IdCase::UpperGroups => {
            let parts = id.split('/').enumerate().map(|(index, part)| match index {
                3 => part.to_ascii_lowercase(),
                4 => part.to_ascii_uppercase(),
                _ => part.to_owned(),
            });
            parts.collect::<Vec<_>>().join("/")
        }
    }
}

/// The resource as ARM shows it.
fn shown(azure: &Azure, compute: &Compute, status: StatusCode) -> Response<Bytes> {
    let mut properties = json!({"provisioningState": compute.provisioning()});
    if compute.kind == Kind::ScaleSet {
        properties["orchestrationMode"] = json!("Uniform");
        properties["singlePlacementGroup"] = json!(false);
    }
    let mut body = json!({
        "etag": compute.etag(),
        "id": spelled(azure, &compute.id),
        "location": compute.location,
        "name": compute.name,
        "properties": properties,
        "tags": {},
        "type": format!("Microsoft.Compute/{}", compute.kind.segment()),
    });
    let identity = identity(azure, compute);
    // Until somebody has written it, a resource without identities has no such field.
    if identity["type"] != "None" || compute.version > 1 {
        body["identity"] = identity;
    }
    let mut response = json(status, &body);
    if let Ok(value) = HeaderValue::from_str(&compute.etag()) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn identity(azure: &Azure, compute: &Compute) -> Value {
    let kind = Type::of(compute.system.is_some(), !compute.assigned.is_empty());
    let mut identity = json!({"type": kind.text()});
    if let Some(system) = &compute.system {
        identity["principalId"] = json!(system.principal_id);
        identity["tenantId"] = json!(azure.world.tenant.id);
    }
    if !compute.assigned.is_empty() {
        let entries = compute.assigned.iter().map(|one| {
            let ids = json!({"clientId": one.client_id, "principalId": one.principal_id});
            (spelled(azure, &one.id), ids)
        });
        identity["userAssignedIdentities"] = Value::Object(entries.collect());
    }
    identity
}
