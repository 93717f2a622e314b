//! The way from the peer thread to the node, bounded in bytes: whoever reads a stream stops reading while the node has
//! more than enough to do, and the sender is slowed down by its own connection.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use node::Event;
use proto::raftpb;

use super::activity::Activity;
use super::outbox::weight;
use crate::metrics::NetworkFigures;

/// Bytes of messages that wait for the node. One batch is always let through, however large.
const BYTES_MAX: usize = 64 << 20;

/// Time between two looks whether there is room.
const PAUSE: Duration = Duration::from_millis(1);

/// Counts the messages that wait for the node; shared with the node thread.
#[derive(Debug, Default)]
pub struct Waiting {
    bytes: AtomicUsize,
}

impl Waiting {
    /// Notes that the node takes `messages`.
    pub fn taken(&self, messages: &[raftpb::Message]) {
        self.bytes.fetch_sub(messages.iter().map(weight).sum(), Ordering::Relaxed);
    }
}

/// Bytes that are counted and have not reached the inbox: whoever sends them may be given up.
#[derive(Debug)]
struct Counted<'a> {
    waiting: &'a Waiting,
    bytes: usize,
}

impl Counted<'_> {
    /// The node takes them back from now on.
    fn hand_over(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Gives messages and reports to the node.
#[derive(Debug, Clone)]
pub struct Inflow {
    inbox: Sender<Event>,
    waiting: Arc<Waiting>,
    activity: Arc<Activity>,
    network: Arc<NetworkFigures>,
}

impl Inflow {
    /// Makes a way into `inbox`.
    pub fn new(
        inbox: Sender<Event>,
        waiting: Arc<Waiting>,
        activity: Arc<Activity>,
        network: Arc<NetworkFigures>,
    ) -> Self {
        Self { inbox, waiting, activity, network }
    }

    /// What is counted of all peers.
    pub fn network(&self) -> &NetworkFigures {
        &self.network
    }

    /// Notes that a peer is reached.
    pub fn up(&self, peer: u64) {
        if self.activity.up(peer) && self.network.connected(peer) {
            tracing::info!(peer_id = format!("{peer:x}"), "peer became active");
        }
    }

    /// Notes that a peer is not reached, and why.
    pub fn down(&self, peer: u64, why: &dyn Display) {
        if self.activity.down(peer) && self.network.disconnected(peer) {
            tracing::warn!(
                peer_id = format!("{peer:x}"),
                error = %why,
                "peer became inactive (message send to peer failed)"
            );
        }
    }

    /// Gives messages to the node, once there is room.
    pub async fn step(&self, messages: Vec<raftpb::Message>) {
        if messages.is_empty() {
            return;
        }
        let bytes: usize = messages.iter().map(weight).sum();
        while self.waiting.bytes.load(Ordering::Relaxed) > BYTES_MAX {
            tokio::time::sleep(PAUSE).await;
        }
        self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let counted = Counted { waiting: &self.waiting, bytes };
        self.send(Event::Step(messages)).await;
        counted.hand_over();
    }

    /// Gives an event to the node, once there is room; nothing after it has ended.
    pub async fn send(&self, mut event: Event) {
        while let Err(TrySendError::Full(refused)) = self.inbox.try_send(event) {
            event = refused;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reports that messages to a peer get lost, if there is room: it is not the last report.
    pub fn unreachable(&self, peer: u64) {
        if self.inbox.try_send(Event::PeerUnreachable { peer }).is_err() {
            tracing::debug!(peer = format!("{peer:x}"), "no room to report an unreachable peer");
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    fn message(bytes: usize) -> raftpb::Message {
        raftpb::Message { context: vec![0; bytes].into(), ..raftpb::Message::default() }
    }

    #[test]
    fn a_reader_waits_while_the_node_has_enough() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let (inbox, events) = bounded(1);
            let waiting = Arc::<Waiting>::default();
            let inflow = Inflow::new(inbox, Arc::clone(&waiting), Arc::default(), Arc::default());
            inflow.step(vec![message(BYTES_MAX + 1)]).await;
            let patience = Duration::from_millis(20);
            let second = inflow.step(vec![message(1)]);
            let mut second = std::pin::pin!(second);
            assert!(tokio::time::timeout(patience, &mut second).await.is_err(), "bytes");
            let Ok(Event::Step(messages)) = events.try_recv() else { panic!("the first") };
            waiting.taken(&messages);
            second.await;
            let third = inflow.step(vec![message(1)]);
            assert!(tokio::time::timeout(patience, third).await.is_err(), "events");
            assert!(matches!(events.try_recv(), Ok(Event::Step(_))));
        });
    }
}
