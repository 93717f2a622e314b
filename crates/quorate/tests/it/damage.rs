//! Damaged files: what can be repaired is, what cannot is refused, and nothing wrong is served.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::{Server, Setup};

const KEYS: usize = 300;

fn value(number: usize) -> String {
    format!("value-{number:04}-{}", "x".repeat(200))
}

/// A data directory with [`KEYS`] keys, whose process was killed, so that the log is all there is.
async fn killed() -> Server {
    let mut server = Setup::new().start();
    fill(&server).await;
    server.kill();
    server
}

async fn fill(server: &Server) {
    let client = Client::connect(server).await;
    for number in 0..KEYS {
        client.put(format!("key-{number:04}"), value(number)).await.expect("acknowledged");
    }
}

fn segment(data_dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(data_dir.join("member/wal")).expect("a log");
    let paths = files.map(|file| file.expect("readable").path());
    paths
        .filter(|path| path.extension().is_some_and(|name| name == "wal"))
        .max()
        .expect("a segment")
}

fn find(bytes: &[u8], text: &str) -> usize {
    let position = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    position.expect("it is in the file")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_is_refused_by_file_offset_and_remedy() {
    let server = killed().await;
    let path = segment(server.data_dir());
    let mut bytes = std::fs::read(&path).expect("readable");
    let position = find(&bytes, &value(150));
    bytes[position] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let mut refused = Setup::new().data_dir(server.data_dir()).spawn();
    assert_eq!(refused.wait_code(), 1);
    let log = refused.log();
    let line = log.lines().find(|line| line.contains("is damaged at offset")).expect("a reason");
    assert!(line.contains(&path.display().to_string()), "{line}");
    assert!(line.contains("restore") || line.contains("remove"), "no remedy: {line}");
    let offset: usize = line
        .split("is damaged at offset ")
        .nth(1)
        .expect("it is there")
        .split(':')
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    assert!(offset <= position && position - offset < 1000, "{offset} is not near {position}");
    // Refusing again and again changes nothing.
    assert_eq!(std::fs::read(&path).expect("readable"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_of_the_log_is_cut_off() {
    let server = killed().await;
    let path = segment(server.data_dir());
    let bytes = std::fs::read(&path).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
    file.set_len(end as u64 - 2).expect("cut");
    drop(file);
    for _ in 0..2 {
        let server = Setup::new().data_dir(server.data_dir()).start();
        let client = Client::connect(&server).await;
        let kept = client.list("key-").await.expect("readable").kvs;
        assert!(kept.len() >= KEYS - 1, "{} keys", kept.len());
        for (number, kv) in kept.iter().enumerate() {
            assert_eq!(kv.value, value(number));
        }
        client.put("after", "1").await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backend_page_is_never_served() {
    let mut server = Setup::new().start();
    fill(&server).await;
    server.signal(Signal::TERM);
    server.wait_code();
    let path = server.data_dir().join("member/snap/db");
    let sound = std::fs::read(&path).expect("readable");
    let mut served = 0;
    for number in [10, 150, 290] {
        let mut bytes = sound.clone();
        let position = find(&bytes, &value(number));
        bytes[position + 30] ^= 0x10;
        std::fs::write(&path, &bytes).expect("written");
        let mut damaged = Setup::new().data_dir(server.data_dir()).spawn();
        if damaged.serves() {
            served += 1;
            let client = Client::connect(&damaged).await;
            let got = client.get(format!("key-{number:04}")).await;
            let failure = got.expect_err("a damaged record is not an answer");
            assert!(!failure.message().is_empty(), "{failure:?}");
            // Others are as they were.
            let other = client.get("key-0000").await;
            assert!(other.is_err() || other.is_ok_and(|other| other == Some(value(0).into())));
            damaged.kill();
        } else {
            assert_eq!(damaged.wait_code(), 1, "{}", damaged.log());
            let log = damaged.log();
            assert!(log.contains("snap/db") && log.contains("damaged"), "{log}");
        }
    }
    eprintln!("{served} of 3 damaged backends were served around the damage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_garbage_is_refused() {
    let server = killed().await;
    let path = server.data_dir().join("member/snap/db");
    for garbage in [vec![0; 1 << 16], vec![0xa5; 100_000], b"short".to_vec()] {
        std::fs::write(&path, &garbage).expect("written");
        let mut refused = Setup::new().data_dir(server.data_dir()).spawn();
        assert_eq!(refused.wait_code(), 1, "{}", refused.log());
        assert!(refused.log().contains(&path.display().to_string()), "{}", refused.log());
    }
}
