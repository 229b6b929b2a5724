//! Files come, change, break and go.

use std::time::Duration;

use super::*;
use crate::api::object::Object;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";

fn pod(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: a, name: {name}, labels: {{app: {label}}}}}\nspec: {{containers: []}}\n"
    )
}

fn names(batch: &Batch) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Apply(object) => format!("+{}", object.key().name.name),
        Change::Delete(key) => format!("-{}", key.name.name),
        Change::Compute(name) => format!("={name}"),
    };
    batch.changes.iter().map(name).collect()
}

struct Dir(tempfile::TempDir, Folder);

impl Dir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), false);
        Self(dir, folder)
    }

    fn write(&mut self, file: &str, text: &str) -> Batch {
        std::fs::write(self.0.path().join(file), text).unwrap();
        self.1.reread().unwrap()
    }
}

#[test]
fn only_what_differs_is_told() {
    let mut dir = Dir::new();
    assert_eq!(
        names(&dir.write("a.yaml", &format!("{NAMESPACE}---\n{}", pod("p", "x")))),
        ["+a", "+p"]
    );
    assert_eq!(names(&dir.1.reread().unwrap()), [""; 0]);
    assert_eq!(names(&dir.write("b.yaml", &pod("q", "x"))), ["+q"]);
    assert_eq!(names(&dir.write("a.yaml", NAMESPACE)), ["+a", "-p"]);
    std::fs::remove_file(dir.0.path().join("b.yaml")).unwrap();
    assert_eq!(names(&dir.1.reread().unwrap()), ["-q"]);
}

#[test]
fn a_malformed_document_disturbs_no_other() {
    let mut dir = Dir::new();
    let text = format!(
        "# comment\n---\n{}---\nkind: [broken\n---\n{}",
        pod("p", "x"),
        pod("q", "x")
    );
    let batch = dir.write("a.yaml", &text);
    assert_eq!(
        (names(&batch), batch.malformed.unwrap()),
        (vec!["+p".to_owned(), "+q".to_owned()], 1)
    );
    assert_eq!(dir.1.files.values().next().unwrap().problems[0].document, 2);
    let other = dir.write("b.yaml", "\u{0}\u{1}not yaml: at: all");
    assert_eq!((names(&other).len(), other.malformed), (0, Some(2)));
    assert_eq!(dir.write("b.yaml", "").malformed, Some(1));
}

#[test]
fn what_is_ignored_is_told_with_its_kind_and_name() {
    let binding = "{apiVersion: lanyard.dev/v1alpha1, kind: AzureIdentityBinding, metadata: {name: b}, spec: {identty: x}}";
    let mut dir = Dir::new();
    dir.write("a.yaml", binding);
    let problem = &dir.1.files.values().next().unwrap().problems[0].problem;
    assert!(
        problem.starts_with("AzureIdentityBinding b: ") && problem.contains("`identty`"),
        "{problem}"
    );
}

#[test]
fn an_object_that_becomes_malformed_is_dropped() {
    let mut dir = Dir::new();
    dir.write("a.yaml", &pod("p", "x"));
    assert_eq!(names(&dir.write("a.yaml", "kind: [broken")), ["-p"]);
}

#[test]
fn an_object_in_two_files_stays_while_one_holds_it() {
    let mut dir = Dir::new();
    dir.write("a.yaml", &pod("p", "x"));
    dir.write("b.yaml", &pod("p", "x"));
    std::fs::remove_file(dir.0.path().join("b.yaml")).unwrap();
    assert_eq!(names(&dir.1.reread().unwrap()), ["+p"], "as a.yaml says");
}

#[test]
fn a_changed_pod_has_another_version() {
    let mut dir = Dir::new();
    let mut version = |label: &str| match dir.write("a.yaml", &pod("p", label)).changes.remove(0) {
        Change::Apply(Object::Pod(pod)) => pod.version,
        other => panic!("{other:?}"),
    };
    assert_ne!(version("x"), version("y"));
}

#[test]
fn hidden_and_foreign_files_are_left_alone() {
    let mut dir = Dir::new();
    dir.write(".a.yaml.swp", "kind: [broken");
    let batch = dir.write("notes.txt", "kind: [broken");
    assert_eq!((batch.changes, batch.malformed), (vec![], Some(0)));
}

