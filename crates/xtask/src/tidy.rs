//! `tidy`: the house rules that no compiler knows (`docs/style.md`).
//!
//! Each check returns what is wrong, one line each, with the place where it is. It is also a test, so
//! that `cargo test` alone says it.

mod graph;
mod links;
mod lints;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Where code of ours is.
const CODE: [&str; 2] = ["crates", "vendor"];
/// What is ours and yet not written by us.
const GENERATED: &str = "crates/proto/src/generated/";

/// Fails, after telling all of them, when a rule is broken.
pub(crate) fn run() -> Result<()> {
    let findings = findings()?;
    for finding in &findings {
        workspace::complain(finding);
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

fn findings() -> Result<Vec<String>> {
    let files = files(&workspace::root())?;
    let mut findings = sources::check(&files);
    findings.extend(links::check(&files));
    findings.extend(lints::check(&files));
    findings.extend(graph::check()?);
    Ok(findings)
}

/// One text file of the workspace.
struct Text {
    /// Relative to the workspace, with `/`.
    path: String,
    content: String,
}

impl Text {
    fn has_extension(&self, extension: &str) -> bool {
        has_extension(&self.path, extension)
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Reads all texts that some rule is about: sources, manifests, lint settings, prose.
fn files(root: &Path) -> Result<Vec<Text>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_file() {
            read(root, &path, &mut files)?;
        }
    }
    for folder in CODE.iter().chain(&["docs"]) {
        walk(root, &root.join(folder), &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(root: &Path, directory: &Path, files: &mut Vec<Text>) -> Result<()> {
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("reading {}", directory.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>>>()?;
        for path in entries {
            if path.is_dir() {
                pending.push(path);
            } else {
                read(root, &path, files)?;
            }
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path, files: &mut Vec<Text>) -> Result<()> {
    let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("rs" | "toml" | "md" | "proto")) || name.starts_with(GENERATED) {
        return Ok(());
    }
    let content = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    files.push(Text { path: name, content });
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_is_tidy() {
        let findings = super::findings().unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}
