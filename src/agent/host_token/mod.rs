//! `/host/token`: tokens on behalf of pods, for programs on the node that act for them (the Secrets Store CSI driver's
//! Azure provider). Who asks proves by a token of a service account who he is, and the API server says whether he may.
//!
//! In: requests at a unix socket of root's, or at a loopback address. Out: answers. Waits for the API server, then as a
//! pod's own request does, all of it bounded. Holds that nothing is told of a pod before its asker was found to be allowed
//! to ask for it, and that no more is given than the pod itself would get.

mod metrics;
mod reviews;
mod seen;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use nix::unistd::Uid;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

pub use self::metrics::ReviewMetrics;
pub use self::reviews::{AUDIENCE, Reviewer, Reviews};
use super::obtain::{self, TokenSource};
use super::origin::Named;
use super::pipeline::Pipeline;
use super::receive::host_token::{HostTokenAsk, receive};
use super::respond::{self, Answer};
use crate::kubernetes::Reviewed;
use crate::model::fault::{Fault, FaultKind};
use crate::serve;
use crate::serve::local::PeerProcess;

/// Requests at one door that are answered at once.
const AT_ONCE: usize = 64;
/// The longest that an answer takes; a connection at a unix socket lasts somewhat longer.
const LIMIT: Duration = Duration::from_secs(25);

/// Where tokens are given on behalf of pods; nowhere unless asked for.
#[derive(Clone, Debug, Default)]
pub struct HostTokenConfig {
    /// A unix socket in a folder of its own.
    pub socket: Option<PathBuf>,
    /// A loopback address.
    pub listen: Option<SocketAddr>,
}

/// By which way a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// By the unix socket, of which the kernel says who is at the other end.
    Socket,
    /// By the loopback address, which everybody on the node's network can reach, host-network pods included.
    Loopback,
}

/// Answers at one door.
pub struct HostToken<S: TokenSource, R> {
    /// Which.
    door: Door,
    /// What a pod's own requests are answered by.
    pipeline: Arc<Pipeline<S>>,
    /// Who asks, and what he may. Of this door only: whoever floods the one keeps nobody out at the other.
    reviews: Reviews<R>,
    /// This node's name.
    node: String,
    room: Semaphore,
}

impl<S: TokenSource, R: Reviewer> HostToken<S, R> {
    /// Answers at that door of that node.
    pub fn new(door: Door, pipeline: Arc<Pipeline<S>>, reviews: Reviews<R>, node: String) -> Self {
        Self {
            door,
            pipeline,
            reviews,
            node,
            room: Semaphore::new(AT_ONCE),
        }
    }
}

impl<S: TokenSource, R: Reviewer> serve::Answer for Arc<HostToken<S, R>> {
    /// The peer's address says nothing: it is the node's own.
    async fn answer(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let (head, _) = request.into_parts();
        let answered = Box::pin(timeout(LIMIT, self.token(&head))).await;
        let answered = answered.unwrap_or_else(|_| Err(obtain::too_late()));
        let answer = answered.unwrap_or_else(|fault| {
            tracing::debug!(door = ?self.door, %fault, "request failed");
            self.pipeline.metrics.failed(fault.kind);
            respond::fault(&fault)
        });
        self.pipeline.metrics.answered(started.elapsed());
        answer
    }
}

impl<S: TokenSource, R: Reviewer> HostToken<S, R> {
    async fn token(&self, head: &Parts) -> Result<Answer, Fault> {
        let Ok(_room) = self.room.try_acquire() else {
            return Err(too_much(Duration::from_secs(1)));
        };
        let process = head.extensions.get::<PeerProcess>().copied();
        let ask = receive(head)?;
        let mut asked_by = None;
        let admitted = match enters(self.door, process) {
            Ok(()) => self.admitted(&ask, &mut asked_by).await,
            Err(fault) => Err(fault),
        };
        let by = asked_by.as_ref().map(|who| who.username.as_str());
        if let Err(fault) = admitted {
            let whence = whence(self.door, process);
            self.pipeline.turned_away(&whence, by, &ask.query, &fault);
            return Err(fault);
        }
        tracing::debug!(pod = %ask.pod, by, ?process, "a token is asked for on behalf of a pod");
        let named = Named {
            pod: ask.pod,
            by: by.unwrap_or_default().into(),
        };
        self.pipeline.on_behalf(named, &ask.query).await
    }

