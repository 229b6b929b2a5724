//! The webhooks of Lanyard: one keeps an agent to service account tokens of its own node's pods, one
//! gives pods that ask for them the variables of App Service's dialect.
//!
//! In: `AdmissionReview`s (admission.k8s.io/v1) from the API server, by HTTPS. Out: allowed, or why not,
//! and what is to be changed. Invariant 9: what the guard cannot read is denied. It reads the pod anew for
//! each question, with a deadline below the webhook's own; a policy without a server would have done, but it
//! sees pods by a watch, and does not know one that was made an instant ago (`ARCHITECTURE.md` has the
//! figures).
//!
//! ```text
//! of a TokenRequest: review (the question) → a fresh read of the pod → verdict → review (the answer)
//! of a new pod:      review → app_service: opted in? → inject → review (the answer, with a patch)
//! ```

mod app_service;
mod certificate;
mod guard;
mod https;
mod issue;
mod metrics;
mod review;
mod run;
mod spaced;
mod verdict;
mod webhook;

pub use certificate::{CertificateError, Files, Source};
pub use issue::IssueError;
pub use run::{Config, run};
