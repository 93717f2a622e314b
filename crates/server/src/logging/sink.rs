//! Outputs. A failed write is not reported anywhere: the log is where it would be.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

use super::options::Output;
use super::rotation::RotatedFile;
use super::{Level, io_text};

const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// An open output.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    Stdout,
    File(File),
    Rotated(RotatedFile),
    Journal { socket: UnixDatagram, identifier: String },
}

impl Sink {
    /// Opens an output; the error is etcd's text.
    pub(super) fn open(output: &Output) -> Result<Self, String> {
        match output {
            Output::Stderr => Ok(Self::Stderr),
            Output::Stdout => Ok(Self::Stdout),
            Output::File(path) => {
                OpenOptions::new().append(true).create(true).open(path).map(Self::File).map_err(
                    |error| {
                        let path = path.display().to_string();
                        format!("open sink {path:?}: open {path}: {}", io_text(&error))
                    },
                )
            }
            Output::Rotated(path, rotation) => {
                Ok(Self::Rotated(RotatedFile::new(path.clone(), *rotation)))
            }
            Output::Journal => {
                let socket = UnixDatagram::unbound()
                    .and_then(|socket| socket.connect(JOURNAL_SOCKET).map(|()| socket))
                    .map_err(|error| {
                        format!(
                            "can't find journal (dial unixgram {JOURNAL_SOCKET}: connect: {})",
                            io_text(&error)
                        )
                    })?;
                Ok(Self::Journal { socket, identifier: program_name() })
            }
        }
    }

    /// Writes one line, its line feed included, with one write.
    pub(super) fn write(&mut self, level: Level, line: &str) {
        let _unheard = match self {
            Self::Stderr => std::io::stderr().lock().write_all(line.as_bytes()),
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
            }
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Rotated(file) => file.write(line.as_bytes()),
            Self::Journal { socket, identifier } => {
                socket.send(&datagram(level, identifier, line.trim_end())).map(|_bytes| ())
            }
        };
    }
}

/// One entry in the journal's native protocol, with the length-prefixed form for the message.
fn datagram(level: Level, identifier: &str, message: &str) -> Vec<u8> {
    let priority = match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::DPanic | Level::Panic | Level::Fatal => 2,
    };
    let mut entry =
        format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={identifier}\nMESSAGE\n").into_bytes();
    entry.extend_from_slice(&(message.len() as u64).to_le_bytes());
    entry.extend_from_slice(message.as_bytes());
    entry.push(b'\n');
    entry
}

fn program_name() -> String {
    let path = std::env::args().next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_entries_carry_priority_and_length() {
        let entry = datagram(Level::Warn, "etcd", "a\nb");
        assert_eq!(entry, b"PRIORITY=4\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }
}
