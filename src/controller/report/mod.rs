//! What is told to people: statuses and conditions of our kinds, and Events on the object concerned.
//!
//! In: what was observed, what is wanted, what became of it. Out: [`Drafts`] and Events, worked out by
//! pure steps; the [`Reporter`] brings them to the API server, one object at a time and each at most
//! once in ten seconds, unless the agents wait for it. Nothing here decides anything: without it pods
//! would get their tokens all the same, where the objects state their ids.

mod binding;
mod desk;
mod draft;
mod facts;
mod happenings;
mod identity;
mod ids;
mod policy;
mod reach;
mod reporter;
mod standing;
mod verdict;
mod write;

pub use draft::{Draft, Drafts, Verdict, drafts};
pub use reporter::{REPORTER, Reporter};

#[cfg(test)]
mod tests;
