//! Whether Lanyard is being removed from the cluster, and what is to become of managed identities then: a
//! `ConfigMap`, the marker, that `lanyard uninstall --cluster` sets.
//!
//! In: a watch of that one object. Out: a [`Mode`]. Blocks on the API server. Final: a marker that goes
//! away again makes nobody serve; only a new start does.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::watch;
use tokio::time::sleep;

use super::claim::Mode;
use crate::api::removal::{DELETE, MANAGED_IDENTITIES, RETAIN};
use crate::kubernetes::{Cluster, Collection, EventKind, Failure, PAGE};

/// Until a list is there, or a watch stands.
const BEGIN: Duration = Duration::from_secs(10);
/// The server ends a watch after this; bookmarks come each minute.
const LIFETIME: Duration = Duration::from_mins(10);
const SILENCE: Duration = Duration::from_mins(3);
/// After a watch that ended or failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows the marker. Never ends.
pub async fn follow(cluster: Cluster, namespace: String, name: String, mode: watch::Sender<Mode>) {
    let of = Collection {
        path: format!("/api/v1/namespaces/{namespace}/configmaps"),
        selector: format!("fieldSelector=metadata.name%3D{name}"),
        metadata_only: false,
        binary: false,
    };
    loop {
        if let Err(error) = look(&cluster, &of, &mode).await {
            tracing::warn!(marker = name, %error, "cannot watch for the removal marker, trying again");
        }
        sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// Lists and watches this one object until the watch ends. The list is not from a cache: what a lagging
/// API server shows may be long gone.
async fn look(
    cluster: &Cluster,
    of: &Collection,
    mode: &watch::Sender<Mode>,
) -> Result<(), Failure> {
    let page = cluster.page(of, "", PAGE, BEGIN).await?;
    let list = page.items()?;
    for item in &list.items {
        obey(item.get(), mode);
    }
    let since = list.metadata.resource_version.clone();
    let mut events = cluster.watch(of, &since, LIFETIME, BEGIN).await?;
    while let Some(event) = events.next(SILENCE).await? {
        if matches!(event.kind, EventKind::Added | EventKind::Modified) {
            obey(event.object.get(), mode);
        }
    }
    Ok(())
}

fn obey(marker: &str, mode: &watch::Sender<Mode>) {
    let asked = asked(marker);
    let changed = mode.send_if_modified(|mode| std::mem::replace(mode, asked) != asked);
    if changed {
        tracing::warn!(managed_identities = ?asked,
            "the removal marker is set: nothing is created or assigned any more until a new start");
    }
}

/// What a marker asks for. One that says nothing, or nothing that we know, deletes nothing.
fn asked(marker: &str) -> Mode {
    let marker: ConfigMap = serde_json::from_str(marker).unwrap_or_default();
    let said = marker
        .data
        .and_then(|mut data| data.remove(MANAGED_IDENTITIES));
    match said.as_deref() {
        Some(DELETE) => Mode::Delete,
        None | Some(RETAIN) => Mode::Retain,
        Some(other) => {
            tracing::warn!(
                asked = other,
                "the removal marker asks for what is not known"
            );
            Mode::Retain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clear_word_deletes() {
        for (marker, mode) in [
            (r#"{"data":{"managedIdentities":"delete"}}"#, Mode::Delete),
            (r#"{"data":{"managedIdentities":"retain"}}"#, Mode::Retain),
            (r#"{"data":{"managedIdentities":"Delete "}}"#, Mode::Retain),
            (
                r#"{"data":{"requested":"2026-11-21T12:00:00Z"}}"#,
                Mode::Retain,
            ),
            ("{}", Mode::Retain),
            ("nonsense", Mode::Retain),
        ] {
            let (sender, receiver) = watch::channel(Mode::Serve);
            obey(marker, &sender);
            assert_eq!(*receiver.borrow(), mode, "{marker}");
        }
    }
}
