//! Writes many objects at the same time.
//!
//! In: how many, and a request for each number. Out: all of them done. Blocks until then; what the API server
//! refuses is tried a few times (it learns of service accounts a little late) and then ends the bench.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Requests at once.
const AT_ONCE: usize = 32;
const TRIES: usize = 5;

/// A client of its own.
pub struct Writer {
    client: kube::Client,
    runtime: Runtime,
}

/// One request.
pub struct Job {
    pub method: &'static str,
    pub path: String,
    pub body: Value,
}

impl Job {
    pub const fn post(path: String, body: Value) -> Self {
        Self {
            method: "POST",
            path,
            body,
        }
    }

    pub const fn delete(path: String) -> Self {
        Self {
            method: "DELETE",
            path,
            body: Value::Null,
        }
    }
}

impl Writer {
    pub fn new(kubeconfig: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
            kube::Client::try_from(config.unwrap()).unwrap()
        });
        Self { client, runtime }
    }

    /// Where what belongs to this process runs, too.
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Sends the requests of all numbers below `count`.
    pub fn all(&self, count: usize, job: impl Fn(usize) -> Job + Send + Sync + 'static) {
        let (next, job) = (Arc::new(AtomicUsize::new(0)), Arc::new(job));
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..AT_ONCE {
                let (client, next, job) = (self.client.clone(), next.clone(), job.clone());
                tasks.spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            break;
                        }
                        send(&client, &job(number)).await;
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        });
    }

    /// Sends one request.
    pub fn one(&self, job: &Job) -> Value {
        let text = self.runtime.block_on(send(&self.client, job));
        serde_json::from_str(&text).unwrap()
    }

    /// Reads an object or a list.
    pub fn get(&self, path: &str) -> Value {
        self.one(&Job {
            method: "GET",
            path: path.to_owned(),
            body: Value::Null,
        })
    }
}

async fn send(client: &kube::Client, job: &Job) -> String {
    let kind = if job.method == "PATCH" {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    for attempt in 1.. {
        let body = match &job.body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let request = Request::builder()
            .method(job.method)
            .uri(&job.path)
            .header("Content-Type", kind)
            .body(body)
            .unwrap();
        match client.request_text(request).await {
            Ok(answer) => return answer,
            Err(error) if attempt == TRIES => panic!("{} {}: {error}", job.method, job.path),
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
    unreachable!("the last attempt ends it")
}
