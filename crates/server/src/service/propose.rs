//! Requests on their way into the log.

use bytes::Bytes;
use machine::{Outcome, Reply};
use prost::Message;
use proto::etcdserverpb::{InternalRaftRequest, RequestHeader};

use super::payload::Payload;
use super::{Services, answer};
use crate::grpc::error;
use crate::grpc::status::Status;

impl Services {
    /// Puts `request` into the log under a new request id and waits until it is applied here.
    ///
    /// It is encoded at once: what waits is a few words, not the request.
    pub(super) fn propose(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<(i64, Reply), Status>> {
        let encoded = self.encode(request);
        async move {
            let (id, data) = encoded?;
            let Outcome { revision, result } = self.handle.propose(id, data).await?;
            Ok((revision, result?))
        }
    }

    /// Like [`Self::propose`], and encodes the answer.
    pub(super) fn propose_and_answer(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<Payload, Status>> {
        let proposed = self.propose(request);
        async move {
            let (revision, reply) = proposed.await?;
            let payload = answer::reply(&self.header(revision), &reply);
            Ok(payload.counted_if_free(&self.limits.answers))
        }
    }

    fn encode(&self, mut request: InternalRaftRequest) -> Result<(u64, Bytes), Status> {
        let id = self.handle.request_id();
        request.header = Some(RequestHeader { id, ..RequestHeader::default() });
        let len = request.encoded_len();
        if len > self.limits.request_bytes_max {
            return Err(error::REQUEST_TOO_LARGE);
        }
        Ok((id, request.encode_to_vec().into()))
    }
}
