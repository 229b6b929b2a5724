//! A folder of YAML manifests in the API server's place: its documents, and when they may have changed.
//!
//! In: a folder. Out: documents, each by itself, so that a broken one does not take the others along.
//! Blocks on the disk. Holds that the text of a Secret is given only to who asks for Secrets, and is
//! wiped afterwards. What an object means is for agent and controller to say.

mod changes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

pub use changes::Changes;

/// All documents of a folder as they are now; what cannot be read as YAML is told in a sentence.
pub fn documents_of(folder: &Path) -> std::io::Result<Vec<Result<Value, String>>> {
    let mut found = Vec::new();
    for path in manifest_files(folder)? {
        let text = Zeroizing::new(std::fs::read_to_string(&path)?);
        let documents = documents(&text).filter(|(_, document)| !is_secret(document));
        found.extend(documents.map(|(number, document)| {
            value(document)
                .map_err(|problem| format!("{}, document {number}: {problem}", path.display()))
        }));
    }
    Ok(found)
}

/// The files of a folder that may hold manifests: YAML or JSON by name, not hidden.
pub fn manifest_files(folder: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if manifest && !hidden && path.is_file() {
            files.insert(path);
        }
    }
    Ok(files)
}

/// The documents of a file with their numbers from 1, split at `---` lines so that a broken one does not
/// take the others along.
pub fn documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let split = std::iter::from_fn(move || {
        let text = rest?;
        let border = text.match_indices("---").find(|(at, _)| {
            let line_start = *at == 0 || text.as_bytes()[at - 1] == b'\n';
            let after = text.as_bytes().get(at + 3);
            line_start && after.is_none_or(u8::is_ascii_whitespace)
        });
        let (document, remaining) =
            border.map_or((text, None), |(at, _)| (&text[..at], Some(&text[at + 3..])));
        rest = remaining;
        Some(document)
    });
    let has_content = |document: &&str| {
        let mut lines = document.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    };
    split
        .filter(has_content)
        .enumerate()
        .map(|(at, document)| (at + 1, document))
}

/// A document as a value; what is wrong with it otherwise.
pub fn value(document: &str) -> Result<Value, String> {
    // `app: y` is a label, not `true`.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(document, options).map_err(|error| error.to_string())
}

/// Calls `each` with every document of a folder that is a Secret. Their texts are wiped afterwards.
pub fn secret_documents(folder: &Path, mut each: impl FnMut(&str)) -> std::io::Result<()> {
    for path in manifest_files(folder)? {
        match std::fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => {
                let secrets = documents(&text).filter(|(_, document)| is_secret(document));
                secrets.for_each(|(_, document)| each(document));
            }
            // Deleted between listing and reading, or told where the other documents are read.
            Err(error) => tracing::debug!(file = %path.display(), %error, "manifest skipped"),
        }
    }
    Ok(())
}

/// Whether a document is a Secret, whose text must not be kept or quoted.
pub fn is_secret(document: &str) -> bool {
    let mut kinds = document.match_indices("kind");
    let may_be = kinds.any(|(at, kind)| {
        let blank = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
        let rest = document[at + kind.len()..].trim_start_matches(blank);
        let rest = rest
            .strip_prefix(':')
            .map(|rest| rest.trim_start_matches(blank));
        rest.is_some_and(|rest| rest.starts_with("Secret"))
    });
    // An owner of another object may be one.
    may_be && serde_saphyr::from_str(document).map_or(true, |OfKind { kind }| kind == "Secret")
}

#[derive(Deserialize)]
struct OfKind {
    kind: String,
}
