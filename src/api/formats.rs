//! The forms of texts in our kinds: each as the pattern that the API server matches and as the same
//! in Rust. Pure. Stricter than Azure in one point: names in ARM ids are ASCII.

use super::rules::Format;
use crate::model::ids::Guid;

/// A GUID, in any case.
pub const GUID: Format = Format::new(
    "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    |text| text.parse::<Guid>().is_ok(),
    36,
    "must be a GUID, as in 11111111-1111-4111-8111-111111111111",
);

/// The ARM id of a user-assigned managed identity.
pub const IDENTITY_ID: Format = Format::new(
    "(?i)^/subscriptions/[a-z0-9._()-]*[a-z0-9_()-]/resourceGroups/[a-z0-9._()-]*[a-z0-9_()-]/providers/Microsoft[.]ManagedIdentity/userAssignedIdentities/[a-z0-9._()-]*[a-z0-9_()-]/?$",
    |text| {
        is_arm(
            text,
            &[
                "subscriptions",
                "",
                "resourceGroups",
                "",
                "providers",
                "Microsoft.ManagedIdentity",
                "userAssignedIdentities",
                "",
            ],
        )
    },
    512,
    "must be the ARM id of a user-assigned managed identity, as in /subscriptions/<subscription>/resourceGroups/<group>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>",
);

/// The ARM id of a resource group.
pub const GROUP_ID: Format = Format::new(
    "(?i)^/subscriptions/[a-z0-9._()-]*[a-z0-9_()-]/resourceGroups/[a-z0-9._()-]*[a-z0-9_()-]/?$",
    |text| is_arm(text, &["subscriptions", "", "resourceGroups", ""]),
    256,
    "must be the ARM id of a resource group, as in /subscriptions/<subscription>/resourceGroups/<group>",
);

/// The ARM id of a virtual machine or a scale set.
pub const COMPUTE_ID: Format = Format::new(
    "(?i)^/subscriptions/[a-z0-9._()-]*[a-z0-9_()-]/resourceGroups/[a-z0-9._()-]*[a-z0-9_()-]/providers/Microsoft[.]Compute/(virtualMachines|virtualMachineScaleSets)/[a-z0-9._()-]*[a-z0-9_()-]/?$",
    |text| {
        ["virtualMachines", "virtualMachineScaleSets"]
            .iter()
            .any(|kind| {
                is_arm(
                    text,
                    &[
                        "subscriptions",
                        "",
                        "resourceGroups",
                        "",
                        "providers",
                        "Microsoft.Compute",
                        kind,
                        "",
                    ],
                )
            })
    },
    512,
    "must be the ARM id of a virtual machine or a scale set, as in /subscriptions/<subscription>/resourceGroups/<group>/providers/Microsoft.Compute/virtualMachineScaleSets/<name>",
);

/// The beginning of ARM ids: whole segments.
pub const ID_PREFIX: Format = Format::new(
    "(?i)^/subscriptions(/[a-z0-9._()-]*[a-z0-9_()-])*/?$",
    |text| {
        let mut segments = trimmed(text).split('/');
        let start = segments.next() == Some("")
            && segments
                .next()
                .is_some_and(|first| first.eq_ignore_ascii_case("subscriptions"));
        start && segments.all(is_segment)
    },
    512,
    "must start with /subscriptions/ and have whole segments, as in /subscriptions/<subscription>/resourceGroups/<group>; there are no wildcards",
);

/// An https URL with a host, perhaps a port and a path.
pub const HTTPS_URL: Format = Format::new(
    "^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$",
    |text| {
        let Some(rest) = text.strip_prefix("https://") else {
            return false;
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        is_host(host)
            && path
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._~/-".contains(&b))
    },
    512,
    "must be an https URL, as in https://tokens.example.com/exchange",
);

/// An https URL with nothing but a host and perhaps a port.
pub const AUTHORITY: Format = Format::new(
    "^https://[A-Za-z0-9.-]+(:[0-9]+)?/?$",
    |text| {
        let rest = text.strip_prefix("https://");
        rest.is_some_and(|rest| is_host(trimmed(rest)))
    },
    253,
    "must be an https URL without a path, as in https://login.microsoftonline.us",
);

/// The name of a Kubernetes object (a DNS subdomain); a host's name looks the same.
pub const OBJECT_NAME: Format = Format::new(
    "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
    |text| is_dns(text, b".-"),
    253,
    "must be the name of an object: lower-case letters, digits, - and ., as in payments",
);

/// The name of a namespace (a DNS label).
pub const NAMESPACE: Format = Format::new(
    "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    |text| is_dns(text, b"-"),
    63,
    "must be the name of a namespace: lower-case letters, digits and -, as in shop",
);

/// The name of a host, for TLS.
pub const HOST: Format = Format::new(
    "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
    |text| is_dns(text, b".-"),
    253,
    "must be the name of a host, as in tokens.example.com",
);

/// A key of a Secret.
pub const SECRET_KEY: Format = Format::new(
    "^[A-Za-z0-9._-]+$",
    |text| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !text.is_empty() && text.bytes().all(plain)
    },
    253,
    "must be a key of the Secret: letters, digits, -, _ and ., as in clientSecret",
);

/// An Azure region.
pub const LOCATION: Format = Format::new(
    "^[a-z0-9]+$",
    |text| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !text.is_empty() && text.bytes().all(plain)
    },
    64,
    "must be the name of an Azure region, as in westeurope",
);

/// An audience: what programs ask a token for.
pub const AUDIENCE: Format = Format::new(
    "^[!-~]+$",
    |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()),
    512,
    "must be what programs pass as `resource`, as in https://vault.azure.net",
);

/// Certificates in PEM.
pub const PEM: Format = Format::new(
    "-----BEGIN CERTIFICATE-----",
    |text| text.contains("-----BEGIN CERTIFICATE-----"),
    65_536,
    "must be certificates in PEM: -----BEGIN CERTIFICATE----- …",
);

/// The key of a label: a name of at most 63 characters, perhaps with a domain before it.
pub const LABEL_KEY: Format = Format::new(
    "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
    |text| {
        let (domain, name) = match text.split_once('/') {
            Some((domain, name)) => (Some(domain), name),
            None => (None, text),
        };
        let bytes = name.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        domain.is_none_or(|domain| is_dns(domain, b".-"))
            && bytes.len() <= 63
            && ends
                .iter()
                .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
    },
    317,
    "must be the key of a label, as in app or app.kubernetes.io/name",
);

/// Whether a text is an ARM id with these segments; `""` stands for any name.
fn is_arm(text: &str, shape: &[&str]) -> bool {
    let Some(path) = trimmed(text).strip_prefix('/') else {
        return false;
    };
    let segments: Vec<&str> = path.split('/').collect();
    segments.len() == shape.len()
        && segments.iter().zip(shape).all(|(segment, wanted)| {
            if wanted.is_empty() {
                is_segment(segment)
            } else {
                segment.eq_ignore_ascii_case(wanted)
            }
        })
}

/// A segment of an ARM id. None ends with a dot, so that none is `.` or `..`.
fn is_segment(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._()-".contains(&b);
    !text.is_empty() && text.bytes().all(plain) && !text.ends_with('.')
}

/// Without one trailing slash.
fn trimmed(text: &str) -> &str {
    text.strip_suffix('/').unwrap_or(text)
}

/// A host with or without a port.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
    !host.is_empty()
        && host.bytes().all(plain)
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters, digits and `inside`, which stands at neither end.
fn is_dns(text: &str, inside: &[u8]) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || inside.contains(b))
}
