//! The kinds, as far as they can be judged without an API server: the generated files are those
//! that are committed, every field says what it is, and the Rust side refuses what the rules refuse.
//! tests/apiserver asks a real API server about the same objects.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by panicking"
)]

mod objects;

use std::collections::BTreeSet;

use lanyard::api::crd::{Definition, definitions};
use lanyard::api::object::read;
use objects::{Bad, KINDS, text};
use serde_json::Value;

fn all() -> Vec<Definition> {
    definitions().expect("definitions")
}

fn schema(definition: &Definition) -> &Value {
    &definition.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Calls `look` for a schema and everything below it, with the path that the API server reports,
/// without list indices.
fn walk<'a>(path: &str, schema: &'a Value, look: &mut dyn FnMut(&str, &'a Value)) {
    look(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        walk(&below, field, look);
    }
    if schema["items"].is_object() {
        walk(path, &schema["items"], look);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}.*"), &schema["additionalProperties"], look);
    }
}

#[test]
fn the_charts_files_are_what_the_types_say() {
    let all = all();
    for definition in &all {
        let file = format!("charts/lanyard/files/crds/{}.yaml", definition.plural);
        let expected = definition.to_yaml().unwrap();
        assert!(
            text(&file) == expected,
            "{file} is not what the types in src/api say: run `make crds`"
        );
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lanyard/files/crds");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), all.len());
}

#[test]
fn the_kinds_are_those_of_the_design() {
    let mut seen = Vec::new();
    for definition in all() {
        let spec = &definition.document["spec"];
        let names = &spec["names"];
        assert_eq!(names["categories"], serde_json::json!(["azure", "lanyard"]));
        assert_eq!(spec["versions"][0]["name"], "v1alpha1");
        let short = names["shortNames"][0].as_str().unwrap().to_owned();
        let kind = names["kind"].as_str().unwrap().to_owned();
        let has_status = spec["versions"][0]["subresources"]["status"].is_object();
        seen.push((kind, short, spec["scope"] == "Namespaced", has_status));
    }
    let expected = [
        ("AzureAssignment", "azas", false, true),
        ("AzureIdentity", "azid", true, true),
        ("AzureIdentityBinding", "azidb", true, true),
        ("AzureIdentityPolicy", "azpol", false, true),
        ("AzureMetadataException", "azmex", false, true),
    ];
    let expected = expected.map(|(kind, short, namespaced, status)| {
        (kind.to_owned(), short.to_owned(), namespaced, status)
    });
    assert_eq!(seen, expected);
    for (plural, kind, namespaced) in KINDS {
        let definition = all().into_iter().find(|d| d.plural == plural).unwrap();
        assert_eq!(definition.document["spec"]["names"]["kind"], kind);
        assert_eq!(
            definition.document["spec"]["scope"] == "Namespaced",
            namespaced
        );
    }
}

#[test]
fn every_field_says_what_it_is() {
    let mut wrong = Vec::new();
    for definition in all() {
        let mut look = |path: &str, field: &Value| {
            let said = field["description"].as_str().unwrap_or_default();
            let is_value = path.ends_with(".*") || field["type"] == "string" && said.is_empty();
            // The items of a list of texts are the list's business.
            if is_value && !field.as_object().unwrap().contains_key("description") {
                return;
            }
            let sentence = said.ends_with('.') && said.len() > 20;
            let reads_well =
                !said.contains("[`") && !said.contains("Auto-generated") && !said.contains("  ");
            if !sentence || !reads_well {
                wrong.push(format!("{} {path}: `{said}`", definition.plural));
            }
        };
        walk("", schema(&definition), &mut look);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A property without a sentence is no item of a list.
#[test]
fn every_property_has_a_description() {
    for definition in all() {
        let mut look = |path: &str, field: &Value| {
            for (name, property) in field["properties"].as_object().into_iter().flatten() {
                assert!(
                    property["description"].is_string(),
                    "{}: {path}.{name}",
                    definition.plural
                );
            }
        };
        walk("", schema(&definition), &mut look);
    }
}

#[test]
fn nothing_is_unbounded_and_nothing_is_null() {
    let mut wrong = Vec::new();
    for definition in all() {
        let mut look = |path: &str, field: &Value| {
            let bounded = match field["type"].as_str() {
                Some("array") => field["maxItems"].is_u64(),
                Some("string") if !field["x-kubernetes-validations"].is_null() => {
                    field["maxLength"].is_u64()
                }
                _ => true,
            };
            if path.starts_with("spec") && !bounded || !field["nullable"].is_null() {
                wrong.push(format!("{} {path}", definition.plural));
            }
        };
        walk("", schema(&definition), &mut look);
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn good_objects_are_read() {
    for object in objects::good() {
        if let Err(problem) = read(object.clone(), "1") {
            panic!("{problem}\n{object}");
        }
    }
}

#[test]
fn bad_objects_are_refused_with_the_rules_words() {
    let mut wrong = Vec::new();
    for Bad {
        object,
        refused,
        was,
        ..
    } in objects::bad()
    {
        match read(object.clone(), "1") {
            // Whether it may change is for who knows what it was.
            _ if was.is_some() => {}
            Ok(_) => wrong.push(format!("taken: {object}")),
            Err(problem) if problem.to_string().contains(&refused) => {}
            Err(problem) => wrong.push(format!("{problem}\n  and not `{refused}`: {object}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_comes_later_is_refused_and_not_ignored() {
    for Bad {
        object, refused, ..
    } in objects::later()
    {
        let problem = read(object.clone(), "1").expect_err(&object.to_string());
        assert!(problem.to_string().contains(&refused), "{problem}");
    }
}

#[test]
fn every_rule_has_a_bad_object() {
    let bad = objects::bad();
    let (mut untested, mut rules) = (Vec::new(), 0);
    for definition in all() {
        let mut messages = BTreeSet::new();
        let mut look = |path: &str, field: &Value| {
            for rule in field["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                rules += 1;
                let message = rule["message"].as_str().unwrap();
                assert!(
                    messages.insert((path.to_owned(), message.to_owned())),
                    "two rules at {path} say `{message}`"
                );
                let tested = bad.iter().any(|bad| {
                    bad.plural == definition.plural
                        && bad.at == path
                        && message.contains(&bad.refused)
                });
                if !tested {
                    untested.push(format!("{} {path}: {message}", definition.plural));
                }
            }
        };
        walk("", schema(&definition), &mut look);
    }
    assert!(rules > 40, "only {rules} rules found");
    assert!(
        untested.is_empty(),
        "no object in tests/crds/bad is refused by:\n{}",
        untested.join("\n")
    );
}
