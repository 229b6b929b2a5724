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
            (table.of(pod).ifindex, table.of(pod).mac),
            (Some(4), Some(mac))
        );
        assert!(table.apply(gone));
        assert_eq!((table.of(pod).ifindex, table.of(pod).mac), (None, None));
        assert!(!table.apply(gone), "told twice");
    }
}

#[test]
fn a_deleted_link_is_remembered_for_the_address_behind_it_and_a_down_one_is_not() {
    let pod = "10.244.1.7".parse().unwrap();
    let mut table = table([route("10.244.1.7/32", 4)]);
    let before = table.of(pod);
    table.apply(Change::Link {
        ifindex: 4,
        up: false,
    });
    assert!(!before.contradicts(&table.of(pod)), "it may come up again");
    // The kernel tells of both: the routes are gone when the deletion comes.
    table.apply(Change::LinkGone(4));
    assert!(before.contradicts(&table.of(pod)));
    table.apply(Change::Link {
        ifindex: 5,
        up: true,
    });
    table.apply(route("10.244.1.7/32", 5));
    let heir = table.of(pod);
    assert!(before.contradicts(&heir));
    assert!(!heir.contradicts(&table.of(pod)));
}

#[test]
fn a_deleted_port_is_remembered_for_who_was_behind_it() {
    let (pod, mac) = ("10.244.1.7".parse().unwrap(), [2, 0, 0, 0, 0, 1]);
    let learnt = Change::Learnt {
        bridge: 3,
        mac,
        port: 6,
    };
    let resolved = Change::Neighbour(3, pod, Some(mac));
    for order in [[learnt, resolved], [resolved, learnt]] {
        let mut table = table([route("10.244.1.0/24", 3)]);
        for change in order {
            table.apply(change);
        }
        let before = table.of(pod);
        assert_eq!(before.port, Some(6));
        // Forgotten by the kernel, not by us.
        table.apply(Change::Neighbour(3, pod, None));
        assert!(!before.contradicts(&table.of(pod)));
        table.apply(Change::LinkGone(6));
        assert!(before.contradicts(&table.of(pod)));
        assert_eq!(table.of(pod).ifindex, Some(3), "the bridge is still there");
    }
}

#[test]
fn a_new_reading_keeps_what_the_kernel_does_not_tell() {
    let (pod, other) = ("10.244.1.7".parse().unwrap(), "10.244.1.8".parse().unwrap());
    let earlier = table([route("10.244.1.7/32", 4), route("10.244.1.8/32", 5)]);
    let [before, before_other] = [pod, other].map(|address| earlier.of(address));
    let mut fresh = Table::default();
    fresh.apply(Change::Link {
        ifindex: 5,
        up: true,
    });
    fresh.apply(route("10.244.1.8/32", 5));
    fresh.inherit(earlier);
    assert!(
        before.contradicts(&fresh.of(pod)),
        "its deletion was missed"
    );
    assert!(!before_other.contradicts(&fresh.of(other)));
    let again = fresh.clone();
    fresh.inherit(again.clone());
    assert_eq!(fresh, again);
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

#[test]
fn what_departed_while_nobody_looked_is_told_from_what_is_still_there() {
    let pod = "10.244.1.7".parse().unwrap();
    let earlier = Sighting::default();
    let mut still = table([]);
    still.recall(pod, 4);
    assert!(!earlier.contradicts(&still.of(pod)));
    assert_eq!(still.behind(pod), Some(4));
    still.apply(Change::LinkGone(4));
    assert!(earlier.contradicts(&still.of(pod)), "it departs later");
    let mut gone = table([]);
    gone.recall(pod, 77);
    assert!(earlier.contradicts(&gone.of(pod)), "it had departed");
}
