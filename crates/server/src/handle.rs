//! What services use to reach the node: one handle per serving thread.
//!
//! Requests made during one turn of the thread's event loop leave together: the first one schedules a flush, which runs
//! after all tasks that are ready now, so that everything one socket read brought is one batch. Callers wait in a slab;
//! the node's answers come back through the thread's [`crate::mailbox::Mailbox`] and wake them.
//!
//! A handle belongs to its thread and is never shared; that is why it needs no lock.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError};
use machine::{Outcome, Reader};
use node::{
    Answer, Completion, Event, Failure, Gate, LeaseRequest, LeaseRequestKind, Prepared, Proposal,
    RequestIds, Token,
};
use proto::raftpb;
use slab::Slab;

use crate::peer::activity::Activity;
use crate::workers::Workers;

/// Time between two looks whether the node has room for a snapshot.
const ROOM_POLL: Duration = Duration::from_millis(1);

/// The doors to the node that all serving threads share.
#[derive(Debug, Clone)]
pub struct Doors {
    /// The node thread's bounded inbox.
    pub inbox: Sender<Event>,
    /// Makes request ids.
    pub ids: Arc<RequestIds>,
    /// What the node publishes for everyone.
    pub gate: Arc<Gate>,
    /// Reads the store.
    pub reader: Reader,
    /// Threads for work that takes long.
    pub long_work: Workers,
    /// Which other members are connected.
    pub activity: Arc<Activity>,
}

/// One serving thread's access to the node; clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    thread: u8,
    doors: Doors,
    waiting: RefCell<Slab<Waiting>>,
    /// Distinguishes a slot's successive users, so that a late answer reaches nobody else.
    generation: Cell<u32>,
    outgoing: RefCell<Outgoing>,
    flush: RefCell<Option<Waker>>,
    ended: Cell<bool>,
}

#[derive(Debug)]
struct Waiting {
    generation: u32,
    answer: Option<Answer>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Outgoing {
    proposals: Vec<Proposal>,
    reads: Vec<Token>,
    leases: Vec<LeaseRequest>,
    /// Whatever is asked for rarely.
    others: Vec<Event>,
}

impl Handle {
    /// Makes the handle of serving thread number `thread`.
    pub fn new(thread: u8, doors: Doors) -> Self {
        Self {
            inner: Rc::new(Shared {
                thread,
                doors,
                waiting: RefCell::default(),
                generation: Cell::default(),
                outgoing: RefCell::default(),
                flush: RefCell::default(),
                ended: Cell::default(),
            }),
        }
    }

    /// The number of the serving thread.
    pub fn thread(&self) -> u8 {
        self.inner.thread
    }

    /// Returns what the node publishes.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.inner.doors.gate
    }

    /// Returns the reader of the store.
    pub fn reader(&self) -> &Reader {
        &self.inner.doors.reader
    }

    /// Returns the threads for work that takes long.
    pub fn long_work(&self) -> &Workers {
        &self.inner.doors.long_work
    }

    /// Returns which other members are connected.
    pub fn activity(&self) -> &Activity {
        &self.inner.doors.activity
    }

    /// Notes that the node has ended.
    pub fn end(&self) {
        self.inner.ended.set(true);
    }

    /// Tells whether the node has ended: nothing that waits for it will come about.
    pub fn has_ended(&self) -> bool {
        self.inner.ended.get()
    }

    /// Makes a request id, for `header.ID` of a proposal.
    pub fn request_id(&self) -> u64 {
        self.inner.doors.ids.next()
    }

    /// Puts an encoded `InternalRaftRequest` with request id `id` into the log and waits for it to be applied here.
    pub async fn propose(&self, id: u64, data: Bytes) -> Result<Outcome, Failure> {
        let wait = self.wait(|outgoing, token| {
            outgoing.proposals.push(Proposal { token, id, data });
        });
        match wait.await {
            Answer::Applied(outcome) => Ok(outcome),
            Answer::Failed(failure) => Err(failure),
            other => unreachable!("a proposal is answered by an outcome, not {other:?}"),
        }
    }

