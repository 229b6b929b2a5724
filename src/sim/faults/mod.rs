//! Faults by command: what goes wrong, for which requests, how often.
//!
//! In: [`Fault`]s (from the world file or the control socket) and, for each request, the [`Facts`] it
//! is matched by. Out: the [`Strike`] that applies, if any: the oldest that matches and is not used up.
//! Never blocks; the caller sleeps, hangs or cuts the connection.

mod written;

use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use written::Written;

/// One fault. At least one of the effects must be given; `latency` goes with any other.
///
/// As YAML: `{target: imds, status: 429, retryAfter: 3, count: 2, match: {clientID: …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    try_from = "Written",
    into = "Written"
)]
pub struct Fault {
    /// Which service fails.
    pub target: Target,
    /// Which of its requests; all where nothing is given.
    pub matching: Matching,
    /// How many matching requests pass unharmed first.
    pub after: u64,
    /// How many requests are hit; without end where absent.
    pub count: Option<u64>,
    /// Added time before the answer.
    pub latency: Option<Duration>,
    /// What goes wrong with the answer.
    pub effect: Option<Effect>,
    /// The request is carried out, and only its answer goes wrong (ARM only). Without it only `truncate` and
    /// `latency` carry it out.
    pub applied: bool,
}

/// A service that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The instance metadata service.
    Imds,
    /// Entra ID.
    Entra,
    /// The Key Vault.
    Vault,
    /// Azure Resource Manager.
    Arm,
}

/// Conditions, AND-ed, compared without letter case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Matching {
    /// Name of the machine the request comes from; at ARM, of the machine or scale set it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Client id of the identity that would be answered; at Entra, the one that asks.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Resource asked for, a trailing slash counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Beginning of the path, after decoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Anything in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_part: Option<String>,
    /// Method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// This status, with Azure's error body for it unless one is given.
    Status {
        /// HTTP status.
        code: u16,
        /// Seconds in `Retry-After`.
        retry_after: Option<u32>,
        /// Body instead of Azure's.
        body: Option<String>,
    },
    /// Entra's whole error answer for one of its codes (only token requests to Entra are hit).
    Aadsts {
        /// The number behind `AADSTS`.
        code: u32,
        /// HTTP status instead of Entra's for it.
        status: Option<u16>,
        /// Seconds in `Retry-After`.
        retry_after: Option<u32>,
    },
    /// The request is read and never answered.
    Silence,
    /// The connection is reset (TCP RST).
    Reset,
    /// 200 with a body that is not JSON.
    Garbage,
    /// 200 with an HTML page, as a captive proxy answers.
    Html,
    /// The right answer's length, half of its bytes, then the connection ends.
    Truncate,
    /// 200 with a JSON body of this many bytes.
    Huge(u64),
    /// A token whose life is over already (only token requests are hit); ARM refuses the caller's as such.
    Expired,
    /// A token with this life (only token requests are hit).
    Lifetime(Duration),
    /// The token answer without this field (only token requests are hit).
    Missing(String),
}

impl Effect {
    /// Whether it says something about a token, so that other requests do not use it up.
    fn needs_token(&self) -> bool {
        matches!(self, Self::Expired | Self::Lifetime(_) | Self::Missing(_))
    }

    /// Short name for the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Aadsts { .. } => "aadsts",
            Self::Silence => "silence",
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::Html => "html",
            Self::Truncate => "truncate",
            Self::Huge(_) => "huge",
            Self::Expired => "expired",
            Self::Lifetime(_) => "lifetime",
            Self::Missing(_) => "missing",
        }
    }
}

/// What is known of a request when faults are chosen.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    pub vm: &'a str,
    pub client_id: Option<&'a str>,
    pub resource: Option<&'a str>,
    pub path: &'a str,
    pub method: &'a str,
    /// The request would be answered with a token.
    pub token: bool,
}

/// What happens to one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Strike {
    pub latency: Duration,
    pub effect: Option<Effect>,
    pub applied: bool,
}

impl Strike {
    /// Name for the journal; none where nothing was done.
    pub fn name(&self) -> Option<&'static str> {
        let late = (!self.latency.is_zero()).then_some("latency");
        self.effect.as_ref().map(Effect::name).or(late)
    }
}

/// The standing faults and how often each has struck.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Standing>>);

#[derive(Debug)]
struct Standing {
    fault: Fault,
    seen: u64,
    struck: u64,
}

