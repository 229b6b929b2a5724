//! How long what may take while kinds are followed, and how often it is done. Values only.

use std::time::Duration;

/// How long what may take, and how often it is done.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One page of a list, or the beginning of a watch.
    pub call: Duration,
    /// How long a watch may be silent. The server sends a bookmark about every minute.
    pub silence: Duration,
    /// After which the server ends a watch.
    pub lifetime: Duration,
    /// The first pause after a failure; the next are longer.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How often the watches' health is looked at.
    pub tick: Duration,
    /// How long the API server may take to answer that it is there.
    pub ask: Duration,
    /// How often it is asked while all is well.
    pub routine_ask: Duration,
    /// How often it is asked while something is not.
    pub urgent_ask: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(15),
            silence: Duration::from_secs(150),
            lifetime: Duration::from_mins(5),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(8),
            tick: Duration::from_secs(1),
            ask: Duration::from_secs(5),
            routine_ask: Duration::from_secs(30),
            urgent_ask: Duration::from_secs(5),
        }
    }
}
