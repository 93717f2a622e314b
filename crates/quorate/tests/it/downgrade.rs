//! The cluster goes down to the version before, and up again.

use std::time::Instant;

use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::{DowngradeRequest, StatusRequest, StatusResponse};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::client::Client;
use crate::cluster::{Cluster, PAUSE};
use crate::harness::PATIENCE;
use crate::http1::exchange;

async fn ask(client: &Client, action: DowngradeAction, version: &str) -> Result<String, Status> {
    let request = DowngradeRequest { action: action.into(), version: version.to_owned() };
    Ok(client.maintenance().downgrade(request).await?.into_inner().version)
}

async fn status(client: &Client) -> StatusResponse {
    client.maintenance().status(StatusRequest {}).await.expect("it serves").into_inner()
}

/// Waits until a member's data is that of a version.
async fn goes_to(client: &Client, version: &str) {
    let started = Instant::now();
    while status(client).await.storage_version != version {
        assert!(started.elapsed() < PATIENCE, "it stays at {:?}", status(client).await);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn peer_page(cluster: &Cluster, number: usize, path: &str) -> String {
    let address = cluster.places[number].peer.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}");
    exchange(stream, &head, "").await.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_down_by_one_version_and_up_again() {
    use DowngradeAction::{Cancel, Enable, Validate};
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_for_leader().await;
    let follower = (leader + 1) % 3;
    let client = cluster.client(follower).await;
    client.put("k", "v").await.expect("it serves");
    goes_to(&client, "3.7.0").await;
    for (action, version, code, text) in [
        (Validate, "x", Code::InvalidArgument, "wrong downgrade target version format"),
        (Enable, "", Code::InvalidArgument, "wrong downgrade target version format"),
        (Validate, "3.7", Code::InvalidArgument, "invalid downgrade target version"),
        (Enable, "3.5.1", Code::InvalidArgument, "invalid downgrade target version"),
    ] {
        let refused = ask(&client, action, version).await.expect_err("not this one");
        assert_eq!((refused.code(), refused.message()), (code, &*format!("etcdserver: {text}")));
    }
    assert_eq!(ask(&client, Validate, "3.6").await.expect("it may"), "3.7");
    // There is none, and that is no failure.
    assert_eq!(ask(&client, Cancel, "").await.expect("as etcd"), "3.7");

    assert_eq!(ask(&client, Enable, "3.6.7").await.expect("it may"), "3.7");
    for (action, version) in [(Enable, "3.6"), (Validate, "3.6")] {
        let refused = ask(&client, action, version).await.expect_err("one is under way");
        let (code, text) = (refused.code(), refused.message());
        // Or the cluster is there already.
        let is_there = code == Code::InvalidArgument;
        let in_process = "etcdserver: cluster has a downgrade job in progress";
        assert!(is_there || (code, text) == (Code::FailedPrecondition, in_process), "{refused}");
    }
    for number in 0..3 {
        assert_eq!(peer_page(&cluster, number, "/downgrade/enabled").await, "true");
        let client = cluster.client(number).await;
        goes_to(&client, "3.6.0").await;
        let info = status(&client).await.downgrade_info.expect("always there");
        assert_eq!((info.enabled, &*info.target_version), (true, "3.6.0"));
        let version = peer_page(&cluster, number, "/version").await;
        assert!(version.contains(r#""etcdcluster":"3.6.0""#), "{version}");
        let server = cluster.places[number].server.as_ref().expect("it runs");
        server.wait_for_line("The server is ready to downgrade");
    }
    client.put("k", "below").await.expect("it serves");
    // What was begun outlives its members.
    cluster.kill(leader);
    cluster.rerun(leader);
    let again = cluster.client(leader).await;
    assert!(status(&again).await.downgrade_info.expect("always there").enabled);
    cluster.check_equal().await;

    assert_eq!(ask(&client, Cancel, "").await.expect("it may"), "3.6");
    assert_eq!(peer_page(&cluster, leader, "/downgrade/enabled").await, "false");
    for number in 0..3 {
        goes_to(&cluster.client(number).await, "3.7.0").await;
    }
    cluster.check_equal().await;
}
