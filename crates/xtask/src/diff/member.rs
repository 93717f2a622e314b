//! One server under comparison: a fresh single member, alone with its data directory.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::gateway::Gateway;
use crate::grpc::Connection;

const START_PATIENCE: Duration = Duration::from_secs(30);
/// The storage version once the leader has decided; etcd begins with an older one.
const SETTLED: &str = "3.7.0";
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A running server. Dropping it kills the process and removes the directory.
pub(crate) struct Member {
    child: Child,
    pub(crate) port: u16,
    /// Also holds the log, `log`.
    dir: TempDir,
}

impl Member {
    /// Starts `binary` and waits until it serves.
    ///
    /// Name, token and advertised URLs are the same for all, whatever the real ports are: so cluster and
    /// member have the same ids everywhere.
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("quorate-diff-").tempdir_in(parent)?;
        let (port, peer_port) = free_ports()?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let child = Command::new(binary)
            .args(["--name=member", "--initial-cluster-token=diff", "--unsafe-no-fsync"])
            .args(["--initial-cluster=member=http://127.0.0.1:2380", "--log-level=error"])
            .arg("--initial-advertise-peer-urls=http://127.0.0.1:2380")
            .arg("--advertise-client-urls=http://127.0.0.1:2379")
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"))
            .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut member = Self { child, port, dir };
        member.wait_until_serving().await?;
        Ok(member)
    }

    /// A linearizable read has to succeed, and the versions have to be decided.
    async fn wait_until_serving(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}: {}", self.log());
            }
            if matches!(self.serves().await, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the server does not serve after {START_PATIENCE:?}: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn serves(&self) -> Result<bool> {
        let mut gateway = Gateway::open(self.port).await?;
        let read = gateway.post("/v3/kv/range", r#"{"key":"AA=="}"#).await?;
        let status = gateway.post("/v3/maintenance/status", "{}").await?;
        Ok(read.status == 200
            && status.values.iter().any(|value| value["storageVersion"] == SETTLED))
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::open(self.port).await
    }

    /// Returns the end of what the server wrote.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let from = log.len().saturating_sub(4000);
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    /// Returns how the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{status}: {}", self.log()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _already_ended = self.child.kill();
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Both are held until both are known, so that they differ.
fn free_ports() -> Result<(u16, u16)> {
    let one = TcpListener::bind("127.0.0.1:0")?;
    let two = TcpListener::bind("127.0.0.1:0")?;
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}
