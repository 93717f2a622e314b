//! `RangeStream`: a range in chunks at one pinned revision (`spec/grpc-api.md` §4.2).
//!
//! Chunks in key order are ranges of their own, each behind the last one; another order is made once and read in pages.

use machine::{Page, RangePager, RangeReply};
use prost::Message;
use proto::etcdserverpb::RangeRequest;

use super::paged::PageReader;
use super::payload::{Payload, field_len, put_field};
use super::stream::{Gone, Outbound};
use super::{Services, answer, check};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::room::{FREE_BYTES, Held};

/// How often a chunk is in memory until it leaves: as records, as `RangeResponse`, and wrapped.
const COPIES: usize = 3;
/// Keys of the first chunk.
const FIRST_CHUNK_KEYS: i64 = 10;

impl Services {
    pub(super) async fn range_stream(
        &self,
        request: RangeRequest,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        check::range_stream(&request)?;
        if !request.serializable {
            self.read_index().await?;
        }
        if !request.count_only && !RangePager::can_page(&request) {
            return self.sorted_range_stream(&request, out).await;
        }
        let mut chunks = Chunks::new(request, self.limits.request_bytes_max);
        loop {
            let (revision, reply, held) = self.chunk(&chunks).await?;
            let header_revision = chunks.pin(revision);
            match chunks.take(reply) {
                Chunk::Middle(reply) => send(out, answer::range_part(&reply), held).await?,
                Chunk::Last(reply) => {
                    let header = self.header(header_revision);
                    return send(out, answer::range(&header, reply, None), held).await;
                }
            }
        }
    }

    /// Streams in the order of a target other than the key, as `Range` would answer.
    ///
    /// etcd sorts each chunk by itself, goes on behind the key that then is its last, and so repeats and loses keys from the
    /// second chunk on: not to be copied.
    async fn sorted_range_stream(
        &self,
        request: &RangeRequest,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        let (pager, mut account) = self.open_pager(request).await?;
        account.shrink_to(pager.bytes_held());
        let _pager_held = account.close();
        let header_revision = pager.header_revision();
        let mut pages = PageReader::new(pager, self);
        loop {
            let Page { kvs, end } = pages.next().await?;
            let bytes = COPIES * kvs.iter().map(|record| record.len()).sum::<usize>();
            let held = self.hold_chunk(bytes).await?;
            let (more, count) = end.unwrap_or_default();
            let reply = RangeReply { kvs, more, count };
            if end.is_some() {
                let header = self.header(header_revision);
                return send(out, answer::range(&header, reply, None), held).await;
            }
            send(out, answer::range_part(&reply), held).await?;
        }
    }

    /// Takes room for a chunk that is `bytes` in memory.
    async fn hold_chunk(&self, bytes: usize) -> Result<Option<Held>, Status> {
        if bytes <= FREE_BYTES {
            return Ok(None);
        }
        self.limits.answers.hold(bytes).await.map(Some)
    }

    /// Reads the next chunk; also returns what it holds.
    async fn chunk(&self, chunks: &Chunks) -> Result<(i64, RangeReply, Option<Held>), Status> {
        let request = chunks.next_request();
        if let Some(resident) = self.handle.reader().range_resident(&request) {
            let (revision, reply) = resident?;
            let bytes = COPIES * reply.kvs.iter().map(|record| record.len()).sum::<usize>();
            return Ok((revision, reply, self.hold_chunk(bytes).await?));
        }
        let reader = self.handle.reader().clone();
        let mut account = self.limits.answers.account();
        self.blocking(move || {
            let mut take = |bytes: usize| account.take(COPIES * bytes);
            let (revision, reply) = reader.range_within(&request, &mut take)?;
            Ok((revision, reply, account.close()))
        })
        .await
    }
}

/// Wraps an encoded `RangeResponse` into a `RangeStreamResponse` and sends it.
async fn send(out: &mut impl Outbound, range: Payload, held: Option<Held>) -> Result<(), Status> {
    let range = range.into_message().await?;
    let mut payload = Payload::build(field_len(1, range.len()), |buffer| {
        put_field(1, range.len(), buffer);
        buffer.extend_from_slice(&range);
    });
    if let Some(mut held) = held {
        held.shrink_to(payload.message_len());
        payload.tie(held);
    }
    out.send(payload).await.map_err(|Gone| error::CANCELED)
}

enum Chunk {
    /// Keys only: more chunks follow.
    Middle(RangeReply),
    /// With `more` and `count` of the whole range.
    Last(RangeReply),
}

/// The state between chunks.
#[derive(Debug)]
struct Chunks {
    /// The request for what is left; `limit` 0 means all.
    request: RangeRequest,
    /// Keys still wanted, `None` for all.
    wanted: Option<i64>,
    /// Keys of the next chunk, `None` for all in one: what etcd makes of a negative limit.
    chunk_keys: Option<i64>,
    chunk_bytes_aim: usize,
    /// Store revision that the first chunk saw: the header's.
    header_revision: Option<i64>,
    /// Keys in the whole range, which the first chunk counted.
    count: Option<i64>,
}

impl Chunks {
    fn new(request: RangeRequest, chunk_bytes_aim: usize) -> Self {
        let wanted = (request.limit > 0).then_some(request.limit);
        let chunk_keys = (request.limit >= 0).then_some(FIRST_CHUNK_KEYS);
        Self { request, wanted, chunk_keys, chunk_bytes_aim, header_revision: None, count: None }
    }

    fn next_request(&self) -> RangeRequest {
        // 0 is no limit.
        let chunk_keys = self.chunk_keys.unwrap_or(0);
        let limit = self.wanted.map_or(chunk_keys, |wanted| wanted.min(chunk_keys));
        RangeRequest { limit, ..self.request.clone() }
    }

    /// Fixes the revision for all later chunks; returns the header's.
    fn pin(&mut self, revision: i64) -> i64 {
        if self.request.revision <= 0 {
            self.request.revision = revision;
        }
        *self.header_revision.get_or_insert(revision)
    }

    fn take(&mut self, reply: RangeReply) -> Chunk {
        let count = *self.count.get_or_insert(reply.count);
        if let Some(wanted) = &mut self.wanted {
            *wanted -= i64::try_from(reply.kvs.len()).expect("a chunk's length fits");
        }
        let is_last = !reply.more || self.wanted == Some(0) || self.request.count_only;
        if is_last {
            return Chunk::Last(RangeReply { count, ..reply });
        }
        self.resume_after(&reply);
        Chunk::Middle(reply)
    }

    fn resume_after(&mut self, reply: &RangeReply) {
        let last = reply.kvs.last().expect("more keys follow at least one");
        let last = proto::mvccpb::KeyValue::decode(last.clone())
            .expect("the store's records are checked when they are read");
        self.request.key = [&last.key[..], b"\0"].concat().into();
        let bytes: usize = reply.kvs.iter().map(|record| field_len(2, record.len())).sum();
        let Some(keys) = &mut self.chunk_keys else { return };
        if bytes < self.chunk_bytes_aim / 2 {
            *keys *= 2;
        } else if bytes > self.chunk_bytes_aim * 2 {
            *keys = (*keys / 2).max(1);
        }
    }
}
