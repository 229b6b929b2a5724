//! Records as manifests in a folder, which agents that read that folder find: no cluster needed.
//!
//! In: how far a compute resource is. Out: `azureassignment-NAME.yaml`, spec and status in one. Blocks on
//! the disk. Holds that a file is there whole or not at all: it is written aside and renamed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

use super::document::{record, spec, status};
use super::{Kept, RecordError, Records};
use crate::api::assignment::AzureAssignment;
use crate::api::kind::Kind;
use crate::controller::board::Told;
use crate::kubernetes::folder::documents_of;
use crate::model::compute::Compute;

/// The records of a folder. One process at a time may write there.
#[derive(Debug)]
pub struct FolderRecords {
    folder: PathBuf,
    /// The objects as they were last, by name.
    seen: Mutex<HashMap<String, AzureAssignment>>,
}

impl FolderRecords {
    /// The records of this folder; nothing is read yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            seen: Mutex::default(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("azureassignment-{name}.yaml"))
    }

    async fn put(&self, name: &str, object: &AzureAssignment) -> std::io::Result<()> {
        let text = serde_saphyr::to_string(object).map_err(std::io::Error::other)?;
        // Hidden: nobody reads it.
        let unfinished = self.folder.join(format!(".azureassignment-{name}.new"));
        tokio::fs::write(&unfinished, text).await?;
        tokio::fs::rename(&unfinished, self.file(name)).await
    }

    fn failed(&self, name: &str) -> impl FnOnce(std::io::Error) -> RecordError {
        let file = self.file(name);
        |source| RecordError::File { file, source }
    }
}

impl Records for FolderRecords {
    async fn all(&self) -> Result<Vec<Kept>, RecordError> {
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || documents_of(&folder)).await;
        let read = read.map_err(std::io::Error::other).flatten();
        let (mut kept, mut seen) = (Vec::new(), HashMap::new());
        for document in read.map_err(self.failed("*"))?.into_iter().flatten() {
            let kind = document.get("kind").and_then(|kind| kind.as_str());
            if kind != Some(Kind::Assignments.singular()) {
                continue;
            }
            let object: Result<AzureAssignment, _> = serde_json::from_value(document);
            let object = object.map_err(|error| error.to_string());
            let read =
                object.and_then(|object| Ok((record(&object).map_err(|e| e.to_string())?, object)));
            match read {
                Ok((one, object)) => {
                    seen.insert(one.compute.assignment_name(), object);
                    kept.push(one);
                }
                Err(error) => tracing::warn!(folder = %self.folder.display(), error,
                    "an AzureAssignment cannot be read; what it owned is never removed"),
            }
        }
        *self.seen.lock() = seen;
        Ok(kept)
    }

    async fn write(&self, told: &Told, now: Duration) -> Result<(), RecordError> {
        let name = told.compute.assignment_name();
        let before = self.seen.lock().get(&name).cloned();
        let mut object = AzureAssignment::new(&name, spec(&told.compute, &told.record));
        let status_before = before.as_ref().and_then(|before| before.status.as_ref());
        object.status = Some(status(told, status_before, None, now));
        let is_same = before
            .is_some_and(|before| before.spec == object.spec && before.status == object.status);
        if !is_same {
            self.put(&name, &object).await.map_err(self.failed(&name))?;
            self.seen.lock().insert(name, object);
        }
        Ok(())
    }

    fn holds(&self, compute: &Compute) -> bool {
        self.seen.lock().contains_key(&compute.assignment_name())
    }

    fn lost(&self, name: &str) -> bool {
        self.seen.lock().remove(name).is_some()
    }

    async fn forget(&self, compute: &Compute) -> Result<(), RecordError> {
        let name = compute.assignment_name();
        // Our own deletion is no loss.
        self.seen.lock().remove(&name);
        match tokio::fs::remove_file(self.file(&name)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.failed(&name)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::assignment::AssignmentState;
    use crate::controller::record::{Entry, Record};
    use crate::model::ids::ArmId;

    const VM: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/n";

    fn told(state: AssignmentState) -> Told {
        let id: ArmId = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i".parse().unwrap();
        let entry = Entry {
            owned: true,
            immutable: false,
            remove_after: None,
            state,
            since: Duration::from_hours(498_677),
            client_id: None,
            principal_id: None,
            reason: Some("Why: not".into()),
            message: Some("- [no], 'yes'\nand: more".into()),
        };
        Told {
            compute: Arc::new(VM.parse().unwrap()),
            record: Arc::new(Record {
                entries: [(id, entry)].into(),
            }),
            trouble: None,
        }
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_what_is_forgotten_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let records = FolderRecords::new(path.clone());
        for state in [AssignmentState::Pending, AssignmentState::Assigned] {
            let told = told(state);
            records.write(&told, Duration::from_secs(9)).await.unwrap();
            let kept = FolderRecords::new(path.clone()).all().await.unwrap();
            assert_eq!(kept.len(), 1);
            assert_eq!(
                (&kept[0].record, &kept[0].compute),
                (&*told.record, &told.compute)
            );
        }
        let compute = VM.parse().unwrap();
        assert!(records.holds(&compute));
        records.forget(&compute).await.unwrap();
        assert!(!records.holds(&compute));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        records.forget(&compute).await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        let records = FolderRecords::new("/nowhere/at/all".into());
        let error = records.all().await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
