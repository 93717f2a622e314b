//! Serving threads and the acceptor that deals sockets to them (design §2).

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::drain::Draining;
use crate::handle::{Doors, Handle};
use crate::http::Pages;
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::priority;
use crate::service::{Identity, Limits, Services};
use crate::socket::{Socket, connection};
use crate::tls::ServerTls;

/// Accepted sockets that may wait for one serving thread; the acceptor waits when it is full, and the kernel's backlog
/// holds the rest.
const SOCKETS_WAITING_MAX: usize = 1024;

/// Threads of one serving thread's pool for work that may touch the disk.
pub const BLOCKING_THREADS_MAX: usize = 8;

/// What a listener serves.
#[derive(Debug, Clone)]
pub struct Service {
    /// TLS, or none for plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether gRPC is served.
    pub grpc: bool,
    /// Whether the JSON gateway, health, metrics and the rest of HTTP are served.
    pub pages: Option<Arc<Pages>>,
    /// Beside TLS: what those get who speak plain text on the same address.
    pub plain: Option<Arc<Self>>,
}

/// One accepted socket and what it asks for.
#[derive(Debug)]
pub struct Accepted {
    socket: Socket,
    service: Service,
}

/// What serving threads share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The way to the node.
    pub doors: Doors,
    /// One mailbox per thread.
    pub mailboxes: Arc<[Mailbox]>,
    /// Who we are.
    pub identity: Identity,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The end of serving.
    pub draining: Draining,
}

/// Deals accepted sockets round-robin.
#[derive(Debug, Clone)]
pub struct Dealer {
    threads: Arc<[mpsc::Sender<Accepted>]>,
}

/// Starts `count` serving threads; each has a mailbox.
pub fn spawn(shared: &Shared, count: usize) -> io::Result<(Dealer, Vec<JoinHandle<()>>)> {
    let mut senders = Vec::new();
    let mut threads = Vec::new();
    for number in 0..count {
        let (sender, receiver) = mpsc::channel(SOCKETS_WAITING_MAX);
        senders.push(sender);
        let shared = shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .on_thread_start(priority::take_short_turns)
            .build()?;
        let number = u8::try_from(number).expect("serving threads are bounded by configuration");
        let thread = thread::Builder::new().name(format!("serve-{number}"));
        threads.push(thread.spawn(move || {
            priority::take_short_turns();
            LocalSet::new().block_on(&runtime, run(number, shared, receiver));
        })?);
    }
    Ok((Dealer { threads: senders.into() }, threads))
}

/// One serving thread's life.
async fn run(number: u8, shared: Shared, mut sockets: mpsc::Receiver<Accepted>) {
    let handle = Handle::new(number, shared.doors.clone());
    let services = Rc::new(Services::new(
        handle.clone(),
        shared.identity,
        Arc::clone(&shared.limits),
        Arc::clone(&shared.metrics),
    ));
    let flusher = handle.clone();
    tokio::task::spawn_local(async move { flusher.flush_forever().await });
    let mail = {
        let services = Rc::clone(&services);
        let mailboxes = Arc::clone(&shared.mailboxes);
        tokio::task::spawn_local(async move {
            services.deliver_mail(&mailboxes[usize::from(number)]).await;
        })
    };
    let leader = {
        let services = Rc::clone(&services);
        tokio::task::spawn_local(async move { services.watch_leader().await })
    };
    let mut connections = tokio::task::JoinSet::new();
    while let Some(Accepted { socket, service }) = sockets.recv().await {
        while connections.try_join_next().is_some() {}
        let services = Rc::clone(&services);
        connections.spawn_local(connection(socket, service, services, shared.draining.clone()));
    }
    // The acceptors are gone: serving ends when the clients have what they asked for.
    while connections.join_next().await.is_some() {}
    mail.abort();
    leader.abort();
}

impl Accepted {
    /// Gives the socket out, for a listener that asks for one thing only.
    pub fn into_socket(self) -> Socket {
        self.socket
    }
}

impl Dealer {
    /// Deals everything to one receiver, and returns it.
    pub fn to_one() -> (Self, mpsc::Receiver<Accepted>) {
        let (sender, receiver) = mpsc::channel(SOCKETS_WAITING_MAX);
        (Self { threads: [sender].into() }, receiver)
    }

    /// Accepts TCP connections for `service` until draining begins.
    pub async fn accept_tcp(self, listener: TcpListener, service: Service, draining: Draining) {
        let mut next = 0;
        let mut drained = std::pin::pin!(draining.wait());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut drained => return,
            };
            match accepted.and_then(|(stream, address)| tcp_socket(stream, address)) {
                Ok(socket) => self.deal(&mut next, socket, &service).await,
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Accepts connections on a Unix socket for `service` until draining begins.
    pub async fn accept_unix(self, listener: UnixListener, service: Service, draining: Draining) {
        let mut next = 0;
        let mut drained = std::pin::pin!(draining.wait());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut drained => return,
            };
            match accepted.and_then(|(stream, _address)| stream.into_std()) {
                Ok(stream) => self.deal(&mut next, Socket::Unix(stream), &service).await,
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn deal(&self, next: &mut usize, socket: Socket, service: &Service) {
        *next = (*next + 1) % self.threads.len();
        let accepted = Accepted { socket, service: service.clone() };
        // A thread that has ended has drained: the socket is closed.
        drop(self.threads[*next].send(accepted).await);
    }
}

fn tcp_socket(stream: tokio::net::TcpStream, address: SocketAddr) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream.into_std()?, address))
}

/// Errors of `accept` concern one connection, or descriptors that are used up: both pass.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "could not accept a connection");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}
