//! Every refusal of the token endpoint: Entra's code, its HTTP status, its words.
//!
//! In: a code and what the words name. Out: a [`Refusal`], and the answer's body for it. One table, so that a fault
//! answers a code with the same status and words as the check that finds it. Pure but for the ids of the body.
//! Source: "Microsoft Entra authentication and authorization error codes", and answers in public error reports.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::sim::http;
use crate::sim::keys::random_guid;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub error: &'static str,
    pub code: u32,
    pub message: String,
}

/// What a refusal's words name; what is not known is left empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words<'a> {
    pub client: &'a str,
    pub tenant: &'a str,
    /// Of a presented federated token.
    pub issuer: &'a str,
    pub subject: &'a str,
    pub audience: &'a str,
    /// Whatever else the words name: a field, an algorithm, a thumbprint, a resource, a reason.
    pub value: &'a str,
    pub more: &'a str,
}

const BAD: &str = "invalid_request";
const CLIENT: &str = "invalid_client";
const AWAY: &str = "temporarily_unavailable";

/// Code, status, error, words.
type Row = (u32, u16, &'static str, &'static str);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (50_000, 500, "server_error", "There was an error issuing a token or an issue with our sign-in service."),
    (50_012, 401, CLIENT, "Authentication failed. [Reason - {value}]"),
    (50_013, 401, CLIENT, "Assertion failed signature validation. [Reason - {value}]"),
    (50_027, 400, BAD, "JWT token is invalid or malformed. {value}"),
    (50_034, 400, "invalid_grant", "The user account {value} does not exist in the {tenant} directory. To sign into this application, the account must be added to the directory."),
    (50_196, 503, AWAY, "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."),
    (70_003, 400, "unsupported_grant_type", "The app requested an unsupported grant type '{value}'."),
    (70_021, 400, BAD, "No matching federated identity record found for presented assertion. Assertion Issuer: '{issuer}'. Assertion Subject: '{subject}'. Assertion Audience: '{audience}'. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (90_002, 400, "invalid_tenant", "Tenant '{value}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."),
    (90_023, 400, BAD, "Invalid STS request. {value}"),
    (90_033, 503, AWAY, "A transient error has occurred. Please try again."),
    (90_055, 429, AWAY, "The server has terminated the request due to too many requests."),
    (90_061, 400, BAD, "Request to External OIDC endpoint failed. {value}"),
    (500_011, 400, "invalid_resource", "The resource principal named {value} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."),
    (501_661, 400, BAD, "Request to External OIDC endpoint failed. {value}"),
    (700_016, 400, "unauthorized_client", "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."),
    (700_021, 401, CLIENT, "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."),
    (700_023, 401, CLIENT, "Client assertion audience claim does not match Realm issuer. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."),
    (700_024, 401, CLIENT, "Client assertion is not within its valid time range. {value}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."),
    (700_027, 401, CLIENT, "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {value}, Thumbprint of key used by client: '{more}', Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '{client}']."),
    (700_030, 401, CLIENT, "Invalid certificate - subject name in certificate is not authorized. SubjectNames/SubjectAlternativeNames (up to 10) in token certificate are: '{value}'."),
    (700_211, 401, CLIENT, "No matching federated identity record found for presented assertion issuer '{issuer}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (700_212, 401, CLIENT, "No matching federated identity record found for presented assertion audience '{audience}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (700_213, 401, CLIENT, "No matching federated identity record found for presented assertion subject '{subject}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (900_144, 400, BAD, "The request body must contain the following parameter: '{value}'."),
    (900_561, 400, BAD, "The endpoint only accepts POST requests."),
    (1_002_012, 400, "invalid_scope", "The provided value for scope {value} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."),
    (5_002_738, 401, CLIENT, "Invalid JWT token. '{value}' is not a supported signature algorithm. Supported signing algorithms are: '{more}'"),
    (7_000_215, 401, CLIENT, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."),
    (7_000_218, 401, CLIENT, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
    (7_000_222, 401, CLIENT, "The provided client secret keys for app '{client}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds."),
    (7_000_272, 401, CLIENT, "The certificate with identifier {value} used to sign the federated credential could not be found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's metadata exposes the key used to sign the incoming token."),
    (9_000_410, 400, BAD, "Malformed JSON."),
    (9_000_411, 400, BAD, "The request is not properly formatted. The parameter '{value}' is duplicated."),
];

impl Refusal {
    /// The refusal of that code. One that is not in the table is a bad request without words of its own.
    pub fn of(code: u32, words: &Words<'_>) -> Self {
        let row = TABLE.iter().find(|row| row.0 == code);
        let &(_, status, error, text) = row.unwrap_or(&(0, 400, BAD, "Refused by a fault."));
        let text = [
            ("{client}", words.client),
            ("{tenant}", words.tenant),
            ("{issuer}", words.issuer),
            ("{subject}", words.subject),
            ("{audience}", words.audience),
            ("{value}", words.value),
            ("{more}", words.more),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        });
        Self {
            status,
            error,
            code,
            message: format!("AADSTS{code}: {}", text.trim_end()),
        }
    }

    /// The whole answer, dated `now` (epoch seconds).
    pub fn answer(&self, now: i64) -> Response<Bytes> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let (trace, correlation) = (random_guid(), random_guid());
        let time = jiff::Timestamp::from_second(now)
            .unwrap_or_default()
            .strftime("%Y-%m-%d %H:%M:%SZ")
            .to_string();
        let description = format!(
            "{} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}",
            self.message
        );
        http::json(
            status,
            &json!({
                "correlation_id": correlation,
                "error": self.error,
                "error_codes": [self.code],
                "error_description": description,
                "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
                "timestamp": time,
                "trace_id": trace,
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_there_once_in_order_and_names_what_it_was_told() {
        assert!(TABLE.is_sorted_by_key(|row| row.0), "and so none twice");
        let words = Words {
            client: "me",
            value: "'R'",
            tenant: "contoso",
            ..Words::default()
        };
        let refusal = Refusal::of(500_011, &words);
        assert_eq!((refusal.status, refusal.error), (400, "invalid_resource"));
        assert!(refusal.message.starts_with("AADSTS500011: "));
        assert!(refusal.message.contains("'R'") && refusal.message.contains("contoso"));
        for row in TABLE {
            assert!(
                !Refusal::of(row.0, &words).message.contains('{'),
                "{}",
                row.0
            );
        }
        assert_eq!(Refusal::of(4, &words).status, 400);
    }
}
