//! `/metrics` beside what a real etcd showed (`crates/server/testdata/metrics`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::cluster::{Cluster, PAUSE};
use crate::harness::{PATIENCE, Setup};
use crate::http1;

const RECORDED: &str = include_str!("../../../server/testdata/metrics/recorded");
const OMITTED: &str = include_str!("../../../server/testdata/metrics/omitted");

/// Scrapes until something has to be there.
const SCRAPES_MAX: usize = 5000;

/// All series of one name.
#[derive(Debug, Default, Clone, PartialEq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    buckets: Vec<f64>,
    help: String,
    /// By labels, as written.
    samples: BTreeMap<String, String>,
}

/// A line of `recorded`.
struct Recorded {
    when: &'static str,
    family: Family,
}

fn recorded() -> BTreeMap<&'static str, Recorded> {
    let lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, kind, labels, when, buckets, help] = columns[..] else {
            panic!("six columns: {line}")
        };
        let family = Family {
            kind: kind.to_owned(),
            labels: labels.split(',').filter(|label| *label != "-").map(str::to_owned).collect(),
            buckets: buckets.split(' ').filter_map(|bound| bound.parse().ok()).collect(),
            help: help.to_owned(),
            samples: BTreeMap::new(),
        };
        (name, Recorded { when, family })
    });
    rows.collect()
}

fn omitted() -> BTreeSet<&'static str> {
    let lines = OMITTED.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('\t').expect("a name and a reason").0).collect()
}

/// Reads the text format.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            help.clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else {
            sample(&mut families, line);
        }
    }
    families
}

fn sample(families: &mut BTreeMap<String, Family>, line: &str) {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|base| families.get(*base).is_some_and(|family| family.kind == "histogram"));
    let family = families.get_mut(base.unwrap_or(name)).expect("its type comes first");
    for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
        let (label, of_it) = pair.split_once('=').expect("a label and a value");
        if label != "le" {
            family.labels.insert(label.to_owned());
        } else if let Ok(bound) = of_it.trim_matches('"').parse::<f64>()
            && bound.is_finite()
            && !family.buckets.contains(&bound)
        {
            family.buckets.push(bound);
        }
    }
    family.samples.insert(series.to_owned(), value.to_owned());
}

async fn scrape(address: SocketAddr) -> BTreeMap<String, Family> {
    let response = http1::get(address, "/metrics").await;
    assert_eq!(response.status, 200);
    let format = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    assert_eq!(response.header("content-type"), Some(format));
    parse(&response.body)
}

/// Scrapes once the cluster version is decided, which a member does not wait for before it serves.
async fn scrape_settled(address: SocketAddr) -> BTreeMap<String, Family> {
    for _ in 0..SCRAPES_MAX {
        let shown = scrape(address).await;
        if shown.contains_key("etcd_cluster_version") {
            return shown;
        }
    }
    panic!("no cluster version was decided")
}

/// What differs from the record, one line each.
fn differences(shown: &BTreeMap<String, Family>, expected: &[&str]) -> Vec<String> {
    let (recorded, omitted) = (recorded(), omitted());
    let mut differences = Vec::new();
    for (name, Recorded { when, family }) in &recorded {
        let Some(found) = shown.get(*name) else {
            if expected.contains(when) && !omitted.contains(name) {
                differences.push(format!("{name} is missing"));
            }
            continue;
        };
        if omitted.contains(name) {
            differences.push(format!("{name} is there, though omitted"));
        }
        let bare = Family { samples: BTreeMap::new(), ..found.clone() };
        if bare != *family {
            let Family { kind, labels, buckets, help, .. } = found;
            differences.push(format!("{name}: {kind} {labels:?} {buckets:?} {help}"));
        }
    }
    for name in shown.keys().filter(|name| !name.starts_with("quorate_")) {
        if !recorded.contains_key(name.as_str()) {
            differences.push(format!("{name} is not etcd's"));
        }
    }
    differences
}

