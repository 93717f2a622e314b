//! A server process of its own for a measurement, etcd or ours.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const START_TIMEOUT: Duration = Duration::from_mins(1);
/// In which `/proc` counts time, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The members of one cluster; they are killed when it is dropped.
pub(super) struct Server {
    members: Vec<Member>,
}

struct Member {
    process: Child,
    address: String,
}

impl Server {
    /// Starts `binary` as the only member and waits until it listens.
    pub(super) fn start(binary: &Path, directory: &Path) -> Result<Self> {
        Self::start_members(binary, directory, 1)
    }

    /// Starts `binary` as `count` members of a new cluster, or again with the data that they have in `directory`, and waits
    /// until they listen.
    pub(super) fn start_members(binary: &Path, directory: &Path, count: usize) -> Result<Self> {
        let ports = (0..2 * count).map(|_| free_port()).collect::<Result<Vec<u16>>>()?;
        let (clients, peers) = ports.split_at(count);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let name = |number: usize| format!("m{number}");
        let cluster: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(n, &peer)| format!("{}={}", name(n), url(peer)))
            .collect();
        let mut server = Self { members: Vec::new() };
        for (number, (&client, &peer)) in clients.iter().zip(peers).enumerate() {
            let (client_url, peer_url) = (url(client), url(peer));
            let process = Command::new(binary)
                .args(["--name", &name(number)])
                .arg("--data-dir")
                .arg(directory.join(name(number)))
                .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("starting {}", binary.display()))?;
            server.members.push(Member { process, address: format!("127.0.0.1:{client}") });
        }
        let deadline = Instant::now() + START_TIMEOUT;
        for member in &server.members {
            while TcpStream::connect(&member.address).is_err() {
                ensure!(Instant::now() < deadline, "{} does not listen", binary.display());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(server)
    }

    /// Port of the first member's listener for clients.
    pub(super) fn port(&self) -> Result<u16> {
        let address = &self.members.first().context("no member")?.address;
        let (_, port) = address.rsplit_once(':').context("no port")?;
        Ok(port.parse()?)
    }

    /// Anonymous memory of all members that is resident, in MiB.
    pub(super) fn anonymous_mib(&self) -> Result<f64> {
        self.sum(|member| member.status_mib("RssAnon:"))
    }

    /// All memory of all members that is resident, mapped files included, in MiB.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        self.sum(|member| member.status_mib("VmRSS:"))
    }

    /// Seconds of CPU that all members have taken.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.sum(Member::cpu_seconds)
    }

    fn sum(&self, of: impl Fn(&Member) -> Result<f64>) -> Result<f64> {
        self.members.iter().map(of).sum()
    }

    /// Runs the load generator against the members; returns what it printed.
    pub(super) fn run(&self, lab: &Path, arguments: &[&str]) -> Result<Value> {
        let addresses: Vec<&str> = self.members.iter().map(|member| &*member.address).collect();
        let ids: Vec<String> =
            self.members.iter().map(|member| member.process.id().to_string()).collect();
        let output = Command::new(lab)
            .args(arguments)
            .args(["--endpoints", &addresses.join(","), "--pid", &ids.join(",")])
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("starting {}", lab.display()))?;
        ensure!(output.status.success(), "{} {arguments:?} failed", lab.display());
        serde_json::from_slice(&output.stdout).context("reading what the load generator printed")
    }
}

impl Member {
    fn status_mib(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib = kib.with_context(|| format!("no {name} in the process's status"))?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }

    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field behind it.
        let (_, fields) = stat.rsplit_once(')').context("an odd /proc/PID/stat")?;
        let ticks: Vec<f64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, std::num::ParseFloatError>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended by itself has made its run fail already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
