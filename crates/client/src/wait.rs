//! Waiting until every key that came before ours is gone.

use bytes::Bytes;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{RangeRequest, WatchCreateRequest};
use proto::mvccpb::event::EventType;

use crate::{Client, Error, prefix_end};

/// Returns when no key under `prefix` was created at `revision_max` or before.
///
/// Watches only the youngest of them, so that a long queue does not wake up at once.
pub(crate) async fn wait_deletes(
    client: &Client,
    prefix: &Bytes,
    revision_max: i64,
) -> Result<(), Error> {
    loop {
        let request = RangeRequest {
            key: prefix.clone(),
            range_end: prefix_end(prefix),
            sort_target: SortTarget::Create.into(),
            sort_order: SortOrder::Descend.into(),
            limit: 1,
            max_create_revision: revision_max,
            ..RangeRequest::default()
        };
        let found = client.range(request).await?;
        let Some(last) = found.kvs.first() else { return Ok(()) };
        let revision = found.header.map_or(0, |header| header.revision);
        wait_delete(client, last.key.clone(), revision).await?;
    }
}

async fn wait_delete(client: &Client, key: Bytes, revision: i64) -> Result<(), Error> {
    let request = WatchCreateRequest { key, start_revision: revision, ..Default::default() };
    let mut watcher = client.watch_stream(false).create(request).await;
    while let Some(response) = watcher.next().await {
        let response = response?;
        if response.events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
    }
    Err(Error::WatcherLost)
}
