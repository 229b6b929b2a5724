//! The kinds on a real API server: what it takes, what it refuses and for which one reason, and what
//! `kubectl` then shows. The same objects are judged without a server in tests/crds.
//!
//! In: tests/crds/{good,bad,later}. Out: a trial for each question; all share one server, which
//! lives and ends with this process in namespaces of its own.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_in_result,
    reason = "a test says so by panicking"
)]

mod alternative;
mod app_service;
#[path = "../cluster/cached.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod cached;
mod guard;
mod host_token;
mod mounts;
#[path = "../crds/objects.rs"]
mod objects;
mod server;
mod thief;
mod webhook;
mod writes;

use std::process::ExitCode;
use std::sync::Arc;

use lanyard::lab::{self, Interrupt};
use libtest_mimic::{Arguments, Trial};
use objects::{Bad, KINDS};
use parking_lot::Mutex;
use serde_json::{Value, json};
use server::{Refused, Server};

const DRY: &str = "?dryRun=All&fieldValidation=Strict";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(unavailable) = lab::enter(Interrupt::EndsLab)
    {
        // Never as passed: whoever runs this wants to know.
        eprintln!("{unavailable}");
        return ExitCode::FAILURE;
    }
    // Before any trial: without it there is nothing to ask.
    let server = Arc::new(Mutex::new((!arguments.list).then(Server::start)));
    let trial = |name: &str, look: fn(&Server)| {
        let server = server.clone();
        Trial::test(name, move || {
            look(server.lock().as_ref().expect("started"));
            Ok(())
        })
    };
    let mut trials = vec![
        trial("every_good_object_is_taken", every_good_object_is_taken),
        trial(
            "every_bad_object_is_refused_for_one_reason",
            every_bad_object_is_refused_for_one_reason,
        ),
        trial("what_comes_later_is_taken", what_comes_later_is_taken),
        trial(
            "status_is_kept_apart_and_shown",
            status_is_kept_apart_and_shown,
        ),
        trial(
            "columns_tell_ids_nodes_and_why_not",
            columns_tell_ids_nodes_and_why_not,
        ),
        trial("people_find_the_kinds", people_find_the_kinds),
        trial("explain_reads_well", explain_reads_well),
        trial(
            "a_stolen_token_gets_tokens_of_its_own_nodes_pods_only",
            guard::a_stolen_token_gets_tokens_of_its_own_nodes_pods_only,
        ),
        trial(
            "a_pod_that_was_just_made_on_another_node_is_never_its",
            guard::a_pod_that_was_just_made_on_another_node_is_never_its,
        ),
        trial(
            "tokens_for_anything_but_entra_and_a_pod_are_denied",
            guard::tokens_for_anything_but_entra_and_a_pod_are_denied,
        ),
        trial(
            "a_token_of_no_node_gets_none",
            guard::a_token_of_no_node_gets_none,
        ),
        trial(
            "namespaces_that_are_not_listed_are_closed",
            guard::namespaces_that_are_not_listed_are_closed,
        ),
        trial(
            "named_secrets_are_all_that_agents_read",
            guard::named_secrets_are_all_that_agents_read,
        ),
        trial(
            "without_the_webhook_agents_get_none_and_others_theirs",
            guard::without_the_webhook_agents_get_none_and_others_theirs,
        ),
        trial(
            "an_upgrade_keeps_the_authority_until_it_is_old",
            guard::an_upgrade_keeps_the_authority_until_it_is_old,
        ),
        trial(
            "what_a_policy_over_pods_lets_through",
            alternative::what_a_policy_over_pods_lets_through,
        )
        .with_ignored_flag(true),
    ];
    trials.extend(
        host_token::TRIALS
            .iter()
            .map(|(name, look)| trial(name, *look)),
    );
    let others = writes::TRIALS.iter().chain(app_service::TRIALS);
    trials.extend(others.map(|(name, look)| trial(name, *look)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Where objects of a kind are.
fn collection(object: &Value) -> String {
    let (plural, ..) = KINDS
        .iter()
        .find(|(_, kind, _)| object["kind"] == *kind)
        .expect("one of ours");
    match object["metadata"]["namespace"].as_str() {
        Some(_) => format!("/apis/lanyard.dev/v1alpha1/namespaces/shop/{plural}"),
        None => format!("/apis/lanyard.dev/v1alpha1/{plural}"),
    }
}

fn path(object: &Value) -> String {
    format!(
        "{}/{}",
        collection(object),
        object["metadata"]["name"].as_str().unwrap()
    )
}

/// The same object in the one namespace that there is: examples have theirs, or none.
fn at_home(mut object: Value) -> Value {
    let namespaced = KINDS
        .iter()
        .any(|(_, kind, namespaced)| *namespaced && object["kind"] == *kind);
    if namespaced {
        object["metadata"]["namespace"] = json!("shop");
    }
    object
}

fn every_good_object_is_taken(server: &Server) {
    let good = objects::good();
    assert!(good.len() > 15, "only {} objects", good.len());
    for object in good.into_iter().map(at_home) {
        if let Err(refused) = server.send("POST", &format!("{}{DRY}", collection(&object)), &object)
        {
            panic!("{}\n{object}", refused.message);
        }
    }
}

fn what_comes_later_is_taken(server: &Server) {
    for Bad { object, .. } in objects::later() {
        if let Err(refused) = server.send("POST", &format!("{}{DRY}", collection(&object)), &object)
        {
            panic!("{}\n{object}", refused.message);
        }
    }
}

fn every_bad_object_is_refused_for_one_reason(server: &Server) {
    let mut wrong = Vec::new();
    for bad in objects::bad() {
        let answer = match &bad.was {
            None => server.send(
                "POST",
                &format!("{}{DRY}", collection(&bad.object)),
                &bad.object,
            ),
            Some(was) => {
                server
                    .send("POST", &collection(was), was)
                    .unwrap_or_else(|refused| panic!("{}\n{was}", refused.message));
                let mut object = bad.object.clone();
                let now = server.send("GET", &path(was), &Value::Null).unwrap();
                object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
                let answer = server.send("PUT", &format!("{}{DRY}", path(was)), &object);
                server.send("DELETE", &path(was), &Value::Null).unwrap();
                answer
            }
        };
        if let Some(problem) = judge(&bad, answer) {
            wrong.push(format!("{problem}\n  {}", bad.object));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong about an answer to a bad object.
fn judge(bad: &Bad, answer: Result<Value, Refused>) -> Option<String> {
    let Err(Refused { causes, message }) = answer else {
        return Some("taken".to_owned());
    };
    // Said beside a bound that is passed: nothing that was judged.
    let unjudged = |words: &String| words.contains("some validation rules were not checked");
    let causes: Vec<_> = causes
        .into_iter()
        .filter(|(_, words)| !unjudged(words))
        .collect();
    let (field, words) = match causes.as_slice() {
        [] => (String::new(), message),
        [(field, words)] => (without_indices(field), words.clone()),
        several => return Some(format!("several reasons: {several:?}")),
    };
    let expected = field == bad.at && words.contains(&bad.refused);
    (!expected).then(|| {
        format!(
            "`{field}`: {words}\n  and not `{}`: {}",
            bad.at, bad.refused
        )
    })
}

/// `spec.a[0].b` → `spec.a.b`; the object as a whole has no path.
fn without_indices(field: &str) -> String {
    let mut plain = String::new();
    let mut depth = 0;
    for c in field.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    if plain == "<nil>" {
        String::new()
    } else {
        plain
    }
}

fn columns_tell_ids_nodes_and_why_not(server: &Server) {
    let id = |last: u8| format!("00000000-0000-4000-8000-00000000000{last}");
    let identity = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
        "metadata": {"name": "columns", "namespace": "shop"}, "spec": {"clientID": id(1)}});
    server
        .send("POST", &collection(&identity), &identity)
        .unwrap_or_else(|refused| panic!("{}", refused.message));
    let shown = || -> Vec<Vec<String>> {
        let shown = server.kubectl(&["get", "azid", "columns", "-n", "shop"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        shown.lines().map(words).collect()
    };
    let status = json!({"status": {"observedGeneration": 1, "clientID": id(2), "principalID": id(3),
        "assignedNodes": 2, "wantedNodes": 5, "assignedTo": ["vmss-a-00000000"], "conditions": [{
            "type": "Ready", "status": "False", "reason": "Pending", "message": "on 2 of 5 nodes",
            "observedGeneration": 1, "lastTransitionTime": "2026-11-21T10:00:00Z"}]}});
    let status_path = format!("{}/status?fieldValidation=Strict", path(&identity));
    server
        .send("PATCH", &status_path, &status)
        .unwrap_or_else(|refused| panic!("{}", refused.message));
    let lines = shown();
    assert_eq!(
        lines[0].join(" "),
        "NAME CLIENT ID PRINCIPAL ID ASSIGNED WANTED READY REASON AGE"
    );
    let expected = [&id(1), &id(3), "2", "5", "False", "Pending"].map(str::to_owned);
    assert_eq!(lines[1][1..7], expected);
    server
        .send("DELETE", &path(&identity), &Value::Null)
        .unwrap();
}

fn status_is_kept_apart_and_shown(server: &Server) {
    let assignment = objects::good()
        .into_iter()
        .find(|object| object["status"].is_object())
        .unwrap();
    let made = server
        .send("POST", &collection(&assignment), &assignment)
        .unwrap_or_else(|refused| panic!("{}", refused.message));
    assert_eq!(
        made["status"],
        Value::Null,
        "only the status subresource writes status"
    );
    let status = json!({"status": assignment["status"]});
    let kept = server.send(
        "PATCH",
        &format!("{}/status?fieldValidation=Strict", path(&assignment)),
        &status,
    );
    let kept = kept.unwrap_or_else(|refused| panic!("{}", refused.message));
    assert_eq!(kept["status"], assignment["status"]);
    let shown = server.kubectl(&["get", "azas"]);
    let mut lines = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        lines.next().unwrap(),
        [
            "NAME", "ASSIGNED", "PENDING", "FAILED", "SYNCED", "REASON", "AGE"
        ]
    );
    let line = lines.next().unwrap();
    assert_eq!(
        (&line[1..4], line[0]),
        (
            ["1", "0", "1"].as_slice(),
            assignment["metadata"]["name"].as_str().unwrap()
        )
    );
    let twice = json!({"spec": {"identities": [assignment["spec"]["identities"][0], assignment["spec"]["identities"][0]]}});
    let refused = server
        .send("PATCH", &path(&assignment), &twice)
        .unwrap_err();
    assert!(
        refused.message.contains("Duplicate value"),
        "{}",
        refused.message
    );
    server
        .send("DELETE", &path(&assignment), &Value::Null)
        .unwrap();
}

fn people_find_the_kinds(server: &Server) {
    for object in objects::good() {
        if object["kind"] == "AzureAssignment" {
            continue;
        }
        let object = at_home(object);
        // Examples repeat names.
        let _ = server.send("POST", &collection(&object), &object);
    }
    let azure = server.kubectl(&["get", "azure", "-A"]);
    for (word, expected) in [
        (
            "azid",
            "NAME CLIENT ID PRINCIPAL ID ASSIGNED WANTED READY REASON AGE",
        ),
        ("azidb", "NAME IDENTITY DEFAULT PODS READY REASON AGE"),
        ("azpol", "NAME NAMESPACES PREFIXES ACCEPTED REASON AGE"),
        (
            "azmex",
            "NAME NAMESPACE SERVICE ACCOUNTS PATHS ACCEPTED REASON AGE",
        ),
    ] {
        let shown = server.kubectl(&["get", word, "-n", "shop"]);
        let head: Vec<_> = shown.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(head.join(" "), expected, "{shown}");
    }
    let policies = server.kubectl(&["get", "azpol", "-o", "wide"]);
    for shown in ["\"/subscriptions\"", "RESOURCEGROUPS/shop.eu", "72f988bf"] {
        assert!(policies.contains(shown), "{policies}");
    }
    for kind in [
        "azureidentity.lanyard.dev/least",
        "azureidentitybinding.lanyard.dev/in-full",
        "azureidentitypolicy.lanyard.dev/anything",
    ] {
        assert!(azure.contains(kind), "{azure}");
    }
}

fn explain_reads_well(server: &Server) {
    for (plural, ..) in KINDS {
        let all = server.kubectl(&["explain", plural, "--recursive"]);
        assert!(!all.contains("<no description>"), "{all}");
        let spec = server.kubectl(&["explain", &format!("{plural}.spec")]);
        assert!(
            !spec.contains("<no description>") && spec.contains("FIELDS"),
            "{spec}"
        );
    }
    let spec = server.kubectl(&["explain", "azid.spec.tokenSources"]);
    for expected in [
        "imds",
        "federated",
        "servicePrincipal",
        "Exactly one of its",
        "-required-",
    ] {
        assert!(
            spec.contains(expected) != (expected == "-required-"),
            "{expected}: {spec}"
        );
    }
}
