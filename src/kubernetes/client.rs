//! Connects to the API server: by a kubeconfig where one is named, else by the service account of the
//! pod that this process runs in, else by the person's own kubeconfig (as kubectl finds it).

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// One call that is not a watch, with all that the client library retries by itself.
const CALL: Duration = Duration::from_secs(15);

/// A client and the deadline that every call of it has.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: kube::Client,
}

/// Why there is no connection to Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The named kubeconfig cannot be used.
    #[error("--kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// Neither a service account nor a kubeconfig.
    #[error(
        "no way to the Kubernetes API: {0}; inside a pod a service account token must be mounted, elsewhere name --kubeconfig"
    )]
    Nowhere(#[from] kube::config::InferConfigError),
    /// The client cannot be made (TLS, proxy).
    #[error("the Kubernetes client cannot be made: {0}")]
    Client(#[from] kube::Error),
}

/// A call did not come to an end that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server, or the way to it, failed.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer within {} s", CALL.as_secs())]
    Late,
}

impl CallError {
    /// The HTTP status of the API server's refusal; `None`: it did not refuse.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Connects; does not ask the API server anything yet.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Cluster, ConnectError> {
    let mut config = match kubeconfig {
        None => Config::infer().await?,
        Some(path) => named(path)
            .await
            .map_err(|source| ConnectError::Kubeconfig {
                path: path.to_owned(),
                source,
            })?,
    };
    config.connect_timeout = Some(CONNECT);
    // Whoever calls retries by himself, and knows how long he can wait.
    config.default_retry = false;
    Ok(Cluster {
        client: kube::Client::try_from(config)?,
    })
}

async fn named(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let mut clusters = kubeconfig.clusters.iter().flat_map(|one| &one.cluster);
    let proxied = clusters.any(|cluster| cluster.proxy_url.is_some());
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // HTTPS_PROXY is the way to Entra. In a pod the library does not look at it, here it would.
    if !proxied {
        config.proxy_url = None;
    }
    Ok(config)
}

impl Cluster {
    /// One call with its deadline: the client library alone would retry for minutes.
    pub async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(CallError::Late),
        }
    }
}
