//! What a pod asks the broker for: one value, so that what a token depends on is never an argument more.

use crate::model::grant::{Asker, Grant};

/// One request for a token.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The identity that selection decided on.
    pub grant: &'a Grant,
    /// The audience, byte for byte as the pod wrote it.
    pub resource: &'a str,
    /// Who asks.
    pub asker: &'a Asker,
    /// A resource's challenge to pass on (`claims`, JSON); its token is for this answer only.
    pub claims: Option<&'a str>,
    /// `bypass_cache=true`: a new token, which takes the place of the cached one.
    pub bypass_cache: bool,
}

impl<'a> Request<'a> {
    /// The usual request: any token that is valid for long.
    #[must_use]
    pub const fn new(grant: &'a Grant, resource: &'a str, asker: &'a Asker) -> Self {
        Self {
            grant,
            resource,
            asker,
            claims: None,
            bypass_cache: false,
        }
    }

    /// Whether what is cached will not do.
    #[must_use]
    pub const fn is_anew(&self) -> bool {
        self.bypass_cache || self.claims.is_some()
    }
}
