//! ARM's own texts, as people reported them: kind, culprits, advice.

use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_hours(500_000);
const SET: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachineScaleSets/aks-pool1-vmss";
const OTHER: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000002";
const CALLER: &str = "d7586b94-0a56-43cc-b3f4-4e91d133fe67";

fn identity(group: &str, name: &str) -> String {
    format!(
        "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

/// The error of this answer to a PATCH that assigns these.
fn patch(status: u16, code: &str, message: &str, added: &[String]) -> ArmError {
    let body = json!({"error": {"code": code, "message": message}}).to_string();
    answered(status, &body, added)
}

fn answered(status: u16, body: &str, added: &[String]) -> ArmError {
    let added: Vec<ArmId> = added.iter().map(|id| id.parse().unwrap()).collect();
    let resource = SET.parse().unwrap();
    let asked = Asked {
        resource: &resource,
        is_compute: true,
        added: &added,
    };
    refusal(status, &HeaderMap::new(), body.as_bytes(), NOW, asked)
}

fn named(error: &ArmError) -> Vec<String> {
    let ids = error.identities.iter();
    ids.map(|id| id.as_written().to_owned()).collect()
}

#[test]
fn a_missing_role_on_identities_names_them_and_the_role_assignment() {
    let ids = [
        identity("rg.team_(x)", "terminal"),
        identity("shop", "gateway"),
    ];
    let message = format!(
        "The client '{CALLER}' with object id '{CALLER}' has permission to perform action 'Microsoft.Compute/virtualMachineScaleSets/write' on scope '{SET}'; however, it does not have permission to perform action 'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' on the linked scope(s) '{},{}' or the linked scope(s) are invalid.",
        ids[0], ids[1]
    );
    let error = patch(403, "LinkedAuthorizationFailed", &message, &ids);
    assert_eq!(error.kind, ArmErrorKind::LinkedAuthorization);
    assert_eq!(named(&error), ids);
    assert!(!error.is_transient());
    let line = |id: &str| {
        format!(
            "az role assignment create --assignee-object-id {CALLER} --assignee-principal-type ServicePrincipal --role 'Managed Identity Operator' --scope '{id}'"
        )
    };
    assert_eq!(
        error.advice(),
        format!("run: {} ; {}", line(&ids[0]), line(&ids[1]))
    );
}

#[test]
fn an_identity_of_another_tenant_is_found_by_its_subscription() {
    let message = "The client has permission to perform action 'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' on scope '…', however the current tenant '9bf8c7a8-0000-4000-8000-ab76976c4bf8' is not authorized to access linked subscription '5D9C1E00-0000-4000-8000-000000000002'.";
    let other = format!(
        "{OTHER}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x"
    );
    let ids = [identity("shop", "a"), other.clone()];
    let error = patch(403, "LinkedAuthorizationFailed", message, &ids);
    assert_eq!(named(&error), [other]);
}

#[test]
fn a_failed_identity_operation_names_what_was_not_found() {
    let gone = identity("shop", "gone");
    let message = |status: &str, inner: &str| {
        format!(
            "Identity operation for resource '{SET}' failed with error 'Failed to perform resource identity operation. Status: '{status}'. Response: '{{\"error\":{{\"code\":\"{status}\",\"message\":\"{inner}\"}}}}'.'."
        )
    };
    let not_found = format!("Resource '{gone}' was not found.");
    for (status, inner, kind, culprits) in [
        (
            "BadRequest",
            &*not_found,
            ArmErrorKind::BadIdentity,
            vec![gone.clone()],
        ),
        (
            "BadRequest",
            "Bad request.",
            ArmErrorKind::BadIdentity,
            vec![],
        ),
        (
            "NotFound",
            &not_found.replace("/resourceGroups", "//resourcegroups"),
            ArmErrorKind::BadIdentity,
            vec![gone.replace("resourceGroups", "resourcegroups")],
        ),
        (
            "InternalServerError",
            "Try again.",
            ArmErrorKind::Unavailable,
            vec![],
        ),
        (
            "TooManyRequests",
            "Slow down.",
            ArmErrorKind::Throttled,
            vec![],
        ),
        (
            "BadRequest",
            "User Assigned Identities Number '151' Assign exceed limit '150' in one request.",
            ArmErrorKind::TooMany,
            vec![],
        ),
    ] {
        let message = message(status, inner);
        let error = patch(400, "FailedIdentityOperation", &message, &[]);
        assert_eq!((error.kind, named(&error)), (kind, culprits), "{message}");
        // The same as the end of an operation.
        let body = json!({"error": {"code": "FailedIdentityOperation", "message": message}});
        let resource = SET.parse().unwrap();
        let asked = Asked {
            resource: &resource,
            is_compute: true,
            added: &[],
        };
        assert_eq!(failed_operation(&body, asked).kind, kind);
    }
}

#[test]
fn other_words_for_a_bad_identity() {
    let bad = identity("shop", "x");
    for (status, code, message) in [
        (
            400,
            "InvalidIdentityValues",
            format!(
                "Invalid value for the identities '{bad}'. The 'UserAssignedIdentities' property keys should only be empty json objects."
            ),
        ),
        (
            400,
            "InvalidParameter",
            format!(
                "ResourceIdentity identityId '{bad}' cannot be duplicated in the provided identityIds list."
            ),
        ),
        (
            400,
            "LinkedInvalidPropertyId",
            format!("Property id '{bad}' at path 'identity.userAssignedIdentities' is invalid."),
        ),
        (
            404,
            "ResourceNotFound",
            format!("The Resource '{bad}' was not found."),
        ),
    ] {
        let error = patch(status, code, &message, std::slice::from_ref(&bad));
        assert_eq!(error.kind, ArmErrorKind::BadIdentity, "{code}");
        assert_eq!(named(&error), std::slice::from_ref(&bad), "{code}");
    }
    // Only the group is named: which identities lie in it, the request says.
    let message = "Resource group 'Shop' could not be found.";
    let error = patch(
        404,
        "ResourceGroupNotFound",
        message,
        &[bad.clone(), identity("b", "y")],
    );
    assert_eq!(
        (error.kind, named(&error)),
        (ArmErrorKind::BadIdentity, vec![bad])
    );
}

#[test]
fn what_is_gone_is_told_apart() {
    let own = patch(
        404,
        "ResourceGroupNotFound",
        "Resource group 'MC_shop' could not be found.",
        &[identity("b", "y")],
    );
    assert_eq!(own.kind, ArmErrorKind::GroupOrSubscriptionGone);
    let subscription = patch(
        404,
        "SubscriptionNotFound",
        "The subscription '5d9c1e00-0000-4000-8000-000000000001' could not be found.",
        &[],
    );
    assert_eq!(subscription.kind, ArmErrorKind::GroupOrSubscriptionGone);
    let itself = patch(
        404,
        "ResourceNotFound",
        "The Resource 'Microsoft.Compute/virtualMachineScaleSets/aks-pool1-vmss' under resource group 'MC_shop' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        &[identity("b", "y")],
    );
    assert_eq!(itself.kind, ArmErrorKind::NotFound);
}

/// Status, code, message; what it is.
const REST: [(u16, &str, &str, ArmErrorKind); 17] = [
    (
        400,
        "TooManyUserAssignedIdentities",
        "The request names 151.",
        ArmErrorKind::TooMany,
    ),
    (
        400,
        "BadRequest",
        "Too many Federated Identity Credentials: a managed identity has at most 20.",
        ArmErrorKind::TooMany,
    ),
    (
        401,
        "ExpiredAuthenticationToken",
        "The access token expiry UTC time '…' is earlier than current UTC time '…'.",
        ArmErrorKind::Unauthenticated,
    ),
    (
        401,
        "InvalidAuthenticationTokenTenant",
        "The access token is from the wrong issuer.",
        ArmErrorKind::Unauthenticated,
    ),
    (
        403,
        "AuthorizationFailed",
        "The client does not have authorization to perform action.",
        ArmErrorKind::Forbidden,
    ),
    (
        403,
        "RequestDisallowedByPolicy",
        "Resource was disallowed by policy.",
        ArmErrorKind::Refused,
    ),
    (
        409,
        "ScopeLocked",
        "The scope cannot perform write operation because following scope(s) are locked.",
        ArmErrorKind::Refused,
    ),
    (
        409,
        "Conflict",
        "Another operation is in progress.",
        ArmErrorKind::Conflict,
    ),
    (
        409,
        "OperationNotAllowed",
        "Operation is not allowed while another runs.",
        ArmErrorKind::Conflict,
    ),
    (
        409,
        "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity",
        "Too many Federated Identity Credentials are written concurrently for the managed identity.",
        ArmErrorKind::Conflict,
    ),
    (
        409,
        "Conflict",
        "Issuer and subject combination already exists for this Managed Identity.",
        ArmErrorKind::Refused,
    ),
    (
        412,
        "PreconditionFailed",
        "The condition was not met.",
        ArmErrorKind::Precondition,
    ),
    (
        429,
        "OperationNotAllowed",
        "The server rejected the request because too many requests have been received for this subscription.",
        ArmErrorKind::Throttled,
    ),
    (
        429,
        "SubscriptionRequestsThrottled",
        "Number of requests exceeded.",
        ArmErrorKind::Throttled,
    ),
    (
        500,
        "InternalServerError",
        "Encountered internal server error.",
        ArmErrorKind::Unavailable,
    ),
    (
        503,
        "ServerTimeout",
        "The request timed out.",
        ArmErrorKind::Unavailable,
    ),
    (
        400,
        "InvalidParameter",
        "Something else.",
        ArmErrorKind::Refused,
    ),
];

#[test]
fn the_rest_is_typed() {
    for (status, code, message, kind) in REST {
        let error = patch(status, code, message, &[]);
        assert_eq!(error.kind, kind, "{code}");
        assert_eq!(
            (error.status, &*error.code, &*error.message),
            (Some(status), code, message)
        );
    }
}

#[test]
fn answers_of_others_are_typed_by_status() {
    use ArmErrorKind as K;
    let html = "<!DOCTYPE html><html><body>Blocked by the proxy</body></html>";
    for (status, body, kind) in [
        (403, html, K::Nonsense),
        (404, html, K::Nonsense),
        (302, "", K::Nonsense),
        (400, "{\"error\":", K::Nonsense),
        (404, "[]", K::Nonsense),
        (401, "", K::Unauthenticated),
        (429, "slow", K::Throttled),
        (502, html, K::Unavailable),
        (504, "", K::Unavailable),
    ] {
        assert_eq!(answered(status, body, &[]).kind, kind, "{status} {body}");
    }
    // Without the envelope, with details inside.
    let id = identity("g", "deep");
    let body =
        json!({"code": "BadRequest", "message": "", "details": [{"code": "x", "message": id}]});
    let error = answered(400, &body.to_string(), &[]);
    assert_eq!((named(&error), &*error.code), (vec![id], "BadRequest"));
}

#[test]
fn an_identity_s_own_subscription_may_be_another_tenant_s() {
    let resource: ArmId = identity("shop", "x").parse().unwrap();
    let asked = Asked {
        resource: &resource,
        is_compute: false,
        added: &[],
    };
    let body = br#"{"error":{"code":"InvalidAuthenticationTokenTenant","message":"The access token is from the wrong issuer."}}"#;
    let error = refusal(401, &HeaderMap::new(), body, NOW, asked);
    assert_eq!(
        (error.kind, &error.identities[..]),
        (ArmErrorKind::BadIdentity, &[resource.clone()][..])
    );
    assert!(
        error.advice().contains("another tenant"),
        "{}",
        error.advice()
    );
}

#[test]
fn headers_are_read_and_secrets_are_not_passed_on() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "17".parse().unwrap());
    headers.insert("x-ms-correlation-request-id", "c0ffee".parse().unwrap());
    let resource = SET.parse().unwrap();
    let asked = Asked {
        resource: &resource,
        is_compute: true,
        added: &[],
    };
    let body = br#"{"error":{"code":"eyJhbGciOi","message":"you sent eyJhbGciOiJSUzI1NiJ9.e30.c2ln, sorry"}}"#;
    let error = refusal(429, &headers, body, NOW, asked);
    assert_eq!(error.retry_after, Some(Duration::from_secs(17)));
    assert_eq!(error.request_id.as_deref(), Some("c0ffee"));
    assert!(!format!("{error:?} {error}").contains("eyJ"), "{error:?}");
}

