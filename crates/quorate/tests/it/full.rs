//! A disk that is full, or refuses to grow a file: nothing is acknowledged that is not there afterwards.
//!
//! The disk is a small tmpfs where mounting is permitted, and a limit on the size of files everywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::Mutex;
use tonic::Code;

use crate::client::{Client, in_time};
use crate::harness::{Server, Setup};

/// Room for the two segments that a log prepares, and not much more.
const TMPFS: &str = "size=160m";
const VALUE_BYTES: usize = 200_000;

/// A mounted tmpfs.
struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// `None` where mounting is not permitted.
    fn mount() -> Option<Self> {
        let directory = TempDir::new().expect("a directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", TMPFS, "quorate-test"]).arg(directory.path());
        let is_mounted = command.output().is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self { directory })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Gives it this size.
    fn resize(&self, size: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{size}")]).arg(self.path());
        assert!(command.status().expect("mount runs").success());
    }

    /// Takes all room but `bytes`.
    fn fill_up(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("created");
        let chunk = vec![1; 1 << 16];
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Detached: a process that still ends may hold it a moment longer.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

type Acknowledged = Arc<Mutex<BTreeMap<String, usize>>>;

/// Puts large values from several tasks until no put is acknowledged any more; gives what was.
async fn put_until_refused(server: &Server) -> BTreeMap<String, usize> {
    let acknowledged: Acknowledged = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        // It may have ended already.
        let Ok(client) = Client::try_connect(server.url()).await else { continue };
        let acknowledged = Arc::clone(&acknowledged);
        tasks.spawn(async move {
            for number in 0..5000 {
                let key = format!("full/{writer}/{}", number % 50);
                let mut value = number.to_string().into_bytes();
                value.resize(VALUE_BYTES, b' ');
                match client.put(key.clone(), value).await {
                    Ok(_) => acknowledged.lock().await.insert(key, number),
                    Err(status) => {
                        assert_ne!(status.code(), Code::InvalidArgument, "{status:?}");
                        return;
                    }
                };
            }
            panic!("the disk was never full")
        });
    }
    in_time("a full disk", tasks.join_all()).await;
    Arc::into_inner(acknowledged).expect("all tasks have ended").into_inner()
}

/// All that was acknowledged is there, or something later that was on its way.
async fn check(server: &Server, acknowledged: &BTreeMap<String, usize>) {
    let client = Client::connect(server).await;
    for (key, number) in acknowledged {
        let value = client.get(key.clone()).await.expect("readable");
        let value = value.unwrap_or_else(|| panic!("{key} is lost: {number} was acknowledged"));
        let kept: usize = String::from_utf8_lossy(&value).trim().parse().expect("ours");
        assert!(kept >= *number, "{key}: {kept} kept, {number} acknowledged");
    }
    client.put("after", "1").await.expect("writes are taken again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_member_and_loses_nothing() {
    let Some(tmpfs) = Tmpfs::mount() else {
        eprintln!("mounting is not permitted here; the limit on file sizes has its own test");
        return;
    };
    let data_dir = tmpfs.path().join("data");
    let setup = Setup::new().data_dir(&data_dir);
    let mut server = setup.start();
    let mut acknowledged = put_until_refused(&server).await;
    assert!(!acknowledged.is_empty());
    assert_eq!(server.wait_code(), 1, "it ends by itself");
    let log = server.log();
    assert!(log.contains("no space left on the file system; free some, then restart"), "{log}");
    // Without room it does not start, and says why.
    let filler = tmpfs.fill_up();
    let mut refused = setup.spawn();
    if refused.serves() {
        // What a start needs was there; the next writes end it again.
        acknowledged.append(&mut put_until_refused(&refused).await);
    }
    assert_eq!(refused.wait_code(), 1, "{}", refused.log());
    assert!(refused.log().contains("no space left"), "{}", refused.log());
    std::fs::remove_file(filler).expect("removed");
    tmpfs.resize("size=1g");
    let server = setup.start();
    check(&server, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_ends_the_member_and_loses_nothing() {
    let directory = TempDir::new().expect("a directory");
    let data_dir = directory.path().join("data");
    // The log's segments have their size from the start; the backend's file grows beyond this.
    let setup = Setup::new().data_dir(&data_dir);
    let mut server = setup.clone().after_shell("trap '' XFSZ; ulimit -f 140000").start();
    let acknowledged = put_until_refused(&server).await;
    assert!(!acknowledged.is_empty());
    assert_eq!(server.wait_code(), 1, "it ends by itself");
    let log = server.log();
    assert!(log.contains("File too large"), "{log}");
    assert!(log.contains("the member stopped itself"), "{log}");
    check(&setup.start(), &acknowledged).await;
}
