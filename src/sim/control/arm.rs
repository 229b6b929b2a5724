//! Commands about what ARM holds.
//!
//! In: method, path below `/arm`, a JSON body. Out: what exists, or nothing. Waits for the body only.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use super::server::{Outcome, body};
use crate::sim::arm::{CommandError, Commands};
use crate::sim::azure::Azure;
use crate::sim::http::{json, typed};

fn refused(error: &CommandError) -> (StatusCode, String) {
    let status = match error {
        CommandError::Taken(_) | CommandError::Idle(_) => StatusCode::CONFLICT,
        CommandError::Nobody(_) => StatusCode::BAD_REQUEST,
        CommandError::NoCompute(_) | CommandError::NoIdentity(_) | CommandError::Absent(_) => {
            StatusCode::NOT_FOUND
        }
    };
    (status, error.to_string())
}

/// A user-assigned identity that is to be made.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewIdentity {
    #[serde(rename = "resourceID")]
    resource_id: String,
    #[serde(default)]
    name: Option<String>,
}

/// A resource group.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    id: String,
}

/// One command; `rest` is the path behind `/arm`.
pub(super) async fn command(request: Request<Incoming>, azure: &Azure, rest: &[&str]) -> Outcome {
    let arm = Commands(azure);
    let done = match (request.method().clone(), rest) {
        (Method::GET, []) => return Ok(json(StatusCode::OK, &arm.resources())),
        (Method::PUT, ["vms"]) => arm.add_vm(&body(request).await?),
        (Method::PUT, ["scale-sets"]) => arm.add_scale_set(&body(request).await?),
        (Method::PUT, ["scale-sets", name, "instances"]) => arm.scale(name, body(request).await?),
        (_, ["computes", name, rest @ ..]) => compute(request, &arm, name, rest).await?,
        (Method::PUT, ["identities"]) => {
            let NewIdentity { resource_id, name } = body(request).await?;
            let name = arm.put_identity(&resource_id, name.as_deref());
            return Ok(json(
                StatusCode::OK,
                &json!({"id": name.map_err(|error| refused(&error))?}),
            ));
        }
        (Method::DELETE, ["identities", name]) => arm.delete_identity(name),
        (Method::POST, ["identities", name, "recreate"]) => {
            let identity = arm
                .recreate_identity(name)
                .map_err(|error| refused(&error))?;
            return Ok(json(StatusCode::OK, &identity));
        }
        (Method::PUT, ["identities", name, "poison"]) => arm.poison(name, body(request).await?),
        (Method::PUT, ["roles"]) => arm.grant(body(request).await?),
        (Method::DELETE, ["roles"]) => arm.revoke(&body(request).await?),
        (Method::DELETE, ["groups"]) => arm.delete_group(&body::<Group>(request).await?.id),
        (method, _) => return Err(unknown(&method, request.uri().path())),
    };
    done.map_err(|error| refused(&error))?;
    Ok(typed(StatusCode::NO_CONTENT, "text/plain", Bytes::new()))
}

async fn compute(
    request: Request<Incoming>,
    arm: &Commands<'_>,
    name: &str,
    rest: &[&str],
) -> Result<Result<(), CommandError>, (StatusCode, String)> {
    Ok(match (request.method().clone(), rest) {
        (Method::DELETE, []) => arm.delete_compute(name),
        (Method::PUT, ["operations"]) => arm.set_operations(name, body(request).await?),
        (Method::POST, ["release"]) => arm.release(name, body(request).await?),
        (Method::PUT, ["state"]) => arm.set_state(name, body(request).await?),
        (Method::DELETE, ["identities", identity]) => arm.unassign(name, identity),
        (method, _) => return Err(unknown(&method, request.uri().path())),
    })
}

fn unknown(method: &Method, path: &str) -> (StatusCode, String) {
    (
        StatusCode::NOT_FOUND,
        format!("no command is {method} {path}"),
    )
}
