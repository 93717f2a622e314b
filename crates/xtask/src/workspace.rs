//! Where the workspace is, and how its tools talk.

use std::path::{Path, PathBuf};

/// Returns the root directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    // `crates/xtask` is two levels below the root.
    xtask.ancestors().nth(2).unwrap_or(xtask).to_path_buf()
}

/// Tells the user how far a tool is.
#[expect(clippy::print_stdout, reason = "the output of a command line tool")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Tells the user what is wrong.
#[expect(clippy::print_stderr, reason = "the complaints of a command line tool")]
pub(crate) fn complain(text: &str) {
    eprintln!("{text}");
}
