//! What the matrix's trials saw, as tables.
//!
//! In: cells. Out: Markdown, in a folder of the target and in the documents. Invariant: a part of a document that a trial
//! wrote stands between two markers, and a document that says something else than was seen fails its trial.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::table::Client;
use super::words;

/// The tree.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A table with a row for each client, in their order.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    text: String,
    differences: Vec<String>,
}

impl Table {
    /// An empty one.
    pub fn new(name: &'static str, columns: &[&str]) -> Self {
        let dashes = "---|".repeat(columns.len() + 1);
        let text = format!("| client | {} |\n|{dashes}\n", columns.join(" | "));
        Self {
            name,
            text,
            differences: Vec::new(),
        }
    }

    /// A client's row, which differs if the words in it are others than the table of clients has.
    pub fn row(&mut self, client: &Client, cells: &[String]) {
        if !words::stand(client, self.name, cells) {
            self.differs(format!("{}, {}: {cells:?}", client.name, self.name));
        }
        let cells = cells.join(" | ");
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "| {} | {cells} |", client.name);
    }

    /// The same, where the last cell may be an error, which differs.
    pub fn row_of(&mut self, client: &Client, cells: &[String], last: Result<String>) {
        let last = last.unwrap_or_else(|error| {
            self.differs(format!("{}, {}: {error:#}", client.name, self.name));
            "?".to_owned()
        });
        self.row(client, &[cells, &[last]].concat());
    }

    /// Something that is not as the table of clients says.
    pub fn differs(&mut self, what: String) {
        println!("differs: {what}");
        self.differences.push(what);
    }

    /// Writes it to `target/matrix`; an error if anything differed.
    pub fn finish(self) -> Result<String> {
        let folder = Path::new(ROOT).join("target/matrix");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.md", self.name)), &self.text)?;
        println!("{}", self.text);
        together(&folder)?;
        ensure!(
            self.differences.is_empty(),
            "{} differ from the table of clients:\n{}",
            self.differences.len(),
            self.differences.join("\n")
        );
        Ok(self.text)
    }
}

/// All tables that there are in one file.
fn together(folder: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut all = String::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let _ = writeln!(all, "## {name}\n\n{}", std::fs::read_to_string(&file)?);
    }
    Ok(std::fs::write(folder.with_extension("md"), all)?)
}

/// A table in a document must be the one that was seen.
pub fn stands_in(document: &str, name: &str, seen: &str) -> Result<()> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(document))?;
    let begin = format!("<!-- matrix: {name} -->\n");
    let after = text.split(&begin).nth(1);
    let after = after.with_context(|| format!("{document} has no {begin}"))?;
    let told = after.split("<!-- end -->").next().unwrap_or_default();
    ensure!(
        told == seen,
        "{document} says something else: put target/matrix/{name}.md between the markers"
    );
    Ok(())
}

/// Milliseconds from a client's own last words, which are a line of their own.
pub fn milliseconds(said: &str) -> Option<u64> {
    let took = |line: &str| {
        let took = line.strip_prefix("after ")?.strip_suffix(" ms")?;
        took.parse().ok()
    };
    said.lines().rev().find_map(took)
}
