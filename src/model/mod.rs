//! Nouns: values without IO, clock or framework. Nothing here can block or fail, except parsing.

pub mod account;
pub mod backoff;
pub mod compute;
pub mod conditions;
pub mod escape;
pub mod facts;
pub mod fault;
pub mod grant;
pub mod ids;
pub mod managed;
pub mod path;
pub mod presented;
pub mod query;
pub mod token;
