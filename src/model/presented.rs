//! A secret that somebody shows, held against the one that is expected, without keeping either. Pure.
//!
//! In: values of headers and of environment variables. Out: digests that can be compared in constant time.
//! What is kept here may be printed and written down: a digest of 32 random bytes tells nothing.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};

/// The SHA-256 of a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretDigest([u8; SHA256_OUTPUT_LEN]);

impl SecretDigest {
    /// Of a value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let mut sum = [0; SHA256_OUTPUT_LEN];
        sum.copy_from_slice(digest(&SHA256, value).as_ref());
        Self(sum)
    }

    /// Its first byte, which is as any other: to spread digests over groups.
    #[must_use]
    pub const fn first_byte(&self) -> u8 {
        self.0[0]
    }

    /// Whether it is of the same value; takes as long whatever differs.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl std::fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretDigest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_value_is_the_same_and_nothing_of_it_is_told() {
        let one = SecretDigest::of(b"s3cret");
        assert!(one.is_same(&SecretDigest::of(b"s3cret")));
        for other in [&b""[..], b"s3cre", b"s3cret ", b"S3cret"] {
            assert!(!one.is_same(&SecretDigest::of(other)));
        }
        assert_eq!(format!("{one:?}"), "SecretDigest");
        let written = serde_json::to_string(&one).unwrap();
        assert!(!written.contains("s3cret"));
        assert_eq!(serde_json::from_str::<SecretDigest>(&written).unwrap(), one);
    }
}
