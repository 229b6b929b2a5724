//! Claims against grants, the attacks included.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::agent::obtain::fake::{BEGIN, TENANT, client, grant, jwt, resource_id, scope};

fn token(text: String) -> Token {
    Token::new(text, BEGIN, BEGIN, BEGIN + Duration::from_hours(1))
}

fn of(claims: &Value) -> Result<Claims, Fault> {
    claims_of(&token(jwt(claims)), client(1))
}

fn good() -> Value {
    json!({"appid": client(1).to_string(), "tid": TENANT, "oid": client(9).to_string(),
           "xms_mirid": resource_id(1)})
}

#[test]
fn a_token_must_be_of_the_client_id_by_every_word_about_it() {
    assert!(of(&good()).is_ok());
    assert!(of(&json!({"azp": client(1).to_string().to_uppercase()})).is_ok());
    for claims in [
        json!({"appid": client(2).to_string()}),
        json!({"azp": client(2).to_string()}),
        json!({"appid": client(1).to_string(), "azp": client(2).to_string()}),
        json!({"appid": "payments"}),
        json!({"oid": client(1).to_string()}),
    ] {
        let fault = of(&claims).unwrap_err();
        assert_eq!(fault.kind, FaultKind::UpstreamInvalid, "{claims}");
        assert!(!fault.to_string().contains("eyJ"));
    }
    let mut echoed = token(jwt(&good()));
    echoed.client_id = Some(client(2));
    assert!(claims_of(&echoed, client(1)).is_err());
}

#[test]
fn what_is_no_jwt_has_no_claims_and_needs_the_answer_s_client_id() {
    for text in [
        "opaque",
        "a.b.c",
        "a.b",
        "e30.e30.e30.e30",
        "..",
        "a.!!!.c",
        "e30.W10.e30",
    ] {
        let mut opaque = token(text.to_owned());
        assert!(claims_of(&opaque, client(1)).is_err(), "{text}");
        opaque.client_id = Some(client(1));
        assert_eq!(claims_of(&opaque, client(1)).unwrap(), Claims::default());
    }
}

#[test]
fn policy_is_held_against_the_token_and_not_against_what_the_object_says() {
    let claims = of(&good()).unwrap();
    assert_eq!(admit(&claims, &grant(1)), Ok(()));
    let with = |scopes: Vec<Arc<PolicyScope>>| {
        let mut grant = grant(1);
        grant.scopes = scopes.into();
        admit(&claims, &grant)
    };
    assert!(with(vec![]).is_err());
    assert!(with(vec![scope("/subscriptions/s/resourceGroups/rg")]).is_err());
    assert!(with(vec![scope("/subscriptions/S/RESOURCEGROUPS/rg-1/")]).is_ok());
    assert!(
        with(vec![
            scope("/subscriptions/other"),
            scope("/subscriptions/s")
        ])
        .is_ok()
    );
    let tenant = |id: &str, prefix: &str| {
        let scope = scope(prefix);
        Arc::new(PolicyScope {
            tenant_ids: vec![id.parse().unwrap()],
            ..(*scope).clone()
        })
    };
    let foreign = client(7).to_string();
    assert!(with(vec![tenant(TENANT, "/subscriptions/s")]).is_ok());
    assert!(with(vec![tenant(&foreign, "/subscriptions/s")]).is_err());
    // Tenant of one policy and prefix of another do not add up.
    assert!(
        with(vec![
            tenant(&foreign, "/subscriptions/s"),
            tenant(TENANT, "/subscriptions/x")
        ])
        .is_err()
    );
}

#[test]
fn the_object_must_describe_the_identity_that_the_token_is_for() {
    let claims = of(&good()).unwrap();
    let with = |change: fn(&mut crate::model::facts::IdentityFacts)| {
        let mut grant = grant(1);
        grant.scopes = Arc::new([scope("/subscriptions")]);
        let mut identity = (*grant.identity).clone();
        change(&mut identity);
        grant.identity = Arc::new(identity);
        admit(&claims, &grant).map_err(|fault| (fault.kind, fault.public))
    };
    let refused = Err((FaultKind::IdentityNotFound, "Identity not found".into()));
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(
        with(|id| id.tenant_id = Some(TENANT.parse().unwrap())),
        Ok(())
    );
    assert_eq!(with(|id| id.tenant_id = Some(client(3))), refused);
    assert_eq!(with(|id| id.object_id = Some(client(9))), Ok(()));
    assert_eq!(with(|id| id.object_id = Some(client(3))), refused);
    assert_eq!(
        with(|id| id.resource_id = Some(resource_id(2).parse().unwrap())),
        refused
    );
    assert_eq!(with(|id| id.resource_id = None), Ok(()));
}

