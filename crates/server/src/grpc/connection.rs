//! One HTTP/2 connection that carries gRPC calls.
//!
//! The connection's task reads frames, starts calls and flushes what they send. A call is polled once where it arrives:
//! reads that are answered from memory finish there and never become a task of their own.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Builder;
use h2::{Ping, PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};

use super::call;
use super::coalesce::coalesce;
use super::guard::Guarded;
use super::pages;
use crate::drain::Draining;
use crate::http::Pages;
use crate::service::{Remote, Services};

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
/// Streams that were reset here and are remembered for a second: what a client had sent on them until it learned of it is
/// passed over and not held against it.
const RESET_STREAMS_MAX: usize = 1000;
/// Time a client has to take the last frames.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Time a client has for the preface and its first SETTINGS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection serves, and to whom.
#[derive(Debug)]
pub struct Doors {
    /// Whether gRPC is served.
    pub grpc: bool,
    /// Pages, which take requests that are not gRPC, and all requests where there is no gRPC.
    pub pages: Option<Arc<Pages>>,
    /// Who is at the other end.
    pub remote: Remote,
}

/// Serves `io` until the client closes it, breaks the protocol, or the member drains.
pub async fn serve<T>(io: T, services: Rc<Services>, doors: Doors, draining: Draining)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answered = Rc::new(Cell::new(false));
    let guarded = Guarded::new(io, services.limits().ping_interval_min, Rc::clone(&answered));
    let (io, flusher) = coalesce(guarded);
    let handshake = builder(&services).handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        tracing::debug!("a client did not complete the HTTP/2 handshake");
        return;
    };
    let limits = services.limits();
    let pings = connection.ping_pong().filter(|_| !limits.keepalive_interval.is_zero());
    let interval = limits.keepalive_interval;
    let timeout = limits.keepalive_timeout;
    let mut keepalive = std::pin::pin!(async {
        match pings {
            Some(pings) => keep_alive(pings, interval, timeout).await,
            None => std::future::pending().await,
        }
    });
    let mut drained = std::pin::pin!(draining.wait());
    let mut is_draining = false;
    let turns = poll_fn(|context| {
        if !is_draining && drained.as_mut().poll(context).is_ready() {
            is_draining = true;
            connection.graceful_shutdown();
        }
        let mut ended = false;
        while !ended && let Poll::Ready(accepted) = connection.poll_accept(context) {
            match accepted {
                Some(Ok((request, respond))) => {
                    dispatch(&services, &doors, request, respond, &answered);
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a client broke the HTTP/2 connection");
                    ended = true;
                }
                None => ended = true,
            }
        }
        let flushed = flusher.poll_flush(context);
        if ended || matches!(flushed, Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        keepalive.as_mut().poll(context)
    });
    turns.await;
    let farewell = flusher.io().farewell();
    match farewell {
        Some(frame) => flusher.push(frame),
        None => connection.abrupt_shutdown(Reason::NO_ERROR),
    }
    let closed = poll_fn(|context| {
        let closed = connection.poll_closed(context).map(drop);
        flusher.poll_flush(context).is_ready();
        closed
    });
    // Whether the client could still be told does not matter: the connection is dropped.
    drop(tokio::time::timeout(FAREWELL_TIMEOUT, closed).await);
}

fn dispatch(
    services: &Rc<Services>,
    doors: &Doors,
    mut request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    answered: &Rc<Cell<bool>>,
) {
    let services = Rc::clone(services);
    let is_page = |_: &&Arc<Pages>| !doors.grpc || !call::is_grpc(request.headers());
    match doors.pages.as_ref().filter(is_page) {
        Some(served) => {
            answered.set(true);
            request.extensions_mut().insert(doors.remote);
            let served = Arc::clone(served);
            start(Box::pin(async move { pages::serve(services, &served, request, respond).await }));
        }
        None => {
            if let Some(call) =
                call::begin(services, doors.remote, request, respond, Rc::clone(answered))
            {
                start(call);
            }
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
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_concurrent_streams(
            services.limits().concurrent_streams_max.min(CONCURRENT_STREAMS_MAX),
        );
    builder
}

/// Polls `call` once here, and makes it a task only if it has to wait.
pub(super) fn start(mut call: Pin<Box<dyn Future<Output = ()>>>) {
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
