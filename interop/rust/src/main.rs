//! The Rust client etcd-client against one server.

use std::error::Error as _;
use std::time::{Duration, Instant};

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error,
    EventType, GetOptions, LockOptions, PutOptions, ResignOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, WatchOptions,
};
use tokio_stream::StreamExt as _;

type Checked = Result<(), Error>;

/// A refusal has to have this text.
fn refused<T>(result: Result<T, Error>, text: &str) {
    let error = result.err().unwrap_or_else(|| panic!("not refused: {text}"));
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error:?} {cause}").contains(text), "wanted {text}, got {error:?}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Checked {
    let endpoint = std::env::var("ENDPOINT").expect("ENDPOINT names the server");
    let mut client = Client::connect([endpoint], None).await?;
    key_values(&mut client).await?;
    transactions(&mut client).await?;
    leases(&mut client).await?;
    watches(&mut client).await?;
    locks_and_elections(&mut client).await?;
    maintenance(&mut client).await
}

async fn key_values(client: &mut Client) -> Checked {
    let first = client.put("a", "1", None).await?.header().unwrap().revision();
    let second = client.put("a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(second.prev_key().unwrap().value(), b"1");
    assert_eq!(second.header().unwrap().revision(), first + 1);
    let past = client.get("a", Some(GetOptions::new().with_revision(first))).await?;
    assert_eq!((past.kvs()[0].value(), past.kvs()[0].version()), (&b"1"[..], 1));
    for i in 0..5 {
        client.put(format!("list/{i}"), i.to_string(), None).await?;
    }
    let options = GetOptions::new()
        .with_prefix()
        .with_limit(2)
        .with_sort(SortTarget::Key, SortOrder::Descend);
    let list = client.get("list/", Some(options)).await?;
    assert_eq!(
        (list.kvs()[0].key(), list.kvs().len(), list.more(), list.count()),
        (&b"list/4"[..], 2, true, 5)
    );
    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("list/", Some(options)).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs()[1].value()), (5, &b"1"[..]));
    refused(
        client.get("a", Some(GetOptions::new().with_revision(1 << 40))).await,
        "required revision is a future revision",
    );
    refused(client.put("", "", None).await, "etcdserver: key is not provided");
    Ok(())
}

async fn transactions(client: &mut Client) -> Checked {
    let txn = Txn::new()
        .when([
            Compare::value("a", CompareOp::Equal, "2"),
            Compare::version("no", CompareOp::Equal, 0),
        ])
        .and_then([TxnOp::put("t", "1", None), TxnOp::get("t", None)])
        .or_else([TxnOp::delete("a", None)]);
    let answer = client.txn(txn).await?;
    assert!(answer.succeeded());
    match &answer.op_responses()[1] {
        TxnOpResponse::Get(range) => assert_eq!(range.kvs()[0].value(), b"1"),
        other => panic!("{other:?}"),
    }
    let lost = Txn::new()
        .when([Compare::create_revision("a", CompareOp::Equal, 0)])
        .or_else([TxnOp::get("a", None)]);
    assert!(!client.txn(lost).await?.succeeded());
    let twice = Txn::new().and_then([TxnOp::put("x", "1", None), TxnOp::put("x", "2", None)]);
    refused(client.txn(twice).await, "etcdserver: duplicate key given in txn request");
    Ok(())
}

async fn leases(client: &mut Client) -> Checked {
    let lease = client.lease_grant(2, None).await?.id();
    client.put("leased", "x", Some(PutOptions::new().with_lease(lease))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.unwrap().ttl(), 2);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.get("leased", None).await?.count() > 0 {
        assert!(Instant::now() < deadline, "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.lease_time_to_live(lease, None).await?.ttl(), -1);
    let lease = client.lease_grant(600, None).await?.id();
    client.put("leased", "x", Some(PutOptions::new().with_lease(lease))).await?;
    assert!(client.leases().await?.leases().iter().any(|each| each.id() == lease));
    client.lease_revoke(lease).await?;
    assert_eq!(client.get("leased", None).await?.count(), 0);
    refused(client.lease_revoke(lease).await, "etcdserver: requested lease not found");
    Ok(())
}

async fn watches(client: &mut Client) -> Checked {
    let first = client.put("w", "0", None).await?.header().unwrap().revision();
    client.put("w", "1", None).await?;
    client.delete("w", None).await?;
    let options = WatchOptions::new().with_start_revision(first).with_prev_key();
    let mut stream = client.watch("w", Some(options)).await?;
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(stream.next().await.unwrap()?.events().to_vec());
    }
    let previous: Vec<&[u8]> =
        events.iter().map(|event| event.prev_kv().map_or(&b""[..], |kv| kv.value())).collect();
    assert_eq!(previous, [&b""[..], b"0", b"1"]);
    assert_eq!(events[2].event_type(), EventType::Delete);
    client.put("w", "again", None).await?;
    let live = stream.next().await.unwrap()?;
    assert_eq!(live.events()[0].kv().unwrap().value(), b"again");
    stream.cancel(live.watch_id()).await?;
    assert!(stream.next().await.unwrap()?.canceled());
    client.compact(first + 2, Some(CompactionOptions::new().with_physical())).await?;
    let mut stream =
        client.watch("w", Some(WatchOptions::new().with_start_revision(first))).await?;
    let mut end = stream.next().await.unwrap()?;
    if !end.canceled() {
        end = stream.next().await.unwrap()?;
    }
    assert_eq!((end.canceled(), end.compact_revision()), (true, first + 2));
    refused(client.compact(first, None).await, "required revision has been compacted");
    Ok(())
}

async fn locks_and_elections(client: &mut Client) -> Checked {
    let lease = client.lease_grant(60, None).await?.id();
    let key = client.lock("lock", Some(LockOptions::new().with_lease(lease))).await?.key().to_vec();
    let other = client.lease_grant(60, None).await?.id();
    let mut waiter = client.clone();
    let waiting =
        async move { waiter.lock("lock", Some(LockOptions::new().with_lease(other))).await };
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(),
        "the lock is held"
    );
    client.unlock(key).await?;
    waiting.await?;
    let led = client.campaign("election", "first", lease).await?;
    let leader = led.leader().unwrap().clone();
    assert_eq!(client.leader("election").await?.kv().unwrap().value(), b"first");
    let mut observed = client.observe("election").await?;
    assert_eq!(observed.next().await.unwrap()?.kv().unwrap().value(), b"first");
    let options = etcd_client::ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("second", Some(options)).await?;
    assert_eq!(observed.next().await.unwrap()?.kv().unwrap().value(), b"second");
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    refused(client.leader("election").await, "election: no leader");
    Ok(())
}

async fn maintenance(client: &mut Client) -> Checked {
    let status = client.status().await?;
    assert!(status.version().starts_with("3.7."));
    assert_eq!(status.leader(), status.header().unwrap().member_id());
    assert!(client.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms().is_empty());
    let hash = client.hash_kv(0).await?;
    assert!(hash.hash() != 0);
    assert_eq!(client.member_list().await?.members()[0].name(), "interop");
    client.defragment().await?;
    let mut snapshot = client.snapshot().await?;
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await? {
        bytes += part.blob().len();
    }
    assert_eq!(bytes % 512, 32);
    Ok(())
}
