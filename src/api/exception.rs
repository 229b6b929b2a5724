//! `AzureMetadataException`: metadata paths that the agent forwards for some pods. Written by
//! operators only; the status by the controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::formats::{NAMESPACE, OBJECT_NAME};
use super::rules::{Format, Keyed, List, Rule, Rules};
use crate::model::facts::ExceptionFacts;
use crate::model::path::PlainPath;

/// Which pods, and which metadata paths they may read.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureMetadataException",
    plural = "azuremetadataexceptions",
    shortname = "azmex",
    category = "azure",
    category = "lanyard",
    status = "AzureMetadataExceptionStatus",
    derive = "PartialEq",
    doc = "Lets pods read metadata of their node that is closed to them otherwise. The agent forwards the listed paths (GET only) for the pods of the listed service accounts; tokens and identities are never forwarded."
)]
#[kube(
    printcolumn = r#"{"name": "Namespace", "type": "string", "jsonPath": ".spec.namespace", "description": "Namespace of the pods."}"#,
    printcolumn = r#"{"name": "Service accounts", "type": "string", "jsonPath": ".spec.serviceAccounts", "description": "Service accounts of the pods."}"#,
    printcolumn = r#"{"name": "Paths", "type": "string", "jsonPath": ".spec.paths", "description": "What they may read."}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status", "description": "Whether the exception can be used, as far as the controller knows."}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "description": "Why it can or cannot be used."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message", "priority": 1, "description": "What is wrong, and what to do about it."}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[STAYS_CLOSED]))]
pub struct AzureMetadataExceptionSpec {
    /// Namespace of the pods, for example `kube-system`.
    #[schemars(transform = NAMESPACE.schema())]
    pub namespace: String,
    /// Service accounts of the pods, for example `[csi-azuredisk-node-sa]`.
    #[schemars(transform = ACCOUNTS.schema())]
    pub service_accounts: Vec<String>,
    /// The paths that are opened, exactly and in any case, for example
    /// `[/metadata/instance/compute/location]`. What lies below a path is not opened with it. An opened
    /// `/metadata/instance` comes without `userData` and `customData`.
    #[schemars(transform = PATHS.schema(), transform = Rules(&[NEVER_IDENTITY]))]
    pub paths: Vec<String>,
    /// Whether `userData` and `customData` are open, too: they often hold what makes a node a node, its
    /// secrets included.
    #[serde(default)]
    pub allow_node_identity: bool,
}

/// What the controller found out about the exception.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureMetadataExceptionStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the exception stands. `Accepted` is true when it can be read and counts; its reason and message say
    /// what is wrong otherwise, or that it is about no namespace that there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = Keyed("type"))]
    pub conditions: Vec<Condition>,
}

const ACCOUNTS: List = List::at_most(64)
    .of(OBJECT_NAME.with_message(
        "must be the name of a service account, without its namespace, as in csi-azuredisk-node-sa",
    ))
    .not_empty("is empty: name the service accounts of the pods");
const PATHS: List = List::at_most(64)
    .of(PATH)
    .not_empty("is empty: name the paths that are opened");
/// No segment ends with a dot: Azure has none such, and none is `.` or `..`.
const PATH: Format = Format::new(
    "(?i)^/metadata(/[a-z0-9._-]*[a-z0-9_-])+/?$",
    |text| {
        let below = text
            .get(.."/metadata/".len())
            .is_some_and(|start| start.eq_ignore_ascii_case("/metadata/"));
        let mut segments = text.strip_suffix('/').unwrap_or(text).split('/');
        below
            && text.len() > "/metadata/".len()
            && text.parse::<PlainPath>().is_ok()
            && !segments.any(|s| s.ends_with('.'))
    },
    256,
    "must be a plain path under /metadata/, as in /metadata/instance/compute/location",
);
const NEVER_IDENTITY: Rule = Rule::new(
    "!self.exists(path, path.matches(r'(?i)^/metadata/identity(/|$)'))",
    "lists an identity path: these are answered by Lanyard and never forwarded",
);
const STAYS_CLOSED: Rule = Rule::new(
    "self.allowNodeIdentity || !self.paths.exists(path, path.matches(r'(?i)/(userData|customData)(/|$)'))",
    "lists userData or customData, which stay closed without `allowNodeIdentity: true`",
);

impl AzureMetadataException {
    /// The facts that passing on works with.
    pub fn facts(&self, name: &str) -> Result<ExceptionFacts, Malformed> {
        let spec = &self.spec;
        NAMESPACE.check("spec.namespace", &spec.namespace)?;
        ACCOUNTS.check("spec.serviceAccounts", &spec.service_accounts)?;
        PATHS.check("spec.paths", &spec.paths)?;
        let path = |path: &String| {
            path.parse::<PlainPath>()
                .map_err(|error| Malformed::at("spec.paths", error))
        };
        let paths: Vec<PlainPath> = spec.paths.iter().map(path).collect::<Result<_, _>>()?;
        let is_identity = |path: &PlainPath| path.is_at_or_below("/metadata/identity");
        NEVER_IDENTITY.check(!paths.iter().any(is_identity), "spec.paths")?;
        let is_secret = |path: &PlainPath| {
            let mut segments = path.as_str().split('/');
            segments.any(|segment| matches!(segment, "userdata" | "customdata"))
        };
        STAYS_CLOSED.check(
            spec.allow_node_identity || !paths.iter().any(is_secret),
            "spec",
        )?;
        Ok(ExceptionFacts {
            name: name.into(),
            namespace: spec.namespace.as_str().into(),
            service_accounts: spec.service_accounts.clone(),
            paths,
            allow_node_identity: spec.allow_node_identity,
        })
    }
}
