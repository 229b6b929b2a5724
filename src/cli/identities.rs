//! Flags of `lanyard identities`, and where it reads the objects from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use kube::api::ListParams;

use super::output::print;
use crate::identities::{Row, json, rows, table};
use crate::kubernetes::{self, Kind};

/// Flags of `lanyard identities`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 all of them are ready (or no controller says), 1 some are not, 2 they cannot be read.\n\n\
Needs to list azureidentities."
)]
pub struct Args {
    /// Those of one namespace; absent: the kubeconfig's current one.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Kubeconfig; absent: as kubectl finds it.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// Forms of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// One JSON list.
    Json,
}

impl Args {
    /// Lists.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let rows = match self.rows() {
            Ok(rows) => rows,
            Err(error) => {
                // Not 1: that would say "not ready".
                eprintln!("lanyard: {error:#}");
                return Ok(ExitCode::from(2));
            }
        };
        match self.output {
            Form::Json => print(&format!("{:#}\n", json(&rows))),
            Form::Table if rows.is_empty() => eprintln!("No AzureIdentity found."),
            Form::Table => print(&table(&rows)),
        }
        let is_ready = |row: &Row| row.ready != Some(false);
        Ok(ExitCode::from(u8::from(!rows.iter().all(is_ready))))
    }

    fn rows(&self) -> anyhow::Result<Vec<Row>> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(async {
                let cluster = kubernetes::connect(self.kubeconfig.as_deref()).await?;
                let current = cluster.client.default_namespace();
                let namespace = self.namespace.as_deref().unwrap_or(current);
                let namespace = (!self.all_namespaces).then_some(namespace);
                let (kind, all) = (Kind::OURS[0], ListParams::default());
                let found = cluster.list(kind, namespace, &all).await;
                Ok(rows(&found.context("cannot list AzureIdentities")?))
            })
    }
}
