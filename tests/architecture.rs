//! The house rules, held by tests: who may import whom, which files stay pure, no orphan file, no
//! file of two ideas, no name that says nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which top-level modules a top-level module may use. `sim` must not know the agent, nor the
/// agent's client of IMDS: it encodes Azure's protocol by itself, so that a shared mistake cannot
/// pass its own test (invariant 10).
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("api", &["model"]),
    ("azure", &["model"]),
    ("serve", &["model"]),
    ("kubernetes", &["model", "api", "serve"]),
    ("hold", &[]),
    (
        "agent",
        &["model", "api", "azure", "serve", "kubernetes", "hold"],
    ),
    (
        "controller",
        &["model", "api", "azure", "serve", "kubernetes"],
    ),
    ("admission", &["model", "api", "kubernetes", "serve"]),
    ("probe", &["model"]),
    ("removal", &["api", "kubernetes", "serve"]),
    ("explain", &["model", "api", "agent"]),
    ("suggest", &["api", "agent", "explain"]),
    ("identities", &[]),
    ("sim", &["serve"]),
    ("lab", &[]),
    ("demo", &["lab", "sim"]),
    (
        "cli",
        &[
            "admission",
            "agent",
            "api",
            "azure",
            "controller",
            "demo",
            "explain",
            "hold",
            "identities",
            "kubernetes",
            "lab",
            "model",
            "probe",
            "removal",
            "serve",
            "sim",
            "suggest",
        ],
    ),
];

/// Files that decide: values in, values out. No runtime, no clock, no IO.
const PURE: &[&str] = &[
    "src/model/",
    "src/api/",
    "src/agent/bootguard/text.rs",
    "src/agent/conditions.rs",
    "src/agent/credentials/candidates.rs",
    "src/agent/credentials/expiry.rs",
    "src/agent/credentials/load.rs",
    "src/agent/credentials/material.rs",
    "src/agent/credentials/unusable.rs",
    "src/agent/credentials/wanted.rs",
    "src/agent/events/ledger.rs",
    "src/agent/events/reason.rs",
    "src/agent/checkpoint/content.rs",
    "src/agent/checkpoint/format.rs",
    "src/agent/assigned.rs",
    "src/agent/evidence/table.rs",
    "src/agent/grants.rs",
    "src/agent/host_network/place.rs",
    "src/agent/host_token/seen.rs",
    "src/agent/inside/divert.rs",
    "src/agent/inside/roster.rs",
    "src/agent/inside/sandbox.rs",
    "src/agent/intercept/backend.rs",
    "src/agent/intercept/conntrack/entry.rs",
    "src/agent/intercept/drift.rs",
    "src/agent/intercept/rules.rs",
    "src/agent/intercept/save.rs",
    "src/agent/intercept/script.rs",
    "src/agent/knowledge.rs",
    "src/agent/netlink/",
    "src/agent/observe/answerer.rs",
    "src/agent/observe/table.rs",
    "src/agent/obtain/circuit.rs",
    "src/agent/obtain/key.rs",
    "src/agent/obtain/request.rs",
    "src/agent/obtain/service.rs",
    "src/agent/obtain/slot.rs",
    "src/agent/obtain/turns.rs",
    "src/agent/obtain/verify.rs",
    "src/agent/origin.rs",
    "src/agent/passthrough.rs",
    "src/agent/rate.rs",
    "src/agent/receive/",
    "src/agent/respond/",
    "src/agent/select.rs",
    "src/agent/selftest/segment.rs",
    "src/agent/selftest/talk.rs",
    "src/agent/selftest/verdict.rs",
    "src/agent/sightings.rs",
    "src/agent/touched.rs",
    "src/agent/watch/kind.rs",
    "src/agent/watch/slim.rs",
    "src/agent/world.rs",
    "src/controller/desire/",
    "src/controller/identities/schedule.rs",
    "src/controller/observe/intern.rs",
    "src/controller/observe/nodes.rs",
    "src/controller/observe/ours.rs",
    "src/controller/observe/pods/binary.rs",
    "src/controller/observe/pods/mod.rs",
    "src/controller/observe/reader.rs",
    "src/controller/plan/",
    "src/controller/report/binding.rs",
    "src/controller/report/draft.rs",
    "src/controller/report/facts.rs",
    "src/controller/report/happenings.rs",
    "src/controller/report/identity.rs",
    "src/controller/report/ids.rs",
    "src/controller/report/policy.rs",
    "src/controller/report/reach.rs",
    "src/controller/report/verdict.rs",
    "src/kubernetes/watch/extent.rs",
    "src/kubernetes/watch/mirror.rs",
    "src/kubernetes/watch/read.rs",
    "src/kubernetes/watch/verdict.rs",
    "src/admission/app_service/",
    "src/admission/issue.rs",
    "src/admission/review.rs",
    "src/admission/verdict.rs",
    "src/azure/access/candidates.rs",
    "src/azure/access/error.rs",
    "src/azure/access/held.rs",
    "src/azure/answer.rs",
    "src/azure/arm/advice.rs",
    "src/azure/arm/answer.rs",
    "src/azure/arm/compute.rs",
    "src/azure/arm/endpoint.rs",
    "src/azure/arm/error.rs",
    "src/azure/arm/identity.rs",
    "src/azure/arm/named.rs",
    "src/azure/arm/operation.rs",
    "src/azure/credential/",
    "src/azure/entra/answer.rs",
    "src/azure/entra/endpoint.rs",
    "src/azure/imds/answer.rs",
    "src/controller/managed/accounts.rs",
    "src/controller/managed/arrival.rs",
    "src/controller/managed/claim.rs",
    "src/controller/managed/claims.rs",
    "src/controller/managed/departure.rs",
    "src/controller/managed/federated.rs",
    "src/controller/managed/known.rs",
    "src/controller/managed/naming.rs",
    "src/controller/managed/outcome.rs",
    "src/controller/managed/step.rs",
    "src/controller/managed/words.rs",
    "src/probe/judge.rs",
    "src/probe/report.rs",
    "src/probe/token.rs",
    "src/removal/outcome.rs",
    "src/explain/",
    "src/identities.rs",
    "src/suggest/",
];

