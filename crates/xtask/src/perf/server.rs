//! A server process of its own for a measurement, etcd or ours.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A server that is killed when it is dropped.
pub(super) struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// Starts `binary` and waits until it listens.
    pub(super) fn start(binary: &Path, directory: &Path) -> Result<Self> {
        let [client, peer] = [free_port()?, free_port()?];
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let process = Command::new(binary)
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("default={}", url(peer))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let server = Self { process, address: format!("127.0.0.1:{client}") };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(&server.address).is_err() {
            ensure!(Instant::now() < deadline, "{} does not listen", binary.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Port of the clients' listener.
    pub(super) fn port(&self) -> Result<u16> {
        let (_, port) = self.address.rsplit_once(':').context("no port")?;
        Ok(port.parse()?)
    }

    /// Anonymous memory that is resident, in MiB.
    pub(super) fn anonymous_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")).context("no RssAnon")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }

    /// Runs the load generator against the server; returns what it printed.
    pub(super) fn run(&self, lab: &Path, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(lab)
            .args(arguments)
            .args(["--endpoints", &self.address, "--pid", &self.process.id().to_string()])
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("starting {}", lab.display()))?;
        ensure!(output.status.success(), "{} {arguments:?} failed", lab.display());
        serde_json::from_slice(&output.stdout).context("reading what the load generator printed")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that has ended by itself has made its run fail already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
