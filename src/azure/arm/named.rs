//! Which user-assigned identities an error text of ARM names. Pure.
//!
//! In: a text in any of ARM's ways to quote: between `'` or `"`, in lists with `,` or `;`, inside JSON that is
//! quoted in a text, with a doubled `/`, in any case. Out: the ids, each once, in order. Resource groups
//! may hold dots, parentheses and underscores; a name holds letters, digits, `-` and `_` only, so its end
//! needs no quote.

use crate::model::ids::ArmId;

const START: &str = "/subscriptions/";
/// Fixed segments by place; `None`: a name.
const SHAPE: [Option<&str>; 8] = [
    Some("subscriptions"),
    None,
    Some("resourcegroups"),
    None,
    Some("providers"),
    Some("microsoft.managedidentity"),
    Some("userassignedidentities"),
    None,
];

/// The ids of user-assigned identities in `text`.
pub(super) fn identities(text: &str) -> Vec<ArmId> {
    // ASCII only, so that places in it are places in the text.
    let folded = text.to_ascii_lowercase();
    let mut found: Vec<ArmId> = Vec::new();
    for (at, _) in folded.match_indices(START) {
        let Some(id) = identity_at(&text[at..]) else {
            continue;
        };
        if !found.contains(&id) {
            found.push(id);
        }
    }
    found
}

fn identity_at(text: &str) -> Option<ArmId> {
    let mut rest = text;
    let mut id = String::new();
    for (at, expected) in SHAPE.iter().enumerate() {
        rest = rest.strip_prefix('/')?.trim_start_matches('/');
        let is_last = at + 1 == SHAPE.len();
        let end = rest.find(|c: char| {
            let joins = c.is_alphanumeric() || matches!(c, '-' | '_');
            !joins && (is_last || !matches!(c, '.' | '(' | ')'))
        });
        let segment = &rest[..end.unwrap_or(rest.len())];
        if segment.is_empty() || expected.is_some_and(|word| !segment.eq_ignore_ascii_case(word)) {
            return None;
        }
        id.push('/');
        id.push_str(segment);
        rest = &rest[segment.len()..];
    }
    id.parse().ok()
}

/// What stands between quotes after `word`, as in `Resource group 'shop' could not be found`.
pub(super) fn quoted_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let at = text.to_ascii_lowercase().find(word)? + word.len();
    let rest = text[at..].trim_start_matches([' ', ':']);
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let rest = &rest[1..];
    Some(&rest[..rest.find(quote)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001";

    fn named(text: &str) -> Vec<String> {
        let found = identities(text);
        found.iter().map(|id| id.as_written().to_owned()).collect()
    }

    #[test]
    fn every_way_of_quoting_is_read() {
        let id = |group: &str, name: &str| {
            format!(
                "{S}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
            )
        };
        let (a, b) = (id("rg.team_(x)-1", "pay-ments_1"), id("RG", "b"));
        for text in [
            format!("the linked scope(s) '{a},{b}' or the linked scope(s) are invalid."),
            format!("'{a}', '{b}'."),
            format!("{{\"message\":\"Resource \\\"{a}\\\";\\\"{b}\\\"\"}}"),
            format!("{a};{b}. And {a} again, {}", b.to_lowercase()),
            format!("({a})({b})"),
            format!("{a}\n{b}/federatedIdentityCredentials/x"),
        ] {
            assert_eq!(named(&text), [a.clone(), b.clone()], "{text}");
        }
        let doubled = a.replace("/resourceGroups", "//resourceGroups");
        assert_eq!(named(&doubled), [a]);
    }

    #[test]
    fn other_resources_and_torn_ids_are_not() {
        for text in [
            String::new(),
            format!("{S}/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v"),
            format!(
                "{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
            ),
            format!("{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssigned"),
            format!(
                "{S}/resourceGroups/a b/providers/Microsoft.ManagedIdentity/userAssignedIdentities/c"
            ),
            format!(
                "{S}/resourceGroups/../providers/Microsoft.ManagedIdentity/userAssignedIdentities/c"
            ),
        ] {
            assert_eq!(named(&text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn quoted_words_are_found() {
        let text = "Resource group 'shop (1)' could not be found.";
        assert_eq!(quoted_after(text, "resource group"), Some("shop (1)"));
        assert_eq!(quoted_after(text, "subscription"), None);
        assert_eq!(quoted_after("resource group 'x", "resource group"), None);
    }
}
