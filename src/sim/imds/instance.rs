//! Everything of the instance metadata service that is not a token.
//!
//! In: a canonical path and parameters. Out: instance documents, versions, events, identity info. Two
//! answers must never reach a pod through an agent and say so in their bodies: platform metadata and
//! issued credentials (they make a certificate for the machine itself). Pure.

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::answers::{self, Refusal};
use super::selectors::known_version;
use crate::sim::world::{Vm, World};

/// The answer to any path but the token's.
pub(super) fn answer(
    world: &World,
    vm: &Vm,
    method: &Method,
    path: &str,
    query: &[(String, String)],
) -> Result<Response<Bytes>, Refusal> {
    let object = |body: Value| Ok(answers::object(StatusCode::OK, &body));
    match path {
        "/metadata/identity/getplatformmetadata" => return object(platform(world, vm)),
        "/metadata/identity/issuecredential" if method == Method::POST => {
            return object(json!({
                "certificate": "MUST-NEVER-LEAK",
                "client_id": vm.name,
                "identity_type": "SystemAssigned",
                "mtls_authentication_endpoint": "https://mtlsauth.microsoft.com",
                "tenant_id": world.tenant.id,
            }));
        }
        "/metadata/versions" => {
            return object(json!({"apiVersions": ["2018-02-01", "2023-07-01"]}));
        }
        _ if !path.starts_with("/metadata/") => return Err(Refusal::not_found()),
        _ => {}
    }
    if method != Method::GET {
        return Err(Refusal::method());
    }
    let version = parameter(query, "api-version").unwrap_or_default();
    if !known_version(version) {
        return Err(Refusal::bad(
            "api-version is invalid or was not specified in the request.",
        ));
    }
    match path {
        "/metadata/identity/info" => object(json!({"tenantId": world.tenant.id})),
        "/metadata/scheduledevents" => object(json!({"DocumentIncarnation": 1, "Events": []})),
        "/metadata/attested/document" => {
            object(json!({"encoding": "pkcs7", "signature": "U0lNVUxBVEVE"}))
        }
        _ => subdocument(&instance(vm), path, query),
    }
}

fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

fn platform(world: &World, vm: &Vm) -> Value {
    json!({
        "attestationEndpoint": "https://MUST-NEVER-LEAK.attest.azure.net",
        "clientId": vm.system_assigned.as_ref().map_or("MUST-NEVER-LEAK", |id| &id.client_id),
        "cuId": {"vmId": vm_id(vm), "vmssId": ""},
        "tenantId": world.tenant.id,
    })
}

/// A made-up but constant VM id.
fn vm_id(vm: &Vm) -> String {
    let sum = vm
        .name
        .bytes()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(257) + u64::from(byte));
    format!("00000000-0000-4000-8000-{:012x}", sum & 0xffff_ffff_ffff)
}

fn instance(vm: &Vm) -> Value {
    let arm_id = vm.arm_id();
    let segments: Vec<&str> = arm_id.split('/').collect();
    let segment = |index: usize| segments.get(index).copied().unwrap_or_default();
    json!({
        "compute": {
            "azEnvironment": "AzurePublicCloud",
            "customData": vm.custom_data,
            "location": vm.location,
            "name": vm.name,
            "osType": "Linux",
            "resourceGroupName": segment(4),
            "resourceId": arm_id,
            "subscriptionId": segment(2),
            "tags": "",
            "tagsList": [],
            "userData": vm.user_data,
            "vmId": vm_id(vm),
            "vmScaleSetName": vm.scale_set.as_deref().unwrap_or_default(),
            "vmSize": "Standard_D2s_v5",
        },
        "network": {"interface": [{
            "ipv4": {
                "ipAddress": [{"privateIpAddress": "10.0.0.4", "publicIpAddress": ""}],
                "subnet": [{"address": "10.0.0.0", "prefix": "24"}],
            },
            "ipv6": {"ipAddress": []},
            "macAddress": "000D3A000001",
        }]},
    })
}

/// `/metadata/instance` or a part of it, a leaf as text where `format=text` is given.
fn subdocument(
    document: &Value,
    path: &str,
    query: &[(String, String)],
) -> Result<Response<Bytes>, Refusal> {
    let rest = path
        .strip_prefix("/metadata/instance")
        .ok_or_else(Refusal::not_found)?;
    let mut value = document;
    for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
        value = match value {
            Value::Object(fields) => fields
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(segment))
                .map(|(_, value)| value),
            Value::Array(items) => segment
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index)),
            _ => None,
        }
        .ok_or_else(Refusal::not_found)?;
    }
    let text = parameter(query, "format").is_some_and(|format| format.eq_ignore_ascii_case("text"));
    match value {
        Value::String(leaf) if text => Ok(answers::text(leaf.clone())),
        Value::Object(fields) if text => {
            let names: Vec<String> = fields.keys().map(|name| format!("{name}/")).collect();
            Ok(answers::text(names.join("\n")))
        }
        Value::String(_) => Err(Refusal::bad("A leaf is served with format=text only")),
        _ => Ok(answers::object(StatusCode::OK, value)),
    }
}
