//! A member whose data is not that of the others is found out: at its start, by the leader from time to time, and at
//! compactions.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use machine::schema;
use prost::Message as _;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, alarm_request::AlarmAction,
};
use proto::mvccpb::KeyValue;
use storage::Disk;
use storage::backend::{Backend, Op, Options, WriteBatch};
use storage::datadir::DataDir;
use storage::os::OsDisk;
use tonic::Code;

use crate::client::Client;
use crate::cluster::{Cluster, PAUSE};
use crate::harness::PATIENCE;

/// Gives `key` another value in the data of a member that does not run, as a damaged disk could.
fn spoil(data: &Path, key: &str) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let data = DataDir::open(&*disk, data, None).expect("nobody else uses it");
    let backend =
        Backend::open(disk, &data.database(), schema::BUCKETS, Options::default()).expect("whole");
    let records = backend.reader().expect("it opens").range(schema::KEY, ..);
    let records = records.map(|record| record.expect("whole"));
    let changed = records.filter_map(|(place, record)| {
        let mut record = KeyValue::decode(record).expect("a record");
        (record.key == key.as_bytes()).then(|| {
            record.value = "spoilt".into();
            (schema::KEY, Op::Put(place, Bytes::from(record.encode_to_vec())))
        })
    });
    let changed: Vec<_> = changed.collect();
    assert_eq!(changed.len(), 1, "the key is there once");
    backend.commit(&WriteBatch::new(changed)).expect("the disk takes it");
}

async fn alarms(client: &Client) -> Vec<AlarmMember> {
    let ask = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    client.maintenance().alarm(ask).await.expect("it serves").into_inner().alarms
}

/// Waits until an alarm is set; returns all.
async fn alarmed(client: &Client) -> Vec<AlarmMember> {
    let started = Instant::now();
    loop {
        let found = alarms(client).await;
        if !found.is_empty() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "no alarm");
        tokio::time::sleep(PAUSE).await;
    }
}

fn corrupt(member_id: u64) -> AlarmMember {
    AlarmMember { member_id, alarm: AlarmType::Corrupt.into() }
}

/// Starts three members with `flags` and data; one that does not lead is stopped and spoilt. Returns its number and id.
async fn with_one_spoilt(flags: &[&str]) -> (Cluster, usize, u64) {
    let mut cluster = Cluster::planned(3);
    for place in &mut cluster.places {
        place.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }
    cluster.run_all();
    let leader = cluster.wait_for_leader().await;
    let client = cluster.client(leader).await;
    for key in ["a", "k", "z"] {
        client.put(key, "good").await.expect("it serves");
    }
    cluster.check_equal().await;
    let bad = (leader + 1) % 3;
    let id = cluster.id(bad).await;
    cluster.stop(bad);
    spoil(&cluster.data(bad), "k");
    (cluster, bad, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_data_is_found_at_the_start_and_by_the_leader() {
    let (mut cluster, bad, id) = with_one_spoilt(&["--corrupt-check-time=500ms"]).await;
    let flag = "--feature-gates=InitialCorruptCheck=true";
    cluster.places[bad].flags.push(flag.to_owned());
    let members = cluster.list(3);
    cluster.run(bad, &members, "new");
    let mut refused = cluster.places[bad].server.take().expect("it was started");
    assert_eq!(refused.wait_code(), 1);
    refused.wait_for_line("found different hash values from remote peer");
    refused.wait_for_line(&format!("{id:x} found data inconsistency with peers"));
    // One that is sound passes.
    let other = (bad + 1) % 3;
    cluster.stop(other);
    cluster.places[other].flags.push(flag.to_owned());
    cluster.rerun(other);
    let sound = cluster.places[other].server.as_ref().expect("it runs");
    sound.wait_for_line("initial corruption checking passed; no corruption");
    assert_eq!(alarms(&cluster.client(other).await).await, []);

    cluster.places[bad].flags.pop();
    cluster.rerun(bad);
    let client = cluster.client(other).await;
    assert_eq!(alarmed(&client).await, [corrupt(id)]);
    let refused = client.put("k", "v").await.expect_err("the alarm");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::DataLoss, "etcdserver: corrupt cluster")
    );
    let compact = CompactionRequest { revision: 2, physical: false };
    let refused = client.kv().compact(compact).await.expect_err("the alarm");
    assert_eq!(refused.message(), "etcdserver: corrupt cluster");
    assert_eq!(client.get("a").await.expect("reads go on"), Some("good".into()));

    // Without it, the others may go on.
    cluster.kill(bad);
    cluster.wait_for_leader().await;
    let clear = AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: id,
        alarm: AlarmType::Corrupt.into(),
    };
    let cleared = client.maintenance().alarm(clear).await.expect("it serves").into_inner();
    assert_eq!(cleared.alarms, [corrupt(id)]);
    assert_eq!(alarms(&client).await, []);
    client.put("k", "v").await.expect("no alarm any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_data_is_found_at_a_compaction() {
    let flags = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=500ms"];
    let (mut cluster, bad, id) = with_one_spoilt(&flags).await;
    cluster.rerun(bad);
    let leader = cluster.wait_for_leader().await;
    let client = cluster.client(leader).await;
    let compact = |revision| {
        let mut kv = client.kv();
        async move { kv.compact(CompactionRequest { revision, physical: true }).await }
    };
    let revision = client.put("a", "more").await.expect("nobody has noticed");
    compact(revision).await.expect("nobody has noticed");
    assert_eq!(alarmed(&client).await, [corrupt(id)]);
    let server = cluster.places[leader].server.as_ref().expect("it runs");
    server.wait_for_line("Detected compaction hash mismatch");
    let refused = client.put("a", "v").await.expect_err("the alarm");
    assert_eq!(refused.message(), "etcdserver: corrupt cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_data_raises_no_alarm() {
    let mut cluster = Cluster::planned(3);
    for place in &mut cluster.places {
        let flags = [
            "--feature-gates=CompactHashCheck=true,InitialCorruptCheck=true",
            "--compact-hash-check-time=300ms",
            "--corrupt-check-time=300ms",
        ];
        place.flags = flags.map(str::to_owned).into();
    }
    cluster.run_all();
    let leader = cluster.wait_for_leader().await;
    let client = cluster.client(leader).await;
    for number in 0..5 {
        let revision = client.put(format!("k{}", number % 2), "x").await.expect("it serves");
        let compact = CompactionRequest { revision, physical: true };
        client.kv().compact(compact).await.expect("it serves");
        // Checks run beside writes.
        for number in 0..100 {
            client.put(format!("more{number}"), "x").await.expect("it serves");
        }
    }
    let server = cluster.places[leader].server.as_ref().expect("it runs");
    server.wait_for_line("successfully checked hash on whole cluster");
    server.wait_for_line("finished peer corruption check");
    assert_eq!(alarms(&client).await, []);
    cluster.check_equal().await;
}
