//! App Service's webhook on a real cluster: variables of each pod's own, SDKs that find them without a change, and who waits
//! for the webhook.
//!
//! In: a cluster with Lanyard; each trial leaves it without the webhook. Out: passed, or what a pod saw. Blocks on helm, the
//! pods and the clients.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::cast::{self, GRANTED, ORDERS, PAYMENTS};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::pods::Pod;
use crate::release::NAMESPACE as RELEASE_NAMESPACE;
use crate::sdks;

/// The webhook's value.
pub const ON: &str = "--set=appService.enabled=true";
/// The label, as a pod has it.
pub const ASKS: (&str, &str) = ("lanyard.dev/app-service", "true");
const REFUSES: (&str, &str) = (ASKS.0, "false");
const OLDER_TOO: &[(&str, &str)] = &[("lanyard.dev/app-service-2017", "true")];
const ENDPOINT: &str = "http://169.254.169.254/msi/token";
const DEPLOYMENT: &str = "deployment/lanyard-admission";
/// Its pods.
const REPLICAS: [&str; 5] = [
    "pods",
    "-n",
    RELEASE_NAMESPACE,
    "-l",
    "app.kubernetes.io/component=admission",
];
const LIMIT: Duration = Duration::from_mins(1);

type Variables = BTreeMap<String, String>;

/// With the label, with the annotation of the older pair, with a "false", without; tokens by whatever a pod found, and 401.
pub async fn labelled_pods_get_variables_and_sdks_find_them(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "app-service";
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cluster.install(&[ON]).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    let pod = |name, node| {
        let pod = Pod::new(NAMESPACE, name, node).image(&image);
        pod.identity("payments,orders").labels(GRANTED)
    };
    let (asks, refuses) = ([GRANTED[0], ASKS], [GRANTED[0], REFUSES]);
    let pods = [
        pod("newer", 1).labels(&asks),
        pod("both", 2).labels(&asks).annotations(OLDER_TOO),
        pod("refuses", 1).labels(&refuses),
        pod("neither", 2).annotations(OLDER_TOO),
    ];
    try_join_all(pods.iter().map(|pod| cluster.run_pod(pod))).await?;
    let [newer, both, refuses, neither] = ["newer", "both", "refuses", "neither"];
    let one = secret(&variables(cluster, NAMESPACE, newer).await?, &["IDENTITY"])?;
    let other = secret(
        &variables(cluster, NAMESPACE, both).await?,
        &["IDENTITY", "MSI"],
    )?;
    ensure!(one != other, "two pods have one secret");
    for pod in [refuses, neither] {
        let found = variables(cluster, NAMESPACE, pod).await?;
        ensure!(found.is_empty(), "{pod} has {:?}", found.keys());
    }

    let asker = |pod| Asker::new(cluster, NAMESPACE, pod);
    let (first, second) = (cluster.node(1), cluster.node(2));
    // adal knows the older pair only, and takes it.
    tokio::try_join!(
        spoken(&first, [6, 0, 2], async || {
            try_join_all(["python", "node", "go"].map(|client| tokens(asker(newer), client)))
                .await?;
            tokens(asker(refuses), "curl").await
        }),
        spoken(&second, [4, 2, 2], async || {
            try_join_all(["python", "curl", "adal"].map(|client| tokens(asker(both), client)))
                .await?;
            tokens(asker(neither), "curl").await
        }),
    )?;

    for (pod, version, header) in [
        (newer, "2019-08-01", format!("X-IDENTITY-HEADER: {other}")),
        (newer, "2019-08-01", String::new()),
        (both, "2017-09-01", format!("secret: {one}")),
        (both, "2017-09-01", String::new()),
        (refuses, "2019-08-01", format!("X-IDENTITY-HEADER: {one}")),
    ] {
        unauthorized(cluster, NAMESPACE, pod, version, &header).await?;
    }
    cluster.no_leaks(mark).await?;
    let leave = cast::leave(cluster, NAMESPACE);
    tokio::try_join!(leave, cluster.install(&["--reset-values"])).map(drop)
}

