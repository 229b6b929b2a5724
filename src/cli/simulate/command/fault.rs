//! Flags of `lanyard simulate fault`.
//!
//! In: flags. Out: a [`Fault`], read and checked exactly as if it stood in the world file. Pure.

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::Control;
use crate::sim::Fault;

/// A service that can fail.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Service {
    Imds,
    Entra,
    Vault,
    Arm,
}

/// Flags of `lanyard simulate fault`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // one flag for each effect, as a person writes them
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) control: Control,
    /// Which service fails.
    target: Service,
    /// Answer this status, with Azure's body for it.
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// Answer Entra's whole error for this code (`7000222`), with its status unless --status gives one.
    #[arg(long, value_name = "CODE")]
    aadsts: Option<u32>,
    /// Seconds in the Retry-After of that status or code.
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u32>,
    /// Body of that status instead of Azure's.
    #[arg(long, requires = "status")]
    body: Option<String>,
    /// Answer late by this much (`300ms`, `2s`); goes with any other effect.
    #[arg(long, value_name = "TIME")]
    latency: Option<String>,
    /// Accept and never answer.
    #[arg(long)]
    silence: bool,
    /// Reset the connection.
    #[arg(long)]
    reset: bool,
    /// Answer 200 with a body that is not JSON.
    #[arg(long)]
    garbage: bool,
    /// Answer 200 with an HTML page.
    #[arg(long)]
    html: bool,
    /// Break the right answer off in the middle.
    #[arg(long)]
    truncate: bool,
    /// Answer 200 with JSON of this many bytes.
    #[arg(long, value_name = "BYTES")]
    huge: Option<u64>,
    /// Hand out a token that has expired (token requests only); ARM: refuse the caller's token as expired.
    #[arg(long)]
    expired: bool,
    /// Hand out a token with this life, `90s` (token requests only).
    #[arg(long, value_name = "TIME")]
    lifetime: Option<String>,
    /// Leave this field out of the token answer (token requests only).
    #[arg(long, value_name = "FIELD")]
    missing: Option<String>,
    /// End after so many requests; without it the fault stands until cleared.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Let so many requests pass first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Only requests from this machine (IMDS), or about this machine or scale set (ARM).
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,
    /// Only requests that concern the identity with this client id.
    #[arg(long, value_name = "GUID")]
    client_id: Option<String>,
    /// Only token requests for this resource.
    #[arg(long)]
    resource: Option<String>,
    /// Only paths that begin so.
    #[arg(long)]
    path: Option<String>,
    /// Only paths with this in them.
    #[arg(long, value_name = "TEXT")]
    path_part: Option<String>,
    /// Only requests with this method.
    #[arg(long)]
    method: Option<String>,
    /// Carry the request out, and let only its answer go wrong (ARM only).
    #[arg(long)]
    applied: bool,
}

impl Args {
    /// The fault, by the same reading and checking that the world file gets.
    pub(super) fn fault(&self) -> anyhow::Result<Fault> {
        let given = |fields: Value| -> Map<String, Value> {
            let fields = fields.as_object().cloned().unwrap_or_default();
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect()
        };
        let matching = given(json!({
            "vm": self.vm,
            "clientID": self.client_id,
            "resource": self.resource,
            "path": self.path,
            "pathPart": self.path_part,
            "method": self.method,
        }));
        let target = match self.target {
            Service::Imds => "imds",
            Service::Entra => "entra",
            Service::Vault => "vault",
            Service::Arm => "arm",
        };
        let fault = given(json!({
            "target": target,
            "match": matching,
            "after": self.after,
            "count": self.count,
            "latency": self.latency,
            "status": self.status,
            "aadsts": self.aadsts,
            "retryAfter": self.retry_after,
            "body": self.body,
            "silence": self.silence,
            "reset": self.reset,
            "garbage": self.garbage,
            "html": self.html,
            "truncate": self.truncate,
            "huge": self.huge,
            "expired": self.expired,
            "lifetime": self.lifetime,
            "missing": self.missing,
            "applied": self.applied,
        }));
        serde_json::from_value(Value::Object(fault)).context("not a fault")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::simulate::command;

    fn fault(flags: &str) -> anyhow::Result<Fault> {
        let words = format!("lanyard simulate fault --control /s {flags}");
        let cli = Cli::try_parse_from(words.split(' '))?;
        let crate::cli::Command::Simulate(args) = cli.command else {
            panic!("not simulate")
        };
        let Some(command::Command::Fault(args)) = args.command else {
            panic!("not fault")
        };
        args.fault()
    }

    #[test]
    fn flags_make_the_fault_that_the_world_file_would() {
        let by_flags =
            fault("imds --status 429 --retry-after 3 --count 2 --client-id abc --latency 5ms")
                .unwrap();
        let by_file: Fault = serde_saphyr::from_str(
            "{target: imds, status: 429, retryAfter: 3, count: 2, latency: 5ms, match: {clientID: abc}}",
        )
        .unwrap();
        assert_eq!(by_flags, by_file);
    }

    #[test]
    fn a_fault_without_effect_or_with_two_is_refused() {
        assert!(fault("imds").is_err());
        assert!(fault("vault --silence --reset").is_err());
        assert!(fault("nobody --silence").is_err());
    }

    #[test]
    fn the_world_is_required_without_a_command() {
        let error = Cli::try_parse_from(["lanyard", "simulate"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--world"), "{error}");
    }
}
