//! The connections of a client, one per endpoint.
//!
//! Each endpoint has a task that connects, waits until the connection is reported broken, and connects
//! again with growing pauses. A call takes any connection that stands, in turn, or waits for the first.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::connector::Connector;
use crate::endpoint::{Endpoint, Security};
use crate::{Config, Error, tls};

/// Bounds one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The first pause after a failed attempt; each further one is longer by [`PAUSE_GROWTH`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
const PAUSE_GROWTH: f64 = 1.6;
/// Members close connections that probe more often than this.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);

/// One endpoint's connection, if it stands.
#[derive(Debug, Clone, Default)]
struct Slot {
    channel: Option<Channel>,
    /// Counts connections, so that a late report of a broken one does not cut its successor.
    generation: u64,
    /// Why the last attempt to connect failed.
    failure: Option<String>,
}

/// A connection lent to one call.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    index: usize,
    generation: u64,
}

/// All connections of a client; they end with it.
#[derive(Debug)]
pub(crate) struct Links {
    slots: Arc<watch::Sender<Vec<Slot>>>,
    turn: AtomicUsize,
    /// Aborts the tasks when dropped.
    _tasks: JoinSet<()>,
}

impl Links {
    /// Begins to connect to every endpoint of `config`.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::NoEndpoint);
        }
        let tls = config.tls.as_ref().map(tls::client_config).transpose()?;
        let slots = Arc::new(watch::Sender::new(vec![Slot::default(); config.endpoints.len()]));
        let mut tasks = JoinSet::new();
        for (index, text) in config.endpoints.iter().enumerate() {
            let endpoint = Endpoint::parse(text)?;
            let tls = match (endpoint.security, &tls) {
                (Security::Never, _) | (Security::Optional, None) => None,
                (Security::Optional | Security::Always, Some(tls)) => Some(Arc::clone(tls)),
                (Security::Always, None) => Some(tls::client_config(&crate::Tls::default())?),
            };
            let secured = match tls {
                None => None,
                Some(tls) => {
                    let name = config.tls.as_ref().and_then(|tls| tls.server_name.clone());
                    let name = name.unwrap_or_else(|| endpoint.server_name.clone());
                    let name = ServerName::try_from(name).map_err(|error| Error::Endpoint {
                        endpoint: text.clone(),
                        reason: error.to_string(),
                    })?;
                    Some((tls, name))
                }
            };
            let transport = transport(config, &endpoint, secured.is_some())?;
            let connector = Connector { address: endpoint.address, tls: secured };
            tasks.spawn(keep_connected(index, transport, connector, Arc::clone(&slots)));
        }
        Ok(Self { slots, turn: AtomicUsize::new(0), _tasks: tasks })
    }

    /// A connection that stands; waits for the first.
    pub(crate) async fn pick(&self) -> Option<Link> {
        let mut changes = self.slots.subscribe();
        let slots =
            changes.wait_for(|slots| slots.iter().any(|slot| slot.channel.is_some())).await.ok()?;
        let standing = slots.iter().filter(|slot| slot.channel.is_some()).count();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % standing;
        let (index, slot) =
            slots.iter().enumerate().filter(|(_, slot)| slot.channel.is_some()).nth(turn)?;
        Some(Link { channel: slot.channel.clone()?, index, generation: slot.generation })
    }

    /// Reports that `link` could not carry a call: its endpoint is connected to anew.
    pub(crate) fn broken(&self, link: &Link) {
        self.slots.send_if_modified(|slots| match slots.get_mut(link.index) {
            Some(slot) if slot.generation == link.generation && slot.channel.is_some() => {
                slot.channel = None;
                true
            }
            _ => false,
        });
    }

    /// Why no connection stands, as far as it is known.
    pub(crate) fn failure(&self) -> Option<String> {
        self.slots.borrow().iter().find_map(|slot| slot.failure.clone())
    }
}

/// What gRPC needs to know of one endpoint.
fn transport(
    config: &Config,
    endpoint: &Endpoint,
    secure: bool,
) -> Result<tonic::transport::Endpoint, Error> {
    let plain = endpoint.uri(false)?;
    let mut transport = tonic::transport::Endpoint::from(plain)
        .origin(endpoint.uri(secure)?)
        .connect_timeout(CONNECT_TIMEOUT);
    if !config.keepalive_time.is_zero() {
        transport = transport
            .http2_keep_alive_interval(config.keepalive_time.max(KEEPALIVE_MIN))
            .keep_alive_timeout(config.keepalive_timeout)
            .keep_alive_while_idle(false);
    }
    Ok(transport)
}

async fn keep_connected(
    index: usize,
    transport: tonic::transport::Endpoint,
    connector: Connector,
    slots: Arc<watch::Sender<Vec<Slot>>>,
) {
    let mut changes = slots.subscribe();
    let mut pause = PAUSE_MIN;
    loop {
        let connector = connector.clone();
        let service = tower::service_fn(move |_: http::Uri| connector.clone().connect());
        match transport.connect_with_connector(service).await {
            Ok(channel) => {
                pause = PAUSE_MIN;
                slots.send_modify(|slots| {
                    if let Some(slot) = slots.get_mut(index) {
                        let generation = slot.generation + 1;
                        *slot = Slot { channel: Some(channel), generation, failure: None };
                    }
                });
                let broken = |slots: &Vec<Slot>| slots[index].channel.is_none();
                if changes.wait_for(broken).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let failure = innermost(&error);
                slots.send_modify(|slots| {
                    if let Some(slot) = slots.get_mut(index) {
                        slot.failure = Some(failure);
                    }
                });
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(PAUSE_GROWTH).min(PAUSE_MAX);
            }
        }
    }
}

/// The text of the first cause: what is wrapped around it only says that connecting failed.
fn innermost(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}
