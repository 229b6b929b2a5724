//! The documents stay true: every flag, make target, metric, file and test they name exists, and
//! every kind of error has its heading.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use lanyard::agent::events::reason::Reason;
use lanyard::azure::arm::ArmErrorKind;
use lanyard::cli::Cli;
use lanyard::model::fault::FaultKind;

/// Flags of other programs that the documents mention.
const FOREIGN_FLAGS: &[&str] = &[
    "--noflush",
    // kubectl's.
    "--subresource",
    "--features",
    "--release",
    "--test",
    "--bench",
    // Of the bench itself.
    "--rounds",
    "--seconds",
    "--harness",
    "--hosts",
    "--inside",
    "--apart",
    "--sets",
    "--micro",
    "--unix-socket",
    "--cacert",
    // Of helm, kubectl and az.
    "--clusterrole",
    "--create-namespace",
    "--serviceaccount",
    "--wait",
    "--set",
    "--take-ownership",
    "--no-hooks",
    "--identities",
    "--nodepool-initialization-taints",
    "--audiences",
    "--enable-oidc-issuer",
    "--identity-name",
    "--issuer",
    "--name",
    "--raw",
    "--subject",
    "--append",
    "--as",
    "--cert",
    "--disable-workload-identity",
    "--dry-run",
    "--from-file",
    "--id",
    "--key-id",
    "--query",
    "--all-namespaces",
    "--assignee",
    "--client-id",
    "--identity",
    "--object-id",
    "--resource-id",
    "--assignee-object-id",
    "--assignee-principal-type",
    "--nrg-lockdown-restriction-level",
    "--display-name",
    "--for",
    "--follow",
    "--from-literal",
    "--key",
    "--output",
    "--password",
    "--reset-then-reuse-values",
    "--resource-group",
    "--role",
    "--scope",
    "--type",
    "--years",
];

