//! Keys: reading, writing, transactions, compaction.

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

use crate::call::{Method, Retry};
use crate::client::Leader;
use crate::{Client, Error};

/// The end of the range of all keys that begin with `prefix`: the least key above them, or `\0`,
/// which stands for no end.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(b"\0")
}

impl Client {
    /// Reads keys.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.KV/Range" };
        self.call(method, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.range(request).await }
        })
        .await
    }

    /// Reads keys as a stream and joins its parts to one response.
    pub async fn range_stream(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let link = self.pick().await?;
        let mut kv = self.kv(link.channel.clone());
        let request = self.request(request, Leader::Optional);
        let read = async {
            let answer = kv.range_stream(request).await;
            let mut parts = answer.map_err(|status| self.failed(&link, &status))?.into_inner();
            let mut whole = RangeResponse::default();
            while let Some(part) = parts.message().await? {
                let Some(part) = part.range_response else { continue };
                if part.header.is_some() {
                    whole.header = part.header;
                }
                whole.kvs.extend(part.kvs);
                whole.more |= part.more;
                if part.count != 0 {
                    whole.count = part.count;
                }
            }
            Ok(whole)
        };
        self.in_time(read).await
    }

    /// Writes one key.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.KV/Put" };
        self.call(method, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.put(request).await }
        })
        .await
    }

    /// Deletes keys.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.KV/DeleteRange" };
        self.call(method, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.delete_range(request).await }
        })
        .await
    }

    /// Runs a transaction.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.KV/Txn" };
        self.call(method, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.txn(request).await }
        })
        .await
    }

    /// Compacts history below a revision.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.KV/Compact" };
        self.call(method, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.compact(request).await }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_lacks_it() {
        assert_eq!(prefix_end(b"foo"), "fop");
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), "\0");
        assert_eq!(prefix_end(b""), "\0");
    }
}
