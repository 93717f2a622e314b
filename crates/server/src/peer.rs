//! The way to and from other members: etcd's peer protocol, "rafthttp" (`spec/peer-protocol.md`).
//!
//! One thread with a runtime of its own does all of it, so that messages of consensus never wait for clients. A message of
//! the node goes into the [`outbox`], from there the [`transport`] gives it to a [`stream`] or a [`pipeline`]; what others
//! send comes through a [`link`] or the [`door`] and by the [`inflow`] to the node.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::handle::{Doors, Handle};
use crate::priority;
use crate::serve::{Accepted, Shared};
use crate::service::{Remote, Services};
use crate::socket::Socket;
use admission::Own;
use corruption::Checker;
use door::Door;
use inflow::{Inflow, Waiting};
use outbox::Outbox;
use pipeline::Settings;
use transport::{Neighbour, Transport};

pub mod activity;
pub mod admission;
pub mod codec;
pub mod complaints;
pub mod corruption;
pub mod crowd;
pub mod dial;
pub mod door;
pub mod inflow;
pub mod join;
pub mod link;
pub mod outbox;
pub mod pipeline;
pub mod probe;
pub mod receive;
pub mod requests;
pub mod snapshot;
pub mod stream;
pub mod transport;
pub mod unpack;
pub mod urls;
pub mod versions;

/// Time that is left to connections after the node has ended, so that its last messages leave.
const FAREWELL: Duration = Duration::from_millis(100);

type JoinTask = tokio::task::JoinHandle<()>;

/// What the peer thread needs.
#[derive(Debug)]
pub struct PeerThread {
    /// Who this member is.
    pub own: Own,
    /// Where it says it is reached, comma-separated.
    pub advertised: String,
    /// Time for a connection to a member.
    pub dial_patience: Duration,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// What it shares with the serving threads; the last mailbox is its own.
    pub shared: Shared,
    /// Where snapshots of a leader go.
    pub snapshots: receive::Settings,
    /// How often a running downgrade is looked at.
    pub downgrade_interval: Duration,
    /// When data is compared with that of others.
    pub corruption: corruption::Settings,
    /// Counts what waits for the node.
    pub waiting: Arc<Waiting>,
    /// Messages of the node.
    pub outbox: Arc<Outbox>,
    /// The members of the cluster that this one has come to join.
    pub neighbours: Vec<Neighbour>,
    /// Accepted sockets of the peer port.
    pub sockets: mpsc::Receiver<Accepted>,
}

impl PeerThread {
    /// Starts the thread.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("peers".into()).spawn(move || {
            priority::take_short_turns();
            LocalSet::new().block_on(&runtime, self.run());
        })
    }

    async fn run(self) {
        let Self { own, advertised, dial_patience, shared, .. } = self;
        let introduction = admission::introduction(own, &advertised);
        let heartbeat_interval = self.heartbeat_interval;
        let settings = Settings { introduction, dial_patience, heartbeat_interval };
        let network = Arc::clone(&shared.metrics.network);
        let Doors { inbox, reader, gate, activity, long_work, .. } = shared.doors.clone();
        let inflow = Inflow::new(inbox, self.waiting, activity, Arc::clone(&network));
        let transport =
            Rc::new(Transport::new(own, reader, long_work, inflow, settings, self.neighbours));
        transport.follow();
        let (services, own_tasks) = services(shared);
        let downgrade = versions::watch_downgrade(
            Rc::clone(&transport),
            Rc::clone(&services),
            self.downgrade_interval,
        );
        let checker = Checker::new(own, Rc::clone(&services), self.corruption);
        let door = Door::new(Rc::clone(&transport), services, self.snapshots, network);
        let door = Rc::new(door);
        let tasks = [
            tokio::task::spawn_local(accept(self.sockets, door)),
            tokio::task::spawn_local(beat(Rc::clone(&transport))),
            tokio::task::spawn_local(versions::watch(Rc::clone(&transport), gate)),
            tokio::task::spawn_local(downgrade),
            tokio::task::spawn_local(checker.run()),
        ];
        loop {
            let post = poll_fn(|context| self.outbox.poll_take(context)).await;
            let closed = post.closed;
            transport.send(post);
            if closed {
                break;
            }
        }
        if transport.has_peers() {
            tokio::time::sleep(FAREWELL).await;
        }
        tasks.iter().chain(&own_tasks).for_each(tokio::task::JoinHandle::abort);
    }
}

/// The services of this thread, for what other members ask, with the tasks that carry questions to the node and answers back.
fn services(shared: Shared) -> (Rc<Services>, [JoinTask; 2]) {
    let Shared { doors, mailboxes, identity, limits, metrics, .. } = shared;
    let number = mailboxes.len() - 1;
    let number = u8::try_from(number).expect("serving threads are bounded by configuration");
    let handle = Handle::new(number, doors);
    let services = Rc::new(Services::new(handle.clone(), identity, limits, metrics));
    let mail = {
        let services = Rc::clone(&services);
        async move { services.deliver_mail(&mailboxes[usize::from(number)]).await }
    };
    let flush = async move { handle.flush_forever().await };
    (services, [tokio::task::spawn_local(mail), tokio::task::spawn_local(flush)])
}

async fn accept(mut sockets: mpsc::Receiver<Accepted>, door: Rc<Door>) {
    while let Some(accepted) = sockets.recv().await {
        tokio::task::spawn_local(serve(accepted.into_socket(), Rc::clone(&door)));
    }
}

async fn serve(socket: Socket, door: Rc<Door>) {
    let stream = match socket {
        Socket::Tcp(stream, address) => match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => return door.serve(stream, Remote::Tcp(address)).await,
            Err(error) => Err(error),
        },
        Socket::Unix(stream) => tokio::net::UnixStream::from_std(stream),
    };
    match stream {
        Ok(stream) => door.serve(stream, Remote::Local).await,
        Err(error) => tracing::warn!(%error, "could not serve a connection of a member"),
    }
}

/// Shows all peers that this member is alive, and follows the membership while there is nothing to send.
async fn beat(transport: Rc<Transport>) {
    loop {
        transport.beat(Instant::now());
        tokio::time::sleep(stream::HEARTBEAT_INTERVAL).await;
    }
}
