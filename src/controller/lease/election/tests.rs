//! The election alone: times and leases in, steps out.

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn election(identity: &str, now: Instant) -> Election {
    let mut settings = Settings::new("lanyard", "lanyard-controller", "pod");
    settings.identity = identity.to_owned();
    settings.renew = S(3);
    Election::new(settings, now)
}

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

/// As the API server has it once it was written.
fn stored(step: Step, version: u32) -> Lease {
    let (Step::Create(mut lease) | Step::Replace(mut lease)) = step else {
        panic!("{step:?} writes nothing");
    };
    lease.metadata.uid = Some("uid".to_owned());
    lease.metadata.resource_version = Some(version.to_string());
    *lease
}

fn spec(lease: &Lease) -> &LeaseSpec {
    lease.spec.as_ref().unwrap()
}

/// An election that holds the lease, created at `now`.
fn holding(identity: &str, now: Instant) -> (Election, Lease) {
    let mut holder = election(identity, now);
    assert_eq!(holder.next(now, wall(0)), Step::Look);
    holder.looked(None, now);
    let lease = stored(holder.next(now, wall(0)), 1);
    holder.written(lease.clone(), now, now);
    (holder, lease)
}

#[test]
fn the_first_one_creates_it_and_renews_in_time() {
    let start = Instant::now();
    let (holder, lease) = holding("a", start);
    assert_eq!(holder.term().unwrap().until, start + S(15));
    assert_eq!(spec(&lease).lease_transitions, Some(0));
    assert_eq!(spec(&lease).lease_duration_seconds, Some(15));
    assert_eq!(
        holder.next(start, wall(0)),
        Step::Wait(start + S(3)),
        "renewed every 3 s"
    );
    let renewed = stored(holder.next(start + S(3), wall(3)), 2);
    assert_eq!(spec(&renewed).acquire_time, spec(&lease).acquire_time);
    assert_eq!(spec(&renewed).renew_time, Some(MicroTime(wall(3))));
}

#[test]
fn it_counts_from_the_beginning_of_the_call() {
    let start = Instant::now();
    let (mut holder, lease) = holding("a", start);
    holder.written(lease, start + S(3), start + S(5));
    assert_eq!(holder.term().unwrap().until, start + S(18));
    holder.lapse(start + S(18));
    assert_eq!(holder.term(), None);
}

#[test]
fn another_one_takes_it_when_it_has_not_changed_for_as_long_as_it_lasts() {
    let start = Instant::now();
    let (holder, lease) = holding("a", start);
    let mut other = election("b", start);
    other.looked(Some(lease.clone()), start + S(1));
    assert_eq!(other.next(start + S(1), wall(1)), Step::Wait(start + S(3)));
    assert_eq!(other.next(start + S(3), wall(3)), Step::Look);
    // A label was edited: that is no renewal.
    let mut edited = lease.clone();
    edited.metadata.resource_version = Some("2".to_owned());
    other.looked(Some(edited), start + S(15));
    assert_eq!(
        other.next(start + S(15), wall(0)),
        Step::Wait(start + S(16))
    );
    assert!(holder.term().unwrap().until < start + S(16));
    let taken = stored(other.next(start + S(16), wall(16)), 3);
    assert_eq!(spec(&taken).holder_identity.as_deref(), Some("b"));
    assert_eq!(spec(&taken).lease_transitions, Some(1));
    assert_eq!(spec(&taken).acquire_time, Some(MicroTime(wall(16))));
}

#[test]
fn a_renewal_is_seen_also_where_the_holders_clock_was_set_back() {
    let start = Instant::now();
    let (holder, lease) = holding("a", start);
    let mut other = election("b", start);
    other.looked(Some(lease.clone()), start);
    let renewed = stored(holder.next(start + S(3), wall(-10_000_000)), 2);
    assert_ne!(spec(&renewed).renew_time, spec(&lease).renew_time);
    other.looked(Some(renewed), start + S(14));
    let next = other.next(start + S(20), wall(99_999_999));
    assert_eq!(next, Step::Look, "its own clock does not matter either");
}

#[test]
fn who_finds_another_holder_has_lost_it_at_once() {
    let start = Instant::now();
    let (mut holder, lease) = holding("a", start);
    holder.outdated(start + S(3));
    assert!(holder.term().is_some(), "only a version was outdated");
    let mut other = lease;
    other.spec.get_or_insert_default().holder_identity = Some("b".to_owned());
    holder.looked(Some(other), start + S(3));
    assert_eq!((holder.term(), holder.holder()), (None, "b"));
}

#[test]
fn a_deleted_lease_is_its_holders_until_it_would_have_ended() {
    let start = Instant::now();
    let (mut holder, lease) = holding("a", start);
    let mut other = election("b", start);
    other.looked(Some(lease), start + S(1));
    other.looked(None, start + S(3));
    assert_eq!(other.next(start + S(15), wall(15)), Step::Look);
    assert!(matches!(
        other.next(start + S(16), wall(16)),
        Step::Create(_)
    ));
    holder.looked(None, start + S(3));
    assert_eq!(
        holder.term(),
        None,
        "it is not held until it is there again"
    );
    assert!(matches!(
        holder.next(start + S(3), wall(3)),
        Step::Create(_)
    ));
}

#[test]
fn what_is_given_back_is_free_at_once() {
    let start = Instant::now();
    let (mut holder, _) = holding("a", start);
    let mut given = holder.step_down(wall(4)).unwrap();
    given.metadata.resource_version = Some("2".to_owned());
    assert_eq!(holder.term(), None);
    assert_eq!(spec(&given).holder_identity, None);
    assert_eq!(spec(&given).lease_duration_seconds, Some(1));
    let mut other = election("b", start);
    other.looked(Some(given), start + S(4));
    let taken = stored(other.next(start + S(4), wall(4)), 3);
    assert_eq!(spec(&taken).lease_transitions, Some(1));
    assert_eq!(spec(&taken).lease_duration_seconds, Some(15));
    assert_eq!(other.step_down(wall(4)), None, "it was never held");
}

#[test]
fn a_lease_that_asks_for_years_is_waited_for_a_minute() {
    let start = Instant::now();
    let (_, mut lease) = holding("a", start);
    let spec = lease.spec.get_or_insert_default();
    spec.lease_duration_seconds = Some(i32::MAX);
    let mut other = election("b", start);
    other.looked(Some(lease), start);
    assert_eq!(other.next(start + S(59), wall(0)), Step::Look);
    assert!(matches!(
        other.next(start + S(60), wall(0)),
        Step::Replace(_)
    ));
}

#[test]
fn a_call_that_failed_may_have_done_something() {
    let start = Instant::now();
    let (mut holder, _) = holding("a", start);
    holder.failed(start + S(5));
    assert_eq!(holder.next(start + S(5), wall(5)), Step::Wait(start + S(6)));
    assert_eq!(holder.next(start + S(6), wall(6)), Step::Look);
    assert!(holder.term().is_some());
}
