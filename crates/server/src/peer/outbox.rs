//! The way from the node thread to the peer thread.
//!
//! The peer thread takes what is here at once and gives it to links that have bounds of their own, so it is nearly empty.
//! When it is full all the same, further messages are lost, as on a network, and raft is told whom to try anew.

use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use proto::raftpb::{self, MessageType};

/// Bytes of messages from which further ones are lost.
const BYTES_MAX: usize = 64 << 20;

/// What has been put in since the last look.
#[derive(Debug, Default)]
pub struct Post {
    /// For other members, in raft's order.
    pub messages: Vec<raftpb::Message>,
    /// Members for whom messages were lost.
    pub lost: BTreeSet<u64>,
    /// Members for whom a snapshot was among them.
    pub lost_snapshots: BTreeSet<u64>,
    /// Whether the node has ended; nothing more will come.
    pub closed: bool,
}

impl Post {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.lost.is_empty() && !self.closed
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    post: Post,
    /// Of its messages.
    bytes: usize,
    waker: Option<Waker>,
}

impl State {
    fn put(&mut self, message: raftpb::Message) {
        if self.bytes <= BYTES_MAX {
            self.bytes += weight(&message);
            self.post.messages.push(message);
            return;
        }
        self.post.lost.insert(message.to);
        if message.r#type() == MessageType::MsgSnap {
            self.post.lost_snapshots.insert(message.to);
        }
    }
}

impl Outbox {
    /// Puts messages in and wakes the peer thread; `messages` is left empty.
    pub fn put(&self, messages: &mut Vec<raftpb::Message>) {
        if messages.is_empty() {
            return;
        }
        self.change(|state| messages.drain(..).for_each(|message| state.put(message)));
    }

    /// Tells the peer thread that the node has ended.
    pub fn close(&self) {
        self.change(|state| state.post.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes everything, or registers `context` to be woken by the next message.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<Post> {
        let mut state = self.state.lock();
        if state.post.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.bytes = 0;
        Poll::Ready(std::mem::take(&mut state.post))
    }
}

/// What a message counts against bounds on memory.
pub fn weight(message: &raftpb::Message) -> usize {
    let entries: usize =
        message.entries.iter().map(|entry| size_of::<raftpb::Entry>() + entry.data.len()).sum();
    let snapshot = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len());
    size_of::<raftpb::Message>() + entries + message.context.len() + snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(to: u64, bytes: usize) -> raftpb::Message {
        raftpb::Message { to, context: vec![0; bytes].into(), ..raftpb::Message::default() }
    }

    #[test]
    fn messages_come_out_in_order_and_those_beyond_the_bound_are_reported() {
        let outbox = Outbox::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(outbox.poll_take(&mut context).is_pending());
        outbox.put(&mut vec![message(1, 1), message(2, BYTES_MAX), message(3, 1), message(3, 1)]);
        outbox.close();
        let Poll::Ready(post) = outbox.poll_take(&mut context) else { panic!("post is there") };
        let receivers: Vec<u64> = post.messages.iter().map(|message| message.to).collect();
        assert_eq!((receivers, post.lost, post.closed), (vec![1, 2], BTreeSet::from([3]), true));
        outbox.put(&mut vec![message(3, 1)]);
        let Poll::Ready(post) = outbox.poll_take(&mut context) else { panic!("there is room") };
        assert_eq!(post.messages.len(), 1);
    }
}
