//! A request at `/host/token`: a token on behalf of a pod that is named. Pure.
//!
//! As AAD Pod Identity understood it (`GET /host/token/?resource=…`, headers `podns` and `podname`, no `api-version`,
//! no `Metadata` header), and besides it a bearer token that proves who asks.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use secrecy::SecretString;

use super::query::Query;
use super::{forwarded, only_get, path};
use crate::api::formats::{NAMESPACE, OBJECT_NAME};
use crate::api::rules::Format;
use crate::model::fault::{Fault, FaultKind};
use crate::model::ids::ObjectName;
use crate::model::query::TokenQuery;

const PATH: &str = "/host/token";
const SCHEME: &[u8] = b"bearer ";

/// What such a request asks for.
#[derive(Debug)]
pub struct HostTokenAsk {
    /// Who asks proves it by this, where it is there once and well-formed.
    pub bearer: Option<SecretString>,
    /// On whose behalf.
    pub pod: ObjectName,
    /// Which token.
    pub query: TokenQuery,
}

/// Reads a request's head. Nothing that it says depends on who asks.
pub fn receive(head: &Parts) -> Result<HostTokenAsk, Fault> {
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        let public = "The request target must be a path, not an absolute URL";
        return Err(Fault::new(FaultKind::BadRequest, public));
    }
    if path::normalise(head.uri.path())?.as_str() != PATH {
        let public = "The requested path does not exist";
        return Err(Fault::new(FaultKind::PathNotFound, public));
    }
    forwarded(&head.headers)?;
    only_get(&head.method)?;
    let namespace = name(&head.headers, "podns", NAMESPACE)?;
    let pod = name(&head.headers, "podname", OBJECT_NAME)?;
    Ok(HostTokenAsk {
        bearer: bearer(&head.headers),
        pod: ObjectName::new(namespace, pod),
        query: Query::parse(head.uri.query().unwrap_or_default())?.host_token()?,
    })
}

/// A name, there once. An empty one would stand for all of them where the API server is asked whether somebody may.
fn name<'a>(headers: &'a HeaderMap, header: &str, form: Format) -> Result<&'a str, Fault> {
    let bad = || {
        let public = "The request needs the headers podns and podname, once each: the pod's namespace and its name";
        Fault::new(FaultKind::BadRequest, public)
    };
    let mut values = headers.get_all(header).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(bad());
    };
    let value = value.to_str().map_err(|_| bad())?;
    if form.holds(value) {
        Ok(value)
    } else {
        Err(bad())
    }
}

fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let is_one = values.next().is_none()
        && scheme.eq_ignore_ascii_case(SCHEME)
        && !token.is_empty()
        && token.iter().all(plain);
    let token = std::str::from_utf8(token).ok().filter(|_| is_one)?;
    Some(token.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a test says so by panicking")]
mod tests {
    use hyper::Request;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::model::query::{Dialect, Selector};

    const POD: [(&str, &str); 2] = [("podns", "shop"), ("podname", "web-0")];
    const ID: &str = "11111111-1111-4111-8111-111111111111";

    fn ask(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<HostTokenAsk, FaultKind> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        receive(&head).map_err(|fault| fault.kind)
    }

    #[test]
    fn what_the_provider_sends_is_understood() {
        // As it writes it: nothing in the resource is escaped.
        let plain = "resource=https://vault.azure.net";
        for (target, selector) in [
            (format!("/host/token/?{plain}"), Selector::Default),
            (format!("/host/token?{plain}"), Selector::Default),
            (format!("//Host/Token?{plain}"), Selector::Default),
            (
                "/host/token?resource=https%3A%2F%2Fvault.azure.net&api-version=any".to_owned(),
                Selector::Default,
            ),
            (
                format!("/host/token/?{plain}&client_id={ID}"),
                Selector::ClientId(ID.parse().unwrap()),
            ),
            (
                format!("/host/token/?{plain}&object_id={ID}"),
                Selector::ObjectId(ID.parse().unwrap()),
            ),
            (
                format!("/host/token/?{plain}&msi_res_id=none"),
                Selector::Unmatchable,
            ),
        ] {
            let asked = ask("GET", &target, &POD).unwrap();
            assert_eq!(asked.pod, ObjectName::new("shop", "web-0"));
            assert_eq!(asked.query.dialect, Dialect::HostToken);
            assert_eq!(asked.query.resource, "https://vault.azure.net");
            assert_eq!(asked.query.selector, selector, "{target}");
            assert!(asked.bearer.is_none());
        }
    }

    #[test]
    fn what_is_no_such_request_is_refused() {
        use FaultKind::{BadRequest, Forwarded, MethodNotAllowed, PathNotFound};
        let fine = "/host/token/?resource=r";
        let proxied = [POD[0], POD[1], ("X-Forwarded-For", "x")];
        for (method, target, headers, kind) in [
            ("GET", "/host/token/", &POD[..], BadRequest),
            ("GET", "/host/token/?resource=", &POD, BadRequest),
            (
                "GET",
                "/host/token/?resource=a&resource=b",
                &POD,
                BadRequest,
            ),
            ("POST", fine, &POD, MethodNotAllowed),
            ("GET", "/host/tokens?resource=r", &POD, PathNotFound),
            ("GET", "/host/token/x?resource=r", &POD, PathNotFound),
            ("GET", "/host%2ftoken?resource=r", &POD, BadRequest),
            ("GET", "http://a/host/token?resource=r", &POD, BadRequest),
            (
                "GET",
                "/metadata/identity/oauth2/token?resource=r",
                &POD,
                PathNotFound,
            ),
            ("GET", fine, &proxied, Forwarded),
        ] {
            let told = ask(method, target, headers).unwrap_err();
            assert_eq!(told, kind, "{method} {target}");
        }
    }

    /// An empty name means "all of them" in a review.
    #[test]
    fn a_pod_is_named_exactly() {
        let fine = "/host/token/?resource=r";
        let long = "a".repeat(254);
        for headers in [
            &[][..],
            &[("podns", "shop")],
            &[("podname", "web-0")],
            &[("podns", ""), ("podname", "web-0")],
            &[("podns", "shop"), ("podname", "")],
            &[("podns", "*"), ("podname", "web-0")],
            &[("podns", "shop"), ("podname", "*")],
            &[("podns", "shop/till"), ("podname", "web-0")],
            &[("podns", "sh.op"), ("podname", "web-0")],
            &[("podns", "shop"), ("podname", "Web")],
            &[("podns", "shop"), ("podname", "web\u{e9}")],
            &[("podns", "shop"), ("podname", &long)],
            &[("podns", "shop"), ("podname", "a"), ("podname", "b")],
            &[("podns", "shop"), ("podns", "shop"), ("podname", "a")],
        ] {
            assert_eq!(
                ask("GET", fine, headers).unwrap_err(),
                FaultKind::BadRequest,
                "{headers:?}"
            );
        }
        assert!(ask("GET", fine, &[("PodNS", "a"), ("PODNAME", "b.c-d")]).is_ok());
    }

    #[test]
    fn one_bearer_token_proves_who_asks() {
        let shown = |values: &[&str]| {
            let headers: Vec<_> = values
                .iter()
                .map(|value| ("Authorization", *value))
                .collect();
            let headers = [&POD[..], &headers].concat();
            ask("GET", "/host/token?resource=r", &headers)
                .unwrap()
                .bearer
        };
        for value in [
            "Bearer ey.J_h.b-G",
            "bearer ey.J_h.b-G",
            "BEARER ey.J_h.b-G",
        ] {
            let token = shown(&[value]).unwrap();
            assert_eq!(token.expose_secret(), "ey.J_h.b-G");
            assert!(!format!("{token:?}").contains("ey."));
        }
        for values in [
            &["Bearer"][..],
            &["Bearer "],
            &["Bearer  a"],
            &["Bearer a b"],
            &["Bearer a,b"],
            &["Bearer \u{e9}"],
            &["Basic YTpi"],
            &["ey.J_h.b-G"],
            &["Bearer a", "Bearer a"],
        ] {
            assert!(shown(values).is_none(), "{values:?}");
        }
    }
}
