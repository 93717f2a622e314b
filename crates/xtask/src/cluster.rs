//! `cargo xtask cluster`: a cluster of several members on this machine, to try things on.
//!
//! Ports are those of etcd's own Procfile. Data stays where it is between runs: starting again is a restart of all members.
//! Ctrl-C reaches the members, too, and this waits until they have ended.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace;

const USAGE: &str = "\
usage: cargo xtask cluster [--members N] [--binary PATH] [--dir DIR] [-- FLAG...]

  --members N     how many members, 3 by default, 9 at most
  --binary PATH   what to start; target/release/quorate by default, which is built first
  --dir DIR       where their data is; target/cluster by default
  -- FLAG...      further flags for each member
";

const MEMBERS_MAX: usize = 9;

/// How often is looked whether a member has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Starts the members and waits for them.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    let binary = match &plan.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let mut members: Vec<(String, Child)> = Vec::new();
    for number in 1..=plan.members {
        let mut command = plan.command(&binary, number);
        let name = name(number);
        let mut child = command
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        workspace::say(&format!(
            "{name} is process {}: kill {} ends it; again: {}",
            child.id(),
            child.id(),
            line(&command)
        ));
        if let Some(output) = child.stderr.take() {
            let name = name.clone();
            thread::spawn(move || pass_on(&name, output));
        }
        members.push((name, child));
    }
    let endpoints: Vec<_> = (1..=plan.members).map(client_url).collect();
    workspace::say(&format!("quorate ctl --endpoints {} member list", endpoints.join(",")));
    while !members.is_empty() {
        thread::sleep(LOOK_INTERVAL);
        for (name, child) in &mut members {
            if let Some(status) = child.try_wait()? {
                workspace::say(&format!("{name} has ended: {status}"));
            }
        }
        members.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
    }
    Ok(())
}

/// What is to be started.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    members: usize,
    binary: Option<PathBuf>,
    dir: PathBuf,
    flags: Vec<String>,
}

impl Plan {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut plan = Self {
            members: 3,
            binary: None,
            dir: PathBuf::from("target/cluster"),
            flags: Vec::new(),
        };
        let mut rest = arguments;
        loop {
            match rest {
                [] => return Ok(plan),
                ["--", flags @ ..] => {
                    plan.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
                    return Ok(plan);
                }
                ["--members", number, after @ ..] => {
                    let number: usize = number.parse().context("--members wants a number")?;
                    if !(1..=MEMBERS_MAX).contains(&number) {
                        bail!("--members wants a number from 1 to {MEMBERS_MAX}");
                    }
                    plan.members = number;
                    rest = after;
                }
                ["--binary", path, after @ ..] => {
                    plan.binary = Some(PathBuf::from(path));
                    rest = after;
                }
                ["--dir", path, after @ ..] => {
                    plan.dir = PathBuf::from(path);
                    rest = after;
                }
                _ => bail!("{USAGE}"),
            }
        }
    }

    fn command(&self, binary: &Path, number: usize) -> Command {
        let members: Vec<_> = (1..=self.members)
            .map(|number| format!("{}={}", name(number), peer_url(number)))
            .collect();
        let (client, peer) = (client_url(number), peer_url(number));
        let mut command = Command::new(binary);
        command
            .arg(format!("--name={}", name(number)))
            .arg(format!("--data-dir={}", self.dir.join(name(number)).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", members.join(",")))
            .arg("--initial-cluster-state=new")
            .args(&self.flags);
        command
    }
}

fn name(number: usize) -> String {
    format!("infra{number}")
}

fn client_url(number: usize) -> String {
    let port = if number == 1 { 2379 } else { 10_000 * number + 2379 };
    format!("http://127.0.0.1:{port}")
}

fn peer_url(number: usize) -> String {
    format!("http://127.0.0.1:{}", 10_000 * number + 2380)
}

fn build() -> Result<PathBuf> {
    let built = workspace::cargo().args(["build", "--release", "--locked"]).status();
    if !built.context("cannot run cargo")?.success() {
        bail!("the build failed");
    }
    Ok(workspace::root().join("target/release/quorate"))
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn pass_on(name: &str, output: impl Read) {
    for line in BufReader::new(output).split(b'\n') {
        let Ok(line) = line else { return };
        workspace::say(&format!("{name} | {}", String::from_utf8_lossy(&line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_the_ports_of_the_procfile() {
        let plan = Plan::parse(&["--members", "3", "--", "--snapshot-count=10"]).expect("a plan");
        let line = line(&plan.command(Path::new("quorate"), 2));
        assert!(
            line.starts_with("quorate --name=infra2 --data-dir=target/cluster/infra2"),
            "{line}"
        );
        assert!(line.contains("--listen-client-urls=http://127.0.0.1:22379"), "{line}");
        assert!(
            line.contains("infra1=http://127.0.0.1:12380,infra2=http://127.0.0.1:22380,infra3="),
            "{line}"
        );
        assert!(line.ends_with("--snapshot-count=10"), "{line}");
        assert_eq!(client_url(1), "http://127.0.0.1:2379");
        for bad in [&["--members", "0"][..], &["--members", "x"], &["--dir"], &["more"]] {
            assert!(Plan::parse(bad).is_err(), "{bad:?}");
        }
    }
}
