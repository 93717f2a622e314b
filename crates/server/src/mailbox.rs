//! The way from the node thread to one serving thread: completions and shared event batches.
//!
//! Bounds: completions are bounded by the requests in flight, which admission bounds. Events are bounded here: when a
//! serving thread falls behind by more than `EVENT_BATCHES_MAX` batches or `EVENT_BYTES_MAX`, further ones are dropped and the thread is
//! told the revision it lost sight at; its watchers then read the missing revisions from history. Nothing is lost to a
//! watcher and the node thread never waits.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use machine::EventBatch;
use node::Completion;
use parking_lot::Mutex;

/// Undelivered event batches a serving thread may have; more are dropped and re-read from history.
pub const EVENT_BATCHES_MAX: usize = 4096;

/// Their bytes from which further ones are dropped likewise.
const EVENT_BYTES_MAX: usize = 32 << 20;

/// What has arrived since the last look.
#[derive(Debug, Default)]
pub struct Mail {
    /// Answers to this thread's callers, in the order the node gave them.
    pub completions: Vec<Completion>,
    /// Events in revision order; a gap may follow the last batch if `lost` is set.
    pub events: Vec<Arc<EventBatch>>,
    /// Bytes of `events`.
    event_bytes: usize,
    /// Whether batches after the last of `events` were dropped.
    pub lost: bool,
    /// Whether the node has ended; nothing more will come.
    pub closed: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.events.is_empty() && !self.lost && !self.closed
    }
}

/// One serving thread's mailbox, shared with the node thread.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<State>,
    /// Whether its thread has no watchers.
    takes_no_events: bool,
}

#[derive(Debug, Default)]
struct State {
    mail: Mail,
    waker: Option<Waker>,
}

impl Mailbox {
    /// Makes a mailbox for a thread without watchers: events pass it by.
    pub fn without_events() -> Self {
        Self { takes_no_events: true, ..Self::default() }
    }

    /// Adds completions and wakes the thread; `completions` is left empty.
    pub fn complete(&self, completions: &mut Vec<Completion>) {
        if !completions.is_empty() {
            self.put(|mail| mail.completions.append(completions));
        }
    }

    /// Adds one batch of events, or notes its loss when the thread is too far behind.
    pub fn publish(&self, batch: &Arc<EventBatch>) {
        if self.takes_no_events {
            return;
        }
        self.put(|mail| {
            let is_full =
                mail.events.len() >= EVENT_BATCHES_MAX || mail.event_bytes >= EVENT_BYTES_MAX;
            if mail.lost || is_full {
                mail.lost = true;
            } else {
                mail.event_bytes += batch.bytes();
                mail.events.push(Arc::clone(batch));
            }
        });
    }

    /// Tells the thread that it has lost sight of what happens.
    pub fn lose_sight(&self) {
        if !self.takes_no_events {
            self.put(|mail| mail.lost = true);
        }
    }

    /// Tells the thread that the node has ended.
    pub fn close(&self) {
        self.put(|mail| mail.closed = true);
    }

    fn put(&self, change: impl FnOnce(&mut Mail)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state.mail);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all mail, or registers `context` to be woken by the next.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<Mail> {
        let mut state = self.state.lock();
        if state.mail.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.mail))
    }
}

#[cfg(test)]
mod tests {
    use node::{Answer, Token};

    use super::*;

    #[test]
    fn a_thread_too_far_behind_loses_batches_and_is_told() {
        let mailbox = Mailbox::default();
        let batch = Arc::new(EventBatch::new(2));
        for _ in 0..EVENT_BATCHES_MAX + 2 {
            mailbox.publish(&batch);
        }
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(mail) = mailbox.poll_take(&mut context) else { panic!("mail is there") };
        assert_eq!(mail.events.len(), EVENT_BATCHES_MAX);
        assert!(mail.lost);
        assert!(mailbox.poll_take(&mut context).is_pending());
        mailbox.publish(&batch);
        let Poll::Ready(mail) = mailbox.poll_take(&mut context) else { panic!("mail is there") };
        assert!(!mail.lost && mail.events.len() == 1);
    }

    #[test]
    fn large_batches_are_lost_before_they_take_too_much_memory() {
        let mailbox = Mailbox::default();
        let mut batch = EventBatch::new(2);
        let revision = machine::Revision::new(2, 0);
        batch.push(machine::watch::Event::deletion(&vec![b'k'; 1 << 20], revision, None));
        let batch = Arc::new(batch);
        for _ in 0..100 {
            mailbox.publish(&batch);
        }
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(mail) = mailbox.poll_take(&mut cx) else { panic!("mail is there") };
        assert!(mail.lost);
        assert!((16..=33).contains(&mail.events.len()), "{}", mail.events.len());
    }

    #[test]
    fn completions_are_never_dropped() {
        let mailbox = Mailbox::default();
        let mut completions = vec![Completion { token: Token(1), answer: Answer::ReadReady }];
        mailbox.complete(&mut completions);
        assert!(completions.is_empty());
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(mail) = mailbox.poll_take(&mut context) else { panic!("mail is there") };
        assert_eq!(mail.completions.len(), 1);
    }
}
