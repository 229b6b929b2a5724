//! The Kubernetes API as its clients here see it: how to connect, and how long to wait for what.
//!
//! In: a kubeconfig or the pod's own service account. Out: a client, and what follows kinds of objects
//! ([`watch`]); or, without a cluster, a [`folder`] of manifests. Used by agent and controller, by the admission webhook, and by the commands for a
//! person's shell.

mod client;
mod collection;
pub mod event;
pub mod folder;
mod objects;
mod page;
mod post;
mod review;
mod secret;
#[cfg(test)]
mod testkit;
mod token;
pub mod watch;

pub use client::{CallError, Cluster, ConnectError, connect};
pub use collection::{Collection, Event, EventKind, Events, Failure, PAGE};
pub use objects::Kind;
pub use page::{Item, Page, PageItems};
pub use review::{Access, Reviewed, TokenReview};
pub use secret::{SecretData, SecretObject, decoded};
pub use token::{AccountTokenRequest, TokenError};