impl Faults {
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let standing = faults.into_iter().map(Standing::new).collect();
        Self(Mutex::new(standing))
    }

    pub fn add(&self, fault: Fault) {
        self.0.lock().push(Standing::new(fault));
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }

    pub fn list(&self) -> Vec<Fault> {
        self.0
            .lock()
            .iter()
            .map(|standing| standing.fault.clone())
            .collect()
    }

    /// The oldest fault that matches and is not used up; counts it.
    pub fn strike(&self, target: Target, facts: &Facts<'_>) -> Strike {
        let mut standing = self.0.lock();
        let hit = standing
            .iter_mut()
            .find_map(|one| one.strike(target, facts))
            .unwrap_or_default();
        standing.retain(|one| one.fault.count.is_none_or(|count| one.struck < count));
        hit
    }
}

impl Standing {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            seen: 0,
            struck: 0,
        }
    }

    fn strike(&mut self, target: Target, facts: &Facts<'_>) -> Option<Strike> {
        let fault = &self.fault;
        let needs_token = fault.effect.as_ref().is_some_and(Effect::needs_token);
        let needs_client = matches!(fault.effect, Some(Effect::Aadsts { .. }));
        let idle = (needs_token && !facts.token) || (needs_client && facts.client_id.is_none());
        if fault.target != target || idle || !fault.matching.holds(facts) {
            return None;
        }
        self.seen += 1;
        if self.seen <= fault.after {
            return None;
        }
        self.struck += 1;
        Some(Strike {
            latency: fault.latency.unwrap_or_default(),
            effect: fault.effect.clone(),
            applied: fault.applied,
        })
    }
}

impl Matching {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        let same = |want: &Option<String>, got: Option<&str>| {
            want.as_ref()
                .is_none_or(|want| got.is_some_and(|got| want.eq_ignore_ascii_case(got)))
        };
        let path = self.path.as_ref().is_none_or(|want| {
            facts
                .path
                .to_ascii_lowercase()
                .starts_with(&want.to_ascii_lowercase())
        });
        let part = self.path_part.as_ref().is_none_or(|want| {
            let path = facts.path.to_ascii_lowercase();
            path.contains(&want.to_ascii_lowercase())
        });
        part && same(&self.method, Some(facts.method))
            && same(&self.vm, Some(facts.vm))
            && same(&self.client_id, facts.client_id)
            && same(&self.resource, facts.resource)
            && path
    }
}

impl Fault {
    /// A fault of that service with an effect, for all its requests, until cleared.
    pub fn new(target: Target, effect: Effect) -> Self {
        Self {
            target,
            matching: Matching::default(),
            after: 0,
            count: None,
            latency: None,
            effect: Some(effect),
            applied: false,
        }
    }

    /// That service answers rightly, but late.
    pub fn slow(target: Target, latency: Duration) -> Self {
        Self {
            effect: None,
            latency: Some(latency),
            ..Self::new(target, Effect::Silence)
        }
    }

    /// A status with Azure's body and without `Retry-After`.
    pub fn status(target: Target, code: u16) -> Self {
        Self::new(
            target,
            Effect::Status {
                code,
                retry_after: None,
                body: None,
            },
        )
    }

    /// Entra refuses token requests with that `AADSTS` code, in its words and with its status.
    pub fn aadsts(code: u32) -> Self {
        let effect = Effect::Aadsts {
            code,
            status: None,
            retry_after: None,
        };
        Self::new(Target::Entra, effect)
    }

    /// Ends after so many requests.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Lets so many requests pass first.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.after = requests;
        self
    }

    /// Only for this identity's client id.
    #[must_use]
    pub fn for_client(mut self, client_id: &str) -> Self {
        self.matching.client_id = Some(client_id.to_owned());
        self
    }

    /// Only for requests with that method.
    #[must_use]
    pub fn for_method(mut self, method: &str) -> Self {
        self.matching.method = Some(method.to_owned());
        self
    }

    /// Only for paths with that in them.
    #[must_use]
    pub fn for_path_part(mut self, part: &str) -> Self {
        self.matching.path_part = Some(part.to_owned());
        self
    }

    /// The request is carried out all the same (ARM only).
    #[must_use]
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    /// Only for paths that begin so.
    #[must_use]
    pub fn for_path(mut self, path: &str) -> Self {
        self.matching.path = Some(path.to_owned());
        self
    }
}

#[cfg(test)]
mod tests;
