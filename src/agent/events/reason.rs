//! Which refusals a pod's owner is told of, and in which words. Pure.
//!
//! In: a fault, and how far the request had come. Out: a stable reason and a note of at most 1 KiB,
//! or nothing: what passes by itself is no Event. A note holds names of objects and our own words; of
//! what the pod sent only what cannot be a secret, of what Azure said only its error code.

use crate::agent::select::Refusal;
use crate::model::fault::{Fault, FaultKind};
use crate::model::ids::ObjectName;

/// Longest note that Kubernetes takes, in bytes.
const MAX_NOTE: usize = 1024;

/// How the words begin that say which federated credential Azure lacks.
pub const REGISTER: &str = "To be registered as a federated credential";

/// The stable reasons, as `kubectl describe pod` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No identity is granted, or not the one asked for.
    IdentityNotGranted,
    /// Several are granted and nothing says which.
    IdentityAmbiguous,
    /// The identity is limited to other audiences.
    ResourceNotAllowed,
    /// Azure and the `AzureIdentity` disagree, or the identity is not on this node.
    IdentityNotUsable,
    /// Azure refused the token for good.
    TokenRefused,
    /// A metadata path that no exception opens.
    MetadataPathClosed,
    /// The pod has itself what is to be laid in its network.
    EndpointTaken,
    /// The pod is on its node's own network, where nobody asks Lanyard.
    HostNetworkBypasses,
    /// The pod asks to be served in a way that its node's agent does not serve in.
    ModeWithoutEffect,
    /// On an identity: its credential cannot be read, or is none.
    CredentialUnusable,
    /// On an identity: Entra ID refuses its credential.
    CredentialRefused,
    /// On an identity: its certificate ends soon.
    CredentialExpiring,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::IdentityNotGranted,
        Self::IdentityAmbiguous,
        Self::ResourceNotAllowed,
        Self::IdentityNotUsable,
        Self::TokenRefused,
        Self::MetadataPathClosed,
        Self::EndpointTaken,
        Self::HostNetworkBypasses,
        Self::ModeWithoutEffect,
        Self::CredentialUnusable,
        Self::CredentialRefused,
        Self::CredentialExpiring,
    ];

    /// The word of the Event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdentityNotGranted => "IdentityNotGranted",
            Self::IdentityAmbiguous => "IdentityAmbiguous",
            Self::ResourceNotAllowed => "ResourceNotAllowed",
            Self::IdentityNotUsable => "IdentityNotUsable",
            Self::TokenRefused => "TokenRefused",
            Self::MetadataPathClosed => "MetadataPathClosed",
            Self::EndpointTaken => "EndpointTaken",
            Self::HostNetworkBypasses => "HostNetworkBypasses",
            Self::ModeWithoutEffect => "ModeWithoutEffect",
            Self::CredentialUnusable => "CredentialUnusable",
            Self::CredentialRefused => "CredentialRefused",
            Self::CredentialExpiring => "CredentialExpiring",
        }
    }

    /// The reason for a fault; `None` for what passes by itself, or is the program's own mistake.
    /// `refusal`: selection's, where that refused.
    #[must_use]
    pub fn of(kind: FaultKind, refusal: Option<&Refusal>) -> Option<Self> {
        match (kind, refusal) {
            (FaultKind::IdentityNotFound, Some(Refusal::ResourceNotAllowed(_))) => {
                Some(Self::ResourceNotAllowed)
            }
            (FaultKind::IdentityNotFound, Some(_)) => Some(Self::IdentityNotGranted),
            (FaultKind::IdentityNotFound, None) => Some(Self::IdentityNotUsable),
            (FaultKind::IdentityAmbiguous, _) => Some(Self::IdentityAmbiguous),
            (FaultKind::CredentialUnusable, _) => Some(Self::CredentialUnusable),
            (FaultKind::UpstreamRefused, _) => Some(Self::TokenRefused),
            (FaultKind::PathForbidden, _) => Some(Self::MetadataPathClosed),
            _ => None,
        }
    }
}

/// What the note is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The pod.
    pub pod: &'a ObjectName,
    /// The identity, where one was chosen.
    pub identity: Option<&'a ObjectName>,
    /// The audience asked for, where a token was.
    pub resource: Option<&'a str>,
}

