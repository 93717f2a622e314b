//! Starts the built binary, waits for what it says, and ends it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take that is expected to happen: generous, the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The line after which clients are served.
const READY: &str = "ready to serve client requests";
/// Starts that are tried with new ports when another process took one meanwhile.
const PORT_ATTEMPTS: usize = 5;

/// How a process is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    data_dir: Option<PathBuf>,
    client_url: Option<String>,
    flags: Vec<String>,
    /// A shell line that ends in `exec "$@"`.
    shell: Option<String>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self { data_dir: None, client_url: None, flags: Vec::new(), shell: None }
    }

    pub(crate) fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Uses this data directory, which outlives the process.
    pub(crate) fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.to_owned());
        self
    }

    /// Listens for clients here; otherwise on a free port of the loopback address.
    pub(crate) fn client_url(mut self, url: impl Into<String>) -> Self {
        self.client_url = Some(url.into());
        self
    }

    /// Runs the process from a shell, after `line`.
    pub(crate) fn after_shell(mut self, line: &str) -> Self {
        self.shell = Some(format!("{line}; exec \"$@\""));
        self
    }

    /// Starts and waits until clients are served.
    pub(crate) fn start(&self) -> Server {
        for _ in 1..PORT_ATTEMPTS {
            let server = self.spawn();
            match server.log.wait(|lines| contains(lines, READY), PATIENCE) {
                Waited::Found => return server,
                Waited::Ended if server.log.text().contains("Address already in use") => {}
                Waited::Ended | Waited::Late => panic!("did not start:\n{}", server.log.text()),
            }
            assert!(self.client_url.is_none(), "port in use:\n{}", server.log.text());
        }
        panic!("no free ports")
    }

    /// Starts without waiting.
    pub(crate) fn spawn(&self) -> Server {
        let temporary = TempDir::new().expect("a temporary directory");
        let data_dir = self.data_dir.clone().unwrap_or_else(|| temporary.path().join("data"));
        let client =
            self.client_url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{}", free_port()));
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = self.command();
        command
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .args(&self.flags);
        let (child, log) = launch(command);
        Server { child, log, client, data_dir, _temporary: temporary }
    }

    fn command(&self) -> Command {
        match &self.shell {
            None => Command::new(binary()),
            Some(line) => {
                let mut command = Command::new("sh");
                command.args(["-c", line, "sh"]).arg(binary());
                command
            }
        }
    }
}

/// What is tested: the built binary, or what `QUORATE_BINARY` names, such as a release build, or etcd as judge.
fn binary() -> PathBuf {
    std::env::var_os("QUORATE_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_quorate").into(), PathBuf::from)
}

/// Runs the binary with exactly `flags` to its end; returns its exit code and what it wrote on standard error.
pub(crate) fn run_to_end(flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(flags);
    let (mut child, log) = launch(command);
    let status = wait_for_exit(&mut child, PATIENCE);
    if status.is_none() {
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
    }
    log.wait(|_| false, PATIENCE);
    (status.expect("it ends").code(), log.text())
}

fn launch(mut command: Command) -> (Child, Arc<Log>) {
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let stderr = child.stderr.take().expect("piped");
    let log = Arc::new(Log::default());
    let writer = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { break };
            writer.push(String::from_utf8_lossy(&line).into_owned());
        }
        writer.end();
    });
    (child, log)
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A port for a process that may be away for a while: below those that the system gives to whoever asks for any.
pub(crate) fn steady_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = (std::process::id() % 150) as u16 * 64;
    loop {
        let port = 20_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running process; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
    client: String,
    data_dir: PathBuf,
    /// Removed at the end.
    _temporary: TempDir,
}

impl Server {
    /// The URL for clients.
    pub(crate) fn url(&self) -> &str {
        &self.client
    }

    /// The address for clients, if they come over TCP.
    pub(crate) fn address(&self) -> SocketAddr {
        let (_, address) = self.client.split_once("://").expect("a URL");
        address.parse().expect("a TCP address")
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Ends it without warning, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is our child");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait_for_exit(&mut self.child, PATIENCE);
        status.unwrap_or_else(|| panic!("did not end:\n{}", self.log.text()))
    }

    /// Waits until it has ended by itself and gives the signal that ended it, or the exit code.
    pub(crate) fn wait_code(&mut self) -> i32 {
        let status = self.wait();
        self.log.wait(|_| false, PATIENCE);
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("either")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits until clients are served, or the process has ended.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.log.wait(|lines| contains(lines, READY), PATIENCE), Waited::Found)
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) fn wait_for_line(&self, text: &str) {
        match self.log.wait(|lines| contains(lines, text), PATIENCE) {
            Waited::Found => {}
            Waited::Ended | Waited::Late => panic!("no line with {text:?}:\n{}", self.log.text()),
        }
    }

    /// All lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Resident memory now and at its highest, in bytes.
    pub(crate) fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("known");
            let number = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
            number << 10
        };
        Memory { resident: bytes("VmRSS:"), highest: bytes("VmHWM:") }
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("it runs").count()
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "what a failed test needs")]
    fn drop(&mut self) {
        // Whether it still runs does not matter.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let text = self.log.text();
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            eprintln!("the last lines of its log, newest first:\n{}", tail.join("\n"));
        }
    }
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) highest: u64,
}

fn wait_for_exit(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        pause();
    }
}

/// Between two looks at something that changes by itself.
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Looks until `is_so` holds.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        pause();
    }
}

fn contains(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

/// What the process wrote on standard error.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

enum Waited {
    Found,
    Ended,
    Late,
}

impl Log {
    fn push(&self, line: String) {
        self.state.lock().expect("no panic").0.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().expect("no panic").1 = true;
        self.changed.notify_all();
    }

    fn wait(&self, is_found: impl Fn(&[String]) -> bool, patience: Duration) -> Waited {
        let state = self.state.lock().expect("no panic");
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, patience, |(lines, ended)| !is_found(lines) && !*ended)
            .expect("no panic");
        match (is_found(&state.0), timeout.timed_out()) {
            (true, _) => Waited::Found,
            (false, true) => Waited::Late,
            (false, false) => Waited::Ended,
        }
    }

    fn text(&self) -> String {
        self.state.lock().expect("no panic").0.join("\n")
    }
}
