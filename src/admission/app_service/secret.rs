//! A pod's own secret for App Service's dialects.

use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of randomness.
const LENGTH: usize = 32;

/// 43 characters of base64url: nothing in it that kubelet would expand, or that a shell or a header would
/// read otherwise. It has no `Debug`: it is for the pod's spec and for nothing else.
pub(super) struct PodSecret(String);

impl PodSecret {
    /// A new one. Fails where the system gives no randomness.
    pub(super) fn draw() -> Result<Self, Unspecified> {
        let mut bytes = [0; LENGTH];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// As it is written into the spec.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_and_plain() {
        let drawn: std::collections::BTreeSet<String> = (0..1000)
            .map(|_| PodSecret::draw().unwrap().as_str().to_owned())
            .collect();
        assert_eq!(drawn.len(), 1000);
        for secret in drawn {
            assert_eq!(secret.len(), 43);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            assert!(secret.chars().all(plain) && crate::api::pod::is_written_out(&secret));
        }
    }
}
