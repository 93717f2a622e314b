//! One HTTP/2 connection that carries gRPC calls.
//!
//! The connection's task reads frames, starts calls and flushes what they send. A call is polled once where it arrives:
//! reads that are answered from memory finish there and never become a task of their own.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};

use super::call;
use super::guard::Guarded;
use crate::service::Services;
use crate::drain::Draining;
use crate::http::{Pages, over_http2};

/// Bytes a client may send on a connection before calls consume them: bounds memory per connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes a client may send on one stream before the call consumes them.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Largest decoded header list.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Bytes of one stream's responses that wait in the connection before the call is held back.
const SEND_BUFFER_BYTES_MAX: usize = 256 << 10;
/// Streams a client may have open at once, whatever the configuration allows: each costs memory. Clients queue beyond.
const CONCURRENT_STREAMS_MAX: u32 = 100_000;
/// Time a client has for the preface and its first SETTINGS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `io` until the client closes it, breaks the protocol, or the member drains. Requests that are not gRPC go to
/// `pages` where the connection has them.
pub async fn serve<T>(
    io: T,
    services: Rc<Services>,
    pages: Option<Arc<Pages>>,
    draining: Draining,
) where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answered = Rc::new(Cell::new(false));
    let guarded = Guarded::new(io, services.limits().ping_interval_min, Rc::clone(&answered));
    let handshake = builder(&services).handshake::<_, Bytes>(guarded);
    let Ok(Ok(mut connection)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        tracing::debug!("a client did not complete the HTTP/2 handshake");
        return;
    };
    let limits = services.limits();
    let keepalive = connection
        .ping_pong()
        .filter(|_| !limits.keepalive_interval.is_zero())
        .map(|pings| keep_alive(pings, limits.keepalive_interval, limits.keepalive_timeout));
    let mut keepalive = std::pin::pin!(async {
        match keepalive {
            Some(keepalive) => keepalive.await,
            None => std::future::pending().await,
        }
    });
    let mut drained = std::pin::pin!(draining.wait());
    let mut is_draining = false;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let services = Rc::clone(&services);
                    match &pages {
                        Some(pages) if !call::is_grpc(request.headers()) => {
                            answered.set(true);
                            let pages = Arc::clone(pages);
                            start(async move {
                                over_http2::serve(services, &pages, request, respond).await;
                            });
                        }
                        _ => start(call::serve(services, request, respond, Rc::clone(&answered))),
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a client broke the HTTP/2 connection");
                    return;
                }
                None => return,
            },
            () = &mut drained, if !is_draining => {
                is_draining = true;
                connection.graceful_shutdown();
            }
            () = &mut keepalive => return give_up(connection).await,
        }
    }
}

fn builder(services: &Services) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_streams(services.limits().concurrent_streams_max.min(CONCURRENT_STREAMS_MAX));
    builder
}

/// Polls `call` once here, and makes it a task only if it has to wait.
fn start(call: impl Future<Output = ()> + 'static) {
    let mut call = Box::pin(call);
    // The task polls again and registers its own waker.
    if call.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
        tokio::task::spawn_local(call);
    }
}

/// Pings an idle client; returns when it does not answer in time.
async fn keep_alive(mut pings: PingPong, interval: Duration, timeout: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match tokio::time::timeout(timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Tells the client and closes.
async fn give_up<T>(mut connection: Connection<T, Bytes>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    connection.abrupt_shutdown(Reason::NO_ERROR);
    let closed = std::future::poll_fn(|context| connection.poll_closed(context));
    // Whether it could still be told does not matter: the connection is dropped.
    drop(tokio::time::timeout(Duration::from_secs(1), closed).await);
}
