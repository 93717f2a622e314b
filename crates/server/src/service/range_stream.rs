//! `RangeStream`: a range in chunks at one pinned revision (`spec/grpc-api.md` §4.2).

use machine::RangeReply;
use prost::Message;
use proto::etcdserverpb::RangeRequest;

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

    /// Reads the next chunk; also returns what it holds.
    async fn chunk(&self, chunks: &Chunks) -> Result<(i64, RangeReply, Option<Held>), Status> {
        let request = chunks.next_request();
        let room = &self.limits.answers;
        if let Some(resident) = self.handle.reader().range_resident(&request) {
            let (revision, reply) = resident?;
            let bytes = COPIES * reply.kvs.iter().map(|record| record.len()).sum::<usize>();
            let held = if bytes <= FREE_BYTES { None } else { Some(room.hold(bytes).await?) };
            return Ok((revision, reply, held));
        }
        let reader = self.handle.reader().clone();
        let mut account = room.account();
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
    fn new(mut request: RangeRequest, chunk_bytes_aim: usize) -> Self {
        // Chunks follow each other by key. etcd sorts each by the target, goes on behind the key that then is its last, and so
        // repeats keys: not to be copied.
        request.sort_target = 0;
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
