//! Links, routes and neighbours as a table that answers "where is this address".
//!
//! In: single changes, or a whole new state. Out: [`Sighting`]s by longest prefix, in as many steps
//! as there are different prefix lengths. Pure. Only routes of the main table count: others apply
//! by rules that this table does not know. The default route is no evidence for anybody.
//!
//! What is known *now* comes and goes (neighbours are forgotten, bridges forget who is behind which
//! port). Which link an address was last *behind* is remembered until that link is deleted, and that
//! it was deleted is remembered for the address: it comes long before another pod gets the address,
//! while what the kernel learns of that other pod may come together with its first request.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Sighting;

/// One route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// What it covers.
    pub to: IpNet,
    /// The interface it leads to.
    pub ifindex: u32,
    /// Of two routes for the same prefix the one with the lower metric is used.
    pub metric: u32,
}

/// More addresses than this that once departed are not remembered; the oldest are no news any more.
const MOST_DEPARTED: usize = 65_536;

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Interfaces, and whether they are up.
    links: HashMap<u32, bool>,
    /// Those for one prefix in order of preference.
    routes: HashMap<IpNet, Vec<Route>>,
    /// How many prefixes of each length are in `routes`, by family.
    lengths: [BTreeMap<u8, usize>; 2],
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    /// On which port of a bridge a link-layer address was last seen.
    ports: HashMap<(u32, [u8; 6]), u32>,
    /// The link of its own (veth) that an address was last behind.
    behind: HashMap<IpAddr, u32>,
    /// When an address's own link was deleted last, as a number that only rises.
    departed: HashMap<IpAddr, u64>,
    departures: u64,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is there; whether it is up.
    Link {
        /// Its index: never used twice within a boot.
        ifindex: u32,
        /// Whether packets pass.
        up: bool,
    },
    /// An interface has gone.
    LinkGone(u32),
    /// A route was added (or replaced).
    Route(Route),
    /// A route was removed.
    RouteGone(Route),
    /// What follows takes the place of every route for this prefix with this metric.
    Replaced {
        /// The prefix.
        to: IpNet,
        /// The metric.
        metric: u32,
    },
    /// A neighbour was resolved (`Some`) or is not any more.
    Neighbour(u32, IpAddr, Option<[u8; 6]>),
    /// A bridge saw a link-layer address on one of its ports.
    Learnt {
        /// The bridge's index.
        bridge: u32,
        /// Who was seen.
        mac: [u8; 6],
        /// The port's index.
        port: u32,
    },
}

impl Table {
    /// Where an address is.
    pub fn of(&self, address: IpAddr) -> Sighting {
        let departed = self.departed.get(&address).copied().unwrap_or_default();
        let Some(ifindex) = self.ifindex(address) else {
            return Sighting {
                departed,
                ..Sighting::default()
            };
        };
        let mac = self.neighbours.get(&(ifindex, address)).copied();
        let port = mac.and_then(|mac| self.ports.get(&(ifindex, mac)).copied());
        Sighting {
            ifindex: Some(ifindex),
            mac,
            port,
            departed,
        }
    }

