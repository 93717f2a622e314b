//! How the process is told to stop, and how it tells that it is ready.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

/// A signal that asks the process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`: from the keyboard.
    Interrupt,
    /// `SIGTERM`: from whoever manages the process.
    Terminate,
}

impl Signal {
    const fn number(self) -> i32 {
        match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
        }
    }

    fn from_number(number: i32) -> Option<Self> {
        match number {
            SIGINT => Some(Self::Interrupt),
            SIGTERM => Some(Self::Terminate),
            _ => None,
        }
    }

    /// How it is logged.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminated",
        }
    }
}

/// Calls `stop`, on a thread of its own, with the first signal; the second signal ends the process
/// at once.
///
/// `stop` must only start the graceful stop, not wait for it: the thread goes on to wait for the
/// second signal. Whoever waits for the stop calls [`end_by`] then.
pub fn on_signal(stop: impl FnOnce(Signal) + Send + 'static) -> io::Result<()> {
    // The last two do nothing, as in etcd; unhandled they would end the process.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arrived = signals.forever().filter_map(Signal::from_number);
        let Some(first) = arrived.next() else { return };
        info!(signal = first.name(), "received signal; shutting down");
        stop(first);
        let Some(second) = arrived.next() else { return };
        warn!(signal = second.name(), "received another signal; ending at once");
        end_by(second)
    })?;
    Ok(())
}

/// Ends the process by the signal that asked for it, so that its parent sees why. The first process
/// of a container cannot be killed by its own signals and exits with 0.
pub fn end_by(signal: Signal) -> ! {
    if std::process::id() != 1 {
        // It does not return where it succeeds; where it fails, exiting is what is left.
        let _failed = signal_hook::low_level::emulate_default_handler(signal.number());
    }
    exit()
}

#[expect(clippy::exit, reason = "the process was asked to end")]
fn exit() -> ! {
    std::process::exit(0)
}

/// Tells systemd, where it started the process and asked to be told, that the member is ready.
///
/// `socket` is the value of `NOTIFY_SOCKET`.
pub fn notify_ready(socket: Option<&str>) {
    info!("notifying init daemon");
    match socket.filter(|path| !path.is_empty()).map_or(Ok(()), |path| send(path, b"READY=1")) {
        Ok(()) => info!("successfully notified init daemon"),
        Err(error) => error!(error = %error, "failed to notify systemd for readiness"),
    }
}

/// Sends one datagram; a path that begins with `@` is in the abstract namespace.
fn send(path: &str, message: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match path.strip_prefix('@') {
        Some(name) => abstract_address(name).and_then(|address| socket.connect_addr(&address))?,
        None => socket.connect(Path::new(path))?,
    }
    socket.send(message).map(|_bytes| ())
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_arrives_at_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), b"READY=1").unwrap();
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        assert!(send("/nonexistent/notify", b"READY=1").is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn abstract_sockets_are_found() {
        let name = format!("quorate-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&abstract_address(&name).unwrap()).unwrap();
        send(&format!("@{name}"), b"READY=1").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
    }
}