/// The table of clients that the cluster's trials try.
#[path = "cluster/matrix/table.rs"]
#[allow(dead_code, reason = "the documents need the rows")]
mod table;
/// What stands in its rows.
#[path = "cluster/matrix/words.rs"]
mod words;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in [root().to_owned(), root().join("docs")] {
        let entries = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    assert!(files.len() >= 5, "{files:?}");
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Maximal runs of the given characters.
fn words(text: &str, belongs: impl Fn(char) -> bool) -> BTreeSet<&str> {
    text.split(|c| !belongs(c))
        .filter(|word| !word.is_empty())
        .collect()
}

fn flags(command: &clap::Command, found: &mut BTreeSet<String>) {
    found.extend(
        command
            .get_arguments()
            .filter_map(|arg| Some(format!("--{}", arg.get_long()?))),
    );
    for subcommand in command.get_subcommands() {
        flags(subcommand, found);
    }
}

/// Every file of Rust under these folders, but this one.
fn source_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("docs.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files
}

fn all_sources() -> String {
    let folders = ["src", "tests", "benches"];
    let files = folders.into_iter().flat_map(source_files);
    files.map(|(_, text)| text).collect()
}

#[test]
fn every_kind_of_error_has_a_heading_in_troubleshooting() {
    let text = read("TROUBLESHOOTING.md");
    for kind in FaultKind::ALL {
        assert!(
            text.contains(&format!("\n### {}\n", kind.as_str())),
            "no heading for {}",
            kind.as_str()
        );
    }
}

/// Alerts and scripts look for the reasons of Events: the list in the document is the code's.
#[test]
fn every_reason_of_an_event_is_documented_and_no_other() {
    let text = read("TROUBLESHOOTING.md");
    let table = text.split("\n## Events\n").nth(1).expect("the section");
    let table = table.split("\n## ").next().unwrap();
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: Vec<&str> = rows.collect();
    let told: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(documented, told);
}

/// Whoever searches for the words in hand must find them.
#[test]
fn every_quoted_answer_is_in_the_sources() {
    let (text, sources) = (read("TROUBLESHOOTING.md"), all_sources());
    let table = text.split("| `error_description` | heading |").nth(1);
    let rows = table.expect("the table").lines().skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    let quoted = rows
        .iter()
        .flat_map(|row| row.split('"').skip(1).step_by(2));
    let quoted: Vec<_> = quoted.map(|words| words.trim_end_matches(", …")).collect();
    assert!(quoted.len() >= 10, "{quoted:?}");
    for words in quoted {
        assert!(sources.contains(words), "no answer says: {words}");
    }
}

#[test]
fn every_flag_that_is_named_exists() {
    let mut known: BTreeSet<String> = FOREIGN_FLAGS
        .iter()
        .map(|flag| (*flag).to_owned())
        .collect();
    known.extend(["--help".to_owned(), "--version".to_owned(), "--".to_owned()]);
    flags(&Cli::command(), &mut known);
    for (file, text) in documents() {
        for word in words(&text, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
        }) {
            if word.starts_with("--") && word.trim_start_matches('-').len() > 1 {
                assert!(known.contains(word), "{}: no flag {word}", file.display());
            }
        }
    }
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = read("Makefile");
    for (file, text) in documents() {
        for (at, _) in text.match_indices("make ") {
            let before = text[..at].chars().next_back();
            let target = words(&text[at + 5..], |c| c.is_ascii_lowercase() || c == '-');
            let name = text[at + 5..]
                .split(|c: char| !c.is_ascii_lowercase() && c != '-')
                .next()
                .unwrap();
            if matches!(before, Some('`' | ' '))
                && target.contains(name)
                && text[..at].ends_with(['`', '$', ' '])
            {
                let code = text[..at].ends_with('`') || text[..at].ends_with("$ ");
                assert!(
                    !code || makefile.contains(&format!("\n{name}:")),
                    "{}: no target {name}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_metric_that_is_named_exists() {
    let sources = all_sources();
    for (file, text) in documents() {
        for word in words(&text, |c| c.is_ascii_lowercase() || c == '_') {
            if word.starts_with("lanyard_") {
                let base = word
                    .trim_end_matches("_bucket")
                    .trim_end_matches("_count")
                    .trim_end_matches("_sum");
                assert!(
                    sources.contains(base),
                    "{}: no metric {word}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let sources = all_sources();
    let text = read("ARCHITECTURE.md");
    let table = text.split("## Invariants and their tests").nth(1).unwrap();
    for number in 1..=10 {
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("| {number} |")))
            .expect("a row");
        let tests: Vec<_> = row
            .rsplit('|')
            .nth(1)
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        assert!(!tests.is_empty(), "invariant {number} names no test");
        for test in tests {
            let name = test.rsplit("::").next().unwrap();
            assert!(sources.contains(name), "invariant {number}: no test {test}");
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    for (file, text) in documents() {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..]
                .split(')')
                .next()
                .unwrap()
                .split('#')
                .next()
                .unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(
                    file.parent().unwrap().join(target).exists(),
                    "{}: {target}",
                    file.display()
                );
            }
        }
    }
}

/// Every series that some part of the program registers: a whole string in the sources.
fn registered_series() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in source_files("src") {
        // The demo names beginnings of series; tests assert on single lines.
        if path.components().any(|part| part.as_os_str() == "demo") {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let literals = text.split('"').skip(1).filter(|word| {
            let rest = word.strip_prefix("lanyard_");
            rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        });
        found.extend(literals.map(str::to_owned));
    }
    found
}

/// Whoever builds a dashboard finds every series, and none that is not there.
#[test]
fn every_registered_series_is_in_the_table_and_no_other() {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split(['`', '{']).next());
    let documented: BTreeSet<String> = names
        .filter(|name| name.starts_with("lanyard_"))
        .map(str::to_owned)
        .collect();
    let registered = registered_series();
    assert!(registered.len() > 40, "{registered:?}");
    let missing: Vec<_> = registered.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    let gone: Vec<_> = documented.difference(&registered).collect();
    assert!(gone.is_empty(), "only in docs/metrics.md: {gone:?}");
}

/// Reasons of conditions that the controller's sources write out.
fn condition_reasons() -> BTreeSet<String> {
    const BEFORE: &[&str] = &[
        "Verdict::no(",
        "Verdict::yes(",
        "not_ready(",
        "plainly(",
        "told(",
        "unwrap_or(",
        "reason: ",
        "=> ",
        "\"False\", ",
        "\"True\", ",
        ": &str = ",
        "=> (",
    ];
    let mut found = BTreeSet::new();
    for (path, text) in source_files("src/controller") {
        if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for before in BEFORE {
            for (at, _) in text.match_indices(before) {
                let rest = text[at + before.len()..].trim_start();
                let Some(word) = rest
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next())
                else {
                    continue;
                };
                let camel = word.starts_with(|c: char| c.is_ascii_uppercase())
                    && word.bytes().all(|b| b.is_ascii_alphanumeric())
                    && word.len() > 3;
                if camel {
                    found.insert(word.to_owned());
                }
            }
        }
    }
    found.extend(ArmErrorKind::ALL.map(|kind| kind.reason().to_owned()));
    found
}

/// A condition's or an Event's reason is what people search for.
#[test]
fn every_reason_of_the_controller_is_in_troubleshooting() {
    // Types, statuses and names of conditions; what is said of an identity that does not exist.
    const OTHERS: &[&str] = &[
        "Ready",
        "Azure",
        "NoIdentity",
        "Created",
        "ResourceGroupNotFound",
        "AzureIdentity",
        "StatefulSet",
    ];
    let text = read("TROUBLESHOOTING.md");
    let reasons = condition_reasons();
    assert!(reasons.len() > 40, "{reasons:?}");
    for reason in reasons {
        let told = text.contains(&format!("\n### {reason}\n"))
            || text.contains(&format!("\n| `{reason}` |"));
        assert!(
            told || OTHERS.contains(&&*reason),
            "no heading and no row for {reason}"
        );
    }
}

/// The matrix has a row for each client, in the README and wherever else one of its tables stands, and in it the words that the
/// trials are red without.
#[test]
fn every_client_has_its_row_and_its_words_there() {
    for (document, count) in [("README.md", 1), ("docs/clients.md", 3)] {
        let text = read(document);
        let tables: Vec<&str> = text.split("<!-- matrix: ").skip(1).collect();
        assert_eq!(tables.len(), count, "{document}");
        for told in tables {
            let told = told.split("<!-- end -->").next().unwrap();
            let (name, told) = told.split_once(" -->").unwrap();
            let rows = told.lines().filter_map(|line| line.strip_prefix("| "));
            let rows = rows.map(|row| row.trim_end_matches(" |").split(" | ").collect());
            let rows: Vec<Vec<&str>> = rows.collect();
            let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
            let wanted = table::CLIENTS.iter().map(|client| client.name);
            let wanted: Vec<&str> = ["client"].into_iter().chain(wanted).collect();
            assert_eq!(names, wanted, "{document}, {name}");
            for (client, row) in table::CLIENTS.iter().zip(&rows[1..]) {
                let stands = words::stand(client, name, &row[1..]);
                assert!(stands, "{document}, {name}: {row:?}");
            }
        }
    }
}