    /// Waits until a local read is linearizable. Needs no round while this member is the only voter and leads.
    pub async fn read_index(&self) -> Result<(), Failure> {
        if self.gate().reads_need_no_round() {
            return Ok(());
        }
        match self.wait(|outgoing, token| outgoing.reads.push(token)).await {
            Answer::ReadReady => Ok(()),
            Answer::Failed(failure) => Err(failure),
            other => unreachable!("a read is answered by its readiness, not {other:?}"),
        }
    }

    /// Asks the lessor.
    pub async fn lease(&self, kind: LeaseRequestKind) -> Result<Answer, Failure> {
        let wait = self.wait(|outgoing, token| outgoing.leases.push(LeaseRequest { token, kind }));
        match wait.await {
            Answer::Failed(failure) => Err(failure),
            answer => Ok(answer),
        }
    }

    /// Has the backend's file rewritten without its free space.
    pub async fn defragment(&self) -> Result<(), Failure> {
        match self.wait(|outgoing, token| outgoing.others.push(Event::Defragment(token))).await {
            Answer::Defragmented => Ok(()),
            Answer::Failed(failure) => Err(failure),
            other => unreachable!("a defragmentation is answered by its end, not {other:?}"),
        }
    }

    /// Puts an encoded `ConfChange` with id `id` into the log and waits for it to be applied here. `promotes` is the learner
    /// that gets a vote by it, if one does.
    pub async fn propose_conf_change(
        &self,
        id: u64,
        data: Bytes,
        promotes: Option<u64>,
    ) -> Result<Outcome, Failure> {
        let wait = self.wait(|outgoing, token| {
            let proposal = Proposal { token, id, data };
            outgoing.others.push(Event::ProposeConfChange { proposal, promotes });
        });
        match wait.await {
            Answer::Applied(outcome) => Ok(outcome),
            Answer::Failed(failure) => Err(failure),
            other => unreachable!("a proposal is answered by an outcome, not {other:?}"),
        }
    }

    /// Has another member lead, and waits until it does.
    pub async fn move_leader(&self, to: u64) -> Result<(), Failure> {
        match self
            .wait(|outgoing, token| outgoing.others.push(Event::MoveLeader { token, to }))
            .await
        {
            Answer::LeaderMoved => Ok(()),
            Answer::Failed(failure) => Err(failure),
            other => unreachable!("a move of leadership is answered by its end, not {other:?}"),
        }
    }

