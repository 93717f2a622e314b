//! `ci`: the only gate.
//!
//! All steps run, also after one that failed; the summary at the end tells which failed and which were
//! skipped because their tool is not installed. A skipped step is not a failure, but it is no success
//! either: whoever publishes runs them all.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{codegen, tidy, workspace};

/// How a step ended.
enum Outcome {
    Passed,
    Skipped(&'static str),
}

type Step = (&'static str, fn() -> Result<Outcome>);

/// In order: what answers fast comes first.
const STEPS: [Step; 11] = [
    ("fmt", || cargo(&["fmt", "--all", "--check"])),
    ("tidy", || tidy::run().map(|()| Outcome::Passed)),
    ("codegen", || codegen::check().map(|()| Outcome::Passed)),
    ("typos", || tool("typos", &[])),
    ("deny", || subcommand("deny", &["check"])),
    ("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny=warnings"])
    }),
    ("clippy, client stubs", || {
        let package = ["clippy", "--package=quorate-proto", "--features=grpc", "--all-targets"];
        cargo(&[&package[..], &["--locked", "--", "--deny=warnings"]].concat())
    }),
    ("test", test),
    ("doctest", || cargo(&["test", "--workspace", "--doc", "--locked"])),
    ("doc", || {
        let mut command = workspace::cargo();
        command.args(["doc", "--workspace", "--no-deps", "--locked"]);
        succeed(command.env("RUSTDOCFLAGS", "--deny warnings"))
    }),
    ("smoke", smoke),
];

/// The steps that a caller which has run the tests itself leaves out; the simulator's tests run the smoke seeds.
const TEST_STEPS: [&str; 3] = ["test", "doctest", "smoke"];

/// Runs all steps, without the tests if they are to be skipped, and fails when one of them failed.
pub(crate) fn run(skip_tests: bool) -> Result<()> {
    let mut failed = Vec::new();
    let mut skipped = Vec::new();
    for (name, step) in STEPS {
        if skip_tests && TEST_STEPS.contains(&name) {
            continue;
        }
        workspace::say(&format!("==> {name}"));
        let started = Instant::now();
        let result = step();
        let seconds = started.elapsed().as_secs();
        match result {
            Ok(Outcome::Passed) => workspace::say(&format!("    passed, {seconds} s")),
            Ok(Outcome::Skipped(why)) => {
                workspace::say(&format!("    SKIPPED: {why}"));
                skipped.push(format!("{name} ({why})"));
            }
            Err(error) => {
                workspace::complain(&format!("    FAILED, {seconds} s: {error:#}"));
                failed.push(name);
            }
        }
    }
    if !skipped.is_empty() {
        workspace::say(&format!("skipped: {}", skipped.join(", ")));
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    workspace::say("all other steps passed");
    Ok(())
}

/// nextest, where it is installed, runs the same tests in parallel.
fn test() -> Result<Outcome> {
    if subcommand_exists("nextest")? {
        return cargo(&["nextest", "run", "--workspace", "--locked"]);
    }
    cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--locked"])
}

/// The simulator's fixed seeds.
fn smoke() -> Result<Outcome> {
    let packages = workspace::packages()?;
    let simulator = |package: &serde_json::Value| {
        package["name"] == "quorate-sim" && workspace::has_binary(package, "sim")
    };
    if !packages.iter().any(simulator) {
        return Ok(Outcome::Skipped("quorate-sim has no binary `sim`"));
    }
    cargo(&["run", "--locked", "--package=quorate-sim", "--bin=sim", "--", "smoke"])
}

fn cargo(arguments: &[&str]) -> Result<Outcome> {
    succeed(workspace::cargo().args(arguments))
}

/// Runs a subcommand of cargo that may not be installed.
fn subcommand(name: &str, arguments: &[&str]) -> Result<Outcome> {
    if !subcommand_exists(name)? {
        return Ok(Outcome::Skipped("not installed"));
    }
    succeed(workspace::cargo().arg(name).args(arguments))
}

fn subcommand_exists(name: &str) -> Result<bool> {
    let mut command = workspace::cargo();
    command.args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status().context("starting cargo")?.success())
}

/// Runs a program that may not be installed.
fn tool(name: &str, arguments: &[&str]) -> Result<Outcome> {
    let probe =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match probe {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Outcome::Skipped("not installed"))
        }
        Err(error) => Err(error).with_context(|| format!("starting {name}")),
        Ok(_) => succeed(Command::new(name).args(arguments).current_dir(workspace::root())),
    }
}

fn succeed(command: &mut Command) -> Result<Outcome> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_skipped_and_not_passed() {
        assert!(matches!(tool("no-such-tool-of-quorate", &[]).unwrap(), Outcome::Skipped(_)));
        assert!(matches!(subcommand("no-such-tool-of-quorate", &[]).unwrap(), Outcome::Skipped(_)));
    }

    #[test]
    fn a_step_fails_with_its_command() {
        assert!(matches!(cargo(&["--version"]).unwrap(), Outcome::Passed));
        let error = cargo(&["--no-such-flag"]).err().unwrap();
        assert!(error.to_string().contains("--no-such-flag"), "{error}");
    }
}