/// The note.
#[must_use]
pub fn note(reason: Reason, fault: &Fault, about: About<'_>) -> String {
    let ObjectName { namespace, name } = about.pod;
    let what = match reason {
        Reason::IdentityAmbiguous => {
            "Several identities are granted to this pod, its request names none, and nothing says which is the default"
                .to_owned()
        }
        Reason::TokenRefused => refused(fault, about),
        // What is about a credential is told on the identity, too, with the same words.
        Reason::IdentityNotGranted
        | Reason::ResourceNotAllowed
        | Reason::IdentityNotUsable
        | Reason::EndpointTaken
        | Reason::HostNetworkBypasses
        | Reason::ModeWithoutEffect
        | Reason::CredentialUnusable
        | Reason::CredentialRefused
        | Reason::CredentialExpiring => sentence(&fault.detail),
        Reason::MetadataPathClosed => closed(&fault.detail),
    };
    short(format!(
        "{what}. What to change: lanyard explain {name} -n {namespace}; TROUBLESHOOTING.md#{}",
        fault.kind.as_str()
    ))
}

/// The note of an Event on a pod that has itself what is to be laid in its network.
#[must_use]
pub fn taken_note(text: &str) -> String {
    let what = sentence(text);
    short(format!(
        "{what}. What to change: TROUBLESHOOTING.md#endpoint_taken"
    ))
}

/// The note of the Event on a pod that passes Lanyard by.
#[must_use]
pub fn bypass_note(ObjectName { namespace, name }: &ObjectName) -> String {
    short(format!(
        "This pod is on its node's own network (hostNetwork): its requests to 169.254.169.254 pass Lanyard by and reach whatever identities sit on the node. What to change: lanyard explain {name} -n {namespace}; TROUBLESHOOTING.md#host_network_bypasses"
    ))
}

/// The note of the Event on a pod whose annotation its node's agent does not heed.
pub const UNHEARD_NOTE: &str = "The annotation lanyard.dev/mode: in-pod has no effect: this node's agent serves all pods by redirection (agent.mode=redirect), this one, too. What to change: TROUBLESHOOTING.md#mode_without_effect";

/// The note of an Event on an identity: our own words about its credential, which hold no secret.
#[must_use]
pub fn identity_note(reason: Reason, text: &str) -> String {
    let heading = match reason {
        Reason::CredentialRefused => "credential_refused",
        Reason::CredentialExpiring => "credential_expiring",
        _ => "credential_unusable",
    };
    let what = sentence(text);
    short(format!(
        "{what}. What to change: TROUBLESHOOTING.md#{heading}"
    ))
}

fn short(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE - 3));
        note.push_str("...");
    }
    note
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        let kept: String = letters.take(700).collect();
        format!("{}{kept}", first.to_uppercase())
    })
}

/// Azure's words stay in the log: they may quote what the pod sent. Its error code says enough.
fn refused(fault: &Fault, about: About<'_>) -> String {
    let code = error_code(&fault.public).map_or(String::new(), |code| format!(" ({code})"));
    let identity = about.identity.map_or_else(
        || "the pod's identity".to_owned(),
        |name| format!("AzureIdentity {name}"),
    );
    let resource = about.resource.filter(|resource| is_harmless(resource));
    let resource = resource.map_or(String::new(), |resource| format!(" for {resource}"));
    // These are our words, at the end of Azure's.
    let register = fault.public.rfind(REGISTER).map(|at| &fault.public[at..]);
    let register = register.map_or(String::new(), |text| format!(". {}", sentence(text)));
    format!(
        "Azure refused a token of {identity}{resource}{code}; the agent's log has its words{register}"
    )
}

/// `AADSTS…` with its digits, Entra's own error number.
fn error_code(text: &str) -> Option<&str> {
    let start = text.find("AADSTS")?;
    let digits = text[start + 6..]
        .bytes()
        .take_while(u8::is_ascii_digit)
        .count();
    (1..=9)
        .contains(&digits)
        .then(|| &text[start..start + 6 + digits])
}

