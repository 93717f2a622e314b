//! What a member refuses that has no vote, or knows no leader.

use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    AlarmRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, MemberAddRequest,
    MemberListRequest, MemberPromoteRequest, MoveLeaderRequest, RangeRequest, SnapshotRequest,
    StatusRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status, Streaming};

use crate::client::{Client, in_time};
use crate::cluster::{Cluster, PAUSE};
use crate::harness::PATIENCE;
use crate::http1;

/// Marks a request as one that needs a leader.
fn led<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().expect("a value"));
    request
}

fn led_if<T>(is_led: bool, message: T) -> Request<T> {
    if is_led { led(message) } else { Request::new(message) }
}

async fn watch(client: &Client, is_led: bool) -> Result<Streaming<WatchResponse>, Status> {
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let union = Some(watch_request::RequestUnion::CreateRequest(create));
    let requests = tokio_stream::iter([WatchRequest { request_union: union }]);
    let requests = led_if(is_led, requests.chain(tokio_stream::pending()));
    let mut events = client.watch().watch(requests).await?.into_inner();
    assert!(events.message().await?.expect("the answer").created);
    Ok(events)
}

#[track_caller]
fn is_refused<T>(answer: Result<T, Status>) {
    let refused = answer.err().expect("a learner refuses it");
    let (code, text) = (refused.code(), refused.message());
    assert_eq!(
        (code, text),
        (Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
    );
}

/// Starts a voter and a learner; returns the learner's id, too.
async fn with_learner() -> (Cluster, u64) {
    let mut cluster = Cluster::planned(2);
    let members = cluster.list(1);
    cluster.run(0, &members, "new");
    assert!(cluster.places[0].server.as_ref().expect("it runs").serves());
    let client = cluster.client(0).await;
    client.put("k", "v").await.expect("it serves");
    let peer_urls = vec![cluster.places[1].peer.clone()];
    let add = MemberAddRequest { peer_urls, is_learner: true };
    let added = client.cluster().member_add(add).await.expect("it may").into_inner();
    let members = cluster.list(2);
    cluster.run(1, &members, "existing");
    assert!(cluster.places[1].server.as_ref().expect("it runs").serves());
    (cluster, added.member.expect("the new one").id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_only_what_needs_no_vote() {
    let (cluster, id) = with_learner().await;
    let learner = cluster.client(1).await;
    is_refused(learner.get("k").await);
    is_refused(learner.put("k", "w").await);
    is_refused(learner.cluster().member_list(MemberListRequest::default()).await);
    is_refused(learner.lease().lease_grant(LeaseGrantRequest { ttl: 5, id: 7 }).await);
    is_refused(learner.maintenance().alarm(AlarmRequest::default()).await);
    is_refused(learner.maintenance().hash_kv(HashKvRequest::default()).await);
    is_refused(learner.maintenance().move_leader(MoveLeaderRequest { target_id: id }).await);
    is_refused(watch(&learner, false).await);
    let renewals = tokio_stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    is_refused(learner.lease().lease_keep_alive(renewals).await);

    let status = learner.maintenance().status(StatusRequest {}).await.expect("it serves this");
    assert!(status.into_inner().is_learner);
    let local = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    in_time("what the voter has", async {
        while learner.kv().range(local.clone()).await.expect("it serves this").get_ref().count == 0
        {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    let snapshot = learner.maintenance().snapshot(SnapshotRequest {}).await;
    let mut snapshot = snapshot.expect("it serves this").into_inner();
    while snapshot.message().await.expect("whole").is_some() {}
    let address = cluster.places[1].server.as_ref().expect("it runs").address();
    let ready = http1::get(address, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]non_learner failed: not supported for learner"), "{ready:?}");
    assert_eq!(http1::get(address, "/livez").await.status, 200);
    assert_eq!(http1::get(address, "/health").await.status, 200);

    let voter = cluster.client(0).await;
    in_time("a vote", async {
        while voter.cluster().member_promote(MemberPromoteRequest { id }).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    // It learns of it a moment later.
    in_time("a write through it", async {
        while learner.put("k", "w").await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    cluster.check_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_requires_a_leader_is_told_that_there_is_none() {
    let mut cluster = Cluster::planned(3);
    for place in &mut cluster.places {
        let flags = ["--heartbeat-interval=50", "--election-timeout=500"];
        place.flags = flags.map(str::to_owned).into();
    }
    cluster.run_all();
    let leader = cluster.wait_for_leader().await;
    let (left, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let client = cluster.client(left).await;
    client.lease().lease_grant(LeaseGrantRequest { ttl: 600, id: 7 }).await.expect("it serves");
    let mut cut = watch(&client, true).await.expect("there is a leader");
    let mut kept = watch(&client, false).await.expect("it serves");
    let renewals = tokio_stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    let renewals = led(renewals.chain(tokio_stream::pending()));
    let renewed = client.lease().lease_keep_alive(renewals).await.expect("there is a leader");
    let mut renewed = renewed.into_inner();
    assert_eq!(renewed.message().await.expect("it serves").expect("one").ttl, 600);

    cluster.kill(leader);
    cluster.kill(other);
    let killed = Instant::now();
    let is_leaderless = |status: &Status| {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    };
    is_leaderless(&in_time("its end", cut.message()).await.expect_err("no leader"));
    // Three checks without a leader are two election timeouts at least.
    assert!(killed.elapsed() > Duration::from_millis(900), "{:?}", killed.elapsed());
    is_leaderless(&in_time("its end", renewed.message()).await.expect_err("no leader"));
    is_leaderless(&watch(&client, true).await.expect_err("no leader"));
    let get = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    is_leaderless(&client.kv().range(led(get.clone())).await.expect_err("no leader"));
    client.kv().range(get).await.expect("nobody is needed for this");
    let status = client.maintenance().status(StatusRequest {}).await.expect("it serves");
    assert_eq!(status.get_ref().errors, ["etcdserver: no leader"]);
    let address = cluster.places[left].server.as_ref().expect("it runs").address();
    let health = http1::get(address, "/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.body, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
    assert_eq!(http1::get(address, "/health?serializable=true").await.status, 200);
    assert_eq!(http1::get(address, "/livez").await.status, 200);
    let metrics = http1::get(address, "/metrics").await.body;
    assert!(metrics.contains("\netcd_server_has_leader 0\n"));

    cluster.rerun(other);
    let started = Instant::now();
    while client.put("k", "v").await.is_err() {
        assert!(started.elapsed() < PATIENCE, "no leader");
        tokio::time::sleep(PAUSE).await;
    }
    let event = in_time("an event", kept.message()).await.expect("it goes on");
    assert_eq!(event.expect("it goes on").events.len(), 1);
    watch(&client, true).await.expect("there is a leader");
}
