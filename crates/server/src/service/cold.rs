//! Gets of values that are not in memory.
//!
//! To hand one read to another thread and to be woken by its result costs several times the read itself, when the file's
//! pages are in the system's memory, as most are. So the gets that wait when a thread is free go to it together: a few at
//! a time, so that reads that do wait for a disk wait beside each other, and so that their answers take no more memory
//! than one large record.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use machine::{RangeReply, ReadError, Reader};
use proto::etcdserverpb::RangeRequest;
use tokio::sync::oneshot;

use crate::grpc::error;
use crate::grpc::status::Status;
use crate::workers::{Permit, Workers};

/// Gets that one thread makes one after the other: at least, where there are so many, and at most.
const TOGETHER: (usize, usize) = (4, 16);

/// Bytes of answers after which a thread makes no further gets before it has handed them over.
const ANSWERS_BYTES: usize = 1 << 20;

/// Waiting gets among which those whose callers are gone are not looked for.
const WAITING_MIN: usize = 256;

/// The answer of a get, with the revision it was made at.
type Answer = Result<(i64, RangeReply), ReadError>;

/// One get whose caller waits.
#[derive(Debug)]
struct Waiting {
    request: RangeRequest,
    caller: oneshot::Sender<Answer>,
}

/// What came of some gets: answers, and those that were not made.
struct Done {
    answered: Vec<(oneshot::Sender<Answer>, Answer)>,
    left: Vec<Waiting>,
}

/// Gathers the gets of one serving thread.
#[derive(Debug, Clone)]
pub(super) struct ColdGets(Rc<Gathering>);

#[derive(Debug)]
struct Gathering {
    reader: Reader,
    workers: Workers,
    queue: RefCell<Queue>,
}

/// Gets that no thread has taken yet: at most twice as many as somebody waits for.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many there were that somebody waited for when that was looked at last.
    looked_at: usize,
    /// Whether a task hands them out.
    is_handed_out: bool,
}

impl Queue {
    fn push(&mut self, waiting: Waiting) {
        if self.waiting.len() >= WAITING_MIN.max(2 * self.looked_at) {
            self.waiting.retain(|waiting| !waiting.caller.is_closed());
            self.looked_at = self.waiting.len();
        }
        self.waiting.push_back(waiting);
    }

    /// Takes gets that somebody waits for, for one of `threads` that are free.
    fn take(&mut self, threads: usize) -> Vec<Waiting> {
        let (least, most) = TOGETHER;
        let share = self.waiting.len().div_ceil(threads.max(1)).clamp(least, most);
        let mut taken = Vec::with_capacity(share.min(self.waiting.len()));
        while taken.len() < share
            && let Some(waiting) = self.waiting.pop_front()
        {
            if !waiting.caller.is_closed() {
                taken.push(waiting);
            }
        }
        taken
    }
}

impl ColdGets {
    /// Makes one that reads with the threads of `workers`.
    pub(super) fn new(reader: Reader, workers: Workers) -> Self {
        Self(Rc::new(Gathering { reader, workers, queue: RefCell::default() }))
    }

    /// Makes a get; only on a thread's local tasks. A get whose caller goes away before its turn is forgotten.
    pub(super) async fn get(&self, request: &RangeRequest) -> Result<Answer, Status> {
        let (caller, answer) = oneshot::channel();
        self.0.queue.borrow_mut().push(Waiting { request: request.clone(), caller });
        self.begin();
        answer.await.map_err(|_ending| error::STOPPED)
    }

    /// Sees to it that what waits is handed out.
    fn begin(&self) {
        let is_handed_out = std::mem::replace(&mut self.0.queue.borrow_mut().is_handed_out, true);
        if !is_handed_out {
            tokio::task::spawn_local(self.clone().hand_out());
        }
    }

    async fn hand_out(self) {
        // Others of this turn of the thread have something to ask for, too.
        tokio::task::yield_now().await;
        while !self.0.queue.borrow().waiting.is_empty() {
            // There is none only while the process ends.
            let Ok(permit) = self.0.workers.permit().await else { break };
            let threads = 1 + self.0.workers.free();
            let taken = self.0.queue.borrow_mut().take(threads);
            if !taken.is_empty() {
                tokio::task::spawn_local(self.clone().run(permit, taken));
            }
        }
        self.0.queue.borrow_mut().is_handed_out = false;
    }

    /// Has the gets made, and tells the callers on their own thread, which is woken once.
    async fn run(self, permit: Permit, taken: Vec<Waiting>) {
        let reader = self.0.reader.clone();
        let made = self.0.workers.run_with(permit, move || make(&reader, taken)).await;
        let Ok(Done { answered, left }) = made else { return };
        for (caller, answer) in answered {
            // Nobody listens if the caller has gone away.
            let _unheard = caller.send(answer);
        }
        if !left.is_empty() {
            let mut queue = self.0.queue.borrow_mut();
            left.into_iter().rev().for_each(|waiting| queue.waiting.push_front(waiting));
            drop(queue);
            self.begin();
        }
    }
}

/// Makes gets until their answers are large.
fn make(reader: &Reader, taken: Vec<Waiting>) -> Done {
    let mut answered = Vec::with_capacity(taken.len());
    let mut bytes = 0;
    let mut taken = taken.into_iter();
    while bytes < ANSWERS_BYTES
        && let Some(Waiting { request, caller }) = taken.next()
    {
        let answer = reader.range(&request);
        if let Ok((_, reply)) = &answer {
            bytes += reply.kvs.iter().map(|record| record.len()).sum::<usize>();
        }
        answered.push((caller, answer));
    }
    Done { answered, left: taken.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> (Waiting, oneshot::Receiver<Answer>) {
        let (caller, answer) = oneshot::channel();
        (Waiting { request: RangeRequest::default(), caller }, answer)
    }

    #[test]
    fn gets_of_callers_that_are_gone_do_not_pile_up() {
        let mut queue = Queue::default();
        let mut open = Vec::new();
        for number in 0..100 * WAITING_MIN {
            let (waiting, answer) = waiting();
            queue.push(waiting);
            if number % 100 == 0 {
                open.push(answer);
            }
        }
        assert!(queue.waiting.len() <= 2 * WAITING_MIN, "{}", queue.waiting.len());
        let mut taken = 0;
        while !queue.waiting.is_empty() {
            taken += queue.take(1).len();
        }
        assert_eq!(taken, open.len());
    }

    #[test]
    fn free_threads_share_what_waits() {
        let (all, open): (Vec<_>, Vec<_>) = (0..100).map(|_| waiting()).unzip();
        let mut queue = Queue::default();
        for waiting in all {
            queue.push(waiting);
        }
        assert_eq!(queue.take(1).len(), 16);
        assert_eq!(queue.take(8).len(), 11);
        assert_eq!(queue.take(80).len(), 4);
        assert_eq!(queue.waiting.len(), open.len() - 31);
    }
}
