//! The webhook that keeps an agent to service account tokens of its own node's pods.
//!
//! In: an `AdmissionReview` (admission.k8s.io/v1) of a `TokenRequest`, from the API server by HTTPS.
//! Out: allowed, or why not. Blocks on the API server, from which the pod is read anew for each question,
//! with a deadline below the webhook's own. Invariant 9: what cannot be read is denied. A policy
//! without a server would have done, but it sees pods by a watch, and does not know one that was made
//! an instant ago (`ARCHITECTURE.md` has the figures).
//!
//! ```text
//! review (the question) → a fresh read of the pod → verdict → review (the answer)
//! ```

mod certificate;
mod https;
mod review;
mod run;
mod verdict;
mod webhook;

pub use certificate::CertificateError;
pub use run::{Config, run};
