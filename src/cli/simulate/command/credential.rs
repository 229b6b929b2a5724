//! `lanyard simulate` commands that change an application's credentials while the simulator runs.
//!
//! In: flags, files named by them. Out: one request over the control socket; what was added is printed by the id that
//! the journal uses. A secret's text is read from a file or standard input and printed nowhere.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::Control;
use crate::sim::secret_id;
use crate::sim::world::{FederatedCredential, Issuer, Secret};

/// Commands about credentials.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Print what an application or identity may prove itself by, as JSON; never a secret.
    Credentials {
        #[command(flatten)]
        control: Control,
        /// Name of the application or identity.
        name: String,
    },
    /// Accept a secret of an application, beside the others; prints its id.
    AddSecret {
        #[command(flatten)]
        control: Control,
        /// Name of the application.
        application: String,
        /// File with the secret; `-` reads standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// From this instant on it is refused as expired (`2030-01-01T00:00:00Z`).
        #[arg(long, value_name = "TIME")]
        expires: Option<jiff::Timestamp>,
    },
    /// Refuse a secret of an application.
    RevokeSecret {
        #[command(flatten)]
        control: Control,
        /// Name of the application.
        application: String,
        /// Its id, as `add-secret` and the journal have it; or, with --file, left out.
        #[arg(required_unless_present = "file")]
        id: Option<String>,
        /// File with the secret.
        #[arg(long, value_name = "FILE", conflicts_with = "id")]
        file: Option<PathBuf>,
    },
    /// Register a certificate (PEM) with an application; prints its thumbprint.
    AddCertificate {
        #[command(flatten)]
        control: Control,
        /// Name of the application.
        application: String,
        /// PEM file.
        file: PathBuf,
    },
    /// Refuse a certificate of an application.
    RevokeCertificate {
        #[command(flatten)]
        control: Control,
        /// Name of the application.
        application: String,
        /// SHA-1 thumbprint, as `add-certificate` prints it.
        thumbprint: String,
    },
    /// Take tokens of another issuer for an application or identity.
    AddFederated(Federated),
    /// Take them no more.
    RemoveFederated {
        #[command(flatten)]
        control: Control,
        /// Name of the application or identity.
        from: String,
        /// Name of the federated credential.
        name: String,
    },
    /// Say how an issuer of federated tokens is reached; its keys are fetched anew.
    TrustIssuer(Trusted),
}

/// Flags of `add-federated`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Federated {
    #[command(flatten)]
    control: Control,
    /// Name of the application or identity.
    to: String,
    /// Name of the federated credential; one of that name is replaced.
    name: String,
    /// `iss` of the tokens.
    #[arg(long)]
    issuer: String,
    /// `sub` of the tokens.
    #[arg(long)]
    subject: String,
    /// What `aud` must hold one of; may be repeated.
    #[arg(long, default_value = "api://AzureADTokenExchange")]
    audience: Vec<String>,
}

/// Flags of `trust-issuer`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Trusted {
    #[command(flatten)]
    control: Control,
    /// `iss` of its tokens.
    issuer: String,
    /// Address to fetch /.well-known/openid-configuration from instead of the issuer's name.
    #[arg(long, value_name = "URL")]
    discovery: Option<String>,
    /// Address of its keys instead of what the discovery document says.
    #[arg(long, value_name = "URL")]
    keys: Option<String>,
    /// PEM file with the authorities that vouch for its TLS.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Credentials { control, name } => {
                let list = control.client().credentials(&name).await?;
                println!("{}", serde_json::to_string_pretty(&list)?);
            }
            Self::AddSecret {
                control,
                application,
                file,
                expires,
            } => {
                let value = secret(&file)?;
                let secret = Secret { value, expires };
                let id = control.client().add_secret(&application, &secret).await?;
                println!("{id}");
            }
            Self::RevokeSecret {
                control,
                application,
                id,
                file,
            } => {
                let id = match file {
                    Some(file) => secret_id(&secret(&file)?),
                    None => id.unwrap_or_default(),
                };
                control.client().revoke_secret(&application, &id).await?;
            }
            Self::AddCertificate {
                control,
                application,
                file,
            } => {
                let client = control.client();
                println!(
                    "{}",
                    client.add_certificate(&application, &read(&file)?).await?
                );
            }
            Self::RevokeCertificate {
                control,
                application,
                thumbprint,
            } => {
                let client = control.client();
                client.revoke_certificate(&application, &thumbprint).await?;
            }
            Self::AddFederated(flags) => flags.run().await?,
            Self::RemoveFederated {
                control,
                from,
                name,
            } => control.client().remove_federated(&from, &name).await?,
            Self::TrustIssuer(flags) => flags.run().await?,
        }
        Ok(())
    }
}

impl Federated {
    async fn run(self) -> anyhow::Result<()> {
        let credential = FederatedCredential {
            name: self.name,
            issuer: self.issuer,
            subject: self.subject,
            audiences: self.audience,
        };
        let client = self.control.client();
        Ok(client.add_federated(&self.to, &credential).await?)
    }
}

impl Trusted {
    async fn run(self) -> anyhow::Result<()> {
        let issuer = Issuer {
            issuer: self.issuer,
            discovery: self.discovery,
            keys: self.keys,
            ca_file: None,
            ca_pem: self.ca_file.as_deref().map(read).transpose()?,
        };
        Ok(self.control.client().trust_issuer(&issuer).await?)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// A secret's text without the line end that editors and `echo` leave.
fn secret(file: &Path) -> anyhow::Result<String> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.context("cannot read the secret from standard input")?;
        text
    } else {
        read(file)?
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
