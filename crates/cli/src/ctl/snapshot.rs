//! `snapshot save`: a member's backend as a file, whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use client::{Checksum, Client, Snapshot, Verdict};

use super::context::Context;
use super::{MAINTENANCE, log, print};
use crate::command::{Command, Invocation};
use crate::exit::{Failure, INTERRUPTED};
use crate::go;
use crate::printer::si_bytes;

const EXAMPLE: &str = r"  # Save snapshot to a given file
  etcdctl snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address and save it to file
  etcdctl snapshot save --endpoints=127.0.0.1:3000 /backup/etcd-snapshot.db
  
  # Get snapshot from given address with certificates
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/etcd.crt --key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot with certain user and password
  etcdctl --user=root --password=password123 snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address with timeout
  etcdctl --endpoints=https://127.0.0.1:2379 --dial-timeout=20s snapshot save /backup/etcd-snapshot.db
  
  # Save snapshot with desirable time format
  etcdctl snapshot save /mnt/backup/etcd/backup_$(date +%Y%m%d_%H%M%S).db";

/// The command.
pub(super) const SNAPSHOT: Command = Command {
    usage: "snapshot <subcommand>",
    short: "Manages etcd node snapshots",
    example: Some(EXAMPLE),
    group: MAINTENANCE,
    children: &[Command {
        usage: "save <filename>",
        short: "Stores an etcd node backend snapshot to a given file",
        example: Some(EXAMPLE),
        run: Some(|invocation| Box::pin(save(invocation))),
        ..Command::NONE
    }],
    ..Command::NONE
};

/// Only the owner may read a backup.
const MODE: u32 = 0o600;

async fn save(invocation: Invocation) -> Result<(), Failure> {
    let path = invocation.arguments.first().filter(|_| invocation.arguments.len() == 1);
    let path = path
        .map(PathBuf::from)
        .ok_or_else(|| Failure::bad_arguments("snapshot save expects one argument <filename>"))?;
    let context = Context::new(&invocation)?;
    let interrupted = |text: String| Failure::new(INTERRUPTED, text);
    let [endpoint] = context.settings.client.endpoints.as_slice() else {
        let endpoints = context.settings.client.endpoints.join(" ");
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{endpoints}]"
        )));
    };
    let client = context.client().await;
    let mut client = client.map_err(|failure| Failure { code: INTERRUPTED, ..failure })?;
    // The timeout for short commands is not meant for this one, unless the user gave it.
    if context.settings.is_timeout_given {
        client = client.with_timeout(context.settings.command_timeout);
    }
    let version = fetch_to(&client, endpoint, &path).await.map_err(interrupted)?;
    print(&format!("Snapshot saved at {}\n", path.display()))?;
    if !version.is_empty() {
        print(&format!("Server version {version}\n"))?;
    }
    Ok(())
}

/// Writes beside `path` and renames when all is there and durable; returns the server's version.
async fn fetch_to(client: &Client, endpoint: &str, path: &Path) -> Result<String, String> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let shown = part.display();
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&part).map_err(
            |error| format!("could not open {shown} ({})", go::system_text("open", &part, &error)),
        )?;
    log::info("created temporary db file", &[("path", shown.to_string())]);
    let outcome = async {
        let start = Instant::now();
        let mut snapshot = client.snapshot().await.map_err(|error| error.in_full())?;
        log::info("fetching snapshot", &[("endpoint", endpoint.to_owned())]);
        let size = receive(client, &mut snapshot, file).await?;
        log::info(
            "fetched snapshot",
            &[
                ("endpoint", endpoint.to_owned()),
                ("size", si_bytes(size)),
                ("took", go::duration(start.elapsed())),
                ("etcd-version", snapshot.version().to_owned()),
            ],
        );
        std::fs::rename(&part, path)
            .map_err(|error| format!("could not rename {shown} to {} ({error})", path.display()))?;
        log::info("saved", &[("path", path.display().to_string())]);
        Ok(snapshot.version().to_owned())
    }
    .await;
    if outcome.is_err()
        && let Err(error) = std::fs::remove_file(&part)
    {
        log::warn("Failed to cleanup .part file", &[("error", error.to_string())]);
    }
    outcome
}

/// Writes all pieces and checks the digest at the end; returns the size.
async fn receive(client: &Client, snapshot: &mut Snapshot, mut file: File) -> Result<u64, String> {
    let mut checksum = Checksum::default();
    let pieces = async {
        while let Some(piece) = snapshot.next().await.map_err(|error| error.to_string())? {
            file.write_all(&piece).map_err(|error| error.to_string())?;
            checksum.update(&piece);
        }
        Ok(())
    };
    let pieces = client.bound(pieces).await.map_err(|error| error.to_string()).flatten();
    pieces.map_err(|error: String| format!("could not write snapshot: {error}"))?;
    let size = checksum.size();
    match checksum.finish() {
        Verdict::Whole => {}
        Verdict::Missing => return Err(format!("sha256 checksum not found [bytes: {size}]")),
        Verdict::Wrong => return Err(format!("sha256 checksum does not match [bytes: {size}]")),
    }
    file.sync_all().map_err(|error| format!("could not fsync snapshot: {error}"))?;
    Ok(size)
}