/// An audience that looks like one: short, and of the characters that URLs of services have.
fn is_harmless(resource: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":/.-_".contains(&b);
    let short = resource.split(['/', '.']).all(|part| part.len() <= 63);
    resource.len() <= 128 && short && resource.bytes().all(plain)
}

fn closed(path: &str) -> String {
    const ROOTS: [&str; 5] = [
        "instance",
        "attested",
        "loadbalancer",
        "scheduledevents",
        "versions",
    ];
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let known = matches!(segments[..], ["metadata", root, ..] if ROOTS.contains(&root));
    let harmless = known && path.len() <= 96 && segments.iter().all(|segment| segment.len() <= 24);
    let path = if harmless { path } else { "asked for" };
    format!(
        "The metadata path {path} is closed to pods; an operator can open it with an AzureMetadataException"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::grants::Missing;

    fn about(pod: &ObjectName) -> About<'_> {
        About {
            pod,
            identity: Some(pod),
            resource: Some("https://vault.azure.net"),
        }
    }

    #[test]
    fn what_passes_by_itself_is_no_event() {
        for kind in FaultKind::ALL {
            let told = Reason::of(kind, None).is_some();
            assert!(!(told && kind.may_retry()), "{kind:?}");
        }
        for kind in [
            FaultKind::MetadataHeaderMissing,
            FaultKind::PathNotFound,
            FaultKind::Internal,
        ] {
            assert_eq!(Reason::of(kind, None), None, "SDKs probe like that");
        }
    }

    #[test]
    fn a_note_names_the_thing_the_command_and_the_heading() {
        let refusal =
            Refusal::AnnotationNotGranted(ObjectName::new("shop", "paymets"), Missing::NoIdentity);
        let fault = refusal.fault();
        let reason = Reason::of(fault.kind, Some(&refusal)).unwrap();
        let pod = ObjectName::new("shop", "web");
        assert_eq!(
            note(reason, &fault, about(&pod)),
            "The annotation names shop/paymets, but there is no such AzureIdentity. What to change: lanyard explain web -n shop; TROUBLESHOOTING.md#identity_not_found"
        );
        assert_eq!(reason.as_str(), "IdentityNotGranted");
    }

    #[test]
    fn azures_words_and_what_a_pod_invents_stay_out() {
        let pod = ObjectName::new("shop", "web");
        let fault = Fault::new(
            FaultKind::UpstreamRefused,
            "AADSTS500011: resource eyJhbGciOi.secret not found",
        );
        let told = note(Reason::TokenRefused, &fault, about(&pod));
        assert!(
            told.contains("(AADSTS500011)") && told.contains("for https://vault.azure.net"),
            "{told}"
        );
        assert!(!told.contains("secret"), "{told}");
        let token = About {
            resource: Some(
                "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9eyJhdWQiOiJodHRwczovL3ZhdWx0LmF6dXJlLm5ldCJ9",
            ),
            ..about(&pod)
        };
        assert!(!note(Reason::TokenRefused, &fault, token).contains("eyJ"));
        for path in [
            "/metadata/instance/eyjhbgcioijsuzi1niisinr5cci6ikpxvcj9",
            "/metadata/hunter2",
        ] {
            let fault = Fault::new(FaultKind::PathForbidden, "closed").with_detail(path);
            let told = note(Reason::MetadataPathClosed, &fault, about(&pod));
            assert!(!told.contains("eyj") && !told.contains("hunter2"), "{told}");
        }
        let fault = Fault::new(FaultKind::PathForbidden, "closed")
            .with_detail("/metadata/instance/compute");
        assert!(
            note(Reason::MetadataPathClosed, &fault, about(&pod))
                .contains("path /metadata/instance/compute is")
        );
    }

    #[test]
    fn a_note_is_never_longer_than_kubernetes_takes() {
        let pod = ObjectName::new("n".repeat(63), "p".repeat(253));
        let fault = Fault::identity_not_found("ä".repeat(5000));
        assert!(note(Reason::IdentityNotUsable, &fault, about(&pod)).len() <= MAX_NOTE);
        assert!(bypass_note(&pod).len() <= MAX_NOTE);
    }
}
