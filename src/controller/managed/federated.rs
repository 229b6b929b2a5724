//! Which federated credentials an identity is to have, and the one change that comes next. Pure.
//!
//! In: the issuer, the service accounts that may use the identity, the credentials that Azure shows.
//! Out: at most one write: Azure refuses concurrent writes to the credentials of one identity. What
//! somebody else put there (another name, another issuer) is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::naming;
use crate::model::ids::ObjectName;

/// The most that Azure takes for one identity.
pub const MOST: usize = 20;

/// A federated credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// The issuer of the tokens, as in their `iss`.
    pub issuer: String,
    /// The subject of the tokens.
    pub subject: String,
    /// Their audiences.
    pub audiences: Vec<String>,
}

/// What is to be, and when what is not wanted any more was first seen so (by name).
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The cluster's issuer.
    pub issuer: &'a str,
    /// The service accounts.
    pub accounts: &'a BTreeSet<ObjectName>,
    /// Credentials of ours that no account needs, and since when.
    pub unwanted: &'a BTreeMap<String, Duration>,
    /// How long such a one stays: a workload that restarts must not lose its credential.
    pub grace: Duration,
}

/// The next change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Create or correct one.
    Put(Credential),
    /// Delete one, by name.
    Delete(String),
}

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Now; `None`: nothing.
    pub change: Option<Change>,
    /// Accounts for which there is no room.
    pub left_out: Vec<ObjectName>,
    /// When something unwanted is to go.
    pub again: Option<Duration>,
}

/// Compares what is to be with what there is.
#[must_use]
pub fn work(wanted: Wanted<'_>, shown: &[Credential], now: Duration) -> Work {
    let mut missing = Vec::new();
    for account in wanted.accounts {
        let credential = credential(wanted.issuer, account);
        let same = shown.iter().find(|shown| shown.is_for(&credential));
        let named = shown.iter().any(|shown| shown.name == credential.name);
        match same {
            // Under another name it is somebody else's: Azure takes issuer and subject once only.
            Some(same) if *same == credential || same.name != credential.name => {}
            None if !named => missing.push((account, credential)),
            _ => return Work::now(Change::Put(credential)),
        }
    }
    let stale: Vec<&Credential> = stale(wanted.issuer, wanted.accounts, shown).collect();
    let room = MOST.saturating_sub(shown.len());
    let beyond = missing.iter().skip(room + stale.len());
    let left_out = beyond.map(|(account, _)| (*account).clone()).collect();
    let due = |credential: &&&Credential| {
        let since = wanted.unwanted.get(&credential.name);
        since.is_some_and(|since| *since + wanted.grace <= now)
    };
    let change = match missing.into_iter().next() {
        Some((_, credential)) if room > 0 => Some(Change::Put(credential)),
        // Whoever needs one now goes before who may need one again.
        Some(_) => stale.first().map(|old| Change::Delete(old.name.clone())),
        None => {
            let old = stale.iter().find(due);
            old.map(|old| Change::Delete(old.name.clone()))
        }
    };
    let since = stale
        .iter()
        .filter_map(|old| wanted.unwanted.get(&old.name));
    Work {
        change,
        left_out,
        again: since.map(|since| *since + wanted.grace).min(),
    }
}

/// Credentials of ours, by name and issuer, that no account needs.
pub fn stale<'a>(
    issuer: &'a str,
    accounts: &'a BTreeSet<ObjectName>,
    shown: &'a [Credential],
) -> impl Iterator<Item = &'a Credential> {
    shown.iter().filter(move |credential| {
        let account = naming::account(&credential.subject);
        account.is_some_and(|account| credential.is_ours(issuer) && !accounts.contains(&account))
    })
}

/// The credential of a service account.
#[must_use]
pub fn credential(issuer: &str, account: &ObjectName) -> Credential {
    Credential {
        name: naming::credential(issuer, account),
        issuer: issuer.to_owned(),
        subject: naming::subject(account),
        audiences: vec![naming::AUDIENCE.to_owned()],
    }
}

impl Credential {
    /// Whether Lanyard made it for this issuer: nobody else gives this name.
    #[must_use]
    pub fn is_ours(&self, issuer: &str) -> bool {
        let account = naming::account(&self.subject);
        self.issuer == issuer
            && account.is_some_and(|account| naming::credential(issuer, &account) == self.name)
    }

