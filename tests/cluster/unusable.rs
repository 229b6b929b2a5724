//! Credentials that are none: the program gets a JSON error, the owner an Event that says what to do, nobody the contents.
//!
//! In: a cluster with Lanyard. Out: passed, or what was said instead. Blocks on one pod. Every secret text here is a canary
//! or remembered: at the end it is looked for in logs, Events and metrics.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::sim::world::Secret;
use serde_json::Value;

use crate::asking::once;
use crate::cast::{GRANTED, TENANT};
use crate::cluster::Cluster;
use crate::papers::{self, CANARY, Paper};
use crate::pods::Pod;
use crate::release::NAMESPACE as SYSTEM;
use crate::stage::{self, BY_SECRET};

const NAMESPACE: &str = "bad-input";
const LIMIT: Duration = Duration::from_secs(45);
const BY_PEM: &str = "certificateRef: {name: NAME}";
const TROUBLESHOOTING: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/TROUBLESHOOTING.md"));

/// What is wrong: the identity's and Secret's name, how the identity refers to it, words for the owner.
const WRONG: [(&str, &str, &[&str]); 9] = [
    ("missing", "secretRef: {name: NAME}", &["does not exist"]),
    (
        "without-key",
        "secretRef: {name: NAME}",
        &["clientSecret", "password"],
    ),
    (
        "wrong-password",
        "certificateRef: {name: NAME, pkcs12Key: keystore.p12, passwordKey: password}",
        &["password"],
    ),
    ("mismatched", BY_PEM, &["tls.key"]),
    ("encrypted", BY_PEM, &["encrypted"]),
    ("expired", BY_PEM, &["2021"]),
    ("elliptic", BY_PEM, &["RSA"]),
    ("garbage", BY_PEM, &["PEM"]),
    // The release was not told of this one.
    ("not-listed", "secretRef: {name: NAME}", &["agent.secrets"]),
];

/// One pod asks for each of nine identities with a bad credential; then the first is mended.
pub async fn a_bad_credential_is_told_to_its_owner_and_leaks_nothing(
    cluster: &Cluster,
) -> Result<()> {
    stage::raise(cluster).await?;
    let (secrets, hidden) = secrets().await?;
    let identities: Vec<String> = WRONG
        .iter()
        .enumerate()
        .map(|(index, wrong)| identity(index, wrong.0, wrong.1))
        .collect();
    cluster.apply(&(secrets + &identities.concat())).await?;
    let names = WRONG.map(|wrong| wrong.0).join(",");
    let pod = Pod::new(NAMESPACE, "asks", 2)
        .identity(&names)
        .labels(GRANTED);
    cluster.run_pod(&pod).await?;
    let mut said = String::new();
    for (index, (name, _, words)) in WRONG.iter().enumerate() {
        let (status, body) = ask(cluster, &client_id(index)).await?;
        let json: Value = serde_json::from_str(&body).with_context(|| format!("{name}: {body}"))?;
        let described = json["error"].is_string() && json["error_description"].is_string();
        ensure!(status == "400" && described, "{name}: {status} {body}");
        let note = told(cluster, name, words).await?;
        println!("{name}: {note}");
        said += &(body + &note);
    }
    let heading = "\n### credential_unusable\n";
    ensure!(
        TROUBLESHOOTING.contains(heading),
        "TROUBLESHOOTING.md has no such heading"
    );
    mended(cluster).await?;
    nothing_leaked(cluster, &said, &hidden).await?;
    stage::leave(cluster, NAMESPACE).await
}

fn client_id(index: usize) -> String {
    match index {
        // This one exists, for when it is mended.
        0 => BY_SECRET.client_id.to_owned(),
        _ => format!("88888888-8888-4888-8888-88888888888{index}"),
    }
}

fn identity(index: usize, name: &str, reference: &str) -> String {
    let (id, reference) = (client_id(index), reference.replace("NAME", name));
    format!(
        "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         spec: {{clientID: {id}, tenantID: {TENANT}, tokenSources: [{{servicePrincipal: {{{reference}}}}}]}}\n\
         ---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityBinding\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         spec:\n  identity: {name}\n  subjects: [{{podSelector: {{matchLabels: {{granted: \"true\"}}}}}}]\n"
    )
}

