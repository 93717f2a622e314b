//! The HTTP door: JSON gateway, health, version, metrics (`spec/http-api.md`).

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use ::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::drain::Draining;
use crate::service::{Remote, Services, storage_version};
use crate::{ETCD_VERSION, process};
use body::{Answer, Chunks};

pub mod access;
pub mod body;
mod boundary;
mod gateway;
mod health;
pub mod json;
mod list;
mod metrics;

/// Time a client has to send the head of a request.
const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Bytes of a request's head, and of what is read ahead.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Which pages a listener has, and for whom.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Only `/metrics` and health, for everyone (`--listen-metrics-urls`).
    pub metrics_only: bool,
    /// Whether the JSON gateway is served (`--enable-grpc-gateway`).
    pub gateway: bool,
    /// Whether the listener speaks TLS; the host whitelist is for those that do not.
    pub tls: bool,
    /// `--cors`.
    pub origins: access::Names,
    /// `--host-whitelist`.
    pub hosts: access::Names,
}

/// Serves HTTP/1.1 on `io` until the client closes it or the member drains.
pub async fn serve<T>(
    io: T,
    remote: Remote,
    services: Rc<Services>,
    pages: Arc<Pages>,
    draining: Draining,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let services = Rc::clone(&services);
        let pages = Arc::clone(&pages);
        async move {
            let (mut head, body) = request.into_parts();
            head.extensions.insert(remote);
            let response = respond(services, &pages, head, Chunks::Http1(body)).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = draining.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    served.map_err(io::Error::other)
}

/// Answers one request.
pub async fn respond(
    services: Rc<Services>,
    pages: &Pages,
    head: ::http::request::Parts,
    body: Chunks,
) -> Response<Answer> {
    if pages.metrics_only {
        return page(&services, &head, true).await;
    }
    if !pages.tls
        && let Err(text) = access::check_host(&head.headers, &pages.hosts)
    {
        tracing::warn!("rejected HTTP request from client to prevent DNS rebinding attacks");
        return health::text(StatusCode::MISDIRECTED_REQUEST, text + "\n");
    }
    let mut response = if head.method == Method::OPTIONS {
        Response::new(Answer::from(Bytes::new()))
    } else {
        routed(services, pages, &head, body).await
    };
    access::add_cors(&head.headers, &pages.origins, response.headers_mut());
    response
}

async fn routed(
    services: Rc<Services>,
    pages: &Pages,
    head: &::http::request::Parts,
    body: Chunks,
) -> Response<Answer> {
    let path = head.uri.path();
    let below = path.strip_prefix("/v3beta").or_else(|| path.strip_prefix("/v3"));
    match below {
        Some(below) if pages.gateway && below.starts_with('/') => {
            gateway::respond(services, below, head, body).await
        }
        _ => page(&services, head, false).await,
    }
}

async fn page(
    services: &Services,
    head: &::http::request::Parts,
    metrics_only: bool,
) -> Response<Answer> {
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    if path == "/metrics" {
        return metrics::metrics(services, &head.headers).await;
    }
    let known = matches!(path, "/health" | "/version" | "/debug/vars")
        || path.starts_with("/livez")
        || path.starts_with("/readyz");
    if known && head.method != Method::GET {
        return method_not_allowed();
    }
    match path {
        "/health" => health::health(services, query).await,
        "/version" if !metrics_only => json(version_text(&services.cluster())),
        "/debug/vars" if !metrics_only => json(process::vars(services)),
        _ => match health::checks(services, path, query).await {
            Some(response) => response,
            None => health::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
    }
}

fn method_not_allowed() -> Response<Answer> {
    let mut response = health::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// Tells which releases are spoken, as `/version` of both ports does.
pub fn version_text(cluster: &machine::membership::Membership) -> String {
    let text = |version: Option<machine::membership::Version>, missing: &str| {
        version.map_or_else(|| missing.to_owned(), |version| version.to_string())
    };
    format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{}\",\"storage\":\"{}\"}}",
        text(cluster.cluster_version, "not_decided"),
        text(storage_version(cluster), "unknown"),
    )
}

fn json(body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::from(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
