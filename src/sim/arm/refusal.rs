//! ARM's refusals, with the codes and words that programs look for.
//!
//! In: what is wrong. Out: `{"error":{"code","message"}}` with its status. Sources: the error answers that people quote
//! in public issues, Azure's pages on troubleshooting deployments and on throttling. Pure.

use bytes::Bytes;
use hyper::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::sim::http::json;

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    pub retry_after: Option<u64>,
    pub details: Option<Box<Value>>,
    /// Tenant whose authority the challenge of a 401 names.
    pub challenge: Option<String>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &str, message: String) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message,
            retry_after: None,
            details: None,
            challenge: None,
        }
    }

    pub fn bad(code: &str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn conflict(code: &str, message: String) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    fn absent(code: &str, message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn unauthenticated(code: &str, message: String, tenant: &str) -> Self {
        Self {
            challenge: Some(tenant.to_owned()),
            ..Self::new(StatusCode::UNAUTHORIZED, code, message)
        }
    }

    pub fn no_subscription(subscription: &str) -> Self {
        let message = format!("The subscription '{subscription}' could not be found.");
        Self::absent("SubscriptionNotFound", message)
    }

    pub fn no_group(group: &str) -> Self {
        let message = format!("Resource group '{group}' could not be found.");
        Self::absent("ResourceGroupNotFound", message)
    }

    /// `what` is `Microsoft.Compute/virtualMachines/NAME`.
    pub fn no_resource(what: &str, group: &str) -> Self {
        let message = format!(
            "The Resource '{what}' under resource group '{group}' was not found. For more details \
             please go to https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::absent("ResourceNotFound", message)
    }

    pub fn nothing_there(path: &str) -> Self {
        let message = format!("No resource of a type that is simulated is at '{path}'.");
        Self::absent("InvalidResourceType", message)
    }

    pub fn method(method: &str) -> Self {
        let message = format!("The requested resource does not support http method '{method}'.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// The caller lacks a right on what it asks for itself.
    pub fn unauthorized((appid, oid): (&str, &str), action: &str, scope: &str) -> Self {
        let message = format!(
            "The client '{appid}' with object id '{oid}' does not have authorization to perform \
             action '{action}' over scope '{scope}' or the scope is invalid. If access was recently \
             granted, please refresh your credentials."
        );
        Self::new(StatusCode::FORBIDDEN, "AuthorizationFailed", message)
    }

    /// The caller lacks the right to assign what it names in the body.
    pub fn unlinked(
        (appid, oid): (&str, &str),
        (action, scope): (&str, &str),
        linked: &[&str],
    ) -> Self {
        let message = format!(
            "The client '{appid}' with object id '{oid}' has permission to perform action '{action}' \
             on scope '{scope}'; however, it does not have permission to perform action(s) \
             'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' on the linked scope(s) \
             '{}' (respectively) or the linked scope(s) are invalid.",
            linked.join(",")
        );
        Self::new(StatusCode::FORBIDDEN, "LinkedAuthorizationFailed", message)
    }

    /// The identity is in a subscription of another tenant.
    pub fn foreign((action, scope): (&str, &str), tenant: &str, subscription: &str) -> Self {
        let message = format!(
            "The client has permission to perform action '{action}' on scope '{scope}', however the \
             current tenant '{tenant}' is not authorized to access linked subscription '{subscription}'."
        );
        Self::new(StatusCode::FORBIDDEN, "LinkedAuthorizationFailed", message)
    }

    /// The service of managed identities refuses: `why` is its message.
    pub fn identity_operation(resource: &str, why: &str) -> Self {
        Self::bad("FailedIdentityOperation", identity_operation(resource, why))
    }

    pub fn busy() -> Self {
        let message = "The request failed due to conflict with a concurrent request. To resolve it, \
                       please refer to https://aka.ms/activitylog to get more details on the \
                       conflicting requests.";
        Self::conflict("Conflict", message.to_owned())
    }

    /// The answer.
    pub fn answer(&self) -> Response<Bytes> {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(details) = &self.details {
            error["details"] = (**details).clone();
        }
        let mut response = json(self.status, &json!({"error": error}));
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(tenant) = &self.challenge {
            let challenge = format!(
                "Bearer authorization_uri=\"https://login.windows.net/{tenant}\", \
                 error=\"invalid_token\", error_description=\"{}\"",
                self.message.replace('"', "'")
            );
            if let Ok(value) = HeaderValue::from_str(&challenge) {
                headers.insert(WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}

/// The words of a failed identity operation.
pub(super) fn identity_operation(resource: &str, why: &str) -> String {
    format!(
        "Identity operation for resource '{resource}' failed with error 'Failed to perform resource \
         identity operation. Status: 'BadRequest'. Response: \
         '{{\"error\":{{\"code\":\"BadRequest\",\"message\":\"{why}\"}}}}'.'."
    )
}
