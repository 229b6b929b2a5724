//! The ids (`jti`) of client assertions that were accepted: none is taken twice.
//!
//! In: client, id, until when the assertion could be used, now. Out: whether it is new. Forgets what has expired,
//! so the memory is bounded by the assertions of one lifetime. Never blocks for long. Source: RFC 7523 section 3.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Ids remembered before expired ones are looked for.
const SWEEP: usize = 1024;

/// Accepted ids with the second from which they may be forgotten.
#[derive(Debug, Default)]
pub(super) struct Replays(Mutex<HashMap<(String, String), i64>>);

impl Replays {
    /// True the first time; an id counts until `until` (epoch seconds).
    pub fn is_new(&self, client: &str, id: &str, until: i64, now: i64) -> bool {
        let mut seen = self.0.lock();
        if seen.len() >= SWEEP {
            seen.retain(|_, until| *until > now);
        }
        let key = (client.to_ascii_lowercase(), id.to_owned());
        let again = seen.get(&key).is_some_and(|until| *until > now);
        seen.insert(key, until);
        !again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_once_for_each_client_until_it_expires() {
        let replays = Replays::default();
        assert!(replays.is_new("A", "1", 100, 10));
        assert!(!replays.is_new("a", "1", 100, 99), "the same client");
        assert!(replays.is_new("b", "1", 100, 10));
        assert!(replays.is_new("a", "1", 200, 100), "forgotten");
        for id in 0..3000 {
            assert!(replays.is_new("c", &id.to_string(), id, id));
        }
        assert!(replays.0.lock().len() <= SWEEP + 1);
    }
}
