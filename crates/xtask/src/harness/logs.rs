//! What members write to their logs: complaints of real etcds, snapshots they installed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Complaints that a cluster of real etcds alone makes, too, under the same faults.
const ALLOWED: &[Allowed] = &[Allowed {
    message: "failed to update storage version",
    error: "missing term information",
    reason: "a new member of etcd decides on the cluster version before it has committed its first term to its database, if \
             it starts slowly; it looks again four seconds later",
}];

/// A kind of complaint: equal messages, and equal errors but for numbers in them.
struct Allowed {
    message: &'static str,
    /// A part of the error; empty for any.
    error: &'static str,
    /// Not shown: why etcd says so.
    #[expect(dead_code, reason = "for who reads the table")]
    reason: &'static str,
}

/// Complaints and how often each was made.
pub(crate) type Complaints = BTreeMap<String, usize>;

/// Returns the complaints in a member's log that its like would not cause.
pub(crate) fn complaints(log: &Path) -> Result<Complaints> {
    let text = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let mut complaints = Complaints::new();
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some(complaint) = complaint(line) {
            *complaints.entry(complaint).or_default() += 1;
        }
    }
    Ok(complaints)
}

/// How many snapshots of another member a member has installed.
pub(crate) fn snapshots_installed(log: &Path) -> usize {
    // Who says this as a message of its own has nothing before it.
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).matches("\"msg\":\"applied snapshot\"").count()
}

/// Returns what a line complains of; `None` if it is no complaint, or an allowed one.
fn complaint(line: &str) -> Option<String> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        let is_bad = ["panic:", "fatal error:", "panicked at"].iter().any(|bad| line.contains(bad));
        return is_bad.then(|| line.to_owned());
    };
    let level = value["level"].as_str()?;
    if !["error", "dpanic", "panic", "fatal"].contains(&level) {
        return None;
    }
    let message = value["msg"].as_str().unwrap_or_default();
    let error = value["error"].as_str().unwrap_or_default();
    let is_allowed = ALLOWED.iter().any(|allowed| {
        level == "error" && allowed.message == message && error.contains(allowed.error)
    });
    (!is_allowed).then(|| format!("{level}: {message}: {}", without_numbers(error)))
}

/// Puts `#` for each word with a digit in it, so that equal errors look equal.
fn without_numbers(text: &str) -> String {
    let words = text
        .split(' ')
        .map(|word| if word.contains(|each: char| each.is_ascii_digit()) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_complaints_and_warnings_are_none() {
        let line = |level: &str| format!(r#"{{"level":"{level}","msg":"m","error":"at 10 ms"}}"#);
        assert_eq!(complaint(&line("error")).as_deref(), Some("error: m: at # ms"));
        assert_eq!(complaint(&line("fatal")).as_deref(), Some("fatal: m: at # ms"));
        assert_eq!(complaint(&line("warn")), None);
        let known = r#"{"level":"error","msg":"failed to update storage version","error":"missing term information"}"#;
        assert_eq!(complaint(known), None);
        assert!(complaint(&known.replace("missing", "wrong")).is_some());
        assert_eq!(complaint("panic: oh").as_deref(), Some("panic: oh"));
        assert_eq!(complaint("exit status 2"), None);
    }
}
