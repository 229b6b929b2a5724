//! `lanyard hold`: keeps the agent's listeners inside pods open while no agent runs, for some seconds.
//!
//! A listening socket ends with the last process that has it, and then its pod is refused. Here is a second one: the
//! kernel goes on to accept connections, they wait in its queue, and the agent that starts again answers them. It knows
//! nothing of pods and may do nothing on the node: it is given open sockets with names, and gives them back.
//!
//! The agent's side is `agent::inside::held`.

mod keep;
mod packet;

pub use self::keep::run;
pub use self::packet::Packet;
