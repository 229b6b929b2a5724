//! Texts that are kept in two places are the same in both.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{helm_program, read, root, text, values};

/// Rules, their tests, and how many series they look at, at least.
const ALERTS: &[(&str, &str, usize)] = &[
    (
        "charts/lanyard/files/alerts.yaml",
        "tests/cluster/alerts.yaml",
        9,
    ),
    (
        "charts/lanyard/files/controller-alerts.yaml",
        "tests/cluster/controller-alerts.yaml",
        6,
    ),
];

#[test]
fn the_plain_manifests_are_the_charts() {
    let rendered = Command::new(root().join("deploy/render"))
        .arg(helm_program())
        .output();
    let rendered = text(rendered.unwrap());
    assert!(rendered.contains("kind: DaemonSet"), "{rendered}");
    assert!(
        rendered == read("deploy/lanyard.yaml"),
        "deploy/lanyard.yaml is not what the chart gives: make manifests"
    );
}

#[test]
fn the_readmes_table_is_the_values() {
    let mut wanted = BTreeMap::new();
    leaves("", &values(), &mut wanted);
    let readme = read("charts/lanyard/README.md");
    let table = readme
        .split("| value | default | |")
        .nth(1)
        .expect("the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeMap<String, String> = rows
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            let default = rest.split('|').nth(1).unwrap().trim();
            assert!(
                rest.split('|')
                    .nth(2)
                    .is_some_and(|words| words.trim().len() > 3),
                "{name} is not explained"
            );
            (name.to_owned(), default.trim_matches('`').to_owned())
        })
        .collect();
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>()
    );
    for (name, default) in told
        .iter()
        .filter(|(_, default)| *default != "see values.yaml")
    {
        let default: Value = serde_json::from_str(default).unwrap();
        assert_eq!(default, wanted[name], "{name}");
    }
}

/// Names with their values; what users replace whole is one.
fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    let whole = ["resources", "affinity", "nodeSelector"];
    match value.as_object() {
        Some(fields) if !fields.is_empty() && !whole.iter().any(|name| path.ends_with(name)) => {
            for (name, inner) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(&path, inner, found);
            }
        }
        _ => drop(found.insert(path.to_owned(), value.clone())),
    }
}

#[test]
fn the_versions_are_one() {
    let chart = read("charts/lanyard/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        chart.contains(&format!("appVersion: \"{version}\"\n")),
        "{chart}"
    );
    assert!(
        chart.contains(&format!("\nversion: {version}\n")),
        "{chart}"
    );
}

/// Every series that an alert looks at is one that the agent or the controller has, and every alert has a test.
#[test]
fn alerts_ask_for_series_that_exist() {
    let sources = sources();
    for (rules, tests, at_least) in ALERTS {
        let (alerts, tests) = (read(rules), read(tests));
        let words = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let series: BTreeSet<&str> = words
            .filter(|word| word.starts_with("lanyard_"))
            .map(|word| word.trim_end_matches("_count").trim_end_matches("_bucket"))
            .collect();
        assert!(series.len() >= *at_least, "{series:?}");
        for name in series {
            assert!(sources.contains(&format!("\"{name}\"")), "no series {name}");
        }
        for alert in alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
        {
            assert!(
                tests.matches(alert).count() >= 2,
                "{alert} is not tested both ways"
            );
        }
    }
}

#[test]
fn alerts_pass_promtool() {
    for (rules, tests, _) in ALERTS {
        for args in [["check", "rules", rules], ["test", "rules", tests]] {
            let done = Command::new("promtool")
                .args(args)
                .current_dir(root())
                .output();
            let done =
                done.expect("promtool (Debian's package prometheus; deploy/install-deps cluster)");
            assert!(
                done.status.success(),
                "{}{}",
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
}

fn sources() -> String {
    let (mut text, mut folders) = (String::new(), vec![root().join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    text
}
