//! Where the workspace is, what cargo knows of it, and how its tools talk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Returns the root directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    // `crates/xtask` is two levels below the root.
    xtask.ancestors().nth(2).unwrap_or(xtask).to_path_buf()
}

/// Returns the cargo that runs this tool, at the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command =
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// Runs `command` and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {command:?}"))
}

/// Returns what `cargo metadata` says of the workspace's own packages.
pub(crate) fn packages() -> Result<Vec<Value>> {
    let text = output(cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let mut metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        other => bail!("cargo metadata: `packages` is {other}"),
    }
}

/// Returns whether `package` has a binary target `name`.
pub(crate) fn has_binary(package: &Value, name: &str) -> bool {
    let binary = |target: &Value| {
        target["name"] == name && list(&target["kind"]).iter().any(|kind| kind == "bin")
    };
    list(&package["targets"]).iter().any(binary)
}

/// Returns the elements of an array, none of anything else.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
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

/// Gives the calling thread the least priority.
pub(crate) fn least_priority() -> Result<()> {
    Ok(rustix::process::setpriority_process(None, 19)?)
}