/// Two teams may have their identities made in one resource group, under one prefix.
#[test]
fn what_lanyard_made_for_another_object_is_served_only_where_a_policy_names_it_in_full() {
    let made = "/subscriptions/s/resourceGroups/rg-1/providers/Microsoft.ManagedIdentity/userAssignedIdentities/lanyard-c0000000-0000-4000-8000-000000000001-0b000000-0000-4000-8000-000000000002";
    let mut claims = good();
    claims["xms_mirid"] = json!(made);
    let claims = of(&claims).unwrap();
    let with = |uid: &str, scope: Arc<PolicyScope>| {
        let mut grant = grant(1);
        let mut identity = (*grant.identity).clone();
        identity.uid = uid.into();
        identity.resource_id = None;
        grant.identity = Arc::new(identity);
        grant.scopes = Arc::new([scope]);
        admit(&claims, &grant)
    };
    let group = || scope("/subscriptions/s/resourceGroups/rg-1");
    assert_eq!(
        with("0b000000-0000-4000-8000-000000000002", group()),
        Ok(())
    );
    let fault = with("0b000000-0000-4000-8000-000000000003", group()).unwrap_err();
    let why = fault.detail;
    assert!(why.contains("for another AzureIdentity"), "{why}");
    assert!(with("", group()).is_err());
    assert_eq!(with("", scope(&made.to_uppercase())), Ok(()));
    let listed = PolicyScope {
        client_ids: vec![client(1)],
        ..(*group()).clone()
    };
    assert_eq!(with("", Arc::new(listed)), Ok(()));
}

#[test]
fn a_token_that_hides_its_resource_id_passes_only_policies_without_limits() {
    let group = "/subscriptions/s/resourceGroups/gr\u{fc}n/providers";
    for mirid in [
        json!(null),
        json!(format!(
            "{group}/Microsoft.ManagedIdentity/userAssignedIdentities/x"
        )),
    ] {
        let mut claims = good();
        claims["xms_mirid"] = mirid;
        let claims = of(&claims).unwrap();
        let with = |prefixes: &[&str]| {
            let mut grant = grant(1);
            grant.scopes = prefixes.iter().map(|prefix| scope(prefix)).collect();
            admit(&claims, &grant).is_ok()
        };
        assert!(!with(&[]));
        assert!(!with(&["/subscriptions/s"]));
        assert!(!with(&["/subscriptions", "/subscriptions/s"]));
        assert!(with(&["/Subscriptions/"]));
    }
}

/// Else the identity of a machine whose id we do not read (a resource group may be named with any
/// letter) would pass where policy has no limits.
#[test]
fn a_resource_id_that_is_not_read_is_not_taken_for_none() {
    for mirid in [
        json!("nonsense"),
        json!(""),
        json!(7),
        json!("/subscriptions/s/../t"),
        json!(
            "/subscriptions/s/resourceGroups/gr\u{fc}n/providers/Microsoft.Compute/virtualMachines/node"
        ),
    ] {
        let mut claims = good();
        claims["xms_mirid"] = mirid.clone();
        let mut grant = grant(1);
        grant.scopes = Arc::new([scope("/subscriptions")]);
        let fault = admit(&of(&claims).unwrap(), &grant).unwrap_err();
        assert_eq!(fault.kind, FaultKind::IdentityNotFound, "{mirid}");
    }
}

#[test]
fn the_node_s_own_identity_is_nobody_s_whatever_policy_says() {
    for id in [
        "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/node",
        "/subscriptions/s/userAssignedIdentities/x",
        "/subscriptions/s/Microsoft.ManagedIdentity/userAssignedIdentities/x/more",
    ] {
        let mut claims = good();
        claims["xms_mirid"] = json!(id);
        let mut grant = grant(1);
        let mut identity = (*grant.identity).clone();
        identity.resource_id = None;
        grant.identity = Arc::new(identity);
        grant.scopes = Arc::new([scope("/subscriptions")]);
        let fault = admit(&of(&claims).unwrap(), &grant).unwrap_err();
        assert_eq!(fault.kind, FaultKind::IdentityNotFound, "{id}");
        assert!(fault.detail.contains("node's own"), "{}", fault.detail);
    }
}
