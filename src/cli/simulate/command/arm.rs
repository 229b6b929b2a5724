//! `lanyard simulate` commands about what Azure Resource Manager holds.
//!
//! In: flags. Out: one request over the control socket. These are the things that happen behind a controller's back: drift,
//! identities that die, operations that hang, node pools that grow, rights that are granted.

use std::str::FromStr;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::Control;
use crate::sim::arm::{Failure, Operations, Poison, ProvisioningState};
use crate::sim::world::{Instance, Role, RoleAssignment, ScaleSet, Vm};

/// Commands about ARM.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Print machines, scale sets and identities with what is assigned, as JSON.
    Resources {
        #[command(flatten)]
        control: Control,
    },
    /// Add a virtual machine, or replace the one with its resource id.
    AddVm(NewCompute),
    /// Add a scale set, or replace the one with its resource id.
    AddScaleSet(NewCompute),
    /// Replace the machines of a scale set; what it carries stays.
    Scale {
        #[command(flatten)]
        control: Control,
        /// Name of the scale set.
        name: String,
        /// A machine: its name, and the addresses that are it; may be repeated.
        #[arg(long, value_name = "NAME=NETWORK")]
        instance: Vec<Written>,
    },
    /// Delete a virtual machine or scale set, with an operation that runs on it.
    DeleteCompute {
        #[command(flatten)]
        control: Control,
        /// Its name.
        name: String,
    },
    /// Delete a resource group with all that is in it.
    DeleteGroup {
        #[command(flatten)]
        control: Control,
        /// Its resource id.
        id: String,
    },
    /// Set how long writes to a machine or scale set take from now on; without a flag as the world says.
    Operations {
        #[command(flatten)]
        control: Control,
        /// Its name.
        name: String,
        /// This long (`10m`); `0s` is answered at once.
        #[arg(long, value_name = "TIME")]
        duration: Option<jiff::SignedDuration>,
        /// Until they are released.
        #[arg(long, conflicts_with = "duration")]
        hold: bool,
    },
    /// End the operation that runs on a machine or scale set.
    Release {
        #[command(flatten)]
        control: Control,
        /// Its name.
        name: String,
        /// Let it fail with this code.
        #[arg(long, value_name = "CODE")]
        fail: Option<String>,
        /// The words that go with the code.
        #[arg(long, requires = "fail", default_value = "A command failed it.")]
        message: String,
    },
    /// Set the provisioning state of a machine or scale set, as if somebody else were at work on it.
    SetState {
        #[command(flatten)]
        control: Control,
        /// Its name.
        name: String,
        /// The state.
        state: StateName,
    },
    /// Take an identity off a machine or scale set, behind everybody's back.
    Unassign {
        #[command(flatten)]
        control: Control,
        /// Name of the machine or scale set.
        name: String,
        /// Name or resource id of the identity.
        identity: String,
    },
    /// Make a user-assigned identity; prints its name.
    PutIdentity {
        #[command(flatten)]
        control: Control,
        /// Its resource id.
        id: String,
        /// Name by which commands speak of it; the last part of its id where left out.
        #[arg(long)]
        name: Option<String>,
    },
    /// Delete a user-assigned identity; machines keep it, dead.
    DeleteIdentity {
        #[command(flatten)]
        control: Control,
        /// Its name or resource id.
        name: String,
    },
    /// Delete an identity and make one of the same name with other ids; prints them as JSON.
    RecreateIdentity {
        #[command(flatten)]
        control: Control,
        /// Its name or resource id.
        name: String,
    },
    /// Make an identity one that cannot be assigned; without --how mend it.
    Poison {
        #[command(flatten)]
        control: Control,
        /// Its name or resource id.
        name: String,
        /// Whether the refusal names it, names none, or comes at the operation's end.
        #[arg(long)]
        how: Option<How>,
    },
    /// Grant a role; from the first one on, ARM refuses what is not granted.
    Grant(Grant),
    /// Take a role away that was granted in the same words.
    Revoke(Grant),
}

/// Flags of `add-vm` and `add-scale-set`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NewCompute {
    #[command(flatten)]
    control: Control,
    /// Its name.
    name: String,
    /// ARM resource id; made up from the name where left out.
    #[arg(long, value_name = "ID")]
    resource_id: Option<String>,
    /// Azure region.
    #[arg(long, default_value = "westeurope")]
    location: String,
    /// Networks whose addresses are this machine (or machines of this set); may be repeated.
    #[arg(long, value_name = "NETWORK")]
    source: Vec<ipnet::IpNet>,
    /// Name of an identity that it carries; may be repeated.
    #[arg(long, value_name = "NAME")]
    identity: Vec<String>,
    /// A machine of a scale set: its name, and the addresses that are it; may be repeated.
    #[arg(long, value_name = "NAME=NETWORK")]
    instance: Vec<Written>,
}

/// Flags of `grant` and `revoke`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Grant {
    #[command(flatten)]
    control: Control,
    /// Name of an identity or application, or an object id.
    principal: String,
    /// Resource id of a subscription, resource group or resource.
    scope: String,
    /// One of Azure's roles, as "Managed Identity Operator".
    #[arg(long, value_parser = role, required_unless_present = "action")]
    role: Option<Role>,
    /// An action of a role of one's own; may be repeated.
    #[arg(long, conflicts_with = "role")]
    action: Vec<String>,
}

