//! The client itself: connections, token, deadline, and the one way a call goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::etcdserverpb::AuthenticateRequest;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::link::{Link, Links};
use crate::{Config, Credentials, Error};

/// What this client says it speaks.
const API_VERSION: &str = "3.7";

/// A client of one cluster. Clones share connections and token.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) links: Links,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

/// Whether a stream's member must know a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leader {
    Required,
    Optional,
}

impl Client {
    /// Begins to connect, and fetches a token if `config` has a user and a password.
    ///
    /// Does not wait for a connection otherwise: the first call does. Must be called within a runtime.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let (request, response) = (config.request_bytes_max, config.response_bytes_max);
        if request > response {
            return Err(Error::Limits { request, response });
        }
        let links = Links::open(&config)?;
        let shared = Shared { config, links, token: Mutex::new(None) };
        let client = Self { shared: Arc::new(shared), deadline: None };
        let timeout = client.shared.config.dial_timeout;
        if timeout.is_zero() {
            client.renew_token().await?;
        } else {
            client.with_timeout(timeout).renew_token().await?;
        }
        Ok(client)
    }

    /// The same client, whose calls end `timeout` from now.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline: Some(Instant::now() + timeout) }
    }

    /// The same client without a deadline.
    pub fn without_timeout(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline: None }
    }

    /// A client of `endpoint` alone, with all else as here.
    pub async fn at(&self, endpoint: &str) -> Result<Self, Error> {
        let mut config = self.shared.config.clone();
        config.endpoints = vec![endpoint.to_owned()];
        let client = Self::connect(config).await?;
        Ok(Self { deadline: self.deadline, ..client })
    }

    /// The endpoints as configured.
    pub fn endpoints(&self) -> &[String] {
        &self.shared.config.endpoints
    }

    /// How long fetching a token, or the first renewal of a lease, may take.
    pub fn dial_timeout(&self) -> Duration {
        self.shared.config.dial_timeout
    }

    /// Exchanges user and password for a token; does nothing without them.
    pub(crate) async fn renew_token(&self) -> Result<(), Error> {
        let token = match &self.shared.config.credentials {
            None => return Ok(()),
            Some(Credentials::Token(token)) => token.clone(),
            Some(Credentials::Password { user, password }) => {
                if user.is_empty() || password.is_empty() {
                    return Ok(());
                }
                let request =
                    AuthenticateRequest { name: user.clone(), password: password.clone() };
                let answer = self.authenticate(request).await;
                match answer {
                    Ok(token) => token,
                    Err(error) if error.is_auth_not_enabled() => String::new(),
                    Err(error) => return Err(error),
                }
            }
        };
        let value = if token.is_empty() {
            None
        } else {
            let wrong = || Error::refused(Code::Internal, "the token is not printable ASCII");
            Some(MetadataValue::try_from(token).map_err(|_invalid| wrong())?)
        };
        *self.shared.token.lock().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(())
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<String, Error> {
        let link = self.pick().await?;
        let call = async {
            let mut auth = AuthClient::new(link.channel.clone());
            let request = self.unsigned(request, Leader::Optional);
            auth.authenticate(request).await.map_err(|status| self.failed(&link, &status))
        };
        let response = self.in_time(call).await;
        let response = response
            .inspect_err(|error| self.warn("/etcdserverpb.Auth/Authenticate", 0, "", error))?;
        Ok(response.into_inner().token)
    }

    /// Whether calls are made in the name of a user with a password.
    pub(crate) fn has_password(&self) -> bool {
        matches!(self.shared.config.credentials, Some(Credentials::Password { .. }))
    }

    /// A connection that stands, before the deadline.
    pub(crate) async fn pick(&self) -> Result<Link, Error> {
        let lost = || Error::refused(Code::Unavailable, "the client is closing");
        self.in_time(async { self.shared.links.pick().await.ok_or_else(lost) }).await
    }

    /// Awaits `work` of the caller's, but not beyond the deadline.
    pub async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        self.in_time(async { Ok(work.await) }).await
    }

    /// Awaits `call`, but not beyond the deadline.
    pub(crate) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(deadline) = self.deadline else { return call.await };
        match tokio::time::timeout_at(deadline, call).await {
            Ok(Err(Error::Refused { code: Code::DeadlineExceeded | Code::Cancelled, .. }))
                if Instant::now() >= deadline =>
            {
                Err(Error::DeadlineExceeded)
            }
            Ok(answer) => answer,
            Err(_elapsed) => Err(Error::DeadlineExceeded),
        }
    }

    /// `message` with what every request bears: version, token, deadline.
    pub(crate) fn request<T>(&self, message: T, leader: Leader) -> Request<T> {
        let mut request = self.unsigned(message, leader);
        let token = self.shared.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*token {
            request.metadata_mut().insert("token", token.clone());
        }
        drop(token);
        request
    }

    fn unsigned<T>(&self, message: T, leader: Leader) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("client-api-version", MetadataValue::from_static(API_VERSION));
        if leader == Leader::Required {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }

    fn limits(&self) -> (usize, usize) {
        (self.shared.config.request_bytes_max, self.shared.config.response_bytes_max)
    }

    pub(crate) fn kv(&self, channel: Channel) -> KvClient<Channel> {
        let (request, response) = self.limits();
        KvClient::new(channel)
            .max_encoding_message_size(request)
            .max_decoding_message_size(response)
    }

    pub(crate) fn lease(&self, channel: Channel) -> LeaseClient<Channel> {
        let (request, response) = self.limits();
        LeaseClient::new(channel)
            .max_encoding_message_size(request)
            .max_decoding_message_size(response)
    }

    pub(crate) fn watch(&self, channel: Channel) -> WatchClient<Channel> {
        let (request, response) = self.limits();
        WatchClient::new(channel)
            .max_encoding_message_size(request)
            .max_decoding_message_size(response)
    }

    pub(crate) fn cluster(&self, channel: Channel) -> ClusterClient<Channel> {
        let (request, response) = self.limits();
        ClusterClient::new(channel)
            .max_encoding_message_size(request)
            .max_decoding_message_size(response)
    }

    pub(crate) fn maintenance(&self, channel: Channel) -> MaintenanceClient<Channel> {
        let (request, response) = self.limits();
        MaintenanceClient::new(channel)
            .max_encoding_message_size(request)
            .max_decoding_message_size(response)
    }
}