    /// Has a snapshot of the leader take the place of the state, and waits until it has. False when it does not count.
    pub async fn install(
        &self,
        message: raftpb::Message,
        prepared: Prepared,
    ) -> Result<bool, Failure> {
        let (message, prepared) = (Box::new(message), Box::new(prepared));
        let mut given = None;
        let wait = self.wait(|_outgoing, token| {
            given = Some(Event::InstallSnapshot { token, message, prepared });
        });
        // Whatever the node does with it, its files are seen to; so it waits for room rather than be refused.
        while let Some(event) = given.take() {
            match self.inner.doors.inbox.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => return Err(Failure::Stopped),
                Err(TrySendError::Full(event)) => {
                    given = Some(event);
                    tokio::time::sleep(ROOM_POLL).await;
                }
            }
        }
        match wait.await {
            Answer::SnapshotInstalled => Ok(true),
            Answer::Failed(Failure::SnapshotNotTaken) => Ok(false),
            Answer::Failed(failure) => Err(failure),
            other => unreachable!("a snapshot is answered by its end, not {other:?}"),
        }
    }

    fn wait(&self, push: impl FnOnce(&mut Outgoing, Token)) -> Wait {
        let shared = &self.inner;
        let generation = shared.generation.get().wrapping_add(1);
        shared.generation.set(generation);
        // Nobody would answer what is sent to a node that has ended.
        let answer = shared.ended.get().then_some(Answer::Failed(Failure::Stopped));
        let is_answered = answer.is_some();
        let waiting = Waiting { generation, answer, waker: None };
        let slot = shared.waiting.borrow_mut().insert(waiting);
        if is_answered {
            return Wait { shared: Rc::clone(shared), slot };
        }
        push(&mut shared.outgoing.borrow_mut(), token(shared.thread, generation, slot));
        if let Some(waker) = shared.flush.borrow_mut().take() {
            waker.wake();
        }
        Wait { shared: Rc::clone(shared), slot }
    }

    /// Sends each turn's requests to the node; runs as a task of the thread for as long as the thread serves.
    pub async fn flush_forever(&self) {
        loop {
            poll_fn(|context| {
                let outgoing = self.inner.outgoing.borrow();
                if outgoing.is_empty() {
                    *self.inner.flush.borrow_mut() = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            // Tasks that were ready before this one have run; those woken meanwhile run first and join the batch.
            tokio::task::yield_now().await;
            self.flush();
        }
    }

    fn flush(&self) {
        let outgoing = std::mem::take(&mut *self.inner.outgoing.borrow_mut());
        if !outgoing.proposals.is_empty() {
            self.send(Event::Propose(outgoing.proposals));
        }
        if !outgoing.reads.is_empty() {
            self.send(Event::Read(outgoing.reads));
        }
        if !outgoing.leases.is_empty() {
            self.send(Event::Lease(outgoing.leases));
        }
        for event in outgoing.others {
            self.send(event);
        }
    }

    /// A full inbox refuses the whole batch: waiting here would stop every connection of the thread.
    fn send(&self, event: Event) {
        let (event, failure) = match self.inner.doors.inbox.try_send(event) {
            Ok(()) => return,
            Err(TrySendError::Full(event)) => (event, Failure::TooManyRequests),
            Err(TrySendError::Disconnected(event)) => (event, Failure::Stopped),
        };
        let tokens: Vec<Token> = match event {
            Event::Propose(proposals) => proposals.iter().map(|proposal| proposal.token).collect(),
            Event::Read(tokens) => tokens,
            Event::Lease(requests) => requests.iter().map(|request| request.token).collect(),
            Event::Defragment(token) | Event::MoveLeader { token, .. } => vec![token],
            Event::ProposeConfChange { proposal, .. } => vec![proposal.token],
            other => unreachable!("serving threads send requests only, not {other:?}"),
        };
        for token in tokens {
            self.complete(Completion { token, answer: Answer::Failed(failure) });
        }
    }

    /// Gives an answer to its caller; one that has gone away meanwhile is passed over.
    pub fn complete(&self, completion: Completion) {
        let (generation, slot) = slot_of(completion.token);
        let mut waiting = self.inner.waiting.borrow_mut();
        let Some(entry) = waiting.get_mut(slot).filter(|entry| entry.generation == generation)
        else {
            return;
        };
        entry.answer = Some(completion.answer);
        let waker = entry.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Answers everyone who waits with `failure`: nothing more will come from the node.
    pub fn fail_all(&self, failure: Failure) {
        let mut wakers = Vec::new();
        for (_, entry) in self.inner.waiting.borrow_mut().iter_mut() {
            entry.answer.get_or_insert(Answer::Failed(failure));
            wakers.extend(entry.waker.take());
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Counts the callers that wait for the node.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.borrow().len()
    }
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.leases.is_empty()
            && self.others.is_empty()
    }
}

/// Token layout: 8 bits thread, 32 bits generation, 24 bits slot.
fn token(thread: u8, generation: u32, slot: usize) -> Token {
    assert!(slot < 1 << 24, "admission bounds the callers of a thread far below 2^24");
    Token(u64::from(thread) << 56 | u64::from(generation) << 24 | slot as u64)
}

/// Returns the serving thread whose caller `token` names.
pub fn thread_of(token: Token) -> usize {
    usize::from(token.0.to_be_bytes()[0])
}

fn slot_of(token: Token) -> (u32, usize) {
    let [_, generation @ .., a, b, c] = token.0.to_be_bytes();
    (u32::from_be_bytes(generation), u32::from_be_bytes([0, a, b, c]) as usize)
}

/// Waits for one answer; dropping it gives the slot back.
#[derive(Debug)]
struct Wait {
    shared: Rc<Shared>,
    slot: usize,
}

impl Future for Wait {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut waiting = self.shared.waiting.borrow_mut();
        let entry = &mut waiting[self.slot];
        if let Some(answer) = entry.answer.take() {
            return Poll::Ready(answer);
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.shared.waiting.borrow_mut().remove(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_thread_generation_and_slot() {
        let token = token(3, 0xffff_fffe, 0x12_3456);
        assert_eq!(thread_of(token), 3);
        assert_eq!(slot_of(token), (0xffff_fffe, 0x12_3456));
    }
}