    fn ifindex(&self, address: IpAddr) -> Option<u32> {
        let lengths = self.lengths[family(address)].keys().rev();
        lengths.filter(|length| **length > 0).find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            let mut routes = self.routes.get(&prefix)?.iter();
            routes
                .find(|route| self.links.get(&route.ifindex) == Some(&true))
                .map(|route| route.ifindex)
        })
    }

    /// Takes a change over; whether anything differs now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Link { ifindex, up } => {
                let differs = self.links.insert(ifindex, up) != Some(up);
                (!up && self.unreach(ifindex)) || differs
            }
            Change::LinkGone(ifindex) => {
                let had_more = self.unreach(ifindex);
                let was_behind = self.depart(ifindex);
                self.links.remove(&ifindex).is_some() || had_more || was_behind
            }
            Change::Route(route) => self.add(route),
            Change::RouteGone(route) => self.remove(route.to, |other| *other == route),
            Change::Replaced { to, metric } => self.remove(to, |other| other.metric == metric),
            Change::Neighbour(ifindex, address, Some(mac)) => {
                if let Some(port) = self.ports.get(&(ifindex, mac)) {
                    self.behind.insert(address, *port);
                }
                self.neighbours.insert((ifindex, address), mac) != Some(mac)
            }
            Change::Learnt { bridge, mac, port } => self.learn(bridge, mac, port),
            Change::Neighbour(ifindex, address, None) => {
                self.neighbours.remove(&(ifindex, address)).is_some()
            }
        }
    }

    fn add(&mut self, route: Route) -> bool {
        let order = |route: &Route| (route.metric, route.ifindex);
        let routes = self.routes.entry(route.to).or_default();
        let Err(at) = routes.binary_search_by_key(&order(&route), order) else {
            return false;
        };
        if routes.is_empty() {
            let lengths = &mut self.lengths[family(route.to.addr())];
            *lengths.entry(route.to.prefix_len()).or_default() += 1;
        }
        routes.insert(at, route);
        if route.to.prefix_len() == route.to.max_prefix_len() {
            self.behind.insert(route.to.addr(), route.ifindex);
        }
        true
    }

    fn learn(&mut self, bridge: u32, mac: [u8; 6], port: u32) -> bool {
        for ((on, address), known) in &self.neighbours {
            if *on == bridge && *known == mac {
                self.behind.insert(*address, port);
            }
        }
        self.ports.insert((bridge, mac), port) != Some(port)
    }

    fn remove(&mut self, to: IpNet, which: impl Fn(&Route) -> bool) -> bool {
        let Some(routes) = self.routes.get_mut(&to) else {
            return false;
        };
        let before = routes.len();
        routes.retain(|route| !which(route));
        let removed = routes.len() != before;
        if routes.is_empty() {
            self.routes.remove(&to);
            let lengths = &mut self.lengths[family(to.addr())];
            if let Some(count) = lengths.get_mut(&to.prefix_len()) {
                *count -= 1;
                if *count == 0 {
                    lengths.remove(&to.prefix_len());
                }
            }
        }
        removed
    }

    /// What is reached by an interface that is gone or down is not reached any more. The kernel
    /// removes its IPv4 routes without a notification.
    fn unreach(&mut self, ifindex: u32) -> bool {
        let before = self.neighbours.len();
        self.neighbours.retain(|(on, _), _| *on != ifindex);
        let through = |routes: &&Vec<Route>| routes.iter().any(|route| route.ifindex == ifindex);
        let affected = self.routes.values().filter(through);
        let affected: Vec<IpNet> = affected
            .filter_map(|routes| Some(routes.first()?.to))
            .collect();
        for to in &affected {
            self.remove(*to, |route| route.ifindex == ifindex);
        }
        !affected.is_empty() || self.neighbours.len() != before
    }

    /// Whoever was behind a link that was deleted is there no more.
    fn depart(&mut self, ifindex: u32) -> bool {
        self.ports
            .retain(|(bridge, _), port| *port != ifindex && *bridge != ifindex);
        let gone: Vec<IpAddr> = self
            .behind
            .extract_if(|_, on| *on == ifindex)
            .map(|(a, _)| a)
            .collect();
        if self.departed.len() + gone.len() > MOST_DEPARTED {
            self.departed.clear();
        }
        for address in &gone {
            self.departures += 1;
            self.departed.insert(*address, self.departures);
        }
        !gone.is_empty()
    }

    /// Whether the address is on a bridge: whoever else is on it may claim the address.
    pub fn is_on_bridge(&self, address: IpAddr) -> bool {
        let ifindex = self.ifindex(address);
        ifindex.is_some_and(|ifindex| self.ports.keys().any(|(bridge, _)| *bridge == ifindex))
    }

    /// The link of its own that an address was last behind.
    pub fn behind(&self, address: IpAddr) -> Option<u32> {
        self.behind.get(&address).copied()
    }

    /// Takes over that an address was last behind this link, as another process saw. A link that is
    /// not there any more took the address along.
    pub fn recall(&mut self, address: IpAddr, link: u32) {
        if self.links.contains_key(&link) {
            // What the kernel says now counts for more.
            self.behind.entry(address).or_insert(link);
        } else {
            self.departures += 1;
            self.departed.insert(address, self.departures);
        }
    }

    /// Takes over what an earlier reading remembers and a new one cannot tell.
    pub fn inherit(&mut self, mut earlier: Self) {
        let gone: Vec<u32> = earlier
            .links
            .keys()
            .filter(|link| !self.links.contains_key(link))
            .copied()
            .collect();
        for link in gone {
            earlier.depart(link);
        }
        for (address, link) in earlier.behind {
            self.behind.entry(address).or_insert(link);
        }
        for (seen, port) in earlier.ports {
            self.ports.entry(seen).or_insert(port);
        }
        (self.departed, self.departures) = (earlier.departed, earlier.departures);
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

#[cfg(test)]
mod tests;
