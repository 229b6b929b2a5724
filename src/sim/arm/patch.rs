//! The identity part of a PATCH to a machine or scale set.
//!
//! In: the JSON body. Out: what is added and removed and the type that is asked for, or the refusal. Merge rules are those
//! of JSON merge patch for the map of identities: an entry adds, `null` removes, what is not named stays. Pure.

use serde_json::{Map, Value};

use super::estate::fold;
use super::refusal::Refusal;

/// Identities that one request may name.
pub(super) const MOST: usize = 150;

/// `identity.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    None,
    System,
    User,
    Both,
}

/// What a PATCH says about identities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Patch {
    /// None: the body has no `identity`, and nothing is changed.
    pub kind: Option<Type>,
    /// Resource ids as written.
    pub add: Vec<String>,
    pub remove: Vec<String>,
}

impl Type {
    fn read(text: &str) -> Option<Self> {
        let plain = text.replace(' ', "").to_ascii_lowercase();
        Some(match plain.as_str() {
            "none" => Self::None,
            "systemassigned" => Self::System,
            "userassigned" => Self::User,
            "systemassigned,userassigned" | "userassigned,systemassigned" => Self::Both,
            _ => return None,
        })
    }

    /// As Azure writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::System => "SystemAssigned",
            Self::User => "UserAssigned",
            Self::Both => "SystemAssigned, UserAssigned",
        }
    }

    pub fn of(system: bool, user: bool) -> Self {
        match (system, user) {
            (false, false) => Self::None,
            (true, false) => Self::System,
            (false, true) => Self::User,
            (true, true) => Self::Both,
        }
    }

    pub fn has_system(self) -> bool {
        matches!(self, Self::System | Self::Both)
    }

    pub fn has_user(self) -> bool {
        matches!(self, Self::User | Self::Both)
    }
}

fn malformed(message: &str) -> Refusal {
    Refusal::bad(
        "InvalidRequestContent",
        format!("The request content was invalid: {message}"),
    )
}

/// Reads a body; `resource` is the id of what is patched, for messages.
pub(super) fn read(body: &[u8], resource: &str) -> Result<Patch, Refusal> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| malformed(&format!("could not be deserialized: '{error}'")))?;
    let body = body
        .as_object()
        .ok_or_else(|| malformed("it is not an object."))?;
    let identity = match body.get("identity") {
        None | Some(Value::Null) => return Ok(Patch::default()),
        Some(Value::Object(identity)) => identity,
        Some(_) => return Err(malformed("'identity' is not an object.")),
    };
    let Some(kind) = identity
        .get("type")
        .and_then(Value::as_str)
        .and_then(Type::read)
    else {
        let message = "The resource identity type is missing or not one of 'None', 'SystemAssigned', \
                       'UserAssigned', 'SystemAssigned, UserAssigned'.";
        return Err(Refusal::bad("InvalidIdentityType", message.to_owned()));
    };
    let none = Map::new();
    let map = match identity.get("userAssignedIdentities") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(map)) => map,
        Some(_) => return Err(malformed("'userAssignedIdentities' is not an object.")),
    };
    if map.len() > MOST {
        let message = format!(
            "The request names {} user assigned identities; at most {MOST} are allowed in one request.",
            map.len()
        );
        return Err(Refusal::bad("TooManyUserAssignedIdentities", message));
    }
    for id in map.keys() {
        check_id(id)?;
    }
    if !kind.has_user() && !map.is_empty() {
        let why = "The request format was unexpected, a non-UserAssigned identity type should not \
                   contain: userAssignedIdentities";
        return Err(Refusal::identity_operation(resource, why));
    }
    let mut patch = Patch {
        kind: Some(kind),
        ..Patch::default()
    };
    for (id, value) in map {
        match value {
            Value::Null => patch.remove.push(id.clone()),
            Value::Object(_) => patch.add.push(id.clone()),
            _ => return Err(malformed("an identity is neither an object nor null.")),
        }
    }
    Ok(patch)
}

/// Whether it is the resource id of a user-assigned identity.
fn check_id(id: &str) -> Result<(), Refusal> {
    let folded = fold(id);
    let parts: Vec<&str> = folded.split('/').collect();
    let right = matches!(
        parts.as_slice(),
        ["", "subscriptions", subscription, "resourcegroups", group, "providers",
            "microsoft.managedidentity", "userassignedidentities", name]
            if ![subscription, group, name].iter().any(|part| part.is_empty())
    );
    if right {
        return Ok(());
    }
    let message = format!(
        "Property id '{id}' at path 'identity.userAssignedIdentities' is invalid. Expect fully \
         qualified resource Id that start with '/subscriptions/{{subscriptionId}}' or \
         '/providers/{{resourceProviderNamespace}}/'."
    );
    Err(Refusal::bad("LinkedInvalidPropertyId", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> String {
        format!(
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
    }

    fn code(body: &str) -> String {
        read(body.as_bytes(), "/vm").unwrap_err().code
    }

    #[test]
    fn entries_add_and_null_removes() {
        let body = format!(
            r#"{{"identity":{{"type":"SystemAssigned,UserAssigned","userAssignedIdentities":{{"{}":{{}},"{}":null}}}}}}"#,
            id("a"),
            id("b")
        );
        let patch = read(body.as_bytes(), "/vm").unwrap();
        assert_eq!(patch.kind, Some(Type::Both));
        assert_eq!((patch.add, patch.remove), (vec![id("a")], vec![id("b")]));
        assert_eq!(
            read(br#"{"tags":{"a":"b"}}"#, "/vm").unwrap(),
            Patch::default()
        );
    }

    #[test]
    fn what_makes_no_sense_has_azures_code() {
        assert_eq!(code("{"), "InvalidRequestContent");
        assert_eq!(
            code(r#"{"identity":{"type":"All"}}"#),
            "InvalidIdentityType"
        );
        let body =
            r#"{"identity":{"type":"UserAssigned","userAssignedIdentities":{"payments":{}}}}"#;
        assert_eq!(code(body), "LinkedInvalidPropertyId");
        let body = format!(
            r#"{{"identity":{{"type":"None","userAssignedIdentities":{{"{}":null}}}}}}"#,
            id("a")
        );
        assert_eq!(code(&body), "FailedIdentityOperation");
    }

    #[test]
    fn a_hundred_and_fifty_are_allowed_and_no_more() {
        let body = |count: usize| {
            let all: Map<String, Value> = (0..count)
                .map(|number| (id(&number.to_string()), Value::Null))
                .collect();
            serde_json::json!({"identity": {"type": "UserAssigned", "userAssignedIdentities": all}})
                .to_string()
        };
        assert_eq!(read(body(150).as_bytes(), "/vm").unwrap().remove.len(), 150);
        assert_eq!(code(&body(151)), "TooManyUserAssignedIdentities");
    }
}
