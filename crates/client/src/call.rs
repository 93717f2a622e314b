//! Retries: which calls may be made again, and when.

use std::time::Duration;

use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::client::{Client, Leader};
use crate::error::{is_never_sent, wants_new_token};
use crate::link::Link;
use crate::{Credentials, Error};

/// Attempts of one call.
const ATTEMPTS_MAX: usize = 100;
/// The pause before another attempt, once a majority of the endpoints was tried.
const PAUSE: Duration = Duration::from_millis(25);

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It changes nothing, or the same thing: again whenever a member is unavailable.
    Repeatable,
    /// Again only if it certainly never left.
    NeverSent,
}

/// A call's policy and name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    pub(crate) retry: Retry,
    pub(crate) path: &'static str,
}

impl Client {
    /// Makes one call over any connection, again where `method` allows it, until the deadline.
    pub(crate) async fn call<Q, R, F, S>(
        &self,
        method: Method,
        message: Q,
        send: S,
    ) -> Result<R, Error>
    where
        Q: Message + Clone,
        F: Future<Output = Result<Response<R>, Status>>,
        S: Fn(Channel, Request<Q>) -> F,
    {
        self.check_size(&message)?;
        let majority = self.endpoints().len() / 2 + 1;
        let mut attempt = 0;
        loop {
            let link = self.pick().await.inspect_err(|error| {
                self.warn(
                    method.path,
                    attempt,
                    &self.shared.links.failure().unwrap_or_default(),
                    error,
                );
            })?;
            let request = self.request(message.clone(), Leader::Optional);
            let mut never_sent = false;
            let answer = self
                .in_time(async {
                    send(link.channel.clone(), request).await.map_err(|status| {
                        never_sent = is_never_sent(&status);
                        self.failed(&link, &status)
                    })
                })
                .await;
            let error = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(error) => error,
            };
            self.warn(method.path, attempt, "", &error);
            let with_token = !matches!(self.shared.config.credentials, Some(Credentials::Token(_)))
                && wants_new_token(&error, self.has_password());
            let again = never_sent
                || with_token
                || method.retry == Retry::Repeatable && error.code() == Some(Code::Unavailable);
            attempt += 1;
            if !again || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            if with_token {
                self.renew_token().await?;
            }
            if attempt % majority == 0 {
                self.in_time(async {
                    tokio::time::sleep(PAUSE).await;
                    Ok(())
                })
                .await?;
            }
        }
    }

    /// The error of a failed call; a connection that could not carry it is given up.
    pub(crate) fn failed(&self, link: &Link, status: &Status) -> Error {
        if is_never_sent(status) {
            self.shared.links.broken(link);
        }
        Error::from(status.clone())
    }

    fn check_size(&self, message: &impl Message) -> Result<(), Error> {
        let (size, limit) = (message.encoded_len(), self.shared.config.request_bytes_max);
        if size <= limit {
            return Ok(());
        }
        let text = format!("trying to send message larger than max ({size} vs. {limit})");
        Err(Error::Refused { code: Code::ResourceExhausted, text })
    }

    /// Tells of a failed attempt, with why there was no connection.
    pub(crate) fn warn(&self, path: &str, attempt: usize, connection: &str, error: &Error) {
        let endpoints = self.endpoints().join(",");
        let error = if connection.is_empty() {
            error.in_full()
        } else {
            format!("{}; no connection: {connection}", error.in_full())
        };
        tracing::warn!(
            target: "etcd-client",
            endpoints, method = path, attempt, error,
            "retrying of unary invoker failed"
        );
    }
}
