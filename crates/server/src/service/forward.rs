//! What only the leader can answer, asked of it by members that do not lead (`spec/peer-protocol.md` §9).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::Services;
use crate::config::Url;
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::peer::requests::Asked;
use crate::peer::urls::Urls;

/// Time between two attempts, as etcd has it.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What became of one attempt.
pub(super) enum Attempt<T> {
    /// It is answered.
    Done(Result<T, Status>),
    /// Somebody else may lead by now, or the answer was lost.
    Again,
}

impl Services {
    /// Asks whoever leads until there is an answer: this member through `here` while it leads, else the leader for `page`,
    /// whose answer `read` judges.
    pub(super) async fn at_leader<T, F>(
        &self,
        here: impl Fn() -> F,
        page: &Asked,
        read: impl Fn(StatusCode, Bytes) -> Attempt<T>,
    ) -> Result<T, Status>
    where
        F: Future<Output = Attempt<T>>,
    {
        let deadline = Instant::now() + self.limits.request_timeout;
        loop {
            let attempt = if self.handle.gate().is_leader() {
                here().await
            } else {
                self.attempt_at_leader(page, deadline, &read).await?
            };
            if let Attempt::Done(answer) = attempt {
                return answer;
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(error::TIMEOUT);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt_at_leader<T>(
        &self,
        page: &Asked,
        deadline: Instant,
        read: impl Fn(StatusCode, Bytes) -> Attempt<T>,
    ) -> Result<Attempt<T>, Status> {
        for url in self.leader_urls(deadline).await? {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.requests.ask(&url, page.clone(), patience).await {
                Ok((status, body)) => match read(status, body) {
                    Attempt::Again => {}
                    done @ Attempt::Done(_) => return Ok(done),
                },
                Err(error) => {
                    tracing::debug!(url = url.as_str(), %error, "could not ask the leader");
                }
            }
        }
        Ok(Attempt::Again)
    }

    /// Waits until a leader is known; returns where it is reached. Empty when that is this member.
    async fn leader_urls(&self, deadline: Instant) -> Result<Vec<Url>, Status> {
        let gate = self.handle.gate();
        loop {
            if gate.is_leader() {
                return Ok(Vec::new());
            }
            let leader = gate.leader();
            if let Some(member) = self.cluster().member(leader) {
                let urls = Urls::parse(&member.peer_urls);
                return if urls.is_empty() { Err(error::NO_LEADER) } else { Ok(urls) };
            }
            if self.handle.has_ended() {
                return Err(error::STOPPED);
            }
            let pause = self.limits.election_timeout;
            if Instant::now() + pause > deadline {
                return Err(error::NO_LEADER);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Makes a question with an encoded message.
pub(super) fn question(path: &str, body: Bytes) -> Asked {
    let mut headers = HeaderMap::new();
    let protobuf = HeaderValue::from_static("application/protobuf");
    headers.insert(http::header::CONTENT_TYPE, protobuf);
    Asked { method: Method::POST, path: path.to_owned(), headers, body }
}
