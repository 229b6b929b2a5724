//! Counters that are cheap to ask, for benches and tests that watch a load.
//!
//! In: events from the listeners. Out: a [`Stats`] snapshot. Atomics only, never blocks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::journal::Listener;

/// A snapshot of the counters, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Requests to IMDS.
    pub imds_requests: u64,
    /// Requests to Entra.
    pub entra_requests: u64,
    /// Requests to vaults.
    pub vault_requests: u64,
    /// Requests to the wire server: from a pod, each one is a leak.
    pub wire_requests: u64,
    /// TCP connections to IMDS, with or without a request.
    pub imds_connections: u64,
    /// TCP connections to the wire server, with or without a request.
    pub wire_connections: u64,
    /// Answers that carried a token.
    pub tokens_issued: u64,
    /// Signatures made; fewer than answers while tokens are cached.
    pub tokens_signed: u64,
    /// Identity requests that IMDS refused with 429 by its own throttle.
    pub throttled: u64,
    /// Most identity requests IMDS had at once on one machine.
    pub most_concurrent: u64,
    /// Most token requests Entra had at once.
    #[serde(default)]
    pub entra_most_concurrent: u64,
    /// Token requests that Entra refused.
    #[serde(default)]
    pub entra_refused: u64,
    /// Requests to ARM.
    #[serde(default)]
    pub arm_requests: u64,
    /// Requests that ARM refused with 429 by its own token buckets.
    #[serde(default)]
    pub arm_throttled: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    imds: AtomicU64,
    entra: AtomicU64,
    vault: AtomicU64,
    wire: AtomicU64,
    imds_connections: AtomicU64,
    wire_connections: AtomicU64,
    issued: AtomicU64,
    signed: AtomicU64,
    throttled: AtomicU64,
    concurrent: AtomicU64,
    entra_running: AtomicU64,
    entra_concurrent: AtomicU64,
    entra_refused: AtomicU64,
    arm: AtomicU64,
    arm_throttled: AtomicU64,
}

/// Counts a token request to Entra as running until it is dropped.
pub(super) struct Running<'a>(&'a Counters);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.entra_running.fetch_sub(1, Relaxed);
    }
}

impl Counters {
    pub fn request(&self, listener: Listener) {
        let counter = match listener {
            Listener::Imds => &self.imds,
            Listener::Entra => &self.entra,
            Listener::Vault => &self.vault,
            Listener::Wire => &self.wire,
            Listener::Arm => &self.arm,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub fn connection(&self, listener: Listener) {
        match listener {
            Listener::Imds => self.imds_connections.fetch_add(1, Relaxed),
            Listener::Wire => self.wire_connections.fetch_add(1, Relaxed),
            Listener::Entra | Listener::Vault | Listener::Arm => 0,
        };
    }

    pub fn issued(&self) {
        self.issued.fetch_add(1, Relaxed);
    }

    pub fn signed(&self) {
        self.signed.fetch_add(1, Relaxed);
    }

    pub fn throttled(&self) {
        self.throttled.fetch_add(1, Relaxed);
    }

    pub fn concurrent(&self, now: usize) {
        self.concurrent.fetch_max(now as u64, Relaxed);
    }

    /// A token request to Entra begins.
    pub fn entra_begins(&self) -> Running<'_> {
        let running = self.entra_running.fetch_add(1, Relaxed) + 1;
        self.entra_concurrent.fetch_max(running, Relaxed);
        Running(self)
    }

    pub fn entra_refused(&self) {
        self.entra_refused.fetch_add(1, Relaxed);
    }

    pub fn arm_throttled(&self) {
        self.arm_throttled.fetch_add(1, Relaxed);
    }

    pub fn snapshot(&self) -> Stats {
        Stats {
            imds_requests: self.imds.load(Relaxed),
            entra_requests: self.entra.load(Relaxed),
            vault_requests: self.vault.load(Relaxed),
            wire_requests: self.wire.load(Relaxed),
            imds_connections: self.imds_connections.load(Relaxed),
            wire_connections: self.wire_connections.load(Relaxed),
            tokens_issued: self.issued.load(Relaxed),
            tokens_signed: self.signed.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            most_concurrent: self.concurrent.load(Relaxed),
            entra_most_concurrent: self.entra_concurrent.load(Relaxed),
            entra_refused: self.entra_refused.load(Relaxed),
            arm_requests: self.arm.load(Relaxed),
            arm_throttled: self.arm_throttled.load(Relaxed),
        }
    }
}
