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
    pub(super) async fn propose(
        &self,
        mut request: InternalRaftRequest,
    ) -> Result<(i64, Reply), Status> {
        let id = self.handle.request_id();
        request.header = Some(RequestHeader { id, ..RequestHeader::default() });
        let Outcome { revision, result } = self.handle.propose(id, self.encode(&request)?).await?;
        Ok((revision, result?))
    }

    /// Like [`Self::propose`], and encodes the answer.
    pub(super) async fn propose_and_answer(
        &self,
        request: InternalRaftRequest,
    ) -> Result<Payload, Status> {
        let (revision, reply) = self.propose(request).await?;
        Ok(answer::reply(&self.header(revision), &reply))
    }

    fn encode(&self, request: &InternalRaftRequest) -> Result<Bytes, Status> {
        let data = request.encode_to_vec();
        if data.len() > self.limits.request_bytes_max {
            return Err(error::REQUEST_TOO_LARGE);
        }
        Ok(data.into())
    }
}
