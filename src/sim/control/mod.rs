//! Commands to a running simulator: HTTP over a Unix socket that only its user may open.
//!
//! In: requests of [`Client`] (or `curl --unix-socket`). Out: journal, faults, counters; assignments and keys
//! changed. Each command is one request on a connection of its own.
//!
//! | method, path | does |
//! |---|---|
//! | GET `/healthz`, `/addresses`, `/stats` | is it there, where it listens, counters |
//! | GET `/journal?since=SEQ`, DELETE `/journal` | requests, one JSON object a line; forget them |
//! | GET, PUT, DELETE `/faults` | list; add one; remove all |
//! | POST `/keys/roll`, `/keys/drop-old` | a new signing key; publish only that one |
//! | PUT `/vms/NAME/identities` | replace the assigned identities of a machine or scale set by a JSON list of names |
//! | GET `/applications/NAME/credentials` | what an application or identity may prove itself by; no secret |
//! | PUT `…/secrets`, DELETE `…/secrets/ID` | accept `{"value", "expires"}`; refuse it |
//! | PUT `…/certificates`, DELETE `…/certificates/THUMBPRINT` | register `{"pem"}`; refuse it |
//! | PUT `…/federated`, DELETE `…/federated/NAME` | add a federated credential; remove it |
//! | PUT `/issuers` | say how an issuer of federated tokens is reached; all keys are fetched anew |
//! | GET `/arm`, and more below it | what ARM holds; docs/simulate.md lists the commands that change it |
//! | PUT `/clock` | `{"skew": "4m"}`: how far simulated Azure's clock is ahead |

mod arm;
mod client;
mod credentials;
mod resources;
mod server;

pub use client::{Client, ControlError};
pub(super) use server::{bind, serve};
