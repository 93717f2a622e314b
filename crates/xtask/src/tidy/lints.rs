//! Lint settings: every crate has the workspace's, every synchronous crate the same `clippy.toml`.

use super::Text;

/// Crates that are functions of their inputs.
const CORE: [&str; 4] = ["storage", "machine", "node", "sim"];

/// Returns the crates whose settings differ.
pub(super) fn check(files: &[Text]) -> Vec<String> {
    let content = |path: &str| {
        files.iter().find(|file| file.path == path).map_or("", |file| file.content.as_str())
    };
    let mut findings = Vec::new();
    let root = content("clippy.toml");
    let first = content(&settings(CORE[0]));
    if root.is_empty() || !first.starts_with(root) || first.len() == root.len() {
        findings.push(format!("{}: does not begin with the root's clippy.toml", settings(CORE[0])));
    }
    for name in &CORE[1..] {
        if content(&settings(name)) != first {
            findings.push(format!("{}: differs from {}", settings(name), settings(CORE[0])));
        }
    }
    for manifest in files.iter().filter(|file| is_manifest(&file.path)) {
        if !manifest.content.contains("[lints]\nworkspace = true") {
            findings.push(format!("{}: does not take the workspace's lints", manifest.path));
        }
        findings.extend(own_versions(manifest));
    }
    findings
}

fn settings(name: &str) -> String {
    format!("crates/{name}/clippy.toml")
}

fn is_manifest(path: &str) -> bool {
    path.starts_with("crates/") && path.ends_with("/Cargo.toml")
}

/// Returns the dependencies that are not the workspace's.
fn own_versions(manifest: &Text) -> Vec<String> {
    let mut findings = Vec::new();
    let mut section = "";
    for line in manifest.content.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let is_dependency = section.contains("dependencies") && line.contains('=');
        if is_dependency && !line.contains("workspace = true") {
            findings.push(format!("{}: `{line}` is not the workspace's", manifest.path));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, content: &str) -> Text {
        Text { path: path.to_owned(), content: content.to_owned() }
    }

    fn settings_of_all(last: &str) -> Vec<Text> {
        let mut files = vec![text("clippy.toml", "lines = 70\n")];
        for name in &CORE[..3] {
            files.push(text(&settings(name), "lines = 70\nbans = []\n"));
        }
        files.push(text(&settings(CORE[3]), last));
        files
    }

    #[test]
    fn copies_are_equal_and_begin_with_the_root() {
        assert_eq!(check(&settings_of_all("lines = 70\nbans = []\n")), [""; 0]);
        assert_eq!(check(&settings_of_all("lines = 71\nbans = []\n")).len(), 1);
        assert_eq!(check(&[]).len(), 1);
    }

    #[test]
    fn versions_are_the_workspaces() {
        let lints = "[lints]\nworkspace = true\n[dependencies]\n";
        let mut files = settings_of_all("lines = 70\nbans = []\n");
        files.push(text("crates/node/Cargo.toml", &format!("{lints}bytes.workspace = true\n")));
        assert_eq!(check(&files), [""; 0]);
        files.push(text("crates/sim/Cargo.toml", &format!("{lints}bytes = \"1\"\n")));
        files.push(text("crates/cli/Cargo.toml", "[dependencies]\n"));
        assert_eq!(check(&files).len(), 2);
    }
}