/// The variables of both dialects in a pod's container.
async fn variables(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Variables> {
    let said = cluster.pod_exec(namespace, pod, &["env"]).await?;
    let said = said.success("env")?;
    let all = said.lines().filter_map(|line| line.split_once('='));
    let ours = all.filter(|(name, _)| name.starts_with("IDENTITY_") || name.starts_with("MSI_"));
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(ours.map(owned).collect())
}

/// The one secret of these pairs, which must be all that there is.
fn secret(found: &Variables, pairs: &[&str]) -> Result<String> {
    let secret = found.get("IDENTITY_HEADER").context("no IDENTITY_HEADER")?;
    let wanted = pairs.iter().flat_map(|pair| {
        let word = if *pair == "MSI" { "SECRET" } else { "HEADER" };
        [
            (format!("{pair}_ENDPOINT"), ENDPOINT.to_owned()),
            (format!("{pair}_{word}"), secret.clone()),
        ]
    });
    ensure!(*found == wanted.collect(), "other variables: {found:?}");
    // 32 bytes.
    ensure!(secret.len() == 43, "{} characters", secret.len());
    Ok(secret.clone())
}

/// Whether as many tokens as that are served by a node's agent meanwhile, in App Service's newer dialect, its older one, IMDS's.
async fn spoken(
    node: &Node<'_>,
    wanted: [u32; 3],
    meanwhile: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    const DIALECTS: [&str; 3] = ["app_service_2019", "app_service_2017", "imds"];
    let served = async || {
        try_join_all(DIALECTS.map(async |dialect| {
            let series = "lanyard_tokens_served_by_dialect_total";
            let series = format!("{series}{{dialect=\"{dialect}\"}}");
            node.sample(&series).await
        }))
        .await
    };
    let before = served().await?;
    meanwhile().await?;
    let after = served().await?;
    let more: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    ensure!(
        more == wanted.map(f64::from),
        "{}: {more:?} tokens in {DIALECTS:?}, not {wanted:?}",
        node.name()
    );
    Ok(())
}

/// By default and by client id.
async fn tokens(asker: Asker<'_>, client: &str) -> Result<()> {
    sdks::has(asker, client, &["token"], &PAYMENTS).await?;
    let by_id = ["token", "--client-id", ORDERS.client_id];
    sdks::has(asker, client, &by_id, &ORDERS).await
}

/// A request with that header gets 401, as App Service says it.
async fn unauthorized(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    version: &str,
    header: &str,
) -> Result<()> {
    let url = format!("{ENDPOINT}?api-version={version}&resource=https://vault.azure.net");
    let mut curl = vec!["curl", "-sS", "-m", "10", "-w", "\n%{http_code}", &url];
    if !header.is_empty() {
        curl.extend(["-H", header]);
    }
    let said = cluster.pod_exec(namespace, pod, &curl).await?;
    let said = said.success("curl")?;
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    let body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
    let refused = status == "401" && body["statusCode"] == 401 && body["message"].is_string();
    let keys = body.as_object().map_or(0, serde_json::Map::len);
    let name = header.split(':').next().unwrap_or_default();
    ensure!(
        refused && keys == 2,
        "{pod}, {version}, `{name}`: {status} {}",
        body["message"]
    );
    Ok(())
}

/// A replica goes, and nobody notices; both are away: labelled pods wait, and no other; the webhook is back: they start.
pub async fn only_labelled_pods_wait_for_the_webhook(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "app-service-waits";
    cluster.lanyard().await?;
    cluster.install(&[ON]).await?;
    cluster.namespace(NAMESPACE).await?;
    one_of_two_is_enough(cluster, NAMESPACE).await?;
    scale(cluster, 0).await?;
    let bare = labelled(NAMESPACE, "bare");
    let told = cluster.kubectl_with(&["apply", "-f", "-"], &bare).await?;
    ensure!(
        told.code != 0
            && told
                .stderr
                .contains("failed calling webhook \"app-service.admission.lanyard.dev\""),
        "a labelled pod was created: {told:?}"
    );
    // Its controller goes on asking.
    let till = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: till, namespace: {NAMESPACE}}}\nspec:\n  \
         selector: {{matchLabels: {{app: till}}}}\n  template:\n    \
         metadata: {{labels: {{app: till, {}: {:?}}}}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      \
         containers: [{{name: main, image: {}, imagePullPolicy: Never, command: [sleep, infinity]}}]\n",
        ASKS.0,
        ASKS.1,
        crate::images::BASE,
    );
    cluster.apply(&till).await?;
    let others = [
        Pod::new(NAMESPACE, "refuses", 1).labels(&[REFUSES]),
        Pod::new(NAMESPACE, "neither", 2),
    ];
    try_join_all(others.iter().map(|pod| cluster.run_pod(pod))).await?;
    let pods = ["pods", "-n", NAMESPACE, "-l", "app=till"];
    let waiting = cluster.get(&pods).await?;
    let none = waiting["items"].as_array().is_some_and(Vec::is_empty);
    ensure!(none, "{waiting:#}");
    scale(cluster, 2).await?;
    let wait = ["rollout", "status", "deployment/till", "-n", NAMESPACE];
    cluster
        .kubectl(&[&wait[..], &["--timeout=60s"]].concat())
        .await?;
    let started = cluster.get(&pods).await?.to_string();
    ensure!(started.contains("\"IDENTITY_HEADER\""), "{started}");
    let leave = cluster.drop_namespace(NAMESPACE);
    tokio::try_join!(leave, cluster.install(&["--reset-values"])).map(drop)
}

