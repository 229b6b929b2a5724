//! The journal: every request with its source address, in order.
//!
//! In: a request as it arrives ([`Journal::arrive`]) and, if it ever gets one, its answer
//! ([`Journal::answer`]): a request that is left silent has no status. Out: entries since a sequence
//! number. Bounded: the oldest go. Holds no token and no header that may carry one.

use std::collections::VecDeque;

use hyper::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Entries kept.
const CAPACITY: usize = 100_000;

/// Headers worth keeping; none of them carries a secret.
const HEADERS: [&str; 7] = [
    "host",
    "if-match",
    "metadata",
    "user-agent",
    "x-forwarded-for",
    "x-ms-client-request-id",
    "x-client-sku",
];

/// A listener of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// The instance metadata service.
    Imds,
    /// Entra ID.
    Entra,
    /// The Key Vault.
    Vault,
    /// The wire server.
    Wire,
    /// Azure Resource Manager.
    Arm,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Sequence number, from 1, without gaps.
    pub seq: u64,
    /// When it arrived.
    pub time: Timestamp,
    /// Address and port it came from.
    pub source: String,
    /// Where it arrived.
    pub listener: Listener,
    /// Machine it was taken to come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Method.
    pub method: String,
    /// Request target as sent, not decoded.
    pub target: String,
    /// A few headers, by lower-case name.
    pub headers: Vec<(String, String)>,
    /// Name of the identity that was meant: whose token was asked for, or (vault) shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Resource asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Fault that struck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Host name in the TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// What a token request to Entra said and proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// Number of the `AADSTS` code that Entra answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aadsts: Option<u32>,
    /// What a request to ARM said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<ArmCall>,
    /// Status answered; none while (or because) there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A token request to Entra, without the credential itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// `client_id` as sent.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// `secret:` and the beginning of its SHA-256 (accepted or not), `certificate:` and its thumbprint,
    /// `federated:` and the credential's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// `alg` of the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// `jti` of the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Whether there was a `claims` parameter.
    #[serde(default)]
    pub claims: bool,
}

/// A request to ARM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmCall {
    /// Type of the resource, as `virtualMachineScaleSets`, `federatedIdentityCredentials` or `operations`.
    pub kind: String,
    /// Name of the resource, as the request spells it; of an operation its GUID.
    pub name: String,
    /// Object id of whoever the token names, if it is a good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// `identity.type` of a PATCH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_type: Option<String>,
    /// Resource ids that a PATCH adds, as it spells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Resource ids that a PATCH removes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// `If-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// `error.code` of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The operation that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

impl Entry {
    /// The IP address it came from, without the port.
    pub fn source_ip(&self) -> Option<std::net::IpAddr> {
        self.source
            .parse::<std::net::SocketAddr>()
            .ok()
            .map(|source| source.ip())
    }
}

/// What is found out about a request on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    pub identity: Option<String>,
    pub resource: Option<String>,
    pub fault: Option<&'static str>,
    pub exchange: Option<Exchange>,
    pub aadsts: Option<u32>,
    pub arm: Option<ArmCall>,
    pub status: Option<u16>,
}

/// The ring of entries.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    entries: VecDeque<Entry>,
}

impl Journal {
    /// Enters a request; `seq` of the given entry is replaced by the number that is returned.
    pub fn arrive(&self, mut entry: Entry) -> u64 {
        let mut ring = self.0.lock();
        ring.last += 1;
        entry.seq = ring.last;
        if ring.entries.len() == CAPACITY {
            ring.entries.pop_front();
        }
        ring.entries.push_back(entry);
        ring.last
    }

    /// Completes an entry, if it is still there.
    pub fn answer(&self, seq: u64, findings: Findings) {
        let mut ring = self.0.lock();
        let Some(first) = ring.entries.front().map(|entry| entry.seq) else {
            return;
        };
        let Some(index) = seq
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        if let Some(entry) = ring.entries.get_mut(index) {
            entry.identity = findings.identity;
            entry.resource = findings.resource;
            entry.fault = findings.fault.map(str::to_owned);
            entry.exchange = findings.exchange;
            entry.aadsts = findings.aadsts;
            entry.arm = findings.arm;
            entry.status = findings.status;
        }
    }

    /// Entries with a number above `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<Entry> {
        let ring = self.0.lock();
        let start = ring.entries.partition_point(|entry| entry.seq <= since);
        ring.entries.range(start..).cloned().collect()
    }

    /// Forgets all; numbers go on.
    pub fn clear(&self) {
        self.0.lock().entries.clear();
    }
}

/// The headers worth keeping.
pub(super) fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let keep = |name: &&str| {
        let value = headers.get(*name)?;
        Some((
            (*name).to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        ))
    };
    HEADERS.iter().filter_map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            seq: 0,
            time: Timestamp::UNIX_EPOCH,
            source: "10.0.0.7:4000".to_owned(),
            listener: Listener::Imds,
            vm: None,
            method: "GET".to_owned(),
            target: "/".to_owned(),
            headers: vec![],
            identity: None,
            resource: None,
            fault: None,
            sni: None,
            exchange: None,
            aadsts: None,
            arm: None,
            status: None,
        }
    }

    #[test]
    fn numbers_go_on_over_a_clear_and_late_answers_hurt_nobody() {
        let journal = Journal::default();
        let first = journal.arrive(entry());
        journal.clear();
        let second = journal.arrive(entry());
        journal.answer(
            first,
            Findings {
                status: Some(500),
                ..Findings::default()
            },
        );
        journal.answer(
            second,
            Findings {
                status: Some(200),
                ..Findings::default()
            },
        );
        let left = journal.since(0);
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].seq, left[0].status), (2, Some(200)));
        assert!(journal.since(2).is_empty());
    }

    #[test]
    fn the_ring_is_bounded() {
        let journal = Journal::default();
        for _ in 0..=CAPACITY {
            journal.arrive(entry());
        }
        let all = journal.since(0);
        assert_eq!(all.len(), CAPACITY);
        assert_eq!(all[0].seq, 2);
    }

    #[test]
    fn no_authorization_header_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer secret".parse().unwrap());
        headers.insert("metadata", "true".parse().unwrap());
        assert_eq!(kept(&headers), [("metadata".to_owned(), "true".to_owned())]);
    }
}
