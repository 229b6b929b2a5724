//! A request to the virtual machine extension's endpoint, `http://localhost:50342/oauth2/token`. Pure.
//!
//! Older than IMDS's own: no `api-version`, and what is asked for comes in the query or in a form. Source: Azure's
//! documentation of the (retired) managed identity extension for virtual machines, and what its clients send
//! (msrestazure posts a form).

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;

use super::query::Query;
use super::{check_metadata_header, forwarded};
use crate::model::fault::{Fault, FaultKind};
use crate::model::path::PlainPath;
use crate::model::query::TokenQuery;

/// Longest form that is looked at: it holds what a query holds.
pub const LONGEST_FORM: usize = 8 * 1024;
const TOKEN: &str = "/oauth2/token";
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// What a request asks for; `form` is its body.
pub fn receive(head: &Parts, form: &[u8]) -> Result<TokenQuery, Fault> {
    let path = super::path::normalise(head.uri.path())?;
    if !is_token(&path) {
        let public = "The requested path does not exist";
        return Err(Fault::new(FaultKind::PathNotFound, public));
    }
    check_metadata_header(&head.headers)?;
    forwarded(&head.headers)?;
    let query = head.uri.query().unwrap_or_default();
    let form = match head.method {
        Method::GET => "",
        Method::POST => text(head, form)?,
        _ => {
            let public = "Only GET and POST are allowed on this path";
            return Err(Fault::new(FaultKind::MethodNotAllowed, public));
        }
    };
    // Whatever is given twice is refused, wherever it stands.
    Query::parse(&format!("{query}&{form}"))?.vm_extension_token()
}

fn is_token(path: &PlainPath) -> bool {
    path.as_str() == TOKEN
}

fn text<'a>(head: &Parts, form: &'a [u8]) -> Result<&'a str, Fault> {
    let bad = |public: &'static str| Fault::new(FaultKind::BadRequest, public);
    let kind = head.headers.get(CONTENT_TYPE);
    let kind = kind.map_or(FORM, hyper::header::HeaderValue::as_bytes);
    let is_form = kind.len() >= FORM.len() && kind[..FORM.len()].eq_ignore_ascii_case(FORM);
    if !is_form && !form.is_empty() {
        return Err(bad("The body must be application/x-www-form-urlencoded"));
    }
    std::str::from_utf8(form).map_err(|_| bad("The form is not UTF-8 text"))
}

#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a test says so by panicking")]
mod tests {
    use hyper::Request;

    use super::*;
    use crate::model::query::{Dialect, Selector};

    fn ask(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        form: &str,
    ) -> Result<TokenQuery, FaultKind> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        receive(&head, form.as_bytes()).map_err(|fault| fault.kind)
    }

    const METADATA: (&str, &str) = ("Metadata", "true");
    const ID: &str = "11111111-1111-4111-8111-111111111111";

    #[test]
    fn query_and_form_ask_for_the_same() {
        let expected = TokenQuery {
            dialect: Dialect::VmExtension,
            resource: "https://vault.azure.net".to_owned(),
            selector: Selector::ClientId(ID.parse().unwrap()),
            claims: None,
            bypass_cache: false,
        };
        let resource = "resource=https%3A%2F%2Fvault.azure.net";
        let client = format!("client_id={ID}");
        let form = (
            "Content-Type",
            "application/x-www-form-urlencoded; charset=utf-8",
        );
        let both = format!("{resource}&{client}");
        for (method, target, headers, body) in [
            ("GET", format!("/oauth2/token?{both}"), &[METADATA][..], ""),
            ("GET", format!("/OAuth2/Token/?{both}"), &[METADATA], ""),
            (
                "POST",
                "/oauth2/token".to_owned(),
                &[METADATA, form],
                both.as_str(),
            ),
            (
                "POST",
                "/oauth2/token".to_owned(),
                &[METADATA],
                both.as_str(),
            ),
            (
                "POST",
                format!("/oauth2/token?{client}"),
                &[METADATA, form],
                resource,
            ),
            ("POST", format!("/oauth2/token?{both}"), &[METADATA], ""),
        ] {
            assert_eq!(
                ask(method, &target, headers, body),
                Ok(expected.clone()),
                "{method} {target}"
            );
        }
    }

    fn refused(method: &str, target: &str, headers: &[(&str, &str)], form: &str, kind: FaultKind) {
        assert_eq!(
            ask(method, target, headers, form),
            Err(kind),
            "{method} {target}"
        );
    }

    #[test]
    fn what_is_no_such_request_is_refused() {
        use FaultKind::{
            BadRequest, Forwarded, MetadataHeaderMissing, MethodNotAllowed, PathNotFound,
        };
        refused(
            "GET",
            "/oauth2/token?resource=r",
            &[],
            "",
            MetadataHeaderMissing,
        );
        refused(
            "POST",
            "/oauth2/token",
            &[],
            "resource=r",
            MetadataHeaderMissing,
        );
        refused(
            "PUT",
            "/oauth2/token",
            &[METADATA],
            "resource=r",
            MethodNotAllowed,
        );
        let proxied = [METADATA, ("X-Forwarded-For", "x")];
        refused("GET", "/oauth2/token?resource=a", &proxied, "", Forwarded);
        let imds = "/metadata/identity/oauth2/token?resource=r";
        refused("GET", imds, &[METADATA], "", PathNotFound);
        let instance = "/metadata/instance?api-version=2021-02-01";
        refused("GET", instance, &[METADATA], "", PathNotFound);
        refused(
            "GET",
            "/oauth2%2ftoken?resource=r",
            &[METADATA],
            "",
            BadRequest,
        );
    }

    #[test]
    fn what_is_no_form_is_refused() {
        use FaultKind::BadRequest;
        let json = [METADATA, ("Content-Type", "application/json")];
        refused("POST", "/oauth2/token", &json, "{}", BadRequest);
        refused("POST", "/oauth2/token", &[METADATA], "", BadRequest);
        refused(
            "POST",
            "/oauth2/token?resource=a",
            &[METADATA],
            "resource=b",
            BadRequest,
        );
        // What GET has for a body is not looked at.
        refused(
            "GET",
            "/oauth2/token",
            &[METADATA],
            "resource=r",
            BadRequest,
        );
    }
}
