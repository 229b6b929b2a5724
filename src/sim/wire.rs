//! The wire server (168.63.129.16), only to see who reaches it.
//!
//! In: anything. Out: 200 and a body that must never be seen in a pod, and a journal entry for each request.
//! Node secrets have leaked to pods by this door. Never waits.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use super::azure::Azure;
use super::http::{Reply, Service, typed};
use super::journal::{Findings, Listener};

/// One address of the wire server.
pub(super) struct Wire(pub Arc<Azure>);

impl Service for Wire {
    fn connected(&self) {
        self.0.counters.connection(Listener::Wire);
    }

    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let machine = self.0.machine(source.ip());
        let vm = Some(machine.vm.name.as_str());
        let seq = self.0.arrive(Listener::Wire, source, vm, &request);
        let findings = Findings {
            status: Some(200),
            ..Findings::default()
        };
        self.0.journal.answer(seq, findings);
        let body = "<?xml version=\"1.0\"?><Versions>MUST-NEVER-LEAK</Versions>";
        Reply::Answer(typed(StatusCode::OK, "text/xml; charset=utf-8", body))
    }
}