#[tokio::test]
async fn following_tells_the_first_state_and_every_change() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), pod("p", "x")).unwrap();
    let (sender, mut batches) = mpsc::channel(4);
    tokio::spawn(follow(dir.path().to_owned(), false, sender));
    let mut next = async |expected: &str| {
        let wait = async {
            loop {
                let batch = batches.recv().await.expect("following goes on");
                if names(&batch).iter().any(|name| name == expected) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("no {expected}"));
    };
    next("+p").await;
    // Written aside and moved in place, as careful writers do.
    std::fs::write(dir.path().join(".new"), pod("q", "x")).unwrap();
    std::fs::rename(dir.path().join(".new"), dir.path().join("b.yaml")).unwrap();
    next("+q").await;
    std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
    next("-p").await;
}

fn label(batch: &Batch) -> String {
    let [Change::Apply(Object::Pod(pod))] = batch.changes.as_slice() else {
        panic!("{batch:?}")
    };
    pod.labels["app"].clone()
}

/// Else what a deleted file said would be in force until the next start.
#[test]
fn of_two_files_with_one_object_the_one_that_stays_counts() {
    let mut dir = Dir::new();
    assert_eq!(label(&dir.write("a.yaml", &pod("p", "narrow"))), "narrow");
    assert_eq!(label(&dir.write("b.yaml", &pod("p", "broad"))), "broad");
    std::fs::remove_file(dir.0.path().join("b.yaml")).unwrap();
    assert_eq!(label(&dir.1.reread().unwrap()), "narrow");
    dir.write("b.yaml", &pod("p", "broad"));
    assert_eq!(label(&dir.write("b.yaml", "kind: [broken")), "narrow");
    assert_eq!(names(&dir.write("a.yaml", "")), ["-p"]);
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_back_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifests");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("a.yaml"), pod("p", "x")).unwrap();
    let (sender, mut batches) = mpsc::channel(16);
    let following = tokio::spawn(follow(path.clone(), false, sender));
    let next = async |batches: &mut mpsc::Receiver<Batch>| loop {
        let batch = tokio::time::timeout(Duration::from_secs(30), batches.recv()).await;
        let batch = names(&batch.expect("a batch in time").expect("followed"));
        if !batch.is_empty() {
            return batch;
        }
    };
    assert_eq!(next(&mut batches).await, ["+p"]);
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    std::fs::remove_dir_all(dir.path().join("away")).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("b.yaml"), pod("q", "x")).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(next(&mut batches).await);
    }
    seen.sort();
    assert_eq!(seen, ["+q", "-p"]);
    std::fs::remove_file(path.join("b.yaml")).unwrap();
    assert_eq!(next(&mut batches).await, ["-q"]);
    following.abort();
}

#[test]
fn service_accounts_count_only_where_that_is_asked_for() {
    let account = |client: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{namespace: a, name: sa, annotations: {{azure.workload.identity/client-id: {client}}}}}\n"
        )
    };
    let good = account("11111111-1111-4111-8111-111111111111");
    let mut off = Dir::new();
    for text in [&good, &account("payments")] {
        let batch = off.write("a.yaml", text);
        assert_eq!((names(&batch), batch.malformed), (vec![], Some(0)));
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned(), true);
    let mut on = Dir(dir, folder);
    assert_eq!(names(&on.write("a.yaml", &good)), ["+sa"]);
    let broken = on.write("a.yaml", &account("payments"));
    assert_eq!(
        (names(&broken), broken.malformed),
        (vec!["-sa".to_owned()], Some(1))
    );
    let problem = &on.1.files.values().next().unwrap().problems[0].problem;
    assert!(
        problem.starts_with("ServiceAccount sa: metadata.annotations[azure.workload.identity/client-id]: `payments` is not a GUID"),
        "{problem}"
    );
    assert_eq!(names(&on.write("a.yaml", &good)), ["+sa"]);
    let plain = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {namespace: a, name: sa}\n";
    assert_eq!(names(&on.write("a.yaml", plain)), ["-sa"], "taken back");
}
