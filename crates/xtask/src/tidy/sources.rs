//! Rules about single source files: how long they are, and words they may not contain.

use super::Text;

/// Lines of a file without its tests.
const PRODUCTION_LINES_MAX: usize = 1_000;
/// Lines of a `lib.rs`: docs and `mod` lines.
const LIB_LINES_MAX: usize = 150;
/// A longer file says at its top what it is for.
const UNDOCUMENTED_LINES_MAX: usize = 100;

/// A word that may not stand in the code of some files.
struct Ban {
    /// `true` for the paths that it is about.
    about: fn(&str) -> bool,
    /// Whether tests are exempt.
    production_only: bool,
    words: &'static [&'static str],
    why: &'static str,
}

const BANS: [Ban; 8] = [
    Ban {
        about: |_| true,
        production_only: false,
        words: &["todo!(", "unimplemented!(", "dbg!(", "FIXME"],
        why: "unfinished",
    },
    Ban {
        about: |_| true,
        production_only: false,
        words: &["#[ignore", "#[should_panic", "fn test_"],
        why: "tests run, return, and have sentences as names",
    },
    Ban {
        about: |path| is_core(path) && path != "crates/storage/src/os.rs",
        production_only: true,
        words: &["std::fs", "std::net", "std::thread", "std::env", "std::process"],
        why: "invariant 1: only storage/src/os.rs knows the operating system",
    },
    Ban {
        about: |path| is_core(path) && path != "crates/storage/src/os.rs",
        production_only: true,
        words: &["Instant::now", "SystemTime::now"],
        why: "invariant 1: time is an argument",
    },
    Ban {
        about: |path| is_ours(path) && !path.starts_with("crates/node/src/consensus"),
        production_only: false,
        words: &["raft::"],
        why: "raft is behind node/src/consensus.rs",
    },
    Ban {
        about: |path| is_ours(path) && !path.starts_with("crates/storage/src/backend"),
        production_only: false,
        words: &["redb::"],
        why: "the engine is behind storage/src/backend",
    },
    Ban {
        about: |path| {
            path.starts_with("crates/server/src/") && !path.starts_with("crates/server/src/grpc")
        },
        production_only: true,
        words: &["tonic::", "h2::"],
        why: "gRPC's transport is behind server/src/grpc",
    },
    Ban {
        about: |path| is_ours(path) && !path.starts_with("crates/machine/src/schema"),
        production_only: true,
        words: &["\"members_removed\"", "\"authUsers\"", "\"authRoles\""],
        why: "invariant 5: bucket names are in machine/src/schema",
    },
];

/// Returns what is wrong in the sources.
pub(super) fn check(files: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        check_size(file, &mut findings);
        check_words(file, &mut findings);
    }
    findings
}

fn check_size(file: &Text, findings: &mut Vec<String>) {
    let path = &file.path;
    let lines = production_lines(file);
    let limit = if path.ends_with("/src/lib.rs") { LIB_LINES_MAX } else { PRODUCTION_LINES_MAX };
    if lines > limit {
        findings.push(format!("{path}: {lines} production lines, at most {limit}"));
    }
    let documented = file.content.lines().take(3).any(|line| line.starts_with("//!"));
    if !documented && file.content.lines().count() > UNDOCUMENTED_LINES_MAX {
        findings.push(format!("{path}: no `//!` that says what the file is for"));
    }
}

fn check_words(file: &Text, findings: &mut Vec<String>) {
    // The words are here.
    if file.path == "crates/xtask/src/tidy/sources.rs" {
        return;
    }
    let production = production_lines(file);
    let bans: Vec<&Ban> = BANS.iter().filter(|ban| (ban.about)(&file.path)).collect();
    for (index, line) in file.content.lines().enumerate() {
        let line_number = index + 1;
        let code = line.trim_start();
        if code.starts_with("//") {
            if has_bare_todo(code) {
                findings.push(format!("{}:{line_number}: TODO without an issue", file.path));
            }
            continue;
        }
        for ban in bans.iter().filter(|ban| index < production || !ban.production_only) {
            if let Some(word) = ban.words.iter().find(|word| contains_word(line, word)) {
                findings.push(format!("{}:{line_number}: `{word}`: {}", file.path, ban.why));
            }
        }
    }
}

/// Returns how many lines come before the tests: none in a file that is all tests.
fn production_lines(file: &Text) -> usize {
    if is_for_tests(&file.path) {
        return 0;
    }
    let lines: Vec<&str> = file.content.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

/// Returns whether `word` is in `line` and does not go on to the left, as `raft::` does in `ouraft::`.
fn contains_word(line: &str, word: &str) -> bool {
    let begins = word.starts_with(|first: char| first.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !begins || !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
    })
}

fn has_bare_todo(comment: &str) -> bool {
    contains_word(comment, "TODO") && !comment.contains("TODO(#")
}

fn is_ours(path: &str) -> bool {
    path.starts_with("crates/")
}

/// Whether the file belongs to a crate that is a function of its inputs.
fn is_core(path: &str) -> bool {
    ["storage", "machine", "node"]
        .iter()
        .any(|name| path.starts_with(&format!("crates/{name}/src/")))
}

/// Tests, their scripts, and examples that measure.
fn is_for_tests(path: &str) -> bool {
    let folders = ["/tests/", "/examples/"];
    let files = ["/tests.rs", "/scripts.rs"];
    folders.iter().any(|folder| path.contains(folder))
        || files.iter().any(|file| path.ends_with(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, content: &str) -> Vec<String> {
        check(&[Text { path: path.to_owned(), content: content.to_owned() }])
    }

    #[test]
    fn a_word_is_found_where_it_stands_alone() {
        assert_eq!(check_one("crates/node/src/reads.rs", "use raft::Config;").len(), 1);
        assert_eq!(check_one("crates/node/src/reads.rs", "use proto::craft::X;"), [""; 0]);
        assert_eq!(check_one("crates/node/src/consensus.rs", "use raft::Config;"), [""; 0]);
        assert_eq!(check_one("crates/node/src/reads.rs", "// raft:: is elsewhere"), [""; 0]);
    }

    #[test]
    fn tests_may_use_the_operating_system() {
        let content = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(check_one("crates/storage/src/wal.rs", content), [""; 0]);
        assert_eq!(check_one("crates/storage/src/wal.rs", "use std::fs;\n").len(), 1);
        assert_eq!(check_one("crates/storage/src/os.rs", "use std::fs;\n"), [""; 0]);
    }

    #[test]
    fn long_files_are_found() {
        let body = "//! Docs.\n".to_owned() + &"fn f() {}\n".repeat(PRODUCTION_LINES_MAX);
        assert_eq!(check_one("crates/node/src/node.rs", &body).len(), 1);
        let lib = "//! Docs.\n".to_owned() + &"mod m;\n".repeat(LIB_LINES_MAX);
        assert_eq!(check_one("crates/node/src/lib.rs", &lib).len(), 1);
        let bare = "fn f() {}\n".repeat(UNDOCUMENTED_LINES_MAX + 1);
        assert_eq!(check_one("crates/node/src/node.rs", &bare).len(), 1);
    }

    #[test]
    fn an_issue_makes_a_todo_legal() {
        assert_eq!(check_one("crates/node/src/node.rs", "// TODO: later").len(), 1);
        assert_eq!(check_one("crates/node/src/node.rs", "// TODO(#12): later"), [""; 0]);
    }
}
