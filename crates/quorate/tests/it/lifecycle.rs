//! Starting, refusing to start, and stopping.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    CompactionRequest, StatusRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    watch_request,
};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::{Client, in_time, is_lost};
use crate::harness::{Setup, eventually, run_to_end};
use crate::watch::open_watch;

/// Flags with which a member waits a minute for its clients at the end.
const LONG_REQUESTS: [&str; 2] = ["--heartbeat-interval=500", "--election-timeout=30000"];
/// Flags with which it waits only five seconds.
const SHORT_REQUESTS: [&str; 2] = ["--heartbeat-interval=10", "--election-timeout=50"];

fn with_flags(flags: &[&str]) -> Setup {
    flags.iter().fold(Setup::new(), |setup, flag| setup.flag(*flag))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_member_ends_by_the_signal_that_asked_for_it() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = Setup::new().start();
        let client = Client::connect(&server).await;
        client.put("a", "1").await.expect("acknowledged");
        drop(client);
        let asked = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait_code(), code);
        assert!(asked.elapsed() < Duration::from_secs(5), "an idle member has nothing to wait for");
        assert!(server.log().contains("received signal; shutting down"));
        let server = Setup::new().data_dir(server.data_dir()).start();
        let client = Client::connect(&server).await;
        assert_eq!(client.get("a").await.expect("readable").as_deref(), Some(&b"1"[..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_rewrites_the_database_if_that_frees_as_much_as_was_asked_for() {
    let directory = TempDir::new().expect("a temporary directory");
    let with_threshold = |megabytes: u32| {
        let flag = format!("--bootstrap-defrag-threshold-megabytes={megabytes}");
        Setup::new().data_dir(directory.path()).flag(flag)
    };
    let size = async |client: &Client| {
        let status = client.maintenance().status(StatusRequest {}).await.expect("a status");
        let status = status.into_inner();
        (status.db_size, status.db_size_in_use)
    };
    let mut server = Setup::new().data_dir(directory.path()).start();
    let client = Client::connect(&server).await;
    let value = vec![b'x'; 1 << 20];
    let mut revision = 0;
    for _ in 0..24 {
        revision = client.put("large", value.clone()).await.expect("acknowledged");
    }
    let compaction = CompactionRequest { revision, physical: true };
    client.kv().compact(compaction).await.expect("compacted");
    server.signal(Signal::TERM);
    server.wait();

    let mut server = with_threshold(1000).start();
    assert!(server.log().contains("Skipping defragmentation"), "{}", server.log());
    let (before, in_use) = size(&Client::connect(&server).await).await;
    assert!(before - in_use > 4 << 20, "{before} {in_use}");
    server.signal(Signal::TERM);
    server.wait();

    let server = with_threshold(1).start();
    assert!(!server.log().contains("Skipping defragmentation"), "{}", server.log());
    let client = Client::connect(&server).await;
    let (after, _) = size(&client).await;
    assert!(after < before - (4 << 20), "{before} {after}");
    assert_eq!(client.get("large").await.expect("readable").as_deref(), Some(&value[..]));
}

/// Puts 0, 1, 2 and so on below one key until the member is gone; returns the last that was acknowledged.
async fn put_until_lost(client: &Client, key: usize, acknowledged: &AtomicU64) -> Option<u64> {
    let mut last = None;
    loop {
        let count = last.map_or(0, |last: u64| last + 1);
        if let Err(status) = client.put(format!("w{key}"), count.to_string()).await {
            assert!(is_lost(&status), "{status:?}");
            return last;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
        last = Some(count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_answers_or_refuses_and_loses_nothing() {
    let mut server = with_flags(&SHORT_REQUESTS).start();
    let client = Client::connect(&server).await;
    let mut stream =
        open_watch(&client, WatchCreateRequest { key: "a".into(), ..Default::default() }).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0_usize..8 {
        let client = Client::connect(&server).await;
        let acknowledged = Arc::clone(&acknowledged);
        writers
            .spawn(async move { (number, put_until_lost(&client, number, &acknowledged).await) });
    }
    in_time("acknowledgements", async {
        while acknowledged.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    server.signal(Signal::TERM);
    let last: BTreeMap<usize, Option<u64>> =
        in_time("writers", writers.join_all()).await.into_iter().collect();
    while in_time("the stream's end", stream.message()).await.is_ok_and(|more| more.is_some()) {}
    assert_eq!(server.wait_code(), 143);
    let server = Setup::new().data_dir(server.data_dir()).start();
    let client = Client::connect(&server).await;
    let kept = client.list("w").await.expect("readable").kvs;
    for kv in kept {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let number: usize = key[1..].parse().expect("ours");
        let value: u64 = String::from_utf8_lossy(&kv.value).parse().expect("ours");
        assert!(Some(value) >= last[&number], "{key}: {value} kept of {:?}", last[&number]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_signal_ends_a_stop_that_waits_for_clients() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = with_flags(&LONG_REQUESTS).start();
        let client = Client::connect(&server).await;
        let _stream =
            open_watch(&client, WatchCreateRequest { key: "a".into(), ..Default::default() }).await;
        server.signal(Signal::TERM);
        server.wait_for_line("closing etcd server");
        assert!(server.is_running(), "it waits for its watcher");
        server.signal(second);
        assert_eq!(server.wait_code(), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_are_refused_while_a_member_stops() {
    let server = with_flags(&LONG_REQUESTS).start();
    let client = Client::connect(&server).await;
    let mut stream =
        open_watch(&client, WatchCreateRequest { key: "a".into(), ..Default::default() }).await;
    server.signal(Signal::TERM);
    server.wait_for_line("closing etcd server");
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err());
    // The open stream is still served.
    let progress = WatchRequest {
        request_union: Some(watch_request::RequestUnion::ProgressRequest(
            WatchProgressRequest::default(),
        )),
    };
    stream.send(progress).await;
    let answer = in_time("progress", stream.message()).await.expect("open").expect("open");
    assert!(answer.events.is_empty() && answer.header.is_some());
}

#[test]
fn a_port_in_use_ends_the_start() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", holder.local_addr().expect("bound"));
    let mut server = Setup::new().client_url(&url).spawn();
    assert_eq!(server.wait_code(), 1);
    assert!(server.log().contains("listener failed"), "{}", server.log());
    assert!(server.log().contains("address already in use"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_leaves_a_data_directory_alone() {
    let first = Setup::new().start();
    let mut second = Setup::new().data_dir(first.data_dir()).spawn();
    assert_eq!(second.wait_code(), 1);
    assert!(second.log().contains("another process uses this data directory"), "{}", second.log());
    let client = Client::connect(&first).await;
    client.put("a", "1").await.expect("the first one works on");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    // Not even root writes below /proc.
    for path in [file.as_path(), &file.join("below"), "/proc/quorate".as_ref()] {
        let mut server = Setup::new().data_dir(path).spawn();
        assert_eq!(server.wait_code(), 1, "{}", server.log());
        assert!(server.log().contains(&path.display().to_string()), "{}", server.log());
        assert!(server.log().contains("\"level\":\"fatal\""), "{}", server.log());
    }
    assert_eq!(std::fs::read(&file).expect("still there"), b"in the way");
}

#[test]
fn exit_codes_tell_syntax_from_meaning() {
    let data_dir = TempDir::new().expect("a temporary directory");
    let data_dir = format!("--data-dir={}", data_dir.path().join("data").display());
    let refused: [(&[&str], i32, &str); 10] = [
        (&["--no-such-flag"], 2, "flag provided but not defined: -no-such-flag"),
        (&["--max-txn-ops=many"], 2, "max-txn-ops"),
        (&["--snapshot-count"], 2, "snapshot-count"),
        (&["--heartbeat-interval=1s"], 2, "heartbeat-interval"),
        (&["--listen-client-urls=gopher://localhost:1"], 2, "URL scheme must be"),
        (&["--listen-client-urls=http://localhost:1"], 1, "--advertise-client-urls is required"),
        (&["--heartbeat-interval=0"], 1, "heartbeat-interval"),
        (&["--election-timeout=10"], 1, "election-timeout"),
        (&["--config-file=/nonexistent"], 1, "/nonexistent"),
        (&["--auto-compaction-mode=sometimes"], 1, "auto-compaction"),
    ];
    for (flags, code, text) in refused {
        let flags: Vec<&str> = flags.iter().copied().chain([data_dir.as_str()]).collect();
        let (actual, log) = run_to_end(&flags);
        assert_eq!(actual, Some(code), "{flags:?}: {log}");
        assert!(log.contains(text), "{flags:?}: {log}");
    }
    assert_eq!(run_to_end(&["--version"]).0, Some(0));
    assert_eq!(run_to_end(&["--help"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_leave_nothing_behind() {
    let server = Setup::new().start();
    let before = server.descriptors();
    for number in 0..50 {
        let client = Client::connect(&server).await;
        client.put("a", number.to_string()).await.expect("acknowledged");
    }
    // A file or two may have been opened since; a leak would show fifty times.
    eventually("descriptors come back", || server.descriptors() < before + 5);
}
