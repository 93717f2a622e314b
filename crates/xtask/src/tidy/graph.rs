//! Which crate may depend on which (`docs/style.md` §1), from cargo's own mouth.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::workspace;

/// Our crates and which of ours each may use.
const EDGES: [(&str, &[&str]); 11] = [
    ("quorate-proto", &[]),
    ("quorate-storage", &["quorate-proto"]),
    ("quorate-machine", &["quorate-proto", "quorate-storage"]),
    ("quorate-node", &["quorate-proto", "quorate-storage", "quorate-machine"]),
    (
        "quorate-server",
        // The client for discovery: whoever starts asks another cluster who its members are.
        &["quorate-proto", "quorate-storage", "quorate-machine", "quorate-node", "quorate-client"],
    ),
    ("quorate-client", &["quorate-proto"]),
    ("quorate-cli", &["quorate-proto", "quorate-client", "quorate-storage", "quorate-machine"]),
    ("quorate-sim", &["quorate-proto", "quorate-storage", "quorate-machine", "quorate-node"]),
    (
        "quorate-fuzzing",
        &[
            "quorate-proto",
            "quorate-storage",
            "quorate-machine",
            "quorate-node",
            "quorate-client",
            "quorate-server",
        ],
    ),
    ("quorate", &["quorate-server", "quorate-cli"]),
    ("xtask", &["quorate-proto", "quorate-client"]),
];

/// Crates of others that only some of ours may use themselves.
const OWNERS: [(&str, &[&str]); 9] = [
    ("raft", &["quorate-node"]),
    ("redb", &["quorate-storage"]),
    ("tokio", SHELL),
    ("tonic", &["quorate-proto", "quorate-server", "quorate-client", "quorate-cli", "xtask"]),
    ("h2", SHELL),
    ("hyper", SHELL),
    ("rustls", SHELL),
    ("tokio-rustls", SHELL),
    ("anyhow", &["quorate-cli", "quorate", "quorate-sim", "xtask"]),
];
const SHELL: &[&str] =
    &["quorate-server", "quorate-client", "quorate-cli", "quorate", "quorate-fuzzing", "xtask"];

/// Crates that are synchronous, with everything they use.
const SYNCHRONOUS: [&str; 4] =
    ["quorate-storage", "quorate-machine", "quorate-node", "quorate-sim"];
/// What a synchronous crate does not even use through others.
const ASYNCHRONOUS: [&str; 8] =
    ["tokio", "async-std", "smol", "futures-executor", "tonic", "h2", "hyper", "rustls"];

/// Returns the edges that should not be.
pub(super) fn check() -> Result<Vec<String>> {
    let packages = workspace::packages()?;
    let mut findings: Vec<String> = packages.iter().flat_map(check_package).collect();
    for name in SYNCHRONOUS {
        let used = tree(name)?;
        for other in ASYNCHRONOUS.iter().filter(|other| used.contains(**other)) {
            findings.push(format!("{name}: uses {other}, perhaps through others"));
        }
    }
    Ok(findings)
}

fn check_package(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let mut findings = Vec::new();
    let allowed = EDGES.iter().find(|(ours, _)| *ours == name).map(|(_, allowed)| *allowed);
    for dependency in workspace::list(&package["dependencies"]) {
        // What tests use does not reach users.
        if dependency["kind"] == "dev" {
            continue;
        }
        let other = dependency["name"].as_str().unwrap_or_default();
        let is_ours = EDGES.iter().any(|(ours, _)| *ours == other);
        if is_ours && !allowed.is_some_and(|allowed| allowed.contains(&other)) {
            findings.push(format!("{name}: may not use {other}"));
        }
        let owners = OWNERS.iter().find(|(owned, _)| *owned == other);
        if owners.is_some_and(|(_, owners)| !owners.contains(&name)) {
            findings.push(format!("{name}: may not use {other} itself"));
        }
    }
    findings
}

/// Returns the names of all crates that `package` is built with, when it is built alone: another
/// package's features must not count.
fn tree(package: &str) -> Result<BTreeSet<String>> {
    let mut command = workspace::cargo();
    command.args(["tree", "--locked", "--edges=normal,build", "--prefix=none", "--format={p}"]);
    let text = workspace::output(command.arg(format!("--package={package}")))?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn edges_are_checked() {
        let package = |name: &str, other: &str, kind: Value| json!({"name": name, "dependencies": [{"name": other, "kind": kind}]});
        let findings = |name, other, kind| check_package(&package(name, other, kind)).len();
        assert_eq!(findings("quorate-node", "quorate-machine", Value::Null), 0);
        assert_eq!(findings("quorate-machine", "quorate-node", Value::Null), 1);
        assert_eq!(findings("quorate-machine", "quorate-node", json!("dev")), 0);
        assert_eq!(findings("quorate-machine", "raft", Value::Null), 1);
        assert_eq!(findings("quorate-sim", "tokio", json!("build")), 1);
        assert_eq!(findings("quorate-unknown", "quorate-proto", Value::Null), 1);
    }

    #[test]
    fn a_tree_holds_what_is_used_through_others() {
        let used = tree("quorate-node").unwrap();
        assert!(used.contains("quorate-storage") && used.contains("bytes"));
        assert!(tree("quorate-client").unwrap().contains("tokio"));
    }
}