    fn is_for(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}

impl Work {
    fn now(change: Change) -> Self {
        Self {
            change: Some(change),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://issuer.example";
    const GRACE: Duration = Duration::from_mins(15);
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn accounts(count: usize) -> BTreeSet<ObjectName> {
        let name = |at: usize| ObjectName::new("shop", format!("sa-{at:02}"));
        (0..count).map(name).collect()
    }

    fn have(accounts: &BTreeSet<ObjectName>) -> Vec<Credential> {
        accounts.iter().map(|one| credential(ISSUER, one)).collect()
    }

    fn foreign(at: usize) -> Credential {
        Credential {
            name: format!("ci-{at}"),
            issuer: "https://ci.example".into(),
            subject: format!("repo:{at}"),
            audiences: vec![naming::AUDIENCE.into()],
        }
    }

    /// Does what is to be done until nothing is; how many writes it took.
    fn settle(wanted: Wanted<'_>, shown: &mut Vec<Credential>, now: Duration) -> (usize, Work) {
        for writes in 0..100 {
            let work = work(wanted, shown, now);
            match work.change.clone() {
                None => return (writes, work),
                Some(Change::Put(new)) => {
                    shown.retain(|old| old.name != new.name);
                    shown.push(new);
                }
                Some(Change::Delete(name)) => shown.retain(|old| old.name != name),
            }
            assert!(shown.len() <= MOST, "more than Azure takes");
        }
        panic!("never settles");
    }

    fn wanted<'a>(
        accounts: &'a BTreeSet<ObjectName>,
        unwanted: &'a BTreeMap<String, Duration>,
    ) -> Wanted<'a> {
        Wanted {
            issuer: ISSUER,
            accounts,
            unwanted,
            grace: GRACE,
        }
    }

    #[test]
    fn each_account_gets_one_and_then_nothing_is_written() {
        let (three, nothing) = (accounts(3), BTreeMap::new());
        let mut shown = Vec::new();
        let (writes, _) = settle(wanted(&three, &nothing), &mut shown, S(0));
        assert_eq!((writes, shown), (3, have(&three)));
    }

    #[test]
    fn what_others_put_there_stays_and_counts() {
        let (many, nothing) = (accounts(25), BTreeMap::new());
        let mut shown: Vec<_> = (0..3).map(foreign).collect();
        // The issuer of another cluster, under the name that it gives.
        let other = credential("https://other.example", &ObjectName::new("shop", "sa-99"));
        shown.push(other.clone());
        let (writes, work) = settle(wanted(&many, &nothing), &mut shown, S(0));
        assert_eq!((writes, shown.len(), work.left_out.len()), (16, MOST, 9));
        assert!(shown.contains(&other) && (0..3).all(|at| shown.contains(&foreign(at))));
    }

    #[test]
    fn who_is_left_out_is_told_from_the_first_look_on() {
        let (many, nothing) = (accounts(22), BTreeMap::new());
        let work = work(wanted(&many, &nothing), &[], S(0));
        let names: Vec<_> = work.left_out.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["shop/sa-20", "shop/sa-21"]);
    }

    #[test]
    fn what_nobody_needs_goes_after_its_grace_time_or_for_want_of_room() {
        let (two, one) = (accounts(2), accounts(1));
        let mut shown = have(&two);
        let old = shown[1].name.clone();
        let unwanted = BTreeMap::from([(old.clone(), S(100))]);
        let early = work(wanted(&one, &unwanted), &shown, S(999));
        assert_eq!((early.change, early.again), (None, Some(S(1000))));
        let due = work(wanted(&one, &unwanted), &shown, S(1000));
        assert_eq!(due.change, Some(Change::Delete(old.clone())));
        shown.extend((0..18).map(foreign));
        let new = BTreeSet::from([
            ObjectName::new("shop", "sa-00"),
            ObjectName::new("shop", "new"),
        ]);
        let full = work(wanted(&new, &unwanted), &shown, S(101));
        assert_eq!(
            (full.change, full.left_out.len()),
            (Some(Change::Delete(old)), 0)
        );
    }

    #[test]
    fn a_wrong_audience_of_ours_is_corrected_and_anothers_is_left() {
        let (one, nothing) = (accounts(1), BTreeMap::new());
        let mut shown = have(&one);
        shown[0].audiences = vec!["api://other".into()];
        let corrected = work(wanted(&one, &nothing), &shown, S(0)).change;
        assert_eq!(corrected, Some(Change::Put(have(&one).remove(0))));
        shown[0].name = "by-hand".into();
        assert_eq!(work(wanted(&one, &nothing), &shown, S(0)).change, None);
    }
}
