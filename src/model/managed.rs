//! Identities that Lanyard made, told by their names. Pure.
//!
//! In: an ARM id. Out: whose it is. Teams may share a resource group in which their identities are made,
//! and with it the prefix that policy admits: there the name alone says which object an identity is of,
//! so nobody else may name it.

use super::ids::ArmId;

/// What the names of identities that Lanyard made begin with.
pub const PREFIX: &str = "lanyard-";
/// How long a UID is: that of an object or of a cluster.
const UID: usize = 36;

/// The UID, in lower case, of the object that an identity was made for: the end of its name
/// `lanyard-<cluster uid>-<object uid>`. `None` of every other name.
#[must_use]
pub fn made_for(id: &ArmId) -> Option<&str> {
    let (kind, name) = id.folded().rsplit_once('/')?;
    if !kind.ends_with("/userassignedidentities") {
        return None;
    }
    let uids = name.strip_prefix(PREFIX)?;
    let (cluster, object) = (uids.get(..UID)?, uids.get(UID..)?.strip_prefix('-')?);
    (is_uid(cluster) && is_uid(object)).then_some(object)
}

/// Whether the object of this UID may not name the identity: it was made for another one.
#[must_use]
pub fn is_others(id: &ArmId, uid: &str) -> bool {
    made_for(id).is_some_and(|object| !object.eq_ignore_ascii_case(uid))
}

fn is_uid(text: &str) -> bool {
    let digit = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == UID && text.bytes().enumerate().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = "0b000000-0000-4000-8000-00000000000a";

    fn id(kind: &str, name: &str) -> ArmId {
        format!("/subscriptions/s/resourceGroups/shop/providers/{kind}/{name}")
            .parse()
            .unwrap()
    }

    #[test]
    fn only_its_own_object_may_name_what_was_made_for_it() {
        let kind = "Microsoft.ManagedIdentity/userAssignedIdentities";
        let cluster = "C0000000-0000-4000-8000-000000000001";
        let made = id(kind, &format!("Lanyard-{cluster}-{OBJECT}"));
        assert_eq!(made_for(&made), Some(OBJECT));
        assert!(!is_others(&made, OBJECT) && !is_others(&made, &OBJECT.to_uppercase()));
        for other in [
            "",
            "0b000000-0000-4000-8000-00000000000b",
            cluster,
            "manifest",
        ] {
            assert!(is_others(&made, other), "{other}");
        }
        for (kind, name) in [
            (kind, "payments".to_owned()),
            (kind, format!("lanyard-{OBJECT}")),
            (kind, format!("lanyard-{cluster}-{OBJECT}-x")),
            (kind, format!("lanyard-{cluster}_{OBJECT}")),
            (kind, format!("my-lanyard-{cluster}-{OBJECT}")),
            (kind, format!("lanyard-{cluster}-{}", "é".repeat(18))),
            (
                "Microsoft.Compute/virtualMachines",
                format!("lanyard-{cluster}-{OBJECT}"),
            ),
        ] {
            let Ok(id) =
                format!("/subscriptions/s/resourceGroups/shop/providers/{kind}/{name}").parse()
            else {
                continue;
            };
            assert_eq!(made_for(&id), None, "{name}");
        }
    }
}
