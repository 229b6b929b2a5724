//! Logging: set up once in `main`'s subcommand, changed later through the handle that it returns.
//!
//! Lines go to standard error, as text or as one JSON object each. The filter is `tracing`'s
//! directive language (`info`, `info,lanyard::agent::obtain=debug`). Tokens never reach a line: the
//! types that hold them show nothing in `Debug`.

use std::fmt;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// What may be wrong with logging.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?}: {reason}; give a level (error, warn, info, debug, trace) or target=level, separated by commas"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What `tracing` said.
        reason: String,
    },
    /// A logger has been set already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
    /// The logger is gone.
    #[error("the log filter cannot be changed any more: {0}")]
    Gone(#[from] reload::Error),
}

/// Changes the filter of the running process.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
    /// A reload handle keeps no subscriber alive; a detached one is held here.
    _detached: Option<Arc<reload::Layer<EnvFilter, Registry>>>,
}

impl LogLevel {
    /// Replaces the filter; an unreadable one changes nothing.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        Ok(self.handle.reload(parse(filter)?)?)
    }

    /// The filter in force, in `tracing`'s own words; empty when logging has ended.
    pub fn current(&self) -> String {
        self.handle
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }

    /// A filter that filters nothing: for servers that run inside another program.
    pub fn detached() -> Self {
        let (layer, handle) = reload::Layer::new(EnvFilter::default());
        LogLevel {
            handle,
            _detached: Some(Arc::new(layer)),
        }
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.current()).finish()
    }
}

/// Makes `format` and `filter` the process's logging. Once.
pub fn init(format: LogFormat, filter: &str) -> Result<LogLevel, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    Ok(LogLevel {
        handle,
        _detached: None,
    })
}

/// The Kubernetes client tells of every failed attempt as an error; who made the attempt tells it once.
const QUIET: &str = "kube_client=off";

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let mut directives = filter.trim().to_owned();
    if !directives.contains("kube_client") {
        let comma = if directives.is_empty() { "" } else { "," };
        directives = format!("{directives}{comma}{QUIET}");
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| TelemetryError::Filter {
            filter: filter.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_changes_nothing() {
        let level = LogLevel::detached();
        level.set("warn,lanyard=debug").unwrap();
        let before = level.current();
        let error = level.set("lanyard=loud").unwrap_err().to_string();
        assert!(
            error.contains("lanyard=loud") && error.contains("debug"),
            "{error}"
        );
        assert_eq!(level.current(), before);
        assert!(before.contains("lanyard=debug"), "{before}");
        assert!(before.contains(QUIET), "{before}");
        level.set("info,kube_client=debug").unwrap();
        assert!(!level.current().contains(QUIET), "asked for by name");
    }
}
