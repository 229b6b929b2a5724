//! What can be found out from inside a container with no shell: is this pod intercepted, and is the
//! agent well.
//!
//! In: addresses, a socket's path. Out: a [`Report`], or one page of the agent. Blocks on the network
//! with a deadline for each question, on the calling thread: such a command has to start within
//! milliseconds. It knows the protocol and nothing of the agent's insides. Invariant 4: a token that
//! is got is judged and dropped, it is never shown.

mod checks;
mod exchange;
mod judge;
mod report;
mod token;

pub use checks::{Targets, Wanted, run};
pub use exchange::{Answered, Request, page};
pub use report::{Check, Expectation, Outcome, Report, Verdict};
pub use token::Shown;