const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::env",
    "std::process",
    "SystemTime",
    "Instant::now",
    "serve::clock",
    "async fn",
];

const SAYS_NOTHING: &[&str] = &[
    "util", "utils", "helper", "helpers", "manager", "common", "handler", "handlers", "misc",
];

struct Source {
    path: PathBuf,
    /// The code without its inline tests.
    code: String,
    is_test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\nmod tests {").next().unwrap().to_owned();
                let path = path.strip_prefix(root()).unwrap().to_owned();
                let name = path.to_str().unwrap();
                let is_test = name.ends_with("tests.rs")
                    || name.contains("/tests/")
                    || name.ends_with("testkit.rs");
                found.push(Source {
                    path,
                    code,
                    is_test,
                });
            }
        }
    }
    assert!(
        found.len() > 1 || folder != "src",
        "nothing found under {folder}"
    );
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Lines of code, comments left out.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .code
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn words_after<'a>(line: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(marker).map(move |(at, _)| {
        let rest = &line[at + marker.len()..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_go_one_way() {
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources("src") {
        let parts: Vec<_> = source
            .path
            .iter()
            .skip(1)
            .map(|part| part.to_str().unwrap())
            .collect();
        let module = parts[0].trim_end_matches(".rs");
        let Some(may_use) = allowed.get(module) else {
            assert!(
                matches!(module, "lib" | "main"),
                "{}: add {module} to MAY_USE",
                source.path.display()
            );
            continue;
        };
        let is_mod = source.path.file_name().is_some_and(|name| name == "mod.rs");
        let depth = parts.len() - usize::from(is_mod);
        for (number, line) in code_lines(&source) {
            let (mut used, mut at) = (
                Vec::new(),
                format!("{}:{}", source.path.display(), number + 1),
            );
            used.extend(
                words_after(line, "crate::").filter(|word| !word.is_empty() && *word != module),
            );
            if line.contains("crate::{") {
                at += ": name one top-level module per `use`";
                used.push("{");
            }
            if line.contains(&"super::".repeat(depth)) && !source.is_test {
                at += ": reaches the crate root by `super`";
                used.push("super");
            }
            for word in used.into_iter().filter(|word| !may_use.contains(word)) {
                wrong.push(format!("{at}: {module} uses {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The code map is what people read: it names the same modules, and lets them use the same.
#[test]
fn the_code_map_is_the_rule() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("| module | what it is | may use |").nth(1);
    let rows = table.expect("the code map").lines().skip(2);
    let told: BTreeMap<&str, BTreeSet<&str>> = rows
        .map_while(|row| {
            let mut cells = row.strip_prefix("| `")?.split(" | ");
            let (module, uses) = (cells.next()?.trim_end_matches('`'), cells.nth(1)?);
            let words = uses.split(|c: char| !c.is_ascii_lowercase());
            let named = words.filter(|word| MAY_USE.iter().any(|(name, _)| name == word));
            Some((module, named.collect()))
        })
        .collect();
    for (module, may_use) in MAY_USE {
        let told = told.get(module);
        let told = told.unwrap_or_else(|| panic!("the code map lacks {module}"));
        // Its row says "all".
        if *module != "cli" {
            assert_eq!(*told, may_use.iter().copied().collect(), "{module}");
        }
    }
    assert_eq!(told.len(), MAY_USE.len(), "{told:?}");
}

#[test]
fn pure_files_are_pure() {
    let sources = sources("src");
    let mut wrong = Vec::new();
    for pure in PURE {
        let mut files = sources
            .iter()
            .filter(|s| s.path.starts_with(pure.trim_end_matches('/')) && !s.is_test)
            .peekable();
        assert!(files.peek().is_some(), "{pure} is gone: mend PURE");
        for source in files {
            for (number, line) in code_lines(source) {
                let found = IMPURE.iter().filter(|word| line.contains(**word));
                wrong.extend(
                    found.map(|word| format!("{}:{}: {word}", source.path.display(), number + 1)),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_an_orphan() {
    let sources = sources("src");
    let all: BTreeSet<_> = sources.iter().map(|source| source.path.clone()).collect();
    let mut reached: BTreeSet<PathBuf> = ["src/lib.rs", "src/main.rs"].map(PathBuf::from).into();
    for source in &sources {
        let text = std::fs::read_to_string(root().join(&source.path)).unwrap();
        let folder = source.path.parent().unwrap();
        let stem = source.path.file_stem().unwrap().to_str().unwrap();
        let inner = if matches!(stem, "mod" | "lib" | "main") {
            folder.to_owned()
        } else {
            folder.join(stem)
        };
        for line in text.lines() {
            let declared = line
                .trim()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub(in crate::agent) ");
            if let Some(name) = declared
                .strip_prefix("mod ")
                .and_then(|rest| rest.strip_suffix(';'))
            {
                reached.insert(inner.join(format!("{name}.rs")));
                reached.insert(inner.join(name).join("mod.rs"));
            }
        }
    }
    let orphans: Vec<_> = all.difference(&reached).collect();
    assert!(orphans.is_empty(), "in no module tree: {orphans:?}");
}

#[test]
fn folders_are_made_one_way() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().filter(|source| !source.is_test) {
        let shown = source.path.display();
        let text = std::fs::read_to_string(root().join(&source.path)).unwrap();
        if text.contains("#[path") {
            wrong.push(format!(
                "{shown}: a test file is `<file>/tests.rs`, without `#[path]`"
            ));
        }
        let own = source.path.with_extension("");
        let inside = std::fs::read_dir(root().join(&own)).into_iter().flatten();
        let other = |name: &std::ffi::OsString| name != "tests.rs" && name != "tests";
        if inside
            .map(|entry| entry.unwrap().file_name())
            .any(|name| other(&name))
        {
            wrong.push(format!(
                "{shown}: with modules of its own it is {}/mod.rs",
                own.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_hold_one_idea() {
    let lengths = |folder: &str| -> Vec<(usize, PathBuf)> {
        sources(folder)
            .into_iter()
            .map(|source| (source.code.lines().count(), source.path))
            .collect()
    };
    let mut src = lengths("src");
    let long: Vec<_> = src
        .iter()
        .chain(&lengths("tests"))
        .filter(|(lines, _)| *lines > 500)
        .cloned()
        .collect();
    assert!(long.is_empty(), "over 500 lines: {long:?}");
    src.sort();
    let median = src[src.len() / 2].0;
    assert!(
        median <= 150,
        "half of the files have more than {median} lines"
    );
}

#[test]
fn names_say_something() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        for part in &source.path {
            let stem = part.to_str().unwrap().trim_end_matches(".rs");
            assert!(!SAYS_NOTHING.contains(&stem), "{}", source.path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        let said = source.is_test || source.code.starts_with("//!");
        assert!(said, "{} has no `//!` head", source.path.display());
    }
}
