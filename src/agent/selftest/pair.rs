//! A veth pair on the host: packets sent out of its pod's end come in at its host's end, as a pod's do.
//!
//! In: the pretended pod's address. Out: the pair with a route and a neighbour entry, for a few
//! milliseconds. Blocks on netlink. Invariants: nothing of it is left when [`Pair::remove`] was
//! called; what a killed process left is found by its name and removed by the next.
//!
//! The neighbour's MAC is not that of the pod's end. So the kernel, which owns that end, too, takes
//! what arrives there for somebody else's and drops it, where it would otherwise route the answer back
//! and forth; a packet socket sees it all the same.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// The end at which packets come in.
const HOST_END: &str = "lanyard-st0";
/// The end out of which they are sent.
pub(super) const POD_END: &str = "lanyard-st1";
/// Locally administered; given at birth, so that no udev rule changes it.
pub(super) const HOST_MAC: [u8; 6] = [0x02, 0x4C, 0x59, 0x44, 0, 1];
/// The pretended pod's.
pub(super) const POD_MAC: [u8; 6] = [0x02, 0x4C, 0x59, 0x44, 0, 2];

const EEXIST: i32 = -17;
const ENODEV: i32 = -19;
/// A pair that stands for longer is nobody's.
const LEFT_OVER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// The pair, up and with a way back.
pub(super) struct Pair {
    handle: Handle,
    _connection: AbortOnDropHandle<()>,
}

impl Pair {
    /// Makes it. Waits for another instance's to go away; one that does not is a left-over.
    pub async fn make(pod: Ipv4Addr) -> io::Result<Self> {
        let pair = Self::open()?;
        let began = Instant::now();
        while let Err(error) = pair.add().await {
            match code(&error) {
                Some(EEXIST) if began.elapsed() < LEFT_OVER => sleep(PAUSE).await,
                Some(EEXIST) => pair.remove().await?,
                _ => return Err(said("making a veth pair", &error)),
            }
        }
        let finished = pair.finish(pod).await;
        if finished.is_err() {
            pair.remove().await?;
        }
        finished.map(|()| pair)
    }

    /// Takes away what a killed process left; whether there was anything.
    pub async fn remove_left_over() -> io::Result<bool> {
        let pair = Self::open()?;
        if pair.index().await?.is_none() {
            return Ok(false);
        }
        pair.remove().await.map(|()| true)
    }

    fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        })
    }

    async fn add(&self) -> Result<(), rtnetlink::Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(POD_END)
            .build();
        let pair = LinkVeth::new(HOST_END, POD_END)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(HOST_MAC.to_vec())
            .build();
        self.handle.link().add(pair).execute().await
    }

    /// The way back. The route also makes a strict reverse-path filter accept the pod's packets.
    async fn finish(&self, pod: Ipv4Addr) -> io::Result<()> {
        let gone = || io::Error::other(format!("{HOST_END} is gone as soon as it was made"));
        let index = self.index().await?.ok_or_else(gone)?;
        for end in [HOST_END, POD_END] {
            let up = LinkUnspec::new_with_name(end).up().build();
            let set = self.handle.link().set(up).execute().await;
            set.map_err(|error| said("setting a veth pair up", &error))?;
        }
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(pod, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        let added = self.handle.route().add(route).execute().await;
        added.map_err(|error| said("adding a route", &error))?;
        let neighbour = self.handle.neighbours().add(index, IpAddr::V4(pod));
        let added = neighbour.link_layer_address(&POD_MAC).execute().await;
        added.map_err(|error| said("adding a neighbour", &error))
    }

    /// Takes it away; route and neighbour go with it.
    pub async fn remove(&self) -> io::Result<()> {
        let Some(index) = self.index().await? else {
            return Ok(());
        };
        match self.handle.link().del(index).execute().await {
            Err(error) if code(&error) != Some(ENODEV) => Err(said("removing a veth pair", &error)),
            _ => Ok(()),
        }
    }

    async fn index(&self) -> io::Result<Option<u32>> {
        let found = self.handle.link().get().match_name(HOST_END).execute();
        match found.try_collect::<Vec<_>>().await {
            Ok(links) => Ok(links.first().map(|link| link.header.index)),
            Err(error) if code(&error) == Some(ENODEV) => Ok(None),
            Err(error) => Err(said("looking for a veth pair", &error)),
        }
    }
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.code.map(std::num::NonZero::get),
        _ => None,
    }
}

fn said(what: &str, error: &rtnetlink::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}
