//! Keeps the table current: one full reading, then the kernel's notifications.
//!
//! In: rtnetlink dumps and multicasts. Out: changes of the table, and a generation that rises with
//! them. Blocks in its own task only. Invariant: whatever may have been missed (an overrun, a lost
//! socket, routes that the kernel drops without a word) is found by a full reading soon after.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use ipnet::IpNet;
use parking_lot::RwLock;
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::EvidenceError;
use super::table::{Change, Route, Table};

/// A full reading every now and then, for what the kernel does without a word.
const RECHECK: Duration = Duration::from_secs(30);
/// The same after more had happened than could be followed.
const RECHECK_BUSY: Duration = Duration::from_secs(2);
/// Pause after a failed reading.
const RETRY: Duration = Duration::from_secs(1);
/// How many notifications are taken over under one lock.
const BATCH: usize = 64;

/// What a notification means.
enum News {
    Changes(Vec<Change>),
    /// Everything is to be read anew.
    Reread(Reread),
}

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reread {
    /// Something may have happened without a word.
    Silent,
    /// The kernel had more to tell than the socket holds.
    Missed,
}

/// Reads the present state.
pub(super) struct Questions {
    handle: Handle,
}

/// Both conversations: questions, and notifications.
pub(super) struct Kernel {
    pub(super) questions: Questions,
    news: BoxStream<'static, News>,
    _connections: [AbortOnDropHandle<()>; 2],
}

