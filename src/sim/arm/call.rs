//! One request to ARM on its way through the checks that all of them have in common.
//!
//! In: head and body of a request. Out: what it says, who makes it, whether its subscription has requests left; and what
//! the journal is to know of it. Never waits.

use std::time::Instant;

use bytes::Bytes;
use hyper::header::{HOST, IF_MATCH};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use super::buckets::{self, Limit};
use super::estate::Kind;
use super::patch::{self, Patch, Type};
use super::path::{self, Place};
use super::refusal::Refusal;
use crate::sim::azure::Azure;
use crate::sim::imds::decode;
use crate::sim::journal::ArmCall;
use crate::sim::token::Claims;

/// The right answer, or the refusal.
pub(super) type Outcome = Result<Response<Bytes>, Refusal>;

/// A request.
pub(super) struct Call {
    pub method: Method,
    pub path: String,
    /// What it is about; none where nothing is there.
    pub place: Option<Place>,
    pub api_version: String,
    pub monitors: bool,
    pub if_match: Option<String>,
    pub body: Bytes,
    /// The body of a PATCH to a machine or scale set.
    pub patch: Option<Result<Patch, Refusal>>,
    pub claims: Result<Claims, Refusal>,
    /// Scheme and host of the addresses in answers.
    pub base: String,
    /// Requests of this kind that the subscription has left: header and number.
    pub left: Option<(&'static str, u32)>,
    /// The same for the resource, `Microsoft.Compute/UpdateVMResource;11`.
    pub resource_left: Vec<String>,
    /// For the journal.
    pub record: ArmCall,
}

impl Call {
    pub fn read(parts: &Parts, body: Bytes, scheme: &str, claims: Result<Claims, Refusal>) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut pairs = pairs.map(|(name, value)| (decode(name, true), decode(value, true)));
            let found = pairs.find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value).unwrap_or_default()
        };
        let header = |name| {
            let value = parts.headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let authority = parts.uri.authority().map(ToString::to_string);
        let host = authority.or_else(|| header(HOST)).unwrap_or_default();
        let place = path::read(parts.uri.path());
        let if_match = header(IF_MATCH);
        let mut record = ArmCall {
            caller: claims.as_ref().ok().map(|claims| claims.oid.clone()),
            if_match: if_match.clone(),
            ..ArmCall::default()
        };
        let mut patch = None;
        if let Some(place) = &place {
            place.kind().clone_into(&mut record.kind);
            place.name.clone_into(&mut record.name);
            if matches!(place.subject, path::Subject::Compute(_)) && parts.method == Method::PATCH {
                let read = patch::read(&body, &place.id);
                if let Ok(patch) = &read {
                    record.added.clone_from(&patch.add);
                    record.removed.clone_from(&patch.remove);
                    record.identity_type = patch.kind.map(Type::text).map(str::to_owned);
                }
                patch = Some(read);
            }
        }
        Self {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            place,
            api_version: parameter("api-version"),
            monitors: parameter("monitor").eq_ignore_ascii_case("true"),
            if_match,
            body,
            patch,
            claims,
            base: format!("{scheme}://{host}"),
            left: None,
            resource_left: Vec::new(),
            record,
        }
    }

    /// Application id and object id of the caller.
    pub fn client(&self) -> (&str, &str) {
        match &self.claims {
            Ok(claims) => (&claims.appid, &claims.oid),
            Err(_) => ("", ""),
        }
    }

    /// Refuses a caller without the right.
    pub fn authorize(&self, azure: &Azure, action: &str, scope: &str) -> Result<(), Refusal> {
        let client = self.client();
        if azure.arm.roles.allow(client.1, action, scope) {
            return Ok(());
        }
        Err(Refusal::unauthorized(client, action, scope))
    }

    /// ARM's own limit for the subscription, the caller and the kind of request.
    pub fn limit_subscription(&mut self, azure: &Azure, subscription: &str) -> Result<(), Refusal> {
        if !azure.world.arm.throttle {
            return Ok(());
        }
        let (limit, header, verb) = match self.method {
            Method::GET => (
                buckets::READS,
                "x-ms-ratelimit-remaining-subscription-reads",
                "read",
            ),
            Method::DELETE => (
                buckets::DELETES,
                "x-ms-ratelimit-remaining-subscription-deletes",
                "delete",
            ),
            _ => (
                buckets::WRITES,
                "x-ms-ratelimit-remaining-subscription-writes",
                "write",
            ),
        };
        let oid = self.client().1.to_owned();
        let name = format!("{verb} {} {oid}", subscription.to_ascii_lowercase());
        match azure.arm.buckets.take(name, limit, Instant::now()) {
            Ok(left) => self.left = Some((header, left)),
            Err(seconds) => {
                azure.counters.arm_throttled();
                let message = format!(
                    "Number of '{verb}' requests for subscription actor '{subscription}:{oid}' exceeded. \
                     Please try again after '{seconds}' seconds after additional tokens are available. \
                     Refer to https://aka.ms/arm-throttling for additional information."
                );
                let code = "SubscriptionRequestsThrottled";
                return Err(throttled(code, message, seconds));
            }
        }
        Ok(())
    }

    /// Compute's limits for the resource and the subscription.
    pub fn limit_compute(
        &mut self,
        azure: &Azure,
        place: &Place,
        kind: Kind,
        reads: bool,
    ) -> Result<(), Refusal> {
        let (resource, subscription) = match (reads, kind) {
            (false, _) => (buckets::UPDATE_RESOURCE, buckets::UPDATE_SUBSCRIPTION),
            (true, Kind::Vm) => (buckets::GET_RESOURCE, buckets::GET_VM_SUBSCRIPTION),
            (true, Kind::ScaleSet) => (buckets::GET_RESOURCE, buckets::GET_SET_SUBSCRIPTION),
        };
        let verb = if reads { "LowCostGet" } else { "Update" };
        let noun = match kind {
            Kind::Vm => "VM",
            Kind::ScaleSet => "VMScaleSet",
        };
        let both = [
            (format!("{verb}{noun}Resource"), &place.id, resource),
            (
                format!("{verb}{noun}SubscriptionMaximum"),
                &place.subscription,
                subscription,
            ),
        ];
        for (policy, of, limit) in both {
            let left = take(azure, &policy, of, limit)?;
            if let Some(left) = left {
                self.resource_left
                    .push(format!("Microsoft.Compute/{policy};{left}"));
            }
        }
        Ok(())
    }

    /// Compute's limit for asking about one operation.
    pub fn limit_operation(azure: &Azure, place: &Place) -> Result<(), Refusal> {
        take(
            azure,
            "GetOperationResource",
            &place.name,
            buckets::GET_OPERATION,
        )
        .map(drop)
    }
}

fn take(azure: &Azure, policy: &str, of: &str, limit: Limit) -> Result<Option<u32>, Refusal> {
    if !azure.world.arm.throttle {
        return Ok(None);
    }
    let name = format!("{policy} {}", of.to_ascii_lowercase());
    let taken = azure.arm.buckets.take(name, limit, Instant::now());
    taken.map(Some).map_err(|seconds| {
        azure.counters.arm_throttled();
        let message = "The server rejected the request because too many requests have been received \
                       for this subscription.";
        let group = json!({
            "operationGroup": policy,
            "allowedRequestCount": limit.capacity,
            "measuredRequestCount": limit.capacity + 1,
        });
        let details = json!([{
            "code": "TooManyRequests",
            "target": policy,
            "message": group.to_string(),
        }]);
        Refusal {
            details: Some(Box::new(details)),
            ..throttled("OperationNotAllowed", message.to_owned(), seconds)
        }
    })
}

fn throttled(code: &str, message: String, seconds: u64) -> Refusal {
    Refusal {
        retry_after: Some(seconds.max(1)),
        ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, code, message)
    }
}
