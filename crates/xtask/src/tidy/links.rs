//! Links in prose resolve, and so do the pages under `docs/` that code refers to.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Text, has_extension};
use crate::workspace;

/// Returns the links that lead nowhere.
pub(super) fn check(files: &[Text]) -> Vec<String> {
    let root = workspace::root();
    let mut findings = Vec::new();
    for file in files {
        if file.has_extension("md") {
            for target in links(&file.content) {
                if !resolves(&root, files, &file.path, target) {
                    findings.push(format!("{}: dead link `{target}`", file.path));
                }
            }
            continue;
        }
        for page in pages(&file.content) {
            if !root.join(page).is_file() {
                findings.push(format!("{}: no page `{page}`", file.path));
            }
        }
    }
    findings
}

/// Returns the targets of `[text](target)`, outside code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        let after_brackets = line.split("](").skip(1);
        targets.extend(after_brackets.filter_map(|rest| Some(rest.split_once(')')?.0)));
    }
    targets
}

/// Returns the `docs/….md` that a text names.
fn pages(text: &str) -> BTreeSet<&str> {
    let is_path = |character: char| character.is_ascii_alphanumeric() || "/-_.".contains(character);
    text.split(|character: char| !is_path(character))
        .filter(|word| word.starts_with("docs/"))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| has_extension(word, "md"))
        .collect()
}

fn resolves(root: &Path, files: &[Text], from: &str, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let to = if path.is_empty() { PathBuf::from(from) } else { join(from, path) };
    if !root.join(&to).exists() {
        return false;
    }
    let text = files.iter().find(|file| Path::new(&file.path) == to);
    anchor.is_empty() || text.is_none_or(|text| has_heading(&text.content, anchor))
}

/// Returns `path` as seen from the file `from`, without `..`.
fn join(from: &str, path: &str) -> PathBuf {
    let mut joined = Path::new(from).parent().map(Path::to_path_buf).unwrap_or_default();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => {
                joined.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => {
                joined.push(component);
            }
        }
    }
    joined
}

fn has_heading(text: &str, anchor: &str) -> bool {
    text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
}

/// The anchor of a heading as code hosts make it.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "See [a](b.md) and [c](d.md#e).\n```\n[x](y)\n```\n    [x](y)\n";
        assert_eq!(links(text), ["b.md", "d.md#e"]);
    }

    #[test]
    fn pages_are_found_in_comments() {
        // Put together, so that this file does not name pages that do not exist.
        let text = "// See `docs/a/b.M`, and docs/c.M. Not docs/{d,e}.M.".replace('M', "md");
        let pages: Vec<&str> = pages(&text).into_iter().collect();
        assert_eq!(pages, ["docs/a/b.M", "docs/c.M"].map(|page| page.replace('M', "md")));
    }

    #[test]
    fn a_link_needs_its_file_and_its_heading() {
        let root = workspace::root();
        let page = Text {
            path: "docs/style.md".to_owned(),
            content: "# House style\n## 1. The shape\n".to_owned(),
        };
        let files = [page];
        let resolves = |target| resolves(&root, &files, "docs/architecture.md", target);
        assert!(resolves("style.md"));
        assert!(resolves("../docs/style.md#1-the-shape"));
        assert!(resolves("https://example.com/nowhere"));
        assert!(!resolves("style.md#2-elsewhere"));
        assert!(!resolves("no-such-page.md"));
    }
}
