//! Secrets from a folder of manifests: demo, tests, laptops. The same rings that the Kubernetes API fills.
//!
//! In: `kind: Secret` documents (`data` in base64, `stringData`), and which Secrets are wanted; others are
//! passed over. Out: what they hold, into the rings. Event-driven, blocks on the disk. Texts and
//! values are wiped from memory; what the YAML reader copies is not ours to wipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use super::{Credentials, Seen, Wanted};
use crate::kubernetes::folder::{Changes, secret_documents};
use crate::kubernetes::{SecretData, decoded};
use crate::model::ids::ObjectName;

/// Follows what is wanted. Ends with the watch on the folder.
pub async fn follow(path: PathBuf, credentials: Credentials) -> anyhow::Result<()> {
    let mut wanted = credentials.wanted();
    let mut changes = Changes::of(&path)?;
    loop {
        let secrets = wanted.borrow_and_update().clone();
        let (folder, taking) = (path.clone(), credentials.clone());
        tokio::task::spawn_blocking(move || read(&folder, &secrets, &taking)).await?;
        tokio::select! {
            changed = changes.next() => changed?,
            changed = wanted.changed() => changed?,
        }
    }
}

/// Takes over what the folder says of the wanted Secrets. Blocks on the disk.
fn read(folder: &Path, wanted: &Wanted, credentials: &Credentials) {
    if wanted.iter().next().is_none() {
        return;
    }
    let mut found = BTreeMap::new();
    match secret_documents(folder, |document| {
        if let Some((name, data)) =
            manifest(document).filter(|(name, _)| wanted.get(name).is_some())
        {
            found.insert(name, data);
        }
    }) {
        Ok(()) => {}
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "Secrets cannot be looked for");
            return;
        }
    }
    for (secret, _) in wanted.iter() {
        let seen = match found.get(secret) {
            None => Seen::Missing,
            Some(None) => Seen::Malformed,
            Some(Some(data)) => Seen::There(data),
        };
        credentials.take(secret, &seen);
    }
}

/// What a Secret holds, as people write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Values {
    #[serde(default)]
    data: Option<BTreeMap<String, Text>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, Text>>,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct Text(String);

impl Drop for Text {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The name of a Secret and what it holds, if that can be read; `None` where it has no name.
fn manifest(document: &str) -> Option<(ObjectName, Option<SecretData>)> {
    // Nothing of the reader's errors is kept: they quote.
    let named: Named = serde_saphyr::from_str(document).ok()?;
    let namespace = named.metadata.namespace.unwrap_or("default".into());
    let name = ObjectName::new(namespace, named.metadata.name);
    let values: Option<Values> = serde_saphyr::from_str(document).ok();
    Some((name, values.and_then(Values::data)))
}

impl Values {
    fn data(self) -> Option<SecretData> {
        let mut data = SecretData::default();
        for (key, text) in self.data.iter().flatten() {
            let plain: Zeroizing<String> =
                Zeroizing::new(text.0.split_ascii_whitespace().collect());
            data.insert(key.clone(), decoded(&plain)?);
        }
        for (key, text) in self.string_data.iter().flatten() {
            data.insert(key.clone(), Zeroizing::new(text.0.as_bytes().to_vec()));
        }
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_the_api_server_would_hold() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {namespace: shop, name: app}\n\
                    data: {a: aHVudGVyMg==, b: b25l}\nstringData:\n  b: two\n  c: |\n    line\n";
        let (name, data) = manifest(text).unwrap();
        let data = data.unwrap();
        assert_eq!(name, ObjectName::new("shop", "app"));
        let values = ["a", "b", "c"].map(|key| data.get(key).unwrap());
        assert_eq!(values, [&b"hunter2"[..], b"two", b"line\n"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_not_quoted() {
        for broken in [
            "data: {a: hunter2!}",
            "data: hunter2",
            "stringData: [hunter2]",
        ] {
            let text = format!("kind: Secret\nmetadata: {{name: app}}\n{broken}\n");
            let (name, data) = manifest(&text).unwrap();
            assert_eq!(name, ObjectName::new("default", "app"));
            assert!(data.is_none(), "{broken}");
        }
    }
}
