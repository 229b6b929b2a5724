//! The harness of everything that listens: no product rules in here.
//!
//! A listener is bound by its owner, served by [`listener::serve`] with an [`http1::Answer`], and
//! ended by a [`drain::Drain`]. Beside it: readiness latches, the admin server, series, logging, the clock.

pub mod admin;
pub mod admission;
pub mod clock;
pub mod drain;
pub mod http1;
pub mod limits;
pub mod listener;
pub mod local;
pub mod metrics;
pub mod ready;
pub mod refusal;
pub mod series;
pub mod signals;
mod stream;
pub mod telemetry;

pub use admin::Admin;
pub use admission::{Admission, Peer, Pool};
pub use drain::Drain;
pub use http1::Answer;
pub use limits::Limits;
pub use listener::{serve, serve_admitting};
pub use metrics::ConnMetrics;
pub use signals::{Signals, signals};
pub use telemetry::{LogFormat, LogLevel};
