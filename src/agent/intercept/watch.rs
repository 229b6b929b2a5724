//! Says when somebody may have changed the rules or the address.
//!
//! In: nftables' and rtnetlink's multicast notifications. Out: a wake-up, nothing more; what has
//! changed is found by reading. Blocks until something happens. A lost notification (the kernel
//! reports an overrun) is a wake-up, too, and a broken socket makes the keeper poll.
//! The legacy backend has no notifications: there the keeper polls as well.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use rtnetlink::MulticastGroup;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::backend::Backend;

/// linux/netfilter/nfnetlink.h
const NFNLGRP_NFTABLES: u32 = 7;
const ENOBUFS: i32 = 105;
/// Longest time for which a row of changes is taken as one.
const GATHER_AT_MOST: Duration = Duration::from_millis(150);

/// The sockets.
pub struct Watch {
    rules: Option<TokioSocket>,
    addresses: Option<(BoxStream<'static, ()>, AbortOnDropHandle<()>)>,
}

impl Watch {
    /// Subscribes to what can be had.
    pub fn open(backend: Backend) -> Self {
        let rules = match backend {
            Backend::Nft => subscribe_rules()
                .inspect_err(|error| tracing::warn!(%error, "no nftables notifications: polling"))
                .ok(),
            Backend::Legacy => None,
        };
        let addresses = subscribe_addresses()
            .inspect_err(|error| tracing::warn!(%error, "no address notifications: polling"))
            .ok();
        Self { rules, addresses }
    }

    /// Whether a change of the rules wakes.
    pub fn notifies(&self) -> bool {
        self.rules.is_some() && self.addresses.is_some()
    }

    /// Waits for a change, and then until `quiet` has passed without another (within bounds).
    pub async fn changed(&mut self, quiet: Duration) {
        self.next().await;
        let end = Instant::now() + GATHER_AT_MOST.max(quiet);
        loop {
            let until = (Instant::now() + quiet).min(end);
            if timeout_at(until, self.next()).await.is_err() {
                return;
            }
            if Instant::now() >= end {
                return sleep_until(end).await;
            }
        }
    }

    async fn next(&mut self) {
        let rules = async {
            match &mut self.rules {
                None => std::future::pending().await,
                Some(socket) => socket.recv_from_full().await.map(drop),
            }
        };
        let addresses = async {
            match &mut self.addresses {
                None => std::future::pending().await,
                Some((messages, _)) => messages.next().await,
            }
        };
        tokio::select! {
            received = rules => match received {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(error) => {
                    tracing::warn!(%error, "nftables notifications ended: polling");
                    self.rules = None;
                }
            },
            message = addresses => if message.is_none() {
                tracing::warn!("address notifications ended: polling");
                self.addresses = None;
            },
        }
    }
}

fn subscribe_rules() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
    Ok(socket)
}

fn subscribe_addresses() -> io::Result<(BoxStream<'static, ()>, AbortOnDropHandle<()>)> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Link];
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    Ok((
        messages.map(drop).boxed(),
        AbortOnDropHandle::new(tokio::spawn(connection)),
    ))
}
