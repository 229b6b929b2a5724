//! Which of our credentials to present, and in which order. Pure.
//!
//! In: what the files hold, which of them gave a token. Out: the credentials to try, the best first. Holds
//! that a replaced credential stays in use until a new one has proved itself, and not longer.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::azure::credential::Certificate;

/// What is presented to Entra.
#[derive(Debug)]
pub(super) enum Material {
    /// A client secret.
    Secret(SecretString),
    /// A certificate with its key.
    Certificate(Certificate),
    /// Another issuer's token.
    Assertion(SecretString),
}

impl Material {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(one), Self::Secret(two))
            | (Self::Assertion(one), Self::Assertion(two)) => {
                one.expose_secret() == two.expose_secret()
            }
            (Self::Certificate(one), Self::Certificate(two)) => {
                one.thumbprint() == two.thumbprint()
            }
            _ => false,
        }
    }

    fn is_valid(&self, now: Duration) -> bool {
        match self {
            Self::Certificate(one) => one.not_before() <= now && now < one.not_after(),
            Self::Secret(_) | Self::Assertion(_) => true,
        }
    }
}

/// Our credentials.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// What the files hold now, newest first.
    listed: Vec<Arc<Material>>,
    /// What gave the last token, where the files do not hold it any more.
    replaced: Option<Arc<Material>>,
    proved: Option<Arc<Material>>,
}

impl Candidates {
    /// The files hold these now, newest first. Whether they did not hold one of them before.
    pub fn replace(&mut self, held: Vec<Material>) -> bool {
        let before = std::mem::take(&mut self.listed);
        let mut is_new = false;
        for material in held {
            let known = before.iter().find(|one| one.is_same(&material)).cloned();
            is_new |= known.is_none();
            self.listed
                .push(known.unwrap_or_else(|| Arc::new(material)));
        }
        let proved = self.proved.clone();
        self.replaced = proved.filter(|proved| !self.listed.iter().any(|one| one.is_same(proved)));
        is_new
    }

    /// What to present, the best first: valid ones before those that are not, as Entra's clock counts.
    pub fn in_order(&self, now: Duration) -> Vec<Arc<Material>> {
        let mut order: Vec<_> = self.listed.iter().chain(&self.replaced).cloned().collect();
        order.sort_by_key(|one| !one.is_valid(now));
        order
    }

    /// This one gave a token.
    pub fn proved(&mut self, material: &Arc<Material>) {
        let is_listed = self.listed.iter().any(|one| one.is_same(material));
        if is_listed {
            self.replaced = None;
        }
        self.proved = Some(Arc::clone(material));
    }

    /// Whether there is none at all.
    pub const fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.replaced.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Material {
        Material::Secret(text.into())
    }

    fn order(candidates: &Candidates) -> Vec<String> {
        let order = candidates.in_order(Duration::ZERO);
        order
            .iter()
            .map(|one| match &**one {
                Material::Secret(text) => text.expose_secret().to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_old_one_stays_until_the_new_one_gave_a_token() {
        let mut candidates = Candidates::default();
        assert!(candidates.is_empty());
        assert!(candidates.replace(vec![secret("a")]));
        assert!(!candidates.replace(vec![secret("a")]));
        candidates.proved(&candidates.in_order(Duration::ZERO)[0].clone());
        assert!(candidates.replace(vec![secret("b")]));
        assert_eq!(order(&candidates), ["b", "a"]);
        // Another mistake before the good one: what works is still there.
        assert!(candidates.replace(vec![secret("c")]));
        assert_eq!(order(&candidates), ["c", "a"]);
        candidates.proved(&candidates.in_order(Duration::ZERO)[1].clone());
        assert_eq!(order(&candidates), ["c", "a"]);
        candidates.proved(&candidates.in_order(Duration::ZERO)[0].clone());
        assert_eq!(order(&candidates), ["c"]);
        assert!(candidates.replace(vec![secret("d")]));
        assert_eq!(order(&candidates), ["d", "c"]);
    }

    #[test]
    fn what_never_worked_is_not_kept() {
        let mut candidates = Candidates::default();
        candidates.replace(vec![secret("a")]);
        candidates.replace(vec![secret("b")]);
        assert_eq!(order(&candidates), ["b"]);
    }
}
