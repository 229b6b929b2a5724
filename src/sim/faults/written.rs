//! Faults as a person writes them: one flat mapping, one field for each effect.
//!
//! In: YAML of the world file, JSON of the control socket. Out: a [`Fault`] with exactly what was meant, or a message
//! that names the fields in conflict; and the same way back. Pure.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as friendly;
use serde::{Deserialize, Serialize};

use super::{Effect, Fault, Matching, Target};

/// The flat form in which a person writes a fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // one field for each effect, as a person writes them
pub(super) struct Written {
    target: Target,
    #[serde(default, rename = "match")]
    matching: Matching,
    #[serde(default)]
    after: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(
        default,
        with = "friendly::optional",
        skip_serializing_if = "Option::is_none"
    )]
    latency: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aadsts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    silence: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    reset: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    garbage: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    html: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    truncate: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    huge: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    expired: bool,
    #[serde(
        default,
        with = "friendly::optional",
        skip_serializing_if = "Option::is_none"
    )]
    lifetime: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    applied: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !value
}

impl TryFrom<Written> for Fault {
    type Error = String;

    fn try_from(wire: Written) -> Result<Self, String> {
        let Written {
            retry_after, body, ..
        } = wire;
        if wire.status.or(wire.aadsts.map(|_| 0)).is_none() && retry_after.is_some() {
            return Err("retryAfter goes with `status` or `aadsts`".to_owned());
        }
        if body.is_some() && (wire.status.is_none() || wire.aadsts.is_some()) {
            return Err("body goes with `status`, and not with `aadsts`".to_owned());
        }
        if wire.aadsts.is_some() && wire.target != Target::Entra {
            return Err("aadsts is what Entra answers: `target: entra`".to_owned());
        }
        if wire.applied && wire.target != Target::Arm {
            return Err("applied is for what changes something: `target: arm`".to_owned());
        }
        if wire.target == Target::Arm && (wire.lifetime.is_some() || wire.missing.is_some()) {
            return Err("lifetime and missing are for tokens, and ARM issues none".to_owned());
        }
        if let Some(code) = wire.status
            && !(200..600).contains(&code)
        {
            return Err(format!(
                "status {code} is not one a server sends; 200 to 599"
            ));
        }
        let mut effects: Vec<Effect> = Vec::new();
        effects.extend(match (wire.aadsts, wire.status) {
            (Some(code), status) => Some(Effect::Aadsts {
                code,
                status,
                retry_after,
            }),
            (None, status) => status.map(|code| Effect::Status {
                code,
                retry_after,
                body,
            }),
        });
        let plain = [
            (wire.silence, Effect::Silence),
            (wire.reset, Effect::Reset),
            (wire.garbage, Effect::Garbage),
            (wire.html, Effect::Html),
            (wire.truncate, Effect::Truncate),
            (wire.expired, Effect::Expired),
        ];
        effects.extend(
            plain
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, effect)| effect),
        );
        effects.extend(wire.huge.map(Effect::Huge));
        effects.extend(wire.lifetime.map(Effect::Lifetime));
        effects.extend(wire.missing.map(Effect::Missing));
        if effects.len() > 1 {
            let names: Vec<&str> = effects.iter().map(Effect::name).collect();
            return Err(format!(
                "one effect for each fault, not {}",
                names.join(" and ")
            ));
        }
        let effect = effects.pop();
        if effect.is_none() && wire.latency.is_none() {
            return Err(
                "no effect: give one of status, aadsts, latency, silence, reset, garbage, html, \
                        truncate, huge, expired, lifetime, missing"
                    .to_owned(),
            );
        }
        Ok(Self {
            target: wire.target,
            matching: wire.matching,
            after: wire.after,
            count: wire.count,
            latency: wire.latency,
            effect,
            applied: wire.applied,
        })
    }
}

impl From<Fault> for Written {
    fn from(fault: Fault) -> Self {
        let effect = fault.effect;
        let is = |want: &Effect| effect.as_ref() == Some(want);
        let mut wire = Self {
            target: fault.target,
            matching: fault.matching,
            after: fault.after,
            count: fault.count,
            latency: fault.latency,
            status: None,
            aadsts: None,
            retry_after: None,
            body: None,
            silence: is(&Effect::Silence),
            reset: is(&Effect::Reset),
            garbage: is(&Effect::Garbage),
            html: is(&Effect::Html),
            truncate: is(&Effect::Truncate),
            huge: None,
            expired: is(&Effect::Expired),
            lifetime: None,
            missing: None,
            applied: fault.applied,
        };
        match effect {
            Some(Effect::Status {
                code,
                retry_after,
                body,
            }) => {
                wire.status = Some(code);
                wire.retry_after = retry_after;
                wire.body = body;
            }
            Some(Effect::Aadsts {
                code,
                status,
                retry_after,
            }) => {
                wire.aadsts = Some(code);
                wire.status = status;
                wire.retry_after = retry_after;
            }
            Some(Effect::Huge(bytes)) => wire.huge = Some(bytes),
            Some(Effect::Lifetime(lifetime)) => wire.lifetime = Some(lifetime),
            Some(Effect::Missing(field)) => wire.missing = Some(field),
            _ => {}
        }
        wire
    }
}
