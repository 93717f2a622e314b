//! Listening sockets: bound before anything else starts, so that a port in use is told at once.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Config, Exit, Http, Url};
use crate::http::Pages;
use crate::http::access::Names;
use crate::logging::io_text;
use crate::serve::Service;
use crate::tls::{self, Endpoint, ServerTls};

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 4096;

/// A bound listener and what it serves.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp {
        /// The socket.
        listener: TcpListener,
        /// What it serves.
        service: Service,
        /// What it was asked to be.
        url: String,
    },
    /// A Unix domain socket.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// What it serves.
        service: Service,
        /// What it was asked to be.
        url: String,
    },
}

/// All listeners of a member.
#[derive(Debug)]
pub struct Listeners {
    /// For clients; served once the member is ready.
    pub clients: Vec<Bound>,
    /// For metrics and health; served from the start.
    pub metrics: Vec<Bound>,
    /// For other members; served from the start.
    pub peers: Vec<Bound>,
}

impl Listeners {
    /// Binds everything that `config` asks for. Must be called within the runtime that will accept.
    pub fn bind(config: &Config) -> Result<Self, Exit> {
        let urls = &config.urls;
        let all: Vec<&Url> = [&urls.listen_client, &urls.listen_client_http, &urls.listen_metrics]
            .into_iter()
            .flatten()
            .collect();
        let tls = client_tls(config, &all)?;
        let has_http_listeners = !urls.listen_client_http.is_empty();
        let client_tls = |url: &Url| url.is_secure().then(|| tls.clone()).flatten();
        // Other members go first, as in etcd: of two members by mistake in one place, the second says so.
        let mut peers = Vec::new();
        for url in &urls.listen_peer {
            let service = Service { tls: None, grpc: false, pages: None, plain: None };
            peers.push(bind(url, service, &config.http)?);
        }
        let mut clients = Vec::new();
        for (urls, grpc) in [(&urls.listen_client, true), (&urls.listen_client_http, false)] {
            let pages = (!grpc || !has_http_listeners).then(|| pages(config));
            for (url, secure) in by_address(urls) {
                let plain = service(None, grpc, pages.clone());
                let service = match secure.and_then(client_tls) {
                    Some(tls) if url.is_secure() => service(Some(tls), grpc, pages.clone()),
                    Some(tls) => {
                        let both = service(Some(tls), grpc, pages.clone());
                        Service { plain: Some(Arc::new(plain)), ..both }
                    }
                    None => plain,
                };
                clients.push(bind(url, service, &config.http)?);
            }
        }
        let mut metrics = Vec::new();
        for url in &urls.listen_metrics {
            let only = Pages { metrics_only: true, ..pages(config) };
            metrics.push(bind(url, service(client_tls(url), false, Some(only)), &config.http)?);
        }
        Ok(Self { clients, metrics, peers })
    }
}

/// Groups `urls` by their addresses: for each address its URL in plain text, if there is one, and the one of TLS. A TCP
/// address may speak both.
fn by_address(urls: &[Url]) -> Vec<(&Url, Option<&Url>)> {
    let mut groups: Vec<(&Url, Option<&Url>)> = Vec::new();
    for url in urls {
        let secure = url.is_secure().then_some(url);
        let shares = |first: &Url| !first.is_unix() && first.address() == url.address();
        match groups.iter_mut().find(|(first, _)| shares(first) && !url.is_unix()) {
            Some(group) => {
                group.1 = group.1.or(secure);
                if secure.is_none() {
                    group.0 = url;
                }
            }
            None => groups.push((url, secure)),
        }
    }
    groups
}

fn service(tls: Option<Arc<ServerTls>>, grpc: bool, pages: Option<Pages>) -> Service {
    let pages = pages.map(|pages| Arc::new(Pages { tls: tls.is_some(), ..pages }));
    Service { tls, grpc, pages, plain: None }
}

fn pages(config: &Config) -> Pages {
    let names = |list: &crate::config::AllowList| {
        Names::new(list.texts().into_iter().map(str::to_owned).collect())
    };
    Pages {
        metrics_only: false,
        gateway: config.http.grpc_gateway,
        tls: false,
        origins: names(&config.http.cors),
        hosts: names(&config.http.host_whitelist),
    }
}

fn client_tls(config: &Config, urls: &[&Url]) -> Result<Option<Arc<ServerTls>>, Exit> {
    let info = &config.tls.client;
    if !urls.iter().any(|url| url.is_secure()) {
        if !info.is_empty() {
            tracing::warn!(
                "scheme is http or unix while key and cert files are present; ignoring key and cert files"
            );
        }
        return Ok(None);
    }
    let years = config.tls.self_signed_validity_years;
    let tls = tls::with_generated(info, Endpoint::Client, &config.data_dir, urls, years)
        .and_then(|info| ServerTls::new(&info, &config.tls, Endpoint::Client))
        .map_err(|error| Exit::listener_failed(error.to_string()))?;
    Ok(Some(Arc::new(tls)))
}

fn bind(url: &Url, service: Service, http: &Http) -> Result<Bound, Exit> {
    let text = url.as_str().to_owned();
    let bound = if url.is_unix() {
        bind_unix(&url.address()).map(|listener| Bound::Unix { listener, service, url: text })
    } else {
        bind_tcp(url, http).map(|listener| Bound::Tcp { listener, service, url: text })
    };
    bound.map_err(|error| {
        let network = if url.is_unix() { "unix" } else { "tcp" };
        let address = url.address();
        Exit::listener_failed(format!("listen {network} {address}: bind: {}", io_text(&error)))
    })
}

fn bind_tcp(url: &Url, http: &Http) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in url.address().to_socket_addrs()? {
        match listen(address, http) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen(address: SocketAddr, http: &Http) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Go sets it on every listener: a restart need not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    if http.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket file that a former process left behind is in the way; one that is served is an error.
fn bind_unix(address: &str) -> io::Result<UnixListener> {
    let path = PathBuf::from(address);
    match UnixListener::bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                return Err(error);
            }
            storage::os::remove_socket(&path)?;
            UnixListener::bind(&path)
        }
        bound => bound,
    }
}

impl Bound {
    /// Tells the log that other members are served from now on.
    pub fn announce_peers(&self) {
        let (Self::Tcp { url, .. } | Self::Unix { url, .. }) = self;
        let address = url.split_once("://").map_or(url.as_str(), |(_, address)| address);
        tracing::info!(address, "serving peer traffic");
    }

    /// Tells the log that the listener is served from now on.
    pub fn announce(&self) {
        let (service, url) = match self {
            Self::Tcp { service, url, .. } | Self::Unix { service, url, .. } => (service, url),
        };
        let traffic = match (service.grpc, service.pages.is_some()) {
            (true, true) => "grpc+http",
            (true, false) => "grpc",
            (false, _) => "http",
        };
        let address = url.split_once("://").map_or(url.as_str(), |(_, address)| address);
        if service.tls.is_some() {
            tracing::info!(traffic, address, "serving client traffic securely");
        }
        if service.tls.is_none() || service.plain.is_some() {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
    }
}
