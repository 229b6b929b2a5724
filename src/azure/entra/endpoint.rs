//! Where a tenant's tokens are asked for, and how a resource is named there. Pure.
//!
//! In: an authority, a tenant, a resource as IMDS's clients name it. Out: the v2 token endpoint and the
//! v2 scope. Sources: "Client credentials flow" and "Scopes and permissions" (the `.default` scope,
//! trailing slashes) of the Microsoft identity platform.

use hyper::Uri;

use crate::azure::https::is_private;
use crate::model::ids::Guid;

/// An authority that is not `https://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no authority host (expected https://HOST as in https://login.microsoftonline.com; http only for loopback addresses)"
)]
pub struct NotAnAuthority(pub String);

/// `{authority}/{tenant}/oauth2/v2.0/token`. A token proxy in place of an authority may have a path
/// of its own; the tenant's comes after it (AKS identity bindings).
pub fn token_endpoint(authority: &str, tenant: Guid) -> Result<Uri, NotAnAuthority> {
    // A user name or password in a URL must not end in a log.
    let shown = authority.rsplit('@').next().unwrap_or_default();
    let bad = || NotAnAuthority(shown.chars().take(253).collect());
    let base = authority.trim_end_matches('/');
    let uri: Uri = base.parse().map_err(|_| bad())?;
    let plain = uri.query().is_none() && !base.contains(['@', '#']) && is_private(&uri);
    if !plain {
        return Err(bad());
    }
    format!("{base}/{tenant}/oauth2/v2.0/token")
        .parse()
        .map_err(|_| bad())
}

/// The scope that asks for `resource` with all permissions granted to the client.
///
/// The resource stays byte for byte, and a `/` of its end stays beside that of `/.default`: Entra takes
/// the scope without its last segment as the audience, and some resources compare it as text.
#[must_use]
pub fn scope(resource: &str) -> String {
    format!("{resource}/.default")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "72F988BF-0000-4000-8000-00000000000A";

    #[test]
    fn resources_become_scopes_byte_for_byte() {
        for (resource, expected) in [
            (
                "https://management.azure.com/",
                "https://management.azure.com//.default",
            ),
            (
                "https://management.azure.com",
                "https://management.azure.com/.default",
            ),
            (
                "https://vault.azure.net",
                "https://vault.azure.net/.default",
            ),
            (
                "https://datalake.azure.net/",
                "https://datalake.azure.net//.default",
            ),
            (
                "https://database.windows.net/",
                "https://database.windows.net//.default",
            ),
            (
                "https://eventhubs.azure.net",
                "https://eventhubs.azure.net/.default",
            ),
            (
                "https://servicebus.azure.net",
                "https://servicebus.azure.net/.default",
            ),
            ("api://team/App", "api://team/App/.default"),
            (
                "00000003-0000-0000-C000-000000000000",
                "00000003-0000-0000-C000-000000000000/.default",
            ),
            (
                "https://Example.com/a b?c=d",
                "https://Example.com/a b?c=d/.default",
            ),
        ] {
            assert_eq!(scope(resource), expected);
        }
    }

    #[test]
    fn endpoints_of_clouds_proxies_and_simulations() {
        let tenant = TENANT.parse().unwrap();
        let lower = TENANT.to_ascii_lowercase();
        for (authority, base) in [
            (
                "https://login.microsoftonline.com",
                "https://login.microsoftonline.com",
            ),
            (
                "https://login.microsoftonline.us/",
                "https://login.microsoftonline.us",
            ),
            (
                "https://tokens.example:8443/proxy/a/",
                "https://tokens.example:8443/proxy/a",
            ),
            ("http://127.0.0.1:1234", "http://127.0.0.1:1234"),
            ("http://[::1]:1234", "http://[::1]:1234"),
        ] {
            let endpoint = token_endpoint(authority, tenant).unwrap();
            let expected = format!("{base}/{lower}/oauth2/v2.0/token");
            assert_eq!(endpoint.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let tenant = TENANT.parse().unwrap();
        for text in [
            "",
            "login.microsoftonline.com",
            "https://",
            "http://login.microsoftonline.com",
            "http://10.0.0.1",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "ftp://127.0.0.1",
            "https://user:secret@example.com",
            "https://example.com?x=y",
            "https://example.com/#x",
            "https://exa mple.com",
        ] {
            assert!(token_endpoint(text, tenant).is_err(), "{text}");
        }
    }
}
