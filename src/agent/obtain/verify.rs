//! Whose token is this, and may this pod have it? Pure.
//!
//! In: a token as a source gave it, and a grant. Out: its [`Claims`], and yes or a fault. The
//! signature is not checked: the token came from the node's own IMDS or from Entra by TLS; what is
//! checked is that it is what was asked for, and that policy admits it.
//!
//! Somebody may write an `AzureIdentity` with another team's client id and a resource id of his
//! own, which policy admits. Only the token says whose it is. So each grant is held against the
//! claims each time a token is served, also one that was cached for somebody else.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::model::conditions::is_open;
use crate::model::facts::PolicyScope;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Grant;
use crate::model::ids::{ArmId, Guid};
use crate::model::managed::is_others;
use crate::model::token::Token;

/// What a token says about itself. Everything is absent when it is not a JWT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `tid`: the tenant.
    pub tenant: Option<Guid>,
    /// `oid`: the object (principal) id.
    pub object_id: Option<Guid>,
    /// From `iat` to `exp`: its whole life, by the clock of who made it.
    pub life: Option<Duration>,
    /// `xms_mirid`: the managed identity's ARM id.
    pub resource_id: Option<ArmId>,
    /// Whether it names a resource that is no user-assigned identity: a virtual machine's own
    /// token says the machine's id. Told also of a name that is not read as an ARM id.
    pub not_user_assigned: bool,
}

/// Reads a new token's claims and checks that it is a token of `client_id`, by every field that
/// names one (`appid`, `azp`, the answer's `client_id`); at least one must.
pub fn claims_of(token: &Token, client_id: Guid) -> Result<Claims, Fault> {
    let payload = payload(token.expose()).unwrap_or_default();
    let guid = |name: &str| {
        payload
            .get(name)
            .and_then(Value::as_str)
            .map(str::parse::<Guid>)
    };
    let seconds = |name: &str| {
        let number = payload.get(name).and_then(Value::as_u64);
        number.map(Duration::from_secs)
    };
    let named = [guid("appid"), guid("azp"), token.client_id.map(Ok)];
    let mut named = named.into_iter().flatten().peekable();
    if named.peek().is_none() {
        return Err(wrong("a token that does not say whose it is"));
    }
    if named.any(|given| given != Ok(client_id)) {
        return Err(wrong("a token of another identity than was asked for"));
    }
    let stated = payload.get("xms_mirid").filter(|value| !value.is_null());
    let text = stated.map(|value| value.as_str().unwrap_or_default());
    Ok(Claims {
        not_user_assigned: text.is_some_and(|text| !is_user_assigned(text)),
        resource_id: text.and_then(|text| text.parse().ok()),
        tenant: guid("tid").and_then(Result::ok),
        object_id: guid("oid").and_then(Result::ok),
        life: seconds("exp")
            .zip(seconds("iat"))
            .map(|(end, begin)| end.saturating_sub(begin)),
    })
}

/// Whether a token with these claims may be served for this grant: it is the identity that the
/// `AzureIdentity` describes, never the node's own, and one of the policies that admit that object
/// admits the token.
///
/// A token without `xms_mirid` (an application's, or opaque) cannot be held against prefixes; it is
/// served only if a policy lists its client id, or every policy in question admits all of
/// `/subscriptions`. Likewise a policy that names tenants admits no token without `tid`.
pub fn admit(claims: &Claims, grant: &Grant) -> Result<(), Fault> {
    let refused = |why: String| {
        Err(Fault::identity_not_found(format!(
            "AzureIdentity {} (client id {}): {why}",
            grant.identity.name, grant.identity.client_id
        )))
    };
    let stated = &grant.identity;
    if let (Some(stated), Some(actual)) = (stated.tenant_id, claims.tenant)
        && stated != actual
    {
        return refused(format!("its tenantID is not the token's, {actual}"));
    }
    if let (Some(stated), Some(actual)) = (stated.object_id, claims.object_id)
        && stated != actual
    {
        return refused(format!("its objectID is not the token's, {actual}"));
    }
    if let (Some(stated), Some(actual)) = (&stated.resource_id, &claims.resource_id)
        && stated != actual
    {
        return refused(format!(
            "the client id belongs to {actual}, not to the resourceID {stated}"
        ));
    }
    if claims.not_user_assigned {
        return refused(match &claims.resource_id {
            Some(actual) => format!("{actual} is the node's own identity"),
            None => "the token names no user-assigned identity".to_owned(),
        });
    }
    // `claims_of` made sure that the token is of this client id.
    let is_listed = grant
        .scopes
        .iter()
        .any(|scope| tenant_in(scope, claims) && scope.client_ids.contains(&stated.client_id));
    let admitted = match &claims.resource_id {
        _ if is_listed => true,
        Some(actual) => grant.scopes.iter().any(|scope| {
            let prefixes = &scope.resource_id_prefixes;
            tenant_in(scope, claims)
                && prefixes.iter().any(|prefix| actual.is_under(prefix))
                && is_open(actual, &stated.uid, prefixes)
        }),
        None => {
            !grant.scopes.is_empty()
                && grant
                    .scopes
                    .iter()
                    .all(|scope| tenant_in(scope, claims) && admits_all(scope))
        }
    };
    if admitted {
        return Ok(());
    }
    match &claims.resource_id {
        Some(actual) if is_others(actual, &stated.uid) => refused(format!(
            "Lanyard made {actual} for another AzureIdentity: only that one may use it, unless an AzureIdentityPolicy's resourceIDPrefixes hold its whole id"
        )),
        Some(actual) => refused(format!(
            "no AzureIdentityPolicy of the namespace admits {actual}"
        )),
        None => refused(
            "the token does not say which resource it belongs to, and an AzureIdentityPolicy \
             restricts resourceIDPrefixes: an application must be in a policy's clientIDs"
                .to_owned(),
        ),
    }
}

/// Whether an id is `…/Microsoft.ManagedIdentity/userAssignedIdentities/NAME`.
fn is_user_assigned(id: &str) -> bool {
    let mut segments = id.trim_end_matches('/').rsplit('/');
    let _name = segments.next();
    let mut is = |word: &str| {
        segments
            .next()
            .is_some_and(|segment| segment.eq_ignore_ascii_case(word))
    };
    is("userAssignedIdentities") && is("Microsoft.ManagedIdentity")
}

fn tenant_in(scope: &PolicyScope, claims: &Claims) -> bool {
    scope.tenant_ids.is_empty()
        || claims
            .tenant
            .is_some_and(|tenant| scope.tenant_ids.contains(&tenant))
}

fn admits_all(scope: &PolicyScope) -> bool {
    scope.resource_id_prefixes.iter().any(|prefix| {
        let prefix = prefix.trim_end_matches('/');
        prefix.is_empty() || prefix.eq_ignore_ascii_case("/subscriptions")
    })
}

/// The claims of a JWT, `None` for anything else.
pub(super) fn payload(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

fn wrong(detail: &'static str) -> Fault {
    Fault::new(
        FaultKind::UpstreamInvalid,
        "The source answered with a token that was not asked for",
    )
    .with_detail(detail)
}

#[cfg(test)]
#[allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails"
)]
mod tests;
