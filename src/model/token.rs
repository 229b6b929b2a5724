//! A token and the arithmetic of its life. Times are durations since the Unix epoch, as `now` is:
//! no clock is read here.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::ids::Guid;

/// Below this much life a token is not handed out while a longer one can be had: every SDK asks
/// again on each call below 300 s.
pub const SHORT: Duration = Duration::from_mins(5);
/// Below this much life a token is never handed out.
pub const UNUSABLE: Duration = Duration::from_secs(30);

/// An access token with its life. The secret never shows in `Debug`.
#[derive(Debug)]
pub struct Token {
    secret: SecretString,
    /// Looked at once: it is long, and handed out often.
    is_plain: bool,
    /// Client id of the identity that the token is for, as the source said.
    pub client_id: Option<Guid>,
    /// When we got it (since the epoch).
    pub obtained_at: Duration,
    /// Start of validity (since the epoch; whole seconds).
    pub not_before: Duration,
    /// End of validity (since the epoch; whole seconds).
    pub expires_on: Duration,
    /// When the source wants it renewed (since the epoch), if it says so.
    pub refresh_on: Option<Duration>,
}

impl Token {
    /// A token as a source gave it.
    #[must_use]
    pub fn new(
        secret: String,
        obtained_at: Duration,
        not_before: Duration,
        expires_on: Duration,
    ) -> Self {
        Self {
            is_plain: is_plain(&secret),
            secret: secret.into(),
            client_id: None,
            obtained_at,
            not_before,
            expires_on,
            refresh_on: None,
        }
    }

    /// The bearer text, for the answer's body and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Whether the bearer text may stand in a JSON string as it is ([`is_plain`]).
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// What is left of its life.
    #[must_use]
    pub fn left(&self, now: Duration) -> Duration {
        self.expires_on.saturating_sub(now)
    }

    /// Whether it may be handed out at all.
    #[must_use]
    pub fn is_usable(&self, now: Duration) -> bool {
        self.left(now) > UNUSABLE
    }

    /// Whether a longer-living one should be tried before handing it out.
    #[must_use]
    pub fn is_short(&self, now: Duration) -> bool {
        self.left(now) <= SHORT
    }

    /// When to renew it ahead of need: at the source's wish, else at half its life, moved by
    /// `jitter` (0..1) within a tenth of its life, so that a node's tokens do not renew together.
    #[must_use]
    pub fn refresh_at(&self, jitter: f64) -> Duration {
        let life = self.expires_on.saturating_sub(self.obtained_at);
        let ahead = self.refresh_on.unwrap_or(self.obtained_at + life / 2);
        ahead + life.mul_f64(0.1 * jitter.clamp(0.0, 1.0))
    }
}

/// Whether a JSON string holds `text` without escapes.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    let special = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
    !text.bytes().any(special)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn life_is_arithmetic_on_the_given_now() {
        let token = Token::new("t".into(), S(1_000), S(1_000), S(4_600));
        assert_eq!(token.left(S(1_600)), S(3_000));
        assert!(!token.is_short(S(4_299)) && token.is_short(S(4_300)));
        assert!(
            token.is_usable(S(4_569)) && !token.is_usable(S(4_570)) && !token.is_usable(S(9_999))
        );
        assert_eq!(token.refresh_at(0.0), S(2_800));
        assert_eq!(token.refresh_at(1.0), S(3_160));
    }

    #[test]
    fn the_source_may_ask_for_an_earlier_renewal() {
        let mut token = Token::new("t".into(), S(0), S(0), S(1_000));
        token.refresh_on = Some(S(100));
        assert_eq!(token.refresh_at(0.0), S(100));
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = Token::new("eyJhbGciOi".into(), S(0), S(0), S(1));
        assert!(!format!("{token:?}").contains("eyJ"));
    }
}
