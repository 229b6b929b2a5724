//! Observed lines put in the order of the objects that would grant them: namespace, then identity or
//! exception, then service account. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::observe::table::{Answerer, Line, What};

/// What the pods of a namespace asked for.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    /// Identities that can be granted, by the name that is suggested.
    pub identities: BTreeMap<String, Used<'a>>,
    /// Tokens of the node's own identity, by service account.
    pub of_node: BTreeMap<&'a str, Vec<&'a Line>>,
    /// Metadata paths, by service account.
    pub paths: BTreeMap<&'a str, Vec<&'a Line>>,
}

/// An identity and who used it.
#[derive(Debug)]
pub struct Used<'a> {
    /// Its ids.
    pub answerer: &'a Answerer,
    /// By service account.
    pub accounts: BTreeMap<&'a str, Vec<&'a Line>>,
    /// Whether it answers requests that name none, of pods that use others, too.
    pub default: bool,
}

/// Groups; what nothing would grant (unknown pods, what IMDS refused, too) is left out.
pub fn by_namespace<'a>(lines: &[&'a Line]) -> BTreeMap<&'a str, Asked<'a>> {
    let mut namespaces: BTreeMap<&str, Asked<'_>> = BTreeMap::new();
    for line in lines.iter().filter(|line| is_grantable(line)) {
        let asked = namespaces.entry(&line.who.namespace).or_default();
        let account = line.who.service_account.as_str();
        match (&line.what, &line.answerer) {
            (What::Token { .. }, Some(answerer)) if is_user_assigned(answerer) => {
                let name = free_name(&asked.identities, answerer);
                let used = asked.identities.entry(name).or_insert_with(|| Used {
                    answerer,
                    accounts: BTreeMap::new(),
                    default: false,
                });
                used.accounts.entry(account).or_default().push(line);
            }
            (What::Token { .. }, _) => asked.of_node.entry(account).or_default().push(line),
            (What::Path { .. }, _) => asked.paths.entry(account).or_default().push(line),
            (What::Other { .. }, _) => {}
        }
    }
    for asked in namespaces.values_mut() {
        mark_defaults(asked);
    }
    namespaces
}

/// Whether an object could grant what was asked for.
pub fn is_grantable(line: &Line) -> bool {
    let known = !line.who.namespace.is_empty();
    match line.what {
        What::Token { .. } => known && line.answerer.is_some(),
        What::Path { .. } => known && line.status == 200,
        What::Other { .. } => false,
    }
}

/// Whether the token was a user-assigned identity's; one that does not say is taken for one, since it
/// has a client id that can be named.
fn is_user_assigned(answerer: &Answerer) -> bool {
    let folded = answerer.resource_id.as_deref().map(str::to_ascii_lowercase);
    answerer.client_id.is_some() && folded.is_none_or(|id| id.contains("/userassignedidentities/"))
}

/// A name of that identity's own: its ARM id's last segment, or its client id.
fn free_name(taken: &BTreeMap<String, Used<'_>>, answerer: &Answerer) -> String {
    let client = answerer.client_id.as_deref().unwrap_or_default();
    let last = answerer
        .resource_id
        .as_deref()
        .and_then(|id| id.rsplit('/').next());
    let name = object_name(last.unwrap_or(&format!("identity-{client}")));
    match taken.get(&name) {
        Some(other) if other.answerer.client_id != answerer.client_id => {
            object_name(&format!("{name}-{}", client.get(..8).unwrap_or(client)))
        }
        _ => name,
    }
}

/// A name that Kubernetes takes.
pub fn object_name(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "identity".to_owned()
    } else {
        name.to_owned()
    }
}

/// A service account that used several: the one that answered when none was named is the default.
fn mark_defaults(asked: &mut Asked<'_>) {
    let mut of_account: BTreeMap<&str, usize> = BTreeMap::new();
    for used in asked.identities.values() {
        for account in used.accounts.keys() {
            *of_account.entry(account).or_default() += 1;
        }
    }
    let several: BTreeSet<&str> = of_account
        .into_iter()
        .filter_map(|(account, count)| (count > 1).then_some(account))
        .collect();
    for used in asked.identities.values_mut() {
        used.default = used.accounts.iter().any(|(account, lines)| {
            let unnamed = |line: &&Line| matches!(line.what, What::Token { selector: None, .. });
            several.contains(account) && lines.iter().any(unnamed)
        });
    }
}
