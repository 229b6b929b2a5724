//! Connections whose sockets the rules of their own node know: by a mark, and by the group that made them.
//!
//! In: a URI. Out: a connection. A mark alone proves nothing (`NET_RAW` sets any), so a secret group stands beside it. It is the
//! thread's only while a socket may be made: files that a process makes have its group, and `/proc` shows it to everybody.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use nix::unistd::{Gid, setfsgid};
use tower_service::Service;

/// What the sockets of a process are known by on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSockets {
    /// `SO_MARK`. Needs `NET_ADMIN`.
    pub mark: u32,
    /// The group that makes them. Needs `SETGID`.
    pub group: u32,
}

impl OwnSockets {
    /// Whether this process may make such.
    #[must_use]
    pub fn can_be_made(self) -> bool {
        as_group(Some(Gid::from_raw(self.group)), || {
            // It answers with the one before, whatever came of it.
            setfsgid(Gid::from_raw(self.group)).as_raw() == self.group
        })
    }
}

/// Connects by TCP.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    inner: HttpConnector,
    group: Option<Gid>,
}

impl Marked {
    /// A connector that gives up after `limit`.
    pub(super) fn new(own: Option<OwnSockets>, limit: Duration) -> Self {
        let mut inner = HttpConnector::new();
        inner.set_mark(own.map(|own| own.mark));
        inner.set_nodelay(true);
        inner.set_connect_timeout(Some(limit));
        let group = own.map(|own| Gid::from_raw(own.group));
        Self { inner, group }
    }
}

type Connecting = <HttpConnector as Service<Uri>>::Future;

impl Service<Uri> for Marked {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = <Connecting as Future>::Output> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connecting, group) = (self.inner.call(target), self.group);
        Box::pin(async move {
            let mut connecting = pin!(connecting);
            poll_fn(|context| as_group(group, || connecting.as_mut().poll(context))).await
        })
    }
}

/// Does `work`, which waits for nothing, with the files that it makes in that group.
fn as_group<T>(group: Option<Gid>, work: impl FnOnce() -> T) -> T {
    struct Back(Gid);
    impl Drop for Back {
        fn drop(&mut self) {
            setfsgid(self.0);
        }
    }
    let _back = group.map(|group| Back(setfsgid(group)));
    work()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_group_is_the_threads_only_meanwhile() {
        // Its own group: that needs no right.
        let own = nix::unistd::getegid();
        let shown = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let groups = status.lines().find(|line| line.starts_with("Gid:"));
            groups
                .unwrap()
                .split_whitespace()
                .next_back()
                .unwrap()
                .to_owned()
        };
        let before = shown();
        assert_eq!(as_group(Some(own), shown), own.to_string());
        assert_eq!(shown(), before);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(file.as_file().metadata().unwrap().gid(), own.as_raw());
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let other = OwnSockets {
            mark: 0,
            group: 3_000_000_001,
        };
        assert!(other.can_be_made());
        assert_eq!(
            as_group(Some(Gid::from_raw(other.group)), shown),
            "3000000001"
        );
        assert_eq!(shown(), before);
    }
}
