//! The only place with flags, environment names and their defaults: one file per subcommand.

pub mod admission;
pub mod agent;
pub mod controller;
pub mod crds;
pub mod demo;
pub mod dev;
pub mod duration;
pub mod explain;
pub mod health;
pub mod hold;
mod host_token;
mod hosts;
pub mod identities;
pub mod output;
pub mod probe;
mod runtime;
pub mod simulate;
pub mod suggest;
pub mod uninstall;

use clap::{Parser, Subcommand};

/// Every pod its own Azure managed identity.
#[derive(Debug, Parser)]
#[command(name = "lanyard", version, about, propagate_version = true)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Intercept pods' requests to the metadata address of this node and answer them with their own identity's token.
    Agent(Box<agent::Args>),
    /// Keep the listeners that an agent has inside pods open while it starts again, so that no request is refused meanwhile.
    Hold(hold::Args),
    /// Put identities on the virtual machines and scale sets whose pods may use them, and say on the objects how far that is.
    Controller(Box<controller::Args>),
    /// Admission webhooks: keep agents to service account tokens of their own node's pods; give pods App Service's variables.
    Admission(admission::Args),
    /// Say why a pod gets what it gets, step by step, and what to change.
    Explain(Box<explain::Args>),
    /// List all identities with their ids, where they are, and what is missing.
    Identities(identities::Args),
    /// Print what the traffic that agents observed would need: identities, bindings, policies, exceptions.
    Suggest(suggest::Args),
    /// Remove exactly what the agent put on this node: its iptables rules and its address.
    Uninstall(uninstall::Args),
    /// From inside a pod: are its metadata requests intercepted, and does anything of the node leak?
    Probe(probe::Args),
    /// Ask the agent in this container whether it is alive, or ready: for exec probes.
    Health(health::Args),
    /// Azure as a node sees it, on this machine: IMDS, Entra ID and a Key Vault, described by a YAML file.
    Simulate(simulate::Args),
    /// Show the whole job on this machine, without a cluster: simulator, agent, controller, pods.
    Demo(demo::Args),
    /// Run a program of yours as if in a pod with an identity: it finds a (simulated) token at 169.254.169.254.
    Dev(dev::Args),
    /// Print the kinds of lanyard.dev as custom resource definitions (YAML).
    Crds(crds::Args),
}
