//! The control socket's serving side.
//!
//! In: a path to bind, the state, the addresses. Out: answers as the table in the parent says; errors as
//! `{"error": text}`. The socket file is made with mode 0600 before it gets its name, and is
//! removed at the end. Key making is done off the event loop.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{arm, credentials};
use crate::sim::azure::Azure;
use crate::sim::faults::Fault;
use crate::sim::http::{converse_plainly, json, typed};
use crate::sim::imds::decode;
use crate::sim::simulator::Addresses;

/// Binds the socket so that it never exists with wider permissions; a dead one is replaced.
pub(in crate::sim) fn bind(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another simulator answers there",
        ));
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    // A left-over of a process with our number.
    let _ = std::fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

/// Serves commands until `stop`, then removes the socket file.
pub(in crate::sim) async fn serve(
    listener: UnixListener,
    path: PathBuf,
    azure: Arc<Azure>,
    addresses: Arc<Addresses>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (azure, addresses) = (azure.clone(), addresses.clone());
        let connection = converse_plainly(stream, move |request| {
            command(request, azure.clone(), addresses.clone())
        });
        connections.spawn(stop.clone().run_until_cancelled_owned(connection));
    }
    connections.close();
    connections.wait().await;
    // Gone already is as good.
    let _ = std::fs::remove_file(path);
}

/// The answer to a command, or the status and the reason of its refusal.
pub(super) type Outcome = Result<Response<Bytes>, (StatusCode, String)>;

async fn command(
    request: Request<Incoming>,
    azure: Arc<Azure>,
    addresses: Arc<Addresses>,
) -> Response<Bytes> {
    let outcome = route(request, &azure, &addresses).await;
    outcome.unwrap_or_else(|(status, message)| json(status, &json!({"error": message})))
}

async fn route(request: Request<Incoming>, azure: &Arc<Azure>, addresses: &Addresses) -> Outcome {
    let done = || Ok(typed(StatusCode::NO_CONTENT, "text/plain", ""));
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, ["healthz"]) => Ok(typed(StatusCode::OK, "text/plain", "ok\n")),
        (&Method::GET, ["addresses"]) => Ok(json(StatusCode::OK, addresses)),
        (&Method::GET, ["stats"]) => Ok(json(StatusCode::OK, &azure.counters.snapshot())),
        (&Method::GET, ["journal"]) => journal(request.uri().query().unwrap_or_default(), azure),
        (&Method::DELETE, ["journal"]) => {
            azure.journal.clear();
            done()
        }
        (&Method::GET, ["faults"]) => Ok(json(StatusCode::OK, &azure.faults.list())),
        (&Method::PUT, ["faults"]) => {
            azure.faults.add(body::<Fault>(request).await?);
            done()
        }
        (&Method::DELETE, ["faults"]) => {
            azure.faults.clear();
            done()
        }
        (&Method::POST, ["keys", "roll"]) => {
            let azure = azure.clone();
            let rolled = tokio::task::spawn_blocking(move || azure.roll_keys()).await;
            let failed = |message| (StatusCode::INTERNAL_SERVER_ERROR, message);
            let kid = rolled
                .map_err(|error| failed(error.to_string()))?
                .map_err(|error| failed(error.to_string()))?;
            Ok(json(StatusCode::OK, &json!({"kid": kid})))
        }
        (&Method::POST, ["keys", "drop-old"]) => {
            azure.keys.drop_old();
            done()
        }
        (&Method::PUT, ["vms", vm, "identities"]) => {
            let vm = decode(vm, false);
            let names: Vec<String> = body(request).await?;
            let refused =
                |error: crate::sim::AssignError| (StatusCode::NOT_FOUND, error.to_string());
            azure.assign(&vm, &names).map_err(refused)?;
            done()
        }
        (_, ["arm", rest @ ..]) => {
            let rest: Vec<String> = rest.iter().map(|part| decode(part, false)).collect();
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            arm::command(request, azure, &rest).await
        }
        (_, ["applications", name, rest @ ..]) => {
            let rest: Vec<String> = rest.iter().map(|part| decode(part, false)).collect();
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            credentials::command(request, azure, &decode(name, false), &rest).await
        }
        (&Method::PUT, ["issuers"]) => credentials::trust(request, azure).await,
        (&Method::PUT, ["clock"]) => {
            azure.set_clock_skew(body::<Clock>(request).await?.skew.as_secs());
            done()
        }
        (method, _) => Err((
            StatusCode::NOT_FOUND,
            format!("no command is {method} {path}"),
        )),
    }
}

fn journal(query: &str, azure: &Azure) -> Outcome {
    let since = match query
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="))
    {
        None => 0,
        Some(number) => number.parse().map_err(|_| {
            (
                StatusCode::BAD_REQUEST,
                format!("since={number} is not a number"),
            )
        })?,
    };
    let mut lines = Vec::new();
    for entry in azure.journal.since(since) {
        serde_json::to_writer(&mut lines, &entry)
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(typed(StatusCode::OK, "application/x-ndjson", lines))
}

/// How far the clock is ahead.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    skew: jiff::SignedDuration,
}

/// The JSON body of a command.
pub(super) async fn body<T: DeserializeOwned>(
    request: Request<Incoming>,
) -> Result<T, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let body = Limited::new(request.into_body(), 1 << 20).collect().await;
    let bytes = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}
