//! Selectors: every name that clients give them, every spelling of a value, and what becomes of one
//! that matches nothing. The numbers are those of the requirements in `contract`.

use crate::testkit::stage;
use crate::world::{DESK_POD, PAYMENTS, PAYMENTS_POD, REPORTS, STRANGER_POD};

#[tokio::test]
async fn r07_every_spelling_of_every_selector() {
    let stage = stage().await;
    for identity in [PAYMENTS, REPORTS] {
        for (names, value) in [
            (&["client_id"][..], identity.client_id),
            (&["object_id", "principal_id"], identity.object_id),
            (
                &["msi_res_id", "mi_res_id", "resource_id"],
                identity.resource_id,
            ),
        ] {
            let escaped = value.replace('/', "%2F");
            for name in names {
                for value in [
                    value,
                    &value.to_uppercase(),
                    &value.to_lowercase(),
                    &escaped,
                ] {
                    let reply = stage.token(DESK_POD, &format!("&{name}={value}")).await;
                    reply.is_token_of(identity);
                }
            }
        }
    }
}

#[tokio::test]
async fn r10_no_identity_or_one_that_is_not_granted_is_azures_400_at_once() {
    let stage = stage().await;
    stage.token(STRANGER_POD, "").await.is_identity_not_found();
    for (name, value) in [
        ("client_id", REPORTS.client_id),
        ("object_id", REPORTS.object_id),
        ("msi_res_id", REPORTS.resource_id),
        ("mi_res_id", REPORTS.resource_id),
        ("client_id", "12345678-0000-4000-8000-000000000000"),
        ("client_id", crate::world::NODE_CLIENT),
    ] {
        for pod in [PAYMENTS_POD, STRANGER_POD] {
            let reply = stage.token(pod, &format!("&{name}={value}")).await;
            reply.is_identity_not_found();
        }
    }
    assert!(stage.upstream().is_empty(), "nobody asked Azure about it");
}

#[tokio::test]
async fn r19_a_selector_that_matches_nothing_never_gets_another_identity() {
    let stage = stage().await;
    for name in [
        "client_id",
        "object_id",
        "principal_id",
        "msi_res_id",
        "mi_res_id",
        "resource_id",
    ] {
        for value in [
            REPORTS.client_id,
            REPORTS.resource_id,
            PAYMENTS.resource_id,
            PAYMENTS.client_id,
            "payments",
            "%00",
            "*",
        ] {
            let reply = stage.token(PAYMENTS_POD, &format!("&{name}={value}")).await;
            let matches = (name == "client_id" && value == PAYMENTS.client_id)
                || (name.ends_with("res_id") || name == "resource_id")
                    && value == PAYMENTS.resource_id;
            if matches {
                reply.is_token_of(PAYMENTS);
            } else {
                reply.is_identity_not_found();
            }
        }
        // An empty selector is no selector to one parser and an unmatched one to another.
        stage
            .token(PAYMENTS_POD, &format!("&{name}="))
            .await
            .is_error_at_once(400);
    }
}