/// The bad Secrets, and texts of theirs that nobody may see.
async fn secrets() -> Result<(String, Vec<String>)> {
    let secret = papers::secret();
    let [store, one, other, encrypted] =
        ["store", "one", "other", "encrypted"].map(|name| Paper::rsa(&format!("till, {name}")));
    let (store, one, other, encrypted) = (store?, one?, other?, encrypted?);
    let (expired, elliptic) = (
        Paper::expired("till, expired")?,
        Paper::elliptic("till, elliptic")?,
    );
    let mut yaml = String::new();
    let opaque =
        |name: &str, texts: &[(&str, &str)]| papers::manifest(NAMESPACE, name, "Opaque", texts);
    yaml += &opaque("without-key", &[("password", &secret)]);
    yaml += &opaque("not-listed", &[("clientSecret", &secret)]);
    let kept = store.store(CANARY).await?;
    yaml += &opaque(
        "wrong-password",
        &[
            ("keystore.p12:base64", &kept),
            ("password", "another-canary"),
        ],
    );
    let mixed = Paper {
        certificate: one.certificate,
        key: other.key.clone(),
    };
    yaml += &mixed.manifest(NAMESPACE, "mismatched");
    let locked = Paper {
        key: encrypted.key_encrypted().await?,
        certificate: encrypted.certificate,
    };
    yaml += &locked.manifest(NAMESPACE, "encrypted");
    yaml += &expired.manifest(NAMESPACE, "expired");
    yaml += &elliptic.manifest(NAMESPACE, "elliptic");
    yaml += &opaque("garbage", &[("tls.crt", CANARY), ("tls.key", &secret)]);
    let keys = [
        &store.key,
        &other.key,
        &locked.key,
        &expired.key,
        &elliptic.key,
    ];
    // A line from the middle of each key.
    let lines = keys
        .iter()
        .filter_map(|key| key.lines().nth(2).map(str::to_owned));
    let hidden = lines
        .chain([CANARY.to_owned(), "another-canary".to_owned(), secret])
        .collect();
    Ok((yaml, hidden))
}

/// Status and body of the pod's request.
async fn ask(cluster: &Cluster, client_id: &str) -> Result<(String, String)> {
    let parameters = format!("&client_id={client_id}");
    once(cluster, (NAMESPACE, "asks"), &parameters).await
}

/// The Event on the identity, with these words.
async fn told(cluster: &Cluster, name: &str, words: &[&str]) -> Result<String> {
    let about =
        format!("regarding.kind=AzureIdentity,regarding.name={name},reason=CredentialUnusable");
    let args = [
        "events.events.k8s.io",
        "-n",
        NAMESPACE,
        "--field-selector",
        &about,
    ];
    let mut note = String::new();
    let seen = async || {
        let events = cluster.get(&args).await?;
        let event = events["items"].get(0).context("no Event yet")?;
        event["note"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut note);
        ensure!(event["type"] == "Warning", "{event:#}");
        Ok(true)
    };
    cluster
        .wait_for(&format!("an Event on the identity {name}"), LIMIT, seen)
        .await?;
    let missing = words.iter().find(|word| !note.contains(**word));
    ensure!(missing.is_none(), "{name}: {missing:?} is not in: {note}");
    Ok(note)
}

/// The first one's Secret is made: its pod needs no restart, nor does the agent.
async fn mended(cluster: &Cluster) -> Result<()> {
    let value = papers::secret();
    let secret = Secret {
        value: value.clone(),
        expires: None,
    };
    cluster
        .azure()
        .add_secret(BY_SECRET.principal, &secret)
        .await?;
    let texts = [("clientSecret", value.as_str())];
    cluster
        .apply(&papers::manifest(NAMESPACE, "missing", "Opaque", &texts))
        .await?;
    let works = async || {
        let (status, body) = ask(cluster, BY_SECRET.client_id).await?;
        ensure!(status == "200", "{status} {body}");
        Ok(true)
    };
    cluster
        .wait_for("a token by the Secret that was missing", LIMIT, works)
        .await
}

/// What was said, agents' logs, all Events, agents' metrics.
async fn nothing_leaked(cluster: &Cluster, said: &str, hidden: &[String]) -> Result<()> {
    let mut all = vec![("answers and Events".to_owned(), said.to_owned())];
    let logs = [
        "logs",
        "-n",
        SYSTEM,
        "-l",
        "app.kubernetes.io/name=lanyard",
        "--all-containers",
        "--tail=-1",
    ];
    all.push(("logs".to_owned(), cluster.kubectl(&logs).await?));
    all.push((
        "Events".to_owned(),
        cluster
            .kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"])
            .await?,
    ));
    for node in cluster.nodes() {
        let metrics = node.metrics().await?;
        all.push((format!("metrics of {}", node.name()), metrics));
    }
    for (place, text) in &all {
        let found = hidden.iter().position(|one| text.contains(one.as_str()));
        ensure!(
            found.is_none(),
            "secret text number {found:?} is in {place}"
        );
    }
    Ok(())
}
