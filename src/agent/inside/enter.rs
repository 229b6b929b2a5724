//! Into a pod's network namespace and out again: a thread of its own, which ends.
//!
//! In: a namespace, work. Out: what the work gave; sockets that it opened live in the namespace. Holds that no thread
//! that does anything else is ever in a pod's namespace, and that few are at a time.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns};
use tokio::sync::{Semaphore, oneshot};

use super::namespace::Namespace;

/// Threads at once.
static PLACES: Semaphore = Semaphore::const_new(8);

/// Does `work` inside.
pub async fn enter<T, W>(namespace: Namespace, work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnOnce() -> io::Result<T> + Send + 'static,
{
    let _place = PLACES.acquire().await.map_err(io::Error::other)?;
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("inside".to_owned());
    thread.spawn(move || {
        // Nobody waits any more: the answer has no reader.
        let _ = sender.send(inside(namespace.into_file(), work));
    })?;
    receiver
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread inside ended badly")))
}

fn inside<T, W>(namespace: File, work: W) -> io::Result<T>
where
    W: AsyncFnOnce() -> io::Result<T>,
{
    setns(&namespace, CloneFlags::CLONE_NEWNET)?;
    drop(namespace);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work())
}