    /// Whether who asks is somebody, and may. Who he is, as soon as that is known.
    async fn admitted(
        &self,
        ask: &HostTokenAsk,
        asked_by: &mut Option<Arc<Reviewed>>,
    ) -> Result<(), Fault> {
        let unproven =
            || Fault::new(FaultKind::HostTokenUnproven, UNPROVEN).with_detail("no bearer token");
        let bearer = ask.bearer.as_ref().ok_or_else(unproven)?;
        let who = asked_by.insert(self.reviews.who(bearer).await?);
        belongs(who, &self.node)?;
        self.reviews.may(bearer, who, &ask.pod).await
    }
}

/// What whoever proves nothing is told.
const UNPROVEN: &str = "An Authorization header is needed with a valid bearer token of a service account, for the audience lanyard.dev";

fn too_much(after: Duration) -> Fault {
    let public = "Too many tokens are being asked for on behalf of pods of this node";
    Fault::new(FaultKind::Overloaded, public).with_retry_after(after)
}

/// Beside the socket's mode: root, or who the agent is. A root of another user namespace is neither.
fn enters(door: Door, process: Option<PeerProcess>) -> Result<(), Fault> {
    let uid = process.map(|process| process.uid);
    if door == Door::Loopback || uid.is_some_and(|uid| uid == 0 || uid == Uid::effective().as_raw())
    {
        return Ok(());
    }
    let public = "Only root may ask at this socket";
    let who = uid.map_or_else(|| "nobody knows who".to_owned(), |uid| format!("uid {uid}"));
    Err(Fault::new(FaultKind::HostTokenForbidden, public).with_detail(who))
}

/// A token that says on which node it was given is of use there only: one that is stolen from another node is of none here.
fn belongs(who: &Reviewed, node: &str) -> Result<(), Fault> {
    let foreign = who.nodes().iter().find(|other| *other != node);
    foreign.map_or(Ok(()), |other| {
        let public = "The bearer token was given on another node";
        let detail = format!("{} on node {other}", who.username);
        Err(Fault::new(FaultKind::HostTokenForbidden, public).with_detail(detail))
    })
}

/// For the audit: without the process, of which there are too many to remember.
fn whence(door: Door, process: Option<PeerProcess>) -> String {
    match (door, process) {
        (Door::Loopback, _) => "the node's loopback".to_owned(),
        (Door::Socket, Some(process)) => format!("the host's socket, uid {}", process.uid),
        (Door::Socket, None) => "the host's socket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn at_the_socket_only_root_and_the_agents_own_user_enter() {
        let own = Uid::effective().as_raw();
        let process = |uid| Some(PeerProcess { uid, pid: None });
        for uid in [0, own] {
            assert_eq!(enters(Door::Socket, process(uid)), Ok(()));
        }
        // The overflow user is whoever our user namespace has no number for.
        for process in [process(own + 1), process(65534), None] {
            let refused = enters(Door::Socket, process).unwrap_err();
            assert_eq!(refused.kind, FaultKind::HostTokenForbidden);
            assert_eq!(enters(Door::Loopback, process), Ok(()));
        }
    }

    #[test]
    fn a_token_of_another_node_is_of_no_use_here() {
        let of = |nodes: &[&str]| {
            let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
            let key = "authentication.kubernetes.io/node-name".to_owned();
            Reviewed {
                extra: BTreeMap::from([(key, nodes)]),
                ..Reviewed::default()
            }
        };
        for (nodes, fine) in [
            (&["node-a"][..], true),
            // It is bound to no pod: roles decide alone.
            (&[], true),
            (&["node-b"], false),
            (&["node-a", "node-b"], false),
            (&[""], false),
        ] {
            assert_eq!(belongs(&of(nodes), "node-a").is_ok(), fine, "{nodes:?}");
        }
        assert!(belongs(&Reviewed::default(), "node-a").is_ok());
    }
}
