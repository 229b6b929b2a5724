//! A real API server for these tests: etcd and kube-apiserver on the loopback of namespaces of
//! their own, with the kinds that the chart carries.
//!
//! In: the Kubernetes programs (built once, cached outside the tree). Out: a client that may
//! everything. Blocks for a few seconds. Invariant: nothing outlives the process, nothing is on the
//! machine's network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use kube::config::AuthInfo;
use lanyard::lab::LAB_DIR;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const URL: &str = "https://127.0.0.1:6443";
pub const TOKEN: &str = "of-the-tests";
/// How long the server may take to be ready on a loaded machine.
const START: Duration = Duration::from_mins(1);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The running server.
pub struct Server {
    client: kube::Client,
    runtime: tokio::runtime::Runtime,
    programs: PathBuf,
    folder: PathBuf,
    parts: Mutex<Vec<Child>>,
}

/// Why the server refused.
#[derive(Debug)]
pub struct Refused {
    /// Field and words, one for each cause.
    pub causes: Vec<(String, String)>,
    /// All of it as one text.
    pub message: String,
}

impl Server {
    /// Starts it, and gives it the kinds. The process is the first one of its lab.
    pub fn start() -> Self {
        let programs = crate::cached::kubernetes();
        let folder = Path::new(LAB_DIR).join("apiserver");
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("public.pem"), key.public_key_pem()).unwrap();
        std::fs::write(
            folder.join("tokens.csv"),
            format!("{TOKEN},tests,tests,system:masters"),
        )
        .unwrap();
        std::fs::write(folder.join("kubeconfig"), kubeconfig(TOKEN)).unwrap();
        let parts = vec![
            spawn(&folder, "etcd", Path::new("etcd"), &ETCD, &[]),
            spawn(
                &folder,
                "kube-apiserver",
                &programs.join("kube-apiserver"),
                &APISERVER,
                &[],
            ),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = {
            let _inside = runtime.enter();
            client(TOKEN, None)
        };
        let server = Self {
            client,
            runtime,
            programs,
            folder,
            parts: Mutex::new(parts),
        };
        server.wait("/readyz");
        let kinds = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lanyard/files/crds");
        server.kubectl(&["apply", "--server-side", "-f", kinds]);
        server.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
            "--all",
        ]);
        for (plural, ..) in crate::objects::KINDS {
            server.wait(&format!("/apis/lanyard.dev/v1alpha1/{plural}"));
        }
        // Established is not yet described: kubectl's words come from there.
        for (plural, ..) in crate::objects::KINDS {
            server.patiently(plural, || {
                server.try_kubectl(&["explain", plural]).map(drop)
            });
        }
        server.kubectl(&["create", "namespace", "shop"]);
        server
    }

    /// Sends an object (or nothing) to a path, as who may everything.
    pub fn send(&self, method: &str, path: &str, object: &Value) -> Result<Value, Refused> {
        self.send_as(&self.client, method, path, object)
    }

    /// Creates an object, which is to succeed.
    pub fn made(&self, collection: &str, object: &Value) -> Value {
        self.send("POST", collection, object)
            .unwrap_or_else(|refused| panic!("{collection}: {}", refused.message))
    }

    /// Creates objects, so many at once; each one's outcome, in no order.
    pub fn many(
        &self,
        collection: &str,
        objects: Vec<Value>,
        at_once: usize,
    ) -> Vec<Result<Value, Refused>> {
        let turns = Arc::new(Semaphore::new(at_once));
        self.runtime.block_on(async {
            let mut creations = JoinSet::new();
            for object in objects {
                let (client, turns) = (self.client.clone(), turns.clone());
                let path = collection.to_owned();
                creations.spawn(async move {
                    let _turn = turns.acquire_owned().await.unwrap();
                    asked(&client, "POST", &path, &object).await
                });
            }
            creations.join_all().await
        })
    }

    /// `kubectl apply` of these documents.
    pub fn apply(&self, documents: &str) {
        let name = format!("{}.yaml", fastrand::u64(..));
        let file = self.file(&name, documents.as_bytes()).display().to_string();
        self.kubectl(&["apply", "--server-side", "-f", &file]);
    }

    /// A client with somebody else's token.
    pub fn client(&self, token: &str) -> kube::Client {
        let _inside = self.runtime.enter();
        client(token, None)
    }

    /// A client that is taken for that user, who may everything.
    pub fn client_as(&self, user: &str) -> kube::Client {
        let _inside = self.runtime.enter();
        client(TOKEN, Some(user))
    }

    /// A file of this server's folder: the name is its own.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Where a file of that name is.
    pub fn kubeconfig_path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A kubeconfig with that token.
    pub fn kubeconfig(&self, name: &str, token: &str) -> PathBuf {
        self.file(name, kubeconfig(token).as_bytes())
    }

    /// Starts a program beside the server; it ends with this process, or before.
    pub fn beside(&self, name: &str, program: &Path, args: &[&str]) -> Child {
        // The way to Entra, where there is one, is not the way to the API server.
        let proxy = ("HTTPS_PROXY", "http://127.0.0.1:9");
        spawn(&self.folder, name, program, args, &[proxy])
    }

    /// A file of this server's folder.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    /// Meanwhile the server takes connections, and answers nobody.
    pub fn silent<T>(&self, look: impl FnOnce() -> T) -> T {
        struct Silent(Pid);
        impl Drop for Silent {
            fn drop(&mut self) {
                kill(self.0, Signal::SIGCONT).unwrap();
            }
        }
        let apiserver = self.parts.lock()[1].id();
        let silent = Silent(Pid::from_raw(apiserver.cast_signed()));
        kill(silent.0, Signal::SIGSTOP).unwrap();
        let looked = look();
        drop(silent);
        looked
    }

    /// What a program of [`Server::beside`] has said.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Sends an object (or nothing) to a path by that client.
    pub fn send_as(
        &self,
        client: &kube::Client,
        method: &str,
        path: &str,
        object: &Value,
    ) -> Result<Value, Refused> {
        self.runtime.block_on(asked(client, method, path, object))
    }

    /// Runs kubectl; what it prints.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args)
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.programs.join("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.folder.join("kubeconfig"));
        // No cache: what it once did not find it is to find later.
        command
            .arg("--cache-dir")
            .arg(self.folder.join(format!("cache-{}", fastrand::u64(..))));
        let Output {
            status,
            stdout,
            stderr,
        } = command.args(args).output().unwrap();
        if status.success() {
            return Ok(String::from_utf8(stdout).unwrap());
        }
        Err(String::from_utf8_lossy(&stderr).into_owned())
    }

    /// Waits until a path answers.
    pub fn wait(&self, path: &str) {
        self.patiently(path, || {
            let answer = self.runtime.block_on(async {
                let request = Request::get(path).body(Vec::new()).unwrap();
                tokio::time::timeout(Duration::from_secs(5), self.client.request_text(request))
                    .await
            });
            match answer {
                Ok(Ok(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Tries until it works; not for ever, and not when a part of the server has ended.
    pub fn patiently(&self, what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
        let deadline = Instant::now() + START;
        while let Err(problem) = attempt() {
            let ended = self
                .parts
                .lock()
                .iter_mut()
                .any(|part| !matches!(part.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.join("kube-apiserver.log"))
                    .unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(10).collect();
                panic!("{what}: {problem}\n{}", last.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

const ETCD: [&str; 6] = [
    "--data-dir=etcd",
    "--listen-client-urls=http://127.0.0.1:2379",
    "--advertise-client-urls=http://127.0.0.1:2379",
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--initial-advertise-peer-urls=http://127.0.0.1:2380",
    "--initial-cluster=default=http://127.0.0.1:2380",
];

const APISERVER: [&str; 12] = [
    "--etcd-servers=http://127.0.0.1:2379",
    "--bind-address=127.0.0.1",
    "--advertise-address=127.0.0.1",
    "--secure-port=6443",
    "--cert-dir=certificates",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-account-key-file=public.pem",
    "--service-account-signing-key-file=key.pem",
    "--service-cluster-ip-range=10.96.0.0/16",
    "--token-auth-file=tokens.csv",
    "--authorization-mode=RBAC",
    // etcd of Debian 12 is older than what the server would ask it.
    "--feature-gates=SizeBasedListCostEstimate=false",
];

fn client(token: &str, user: Option<&str>) -> kube::Client {
    let mut config = kube::Config::new(URL.parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info = AuthInfo {
        token: Some(token.to_owned().into()),
        impersonate: user.map(str::to_owned),
        impersonate_groups: user.map(|_| vec!["system:masters".to_owned()]),
        ..AuthInfo::default()
    };
    kube::Client::try_from(config).unwrap()
}

async fn asked(
    client: &kube::Client,
    method: &str,
    path: &str,
    object: &Value,
) -> Result<Value, Refused> {
    let body = if object.is_null() {
        Vec::new()
    } else {
        object.to_string().into_bytes()
    };
    let kind = if method == "PATCH" {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", kind)
        .body(body)
        .unwrap();
    let answer = tokio::time::timeout(ANSWER, client.request_text(request)).await;
    match answer.unwrap_or_else(|_| panic!("{method} {path}: no answer within {ANSWER:?}")) {
        Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            Err(Refused {
                causes: causes
                    .map(|cause| (cause.field.clone(), cause.message.clone()))
                    .collect(),
                message: status.message.clone(),
            })
        }
        Err(error) => panic!("{method} {path}: {error}"),
    }
}

fn spawn(
    folder: &Path,
    name: &str,
    program: &Path,
    args: &[&str],
    variables: &[(&str, &str)],
) -> Child {
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.envs(variables.iter().copied());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|error| {
        panic!(
            "{}: {error}. `make programs` installs etcd and builds the others",
            program.display()
        )
    })
}

fn kubeconfig(token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
         clusters: [{{name: tests, cluster: {{server: \"{URL}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: tests, user: {{token: {token}}}}}]\n\
         contexts: [{{name: tests, context: {{cluster: tests, user: tests}}}}]\n"
    )
}