fn role(text: &str) -> Result<Role, String> {
    let known = serde_json::from_value(serde_json::Value::from(text));
    known.map_err(|error| error.to_string())
}

/// `NAME=NETWORK`.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Written(Instance);

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, network) = text.split_once('=').unwrap_or((text, ""));
        let mut sources = Vec::new();
        if !network.is_empty() {
            let parsed = network.parse();
            sources.push(
                parsed.map_err(|_| format!("`{network}` is not a network; say 10.0.0.4/32"))?,
            );
        }
        Ok(Self(Instance {
            name: name.to_owned(),
            sources,
        }))
    }
}

/// A provisioning state.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum StateName {
    Succeeded,
    Updating,
    Failed,
    Deleting,
}

/// How an identity cannot be assigned.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum How {
    Named,
    Unnamed,
    Late,
}

impl NewCompute {
    fn vm(self) -> Vm {
        Vm {
            name: self.name,
            resource_id: self.resource_id,
            sources: self.source,
            location: self.location,
            identities: self.identity,
            system_assigned: None,
            user_data: String::new(),
            custom_data: String::new(),
            scale_set: None,
        }
    }

    fn scale_set(self) -> ScaleSet {
        ScaleSet {
            name: self.name,
            resource_id: self.resource_id,
            location: self.location,
            identities: self.identity,
            system_assigned: None,
            instances: self.instance.into_iter().map(|one| one.0).collect(),
            sources: self.source,
        }
    }
}

impl Grant {
    fn assignment(&self) -> RoleAssignment {
        RoleAssignment {
            principal: self.principal.clone(),
            role: self.role,
            actions: self.action.clone(),
            scope: self.scope.clone(),
        }
    }
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Resources { control } => {
                let resources = control.client().resources().await?;
                println!("{}", serde_json::to_string_pretty(&resources)?);
            }
            Self::AddVm(new) => new.control.client().add_vm(&new.vm()).await?,
            Self::AddScaleSet(new) => {
                let client = new.control.client();
                client.add_scale_set(&new.scale_set()).await?;
            }
            Self::Scale {
                control,
                name,
                instance,
            } => {
                let instances: Vec<Instance> = instance.into_iter().map(|one| one.0).collect();
                control.client().scale(&name, &instances).await?;
            }
            Self::DeleteCompute { control, name } => control.client().delete_compute(&name).await?,
            Self::DeleteGroup { control, id } => control.client().delete_group(&id).await?,
            Self::Operations {
                control,
                name,
                duration,
                hold,
            } => {
                let operations = pace(duration, hold)?;
                control.client().set_operations(&name, operations).await?;
            }
            Self::Release {
                control,
                name,
                fail,
                message,
            } => {
                let failure = fail.map(|code| Failure { code, message });
                control.client().release(&name, failure.as_ref()).await?;
            }
            Self::SetState {
                control,
                name,
                state,
            } => control.client().set_state(&name, state.into()).await?,
            Self::Unassign {
                control,
                name,
                identity,
            } => control.client().unassign(&name, &identity).await?,
            Self::Grant(grant) => grant.control.client().grant(&grant.assignment()).await?,
            Self::Revoke(grant) => grant.control.client().revoke(&grant.assignment()).await?,
            identity => identity.run_identity().await?,
        }
        Ok(())
    }

    /// Those about one identity.
    async fn run_identity(self) -> anyhow::Result<()> {
        match self {
            Self::PutIdentity { control, id, name } => {
                let client = control.client();
                println!("{}", client.put_identity(&id, name.as_deref()).await?);
            }
            Self::DeleteIdentity { control, name } => {
                control.client().delete_identity(&name).await?;
            }
            Self::RecreateIdentity { control, name } => {
                let identity = control.client().recreate_identity(&name).await?;
                println!("{}", serde_json::to_string_pretty(&identity)?);
            }
            Self::Poison { control, name, how } => {
                let poison = how.map(Poison::from);
                control.client().poison(&name, poison).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn pace(duration: Option<jiff::SignedDuration>, hold: bool) -> anyhow::Result<Operations> {
    if hold {
        return Ok(Operations::Hold);
    }
    let Some(duration) = duration else {
        return Ok(Operations::World);
    };
    let milliseconds = Duration::try_from(duration)?.as_millis();
    Ok(Operations::Take {
        milliseconds: u64::try_from(milliseconds)?,
    })
}

impl From<StateName> for ProvisioningState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Succeeded => Self::Succeeded,
            StateName::Updating => Self::Updating,
            StateName::Failed => Self::Failed,
            StateName::Deleting => Self::Deleting,
        }
    }
}

impl From<How> for Poison {
    fn from(how: How) -> Self {
        match how {
            How::Named => Self::Named,
            How::Unnamed => Self::Unnamed,
            How::Late => Self::Late,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_a_name_with_or_without_a_network() {
        let one: Written = "pool_0=10.0.0.4/32".parse().unwrap();
        assert_eq!((one.0.name.as_str(), one.0.sources.len()), ("pool_0", 1));
        let bare: Written = "pool_1".parse().unwrap();
        assert!(bare.0.sources.is_empty());
        assert!("pool_2=here".parse::<Written>().is_err());
    }

    #[test]
    fn roles_have_azures_names() {
        assert_eq!(
            role("Managed Identity Operator"),
            Ok(Role::ManagedIdentityOperator)
        );
        assert!(role("Boss").is_err());
    }
}
