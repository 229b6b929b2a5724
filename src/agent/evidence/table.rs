//! Links, routes and neighbours as a table that answers "where is this address".
//!
//! In: single changes, or a whole new state. Out: [`Sighting`]s by longest prefix, in as many steps
//! as there are different prefix lengths. Pure. Only routes of the main table count: others apply
//! by rules that this table does not know. The default route is no evidence for anybody.

use std::collections::{BTreeMap, HashMap, HashSet};
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

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Interfaces that are up.
    links: HashSet<u32>,
    /// Those for one prefix in order of preference.
    routes: HashMap<IpNet, Vec<Route>>,
    /// How many prefixes of each length are in `routes`, by family.
    lengths: [BTreeMap<u8, usize>; 2],
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
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
}

impl Table {
    /// Where an address is.
    pub fn of(&self, address: IpAddr) -> Sighting {
        let Some(ifindex) = self.ifindex(address) else {
            return Sighting::default();
        };
        let mac = self.neighbours.get(&(ifindex, address)).copied();
        Sighting {
            ifindex: Some(ifindex),
            mac,
        }
    }

    fn ifindex(&self, address: IpAddr) -> Option<u32> {
        let lengths = self.lengths[family(address)].keys().rev();
        lengths.filter(|length| **length > 0).find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            let mut routes = self.routes.get(&prefix)?.iter();
            routes
                .find(|route| self.links.contains(&route.ifindex))
                .map(|route| route.ifindex)
        })
    }

    /// Takes a change over; whether anything differs now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Link { ifindex, up: true } => self.links.insert(ifindex),
            Change::Link { ifindex, up: false } | Change::LinkGone(ifindex) => self.forget(ifindex),
            Change::Route(route) => self.add(route),
            Change::RouteGone(route) => self.remove(route.to, |other| *other == route),
            Change::Replaced { to, metric } => self.remove(to, |other| other.metric == metric),
            Change::Neighbour(ifindex, address, Some(mac)) => {
                self.neighbours.insert((ifindex, address), mac) != Some(mac)
            }
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
        true
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

    /// An interface that is gone or down: what was behind it is not there any more. The kernel
    /// removes its IPv4 routes without a notification.
    fn forget(&mut self, ifindex: u32) -> bool {
        let was_up = self.links.remove(&ifindex);
        let before = self.neighbours.len();
        self.neighbours.retain(|(of, _), _| *of != ifindex);
        let through = |routes: &&Vec<Route>| routes.iter().any(|route| route.ifindex == ifindex);
        let affected = self.routes.values().filter(through);
        let affected: Vec<IpNet> = affected
            .filter_map(|routes| Some(routes.first()?.to))
            .collect();
        for to in &affected {
            self.remove(*to, |route| route.ifindex == ifindex);
        }
        was_up || !affected.is_empty() || self.neighbours.len() != before
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, ifindex: u32) -> Change {
        Change::Route(Route {
            to: to.parse().unwrap(),
            ifindex,
            metric: 0,
        })
    }

    fn table(changes: impl IntoIterator<Item = Change>) -> Table {
        let mut table = Table::default();
        for ifindex in 1..10 {
            table.apply(Change::Link { ifindex, up: true });
        }
        changes
            .into_iter()
            .for_each(|change| assert!(table.apply(change)));
        table
    }

    fn ifindex(table: &Table, address: &str) -> Option<u32> {
        table.of(address.parse().unwrap()).ifindex
    }

    #[test]
    fn the_most_specific_route_counts_and_the_default_one_never() {
        let table = table([
            route("0.0.0.0/0", 2),
            route("10.244.0.0/16", 3),
            route("10.244.1.7/32", 4),
            route("fd00::7/128", 5),
        ]);
        assert_eq!(ifindex(&table, "10.244.1.7"), Some(4));
        assert_eq!(ifindex(&table, "10.244.1.8"), Some(3));
        assert_eq!(ifindex(&table, "192.0.2.1"), None);
        assert_eq!(ifindex(&table, "fd00::7"), Some(5));
        assert_eq!(ifindex(&table, "fd00::8"), None);
    }

    #[test]
    fn of_equal_prefixes_the_lower_metric_counts() {
        let to = "10.0.0.0/24".parse().unwrap();
        let slow = Change::Route(Route {
            to,
            ifindex: 3,
            metric: 100,
        });
        let mut table = table([slow, route("10.0.0.0/24", 4)]);
        assert_eq!(ifindex(&table, "10.0.0.9"), Some(4));
        assert!(table.apply(Change::RouteGone(Route {
            to,
            ifindex: 4,
            metric: 0
        })));
        assert_eq!(ifindex(&table, "10.0.0.9"), Some(3));
    }

    #[test]
    fn a_replaced_route_leaves_nothing_behind() {
        let to = "10.244.1.7/32".parse().unwrap();
        let mut table = table([route("10.244.1.7/32", 4)]);
        table.apply(Change::Replaced { to, metric: 0 });
        table.apply(route("10.244.1.7/32", 5));
        assert_eq!(ifindex(&table, "10.244.1.7"), Some(5));
        table.apply(Change::LinkGone(5));
        assert_eq!(ifindex(&table, "10.244.1.7"), None);
    }

    #[test]
    fn a_link_that_goes_or_is_down_takes_its_routes_and_neighbours_along() {
        let (pod, mac) = ("10.244.1.7".parse().unwrap(), [2, 0, 0, 0, 0, 1]);
        for gone in [
            Change::LinkGone(4),
            Change::Link {
                ifindex: 4,
                up: false,
            },
        ] {
            let mut table = table([
                route("10.244.1.7/32", 4),
                Change::Neighbour(4, pod, Some(mac)),
            ]);
            assert_eq!(
                table.of(pod),
                Sighting {
                    ifindex: Some(4),
                    mac: Some(mac)
                }
            );
            assert!(table.apply(gone));
            assert_eq!(table.of(pod), Sighting::default());
            assert!(!table.apply(gone), "told twice");
        }
    }

    #[test]
    fn a_neighbour_counts_only_on_the_interface_of_the_route() {
        let pod = "10.244.1.7".parse().unwrap();
        let table = table([
            route("10.244.1.0/24", 4),
            Change::Neighbour(5, pod, Some([1; 6])),
            Change::Neighbour(4, pod, Some([2; 6])),
        ]);
        assert_eq!(table.of(pod).mac, Some([2; 6]));
    }

    #[test]
    fn what_is_known_already_is_no_change() {
        let pod = "10.244.1.7".parse().unwrap();
        let mut table = table([
            route("10.244.1.7/32", 4),
            Change::Neighbour(4, pod, Some([2; 6])),
        ]);
        for again in [
            route("10.244.1.7/32", 4),
            Change::Neighbour(4, pod, Some([2; 6])),
            Change::Link {
                ifindex: 4,
                up: true,
            },
            Change::LinkGone(99),
            Change::Neighbour(9, pod, None),
        ] {
            assert!(!table.apply(again), "{again:?}");
        }
    }
}