impl Kernel {
    /// Subscribes first, so that nothing between the reading and the first notification is missed.
    pub(super) fn open() -> Result<Self, EvidenceError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
        ];
        let failed = |what| {
            move |error: std::io::Error| EvidenceError {
                what,
                why: error.to_string(),
            }
        };
        let (notifying, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(failed("notifications"))?;
        let (answering, handle, _) = rtnetlink::new_connection().map_err(failed("questions"))?;
        Ok(Self {
            questions: Questions { handle },
            news: messages
                .map(|(message, _)| {
                    let in_place = message.header.flags & NLM_F_REPLACE != 0;
                    news(message.payload, in_place)
                })
                .boxed(),
            _connections: [
                AbortOnDropHandle::new(tokio::spawn(notifying)),
                AbortOnDropHandle::new(tokio::spawn(answering)),
            ],
        })
    }

    /// Follows the notifications for ever.
    pub(super) async fn keep(mut self, table: &RwLock<Table>, risen: &watch::Sender<u64>) {
        let mut recheck = RECHECK;
        loop {
            let reread = match timeout(recheck, self.follow(table, risen)).await {
                Ok(Some(Reread::Silent)) | Err(_) => {
                    recheck = RECHECK;
                    Ok(())
                }
                // What still waits in this socket is from before the gap, and must not be taken
                // over after the reading. While so much happens a reading may have gaps itself.
                Ok(Some(Reread::Missed) | None) => {
                    recheck = RECHECK_BUSY;
                    Self::open().map(|kernel| self = kernel)
                }
            };
            let differs = match reread {
                Ok(()) => self.questions.refresh(table).await,
                Err(error) => Err(error),
            };
            match differs {
                Ok(true) => risen.send_modify(|generation| *generation += 1),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "local evidence is stale; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Takes notifications over until everything is to be read anew; `None`: there are no more.
    async fn follow(
        &mut self,
        table: &RwLock<Table>,
        risen: &watch::Sender<u64>,
    ) -> Option<Reread> {
        let mut batches = self.news.by_ref().ready_chunks(BATCH);
        loop {
            let (mut reread, mut differs) = (None, false);
            let batch = batches.next().await?;
            {
                let mut table = table.write();
                for news in batch {
                    match news {
                        News::Reread(why) => reread = reread.max(Some(why)),
                        News::Changes(changes) => {
                            for change in changes {
                                // Its routes go without a word.
                                if matches!(
                                    change,
                                    Change::LinkGone(_) | Change::Link { up: false, .. }
                                ) {
                                    reread = reread.max(Some(Reread::Silent));
                                }
                                differs |= table.apply(change);
                            }
                        }
                    }
                }
            }
            if differs {
                risen.send_modify(|generation| *generation += 1);
            }
            if reread.is_some() {
                return reread;
            }
        }
    }
}

impl Questions {
    /// Reads everything anew; whether the table differs now.
    pub(super) async fn refresh(&self, table: &RwLock<Table>) -> Result<bool, EvidenceError> {
        let mut fresh = Table::default();
        for change in self.links().await?.into_iter().chain(self.routes().await?) {
            fresh.apply(change);
        }
        for change in self.neighbours().await? {
            fresh.apply(change);
        }
        let mut table = table.write();
        fresh.inherit(table.clone());
        let differs = *table != fresh;
        *table = fresh;
        Ok(differs)
    }

    async fn links(&self) -> Result<Vec<Change>, EvidenceError> {
        let links = self.handle.link().get().execute();
        let links: Vec<_> = links.try_collect().await.map_err(failed("links"))?;
        Ok(links.iter().map(link).collect())
    }

    async fn routes(&self) -> Result<Vec<Change>, EvidenceError> {
        let mut changes = Vec::new();
        for question in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let routes = self.handle.route().get(question).execute();
            let routes: Vec<_> = routes.try_collect().await.map_err(failed("routes"))?;
            changes.extend(routes.iter().flat_map(route).map(Change::Route));
        }
        Ok(changes)
    }

    /// Resolved addresses, and what bridges know of their ports.
    async fn neighbours(&self) -> Result<Vec<Change>, EvidenceError> {
        let mut changes = Vec::new();
        for family in [AddressFamily::Unspec, AddressFamily::Bridge] {
            let get = self.handle.neighbours().get().set_address_family(family);
            let found: Vec<_> = get
                .execute()
                .try_collect()
                .await
                .map_err(failed("neighbours"))?;
            changes.extend(found.iter().filter_map(neighbour));
        }
        Ok(changes)
    }
}

fn failed(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> EvidenceError {
    move |error| EvidenceError {
        what,
        why: error.to_string(),
    }
}

fn news(payload: NetlinkPayload<RouteNetlinkMessage>, in_place: bool) -> News {
    use RouteNetlinkMessage as M;
    let NetlinkPayload::InnerMessage(message) = payload else {
        return News::Reread(Reread::Missed);
    };
    News::Changes(match message {
        M::NewLink(message) => vec![link(&message)],
        M::DelLink(message) => vec![Change::LinkGone(message.header.index)],
        M::NewRoute(message) => {
            let routes = route(&message);
            // `ip route replace`: the one before goes without a word of its own.
            let replaced = routes
                .first()
                .filter(|_| in_place)
                .map(|route| Change::Replaced {
                    to: route.to,
                    metric: route.metric,
                });
            replaced
                .into_iter()
                .chain(routes.into_iter().map(Change::Route))
                .collect()
        }
        M::DelRoute(message) => route(&message).into_iter().map(Change::RouteGone).collect(),
        M::NewNeighbour(message) => neighbour(&message).into_iter().collect(),
        M::DelNeighbour(message) => {
            let gone = |change| match change {
                Change::Neighbour(ifindex, address, _) => {
                    Some(Change::Neighbour(ifindex, address, None))
                }
                // That a bridge forgets is no evidence.
                _ => None,
            };
            neighbour(&message).and_then(gone).into_iter().collect()
        }
        // Routes that preferred this source address go without a word.
        M::DelAddress(_) => return News::Reread(Reread::Silent),
        _ => Vec::new(),
    })
}

fn link(message: &LinkMessage) -> Change {
    let up = message.header.flags.contains(LinkFlags::Up);
    Change::Link {
        ifindex: message.header.index,
        up,
    }
}

/// A unicast route of the main table; one for each next hop.
fn route(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let (mut to, mut ifindex, mut metric, mut table) =
        (None, Vec::new(), 0, u32::from(header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                to = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                to = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Oif(index) => ifindex.push(*index),
            RouteAttribute::MultiPath(hops) => {
                ifindex.extend(hops.iter().map(|hop| hop.interface_index));
            }
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let main = table == u32::from(RouteHeader::RT_TABLE_MAIN);
    // Without a destination it is the default route: no evidence.
    let to = to.and_then(|to| IpNet::new(to, header.destination_prefix_length).ok());
    match to {
        Some(to) if main && header.kind == RouteType::Unicast => {
            let to = to.trunc();
            ifindex
                .into_iter()
                .map(|ifindex| Route {
                    to,
                    ifindex,
                    metric,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<Change> {
    let header = &message.header;
    let (mut address, mut mac, mut bridge) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => {
                address = Some(IpAddr::V4(*to));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => {
                address = Some(IpAddr::V6(*to));
            }
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    if header.family == AddressFamily::Bridge {
        // Permanent ones are the ports' own addresses.
        let learnt = header.state != NeighbourState::Permanent;
        let (bridge, mac) = (bridge.filter(|_| learnt)?, mac?);
        return Some(Change::Learnt {
            bridge,
            mac,
            port: header.ifindex,
        });
    }
    let unresolved = [
        NeighbourState::None,
        NeighbourState::Incomplete,
        NeighbourState::Failed,
    ];
    let mac = mac.filter(|_| !unresolved.contains(&header.state));
    Some(Change::Neighbour(header.ifindex, address?, mac))
}
