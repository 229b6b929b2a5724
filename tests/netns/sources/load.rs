//! A pod that asks for its token all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::lab::{Get, IMDS, Pod};

use super::RESOURCE;

/// A pod that asks all the time; how often, and what was not a token.
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    work: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    pub fn begin(pod: &Pod) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted, namespace) = (stop.clone(), asked.clone(), pod.namespace().clone());
        let work = tokio::spawn(async move {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match namespace.get(IMDS, &Get::token(RESOURCE)).await {
                    Ok(reply) if reply.status == 200 => {}
                    other => failed.push(format!("{other:?}")),
                }
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            failed
        });
        Self { stop, asked, work }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.work.await?;
        let first = failed.first();
        ensure!(first.is_none(), "{} failed: {first:?}", failed.len());
        Ok(())
    }
}