/// A pod that asks for the variables.
pub fn labelled(namespace: &str, name: &str) -> String {
    Pod::new(namespace, name, 1).labels(&[ASKS]).yaml()
}

/// Labelled pods are admitted all the time while a replica ends, and get their variables.
async fn one_of_two_is_enough(cluster: &Cluster, namespace: &str) -> Result<()> {
    let replicas = cluster.get(&REPLICAS).await?;
    let name = replicas["items"][0]["metadata"]["name"].as_str();
    let name = name.context("no replica")?;
    let delete = ["delete", "pod", name, "-n", RELEASE_NAMESPACE];
    cluster
        .kubectl(&[&delete[..], &["--wait=false"]].concat())
        .await?;
    let (yaml, mut admitted) = (labelled(namespace, "asked"), 0);
    let dry = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    let ends = async {
        loop {
            let made = cluster.kubectl_with(&dry, &yaml).await?;
            let made = made.success("a labelled pod while a replica ends")?;
            ensure!(made.contains("\"IDENTITY_HEADER\""), "{made}");
            admitted += 1;
            if !cluster.get(&REPLICAS).await?.to_string().contains(name) {
                return Ok(());
            }
        }
    };
    let ended = tokio::time::timeout(LIMIT, ends).await;
    ended.context("the replica does not end")??;
    println!("{admitted} labelled pods were admitted while a replica ended");
    Ok(())
}

/// As many replicas of the webhook, and no others.
async fn scale(cluster: &Cluster, replicas: u32) -> Result<()> {
    let scale = format!("--replicas={replicas}");
    cluster
        .kubectl(&["scale", DEPLOYMENT, "-n", RELEASE_NAMESPACE, &scale])
        .await?;
    let what = format!("{replicas} replicas of the webhook");
    let there = async || {
        let status = cluster.get(&[DEPLOYMENT, "-n", RELEASE_NAMESPACE]).await?;
        let pods = cluster.get(&REPLICAS).await?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        let ready = status["status"]["readyReplicas"].as_u64().unwrap_or(0);
        Ok(u64::from(replicas) == ready && count == usize::try_from(replicas)?)
    };
    cluster.wait_for(&what, LIMIT, there).await
}