fn value(shown: &BTreeMap<String, Family>, series: &str) -> u64 {
    let name = series.split('{').next().expect("a name");
    let of = |name: &str| shown.get(name)?.samples.get(series).cloned();
    let base = ["_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let found = of(name).or_else(|| of(base?));
    let found = found.unwrap_or_else(|| panic!("{series} is missing"));
    found.parse().expect("a whole number")
}

#[tokio::test]
async fn a_fresh_member_shows_the_metrics_of_a_fresh_etcd() {
    let server = Setup::new().start();
    let shown = scrape_settled(server.address()).await;
    assert_eq!(differences(&shown, &["start"]), Vec::<String>::new());
    let handled = &shown["grpc_server_handled_total"].samples;
    assert!(!handled.keys().any(|series| series.contains("v3lockpb")), "etcd adds them on use");
    assert!(handled.keys().any(|series| series.contains("etcdserverpb.KV")));
    assert!(!shown.contains_key("etcd_server_client_requests_total"));
}

#[tokio::test]
async fn gzip_is_sent_to_those_who_take_it() {
    let server = Setup::new().start();
    let address = server.address();
    let head = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: gzip");
    let response = http1::request(address, &head, "").await;
    assert_eq!((response.status, response.header("content-encoding")), (200, Some("gzip")));
    let length = |response: &http1::Response| {
        response.header("content-length").and_then(|length| length.parse::<usize>().ok())
    };
    let plain = http1::get(address, "/metrics").await;
    assert_eq!(plain.header("content-encoding"), None);
    assert!(length(&response) < length(&plain).map(|length| length / 4));
}

#[tokio::test]
async fn extensive_metrics_are_shown_when_asked_for() {
    let server = Setup::new().flag("--metrics=extensive").start();
    let shown = scrape_settled(server.address()).await;
    assert_eq!(differences(&shown, &["start", "extensive"]), Vec::<String>::new());
}

#[test]
fn every_omission_is_of_a_metric_that_etcd_has() {
    let recorded = recorded();
    let unknown: Vec<_> =
        omitted().into_iter().filter(|name| !recorded.contains_key(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[tokio::test]
async fn what_is_used_is_counted() {
    let server = Setup::new().flag("--serving-threads=2").start();
    let address = server.address();
    let post = async |path: &str, body: &str| http1::post(address, path, body).await.status;
    for _ in 0..3 {
        assert_eq!(post("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await, 200);
    }
    assert_eq!(post("/v3/kv/put", r#"{"key":"YQ==","lease":"77"}"#).await, 404);
    assert_eq!(post("/v3/kv/range", r#"{"key":"YQ=="}"#).await, 200);
    assert_eq!(post("/v3/kv/range", r#"{"key":"YQ==","revision":"99"}"#).await, 400);
    let read_only = r#"{"success":[{"request_range":{"key":"YQ=="}}]}"#;
    assert_eq!(post("/v3/kv/txn", read_only).await, 200);
    assert_eq!(post("/v3/lease/grant", r#"{"ID":"5","TTL":"100"}"#).await, 200);
    assert_eq!(post("/v3/lease/revoke", r#"{"ID":"5"}"#).await, 200);
    assert_eq!(post("/v3/kv/compaction", r#"{"revision":"3","physical":true}"#).await, 200);
    assert_eq!(post("/v3/maintenance/defragment", "{}").await, 200);
    assert_eq!(post("/v3/maintenance/hash", "{}").await, 200);
    assert_eq!(post("/v3/maintenance/hashkv", "{}").await, 200);
    assert_eq!(post("/v3/maintenance/snapshot", "{}").await, 200);
    assert_eq!(http1::get(address, "/health").await.status, 200);
    assert_eq!(http1::get(address, "/readyz").await.status, 200);
    // Not a watch request: the stream breaks.
    post("/v3/watch", r#"{"create_request":3}"#).await;
    let alarm = r#"{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}"#;
    assert_eq!(post("/v3/maintenance/alarm", alarm).await, 200);
    let shown = scrape(address).await;
    assert_eq!(differences(&shown, &["start", "use"]), Vec::<String>::new());
    let request = |kind: &str, success: bool| {
        let series = format!(
            r#"etcd_server_request_duration_seconds_count{{success="{success}",type="{kind}"}}"#
        );
        value(&shown, &series)
    };
    // An answer that refuses is an answer: the log has taken the request.
    assert_eq!((request("Put", true), request("Compaction", true)), (4, 1));
    assert_eq!(request("ClusterMemberAttrSet", true), 1);
    assert_eq!((request("Range", false), request("ReadonlyTxn", true)), (1, 1));
    let apply = |op: &str, success: bool| {
        let series = format!(
            r#"etcd_server_apply_duration_seconds_count{{op="{op}",success="{success}",version="v3"}}"#
        );
        value(&shown, &series)
    };
    assert_eq!((apply("Put", true), apply("Put", false)), (3, 1));
    assert_eq!((apply("ClusterMemberAttrSet", true), apply("ClusterVersionSet", true)), (1, 1));
    for (series, count) in [
        ("etcd_debugging_lease_granted_total", 1),
        ("etcd_debugging_lease_revoked_total", 1),
        ("etcd_debugging_lease_ttl_total_sum", 100),
        ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1),
        ("etcd_disk_backend_defrag_duration_seconds_count", 1),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 1),
        ("etcd_mvcc_hash_duration_seconds_count", 1),
        ("etcd_mvcc_hash_rev_duration_seconds_count", 1),
        ("etcd_server_health_success", 1),
        (r#"etcd_server_healthcheck{name="serializable_read",type="readyz"}"#, 1),
        (r#"etcd_debugging_server_alarms{alarm_type="NOSPACE",server_id="1"}"#, 1),
        (r#"etcd_network_server_stream_failures_total{API="watch",Type="receive"}"#, 1),
        ("etcd_disk_defrag_inflight", 0),
    ] {
        assert_eq!(value(&shown, series), count, "{series}");
    }
    for series in ["etcd_debugging_mvcc_db_compaction_last", "etcd_disk_wal_write_bytes_total"] {
        assert!(value(&shown, series) > 0, "{series}");
    }
}

/// The counts are those of a real etcd after the same calls.
#[tokio::test]
async fn the_store_counts_as_etcd_does() {
    let server = Setup::new().start();
    let address = server.address();
    let counts = async || {
        let shown = scrape(address).await;
        ["put", "delete", "range", "txn"]
            .map(|what| value(&shown, &format!("etcd_mvcc_{what}_total")))
    };
    let put = r#"{"request_put":{"key":"YQ==","value":"ZA=="}}"#;
    let get = r#"{"request_range":{"key":"YQ=="}}"#;
    let fails = r#"{"key":"YQ==","target":"VALUE","value":"Yw=="}"#;
    let calls = [
        ("kv/put", r#"{"key":"YQ==","value":"MQ=="}"#.to_owned(), [1, 0, 0, 0]),
        ("kv/put", r#"{"key":"YQ==","value":"Mg==","prev_kv":true}"#.into(), [2, 0, 1, 1]),
        ("kv/deleterange", r#"{"key":"YQ==","prev_kv":true}"#.into(), [2, 1, 2, 2]),
        ("kv/deleterange", r#"{"key":"YQ=="}"#.into(), [2, 2, 2, 2]),
        ("kv/txn", format!(r#"{{"compare":[{fails}],"failure":[{get}]}}"#), [2, 2, 4, 3]),
        ("kv/txn", format!(r#"{{"success":[{put},{get}]}}"#), [3, 2, 5, 4]),
        ("kv/txn", format!(r#"{{"success":[{get},{get}]}}"#), [3, 2, 7, 5]),
        ("kv/txn", format!(r#"{{"compare":[{fails}],"failure":[{put}]}}"#), [4, 2, 8, 5]),
        ("lease/grant", r#"{"ID":"7","TTL":"100"}"#.into(), [4, 2, 8, 5]),
        ("kv/put", r#"{"key":"YQ==","value":"Mg==","lease":"7"}"#.into(), [5, 2, 8, 5]),
        ("kv/put", r#"{"key":"Yg==","value":"Mg==","lease":"7"}"#.into(), [6, 2, 8, 5]),
        ("lease/revoke", r#"{"ID":"7"}"#.into(), [6, 4, 8, 6]),
        ("kv/range", r#"{"key":"YQ=="}"#.into(), [6, 4, 9, 6]),
    ];
    for (path, body, expected) in calls {
        let path = format!("/v3/{path}");
        assert_eq!(http1::post(address, &path, &body).await.status, 200, "{path} {body}");
        assert_eq!(counts().await, expected, "{path} {body}");
    }
    let shown = scrape(address).await;
    assert_eq!(value(&shown, "etcd_debugging_mvcc_total_put_size_in_bytes"), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_count_what_goes_between_them() {
    let mut cluster = Cluster::start_forgetful(3).await;
    let leader = cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    let (here, there) = (cluster.id(leader).await, cluster.id(away).await);
    for number in [leader, away] {
        let shown = probed(&cluster, number).await;
        assert_eq!(differences(&shown, &["start", "peers"]), Vec::<String>::new());
        assert_eq!(value(&shown, "etcd_server_is_leader"), u64::from(number == leader));
        assert_eq!(shown["etcd_network_known_peers"].samples.len(), 3);
        let active = &shown["etcd_network_active_peers"].samples;
        assert!(active.len() == 2 && active.values().all(|up| up == "1"), "{active:?}");
    }
    let client = cluster.client(leader).await;
    let sent = format!(r#"etcd_network_peer_sent_bytes_total{{To="{there:x}"}}"#);
    let received = format!(r#"etcd_network_peer_received_bytes_total{{From="{here:x}"}}"#);
    let counts = async || {
        let (at_leader, at_other) =
            (shown_by(&cluster, leader).await, shown_by(&cluster, away).await);
        [value(&at_leader, &sent), value(&at_other, &received)]
    };
    let before = counts().await;
    client.put("k", vec![0; 100_000]).await.expect("it serves");
    cluster.check_equal().await;
    for (after, before) in counts().await.into_iter().zip(before) {
        assert!((100_000..200_000).contains(&(after - before)), "{before} {after}");
    }
    cluster.kill(away);
    for number in 0..100 {
        client.put(format!("k{number}"), "x").await.expect("two are enough");
    }
    cluster.rerun(away);
    let server = cluster.places[away].server.as_ref().expect("it runs");
    server.wait_for_line("applied snapshot");
    cluster.check_equal().await;
    let (sender, receiver) = (shown_by(&cluster, leader).await, shown_by(&cluster, away).await);
    for shown in [&sender, &receiver] {
        assert_eq!(differences(shown, &["start"]), Vec::<String>::new());
    }
    let (to, from) = (format!(r#"{{To="{there:x}"}}"#), format!(r#"{{From="{here:x}"}}"#));
    let both = format!(r#"{{Local="{here:x}",Remote="{there:x}"}}"#);
    for (shown, series) in [
        (&sender, format!("etcd_network_active_peers{both}")),
        (&sender, format!("etcd_network_disconnected_peers_total{both}")),
        (&sender, format!("etcd_network_snapshot_send_success{to}")),
        (&sender, format!("etcd_network_snapshot_send_total_duration_seconds_count{to}")),
        (&receiver, format!("etcd_network_snapshot_receive_success{from}")),
        (&receiver, format!("etcd_network_snapshot_receive_total_duration_seconds_count{from}")),
        (&receiver, "etcd_snap_db_fsync_duration_seconds_count".to_owned()),
        (&receiver, "etcd_snap_db_save_total_duration_seconds_count".to_owned()),
    ] {
        assert!(value(shown, &series) > 0, "{series}");
    }
    assert_eq!(value(&receiver, "etcd_server_snapshot_apply_in_progress_total"), 0);
}

async fn shown_by(cluster: &Cluster, number: usize) -> BTreeMap<String, Family> {
    scrape_settled(cluster.places[number].server.as_ref().expect("it runs").address()).await
}

/// Waits until a member of three has probed the others.
async fn probed(cluster: &Cluster, number: usize) -> BTreeMap<String, Family> {
    let started = Instant::now();
    loop {
        let shown = shown_by(cluster, number).await;
        let times = shown.get("etcd_network_peer_round_trip_time_seconds");
        let series = times.into_iter().flat_map(|times| times.samples.keys());
        if series.filter(|series| series.contains("_count")).count() == 2 {
            return shown;
        }
        assert!(started.elapsed() < PATIENCE, "no probe");
        tokio::time::sleep(PAUSE).await;
    }
}
