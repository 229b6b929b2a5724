//! Which identity a token request means.
//!
//! In: decoded parameters and the machine's identities. Out: one identity and the resource, or the refusal
//! with IMDS's words. Compared without letter case, as Azure compares GUIDs and ARM ids. `resource_id` is
//! ignored, as the real service ignores it. Pure.

use super::answers::Refusal;
use crate::sim::token::Principal;

/// Versions the identity endpoint has been published with.
const VERSIONS: [&str; 24] = [
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-10-01",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2025-04-07",
];

/// Whether IMDS knows an api-version.
pub(super) fn known_version(version: &str) -> bool {
    VERSIONS.contains(&version)
}

/// Whether a new token is asked for, whatever is cached.
pub(super) fn bypasses_cache(query: &[(String, String)]) -> bool {
    let asked = |(name, value): &(String, String)| {
        name == "bypass_cache" && value.eq_ignore_ascii_case("true")
    };
    query.iter().any(asked)
}

/// The identity and the resource, byte for byte, that a token request asks for.
pub(super) fn resolve(
    query: &[(String, String)],
    system: Option<Principal>,
    user: Vec<Principal>,
) -> Result<(Principal, String), Refusal> {
    let version = one(query, "api-version")?;
    if !known_version(version) {
        return Err(Refusal::bad(&format!(
            "Query variable 'api-version' is not supported: {version}"
        )));
    }
    let resource = one(query, "resource")?.to_owned();
    let selectors: Vec<_> = query
        .iter()
        .filter(|(name, value)| {
            matches!(
                name.as_str(),
                "client_id" | "object_id" | "msi_res_id" | "mi_res_id"
            ) && !value.is_empty()
        })
        .collect();
    let who = match selectors.as_slice() {
        [] => unselected(system, user)?,
        [(name, value)] => system
            .into_iter()
            .chain(user)
            .find(|principal| field(principal, name).eq_ignore_ascii_case(value))
            .ok_or_else(|| Refusal::bad("Identity not found"))?,
        _ => {
            return Err(Refusal::bad(
                "Only one of client_id, object_id, msi_res_id may be specified",
            ));
        }
    };
    Ok((who, resource))
}

fn unselected(system: Option<Principal>, mut user: Vec<Principal>) -> Result<Principal, Refusal> {
    match (system, user.len()) {
        (Some(system), _) => Ok(system),
        (None, 1) => Ok(user.remove(0)),
        (None, 0) => Err(Refusal::bad("Identity not found")),
        (None, _) => Err(Refusal::bad(
            "Multiple user assigned identities exist, please specify the clientId / resourceId \
             of the identity in the token request",
        )),
    }
}

fn field<'a>(principal: &'a Principal, selector: &str) -> &'a str {
    match selector {
        "client_id" => &principal.client_id,
        "object_id" => &principal.object_id,
        _ => principal.resource_id.as_deref().unwrap_or_default(),
    }
}

fn one<'a>(query: &'a [(String, String)], name: &str) -> Result<&'a str, Refusal> {
    let mut values = query
        .iter()
        .filter(|(other, _)| other == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value),
        (Some(_), Some(_)) => Err(Refusal::bad(&format!(
            "Query variable '{name}' is given more than once"
        ))),
        _ => Err(Refusal::bad(&format!(
            "Required query variable '{name}' is missing"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::path;
    use super::*;

    fn principal(name: &str) -> Principal {
        Principal {
            name: name.to_owned(),
            client_id: format!("{name}-client"),
            object_id: format!("{name}-object"),
            resource_id: Some(format!("/subscriptions/S/{name}")),
        }
    }

    fn ask(query: &str, system: bool, user: &[&str]) -> Result<String, String> {
        let query = path::query(&format!("api-version=2018-02-01&resource=r{query}"));
        let user = user.iter().map(|name| principal(name)).collect();
        resolve(&query, system.then(|| principal("sys")), user)
            .map(|(who, _)| who.name)
            .map_err(|refusal| refusal.description)
    }

    #[test]
    fn without_a_selector_system_then_the_only_one_else_an_error() {
        assert_eq!(ask("", true, &["a", "b"]).unwrap(), "sys");
        assert_eq!(ask("", false, &["a"]).unwrap(), "a");
        assert!(
            ask("", false, &["a", "b"])
                .unwrap_err()
                .starts_with("Multiple user assigned")
        );
        assert_eq!(ask("", false, &[]).unwrap_err(), "Identity not found");
    }

    #[test]
    fn each_selector_picks_without_letter_case() {
        for selector in [
            "&client_id=B-CLIENT",
            "&object_id=b-Object",
            "&msi_res_id=/SUBSCRIPTIONS/s/B",
            "&mi_res_id=/subscriptions/s/b",
        ] {
            assert_eq!(
                ask(selector, false, &["a", "b"]).unwrap(),
                "b",
                "{selector}"
            );
        }
        assert_eq!(
            ask("&client_id=c", true, &["a"]).unwrap_err(),
            "Identity not found"
        );
        assert!(ask("&client_id=a-client&object_id=x", false, &["a"]).is_err());
        assert_eq!(
            ask("&resource_id=/subscriptions/S/b", true, &["b"]).unwrap(),
            "sys"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |query: &str| resolve(&path::query(query), None, vec![]).unwrap_err();
        assert_eq!(
            missing("resource=r").description,
            "Required query variable 'api-version' is missing"
        );
        assert_eq!(
            missing("api-version=2018-02-01").description,
            "Required query variable 'resource' is missing"
        );
        assert!(
            missing("api-version=2017-01-01&resource=r")
                .description
                .contains("2017-01-01")
        );
        assert!(
            missing("api-version=2018-02-01&resource=r&resource=s")
                .description
                .contains("once")
        );
    }
}