#[test]
fn advice_holds_nothing_for_a_shell_to_run() {
    let odd = "/subscriptions/s/resourceGroups/$(reboot)/providers/Microsoft.Compute/virtualMachines/v';x";
    let error = ArmError::new(ArmErrorKind::Forbidden, "no").about(&odd.parse().unwrap());
    let advice = error.advice();
    assert!(
        !advice.contains("reboot") && advice.contains("'THE-ID"),
        "{advice}"
    );
    let group = "/subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
    let error = ArmError::new(ArmErrorKind::Forbidden, "no").about(&group.parse().unwrap());
    let advice = error.asked_by(Some(CALLER.parse().unwrap())).advice();
    assert!(advice.contains(CALLER) && advice.ends_with("--role 'Managed Identity Contributor' --scope '/subscriptions/s/resourceGroups/shop'"), "{advice}");
}

#[test]
fn who_may_not_read_an_identity_needs_no_role_to_delete_it() {
    let id = identity("shop", "payments");
    let error = ArmError::new(ArmErrorKind::Forbidden, "no").about(&id.parse().unwrap());
    let advice = error.advice_to_assign();
    assert!(
        advice.ends_with(&format!(
            "--role 'Managed Identity Operator' --scope '{id}'"
        )),
        "{advice}"
    );
}
