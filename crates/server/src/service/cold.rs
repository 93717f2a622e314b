//! Gets of values that are not in memory.
//!
//! To hand one read to another thread and to be woken by its result costs several times the read itself, when the file's
//! pages are in the system's memory, as most are. So the gets of one turn of the serving thread go together: a few per
//! job, so that reads that do wait for a disk wait beside each other.

use std::cell::RefCell;
use std::rc::Rc;

use machine::{RangeReply, ReadError, Reader};
use proto::etcdserverpb::RangeRequest;
use tokio::sync::oneshot;

use crate::grpc::error;
use crate::grpc::status::Status;
use crate::workers::Workers;

/// Gets that one thread makes one after the other, at most.
const TOGETHER_MAX: usize = 16;

/// The answer of a get, with the revision it was made at.
type Answer = Result<(i64, RangeReply), ReadError>;

/// One get whose caller waits.
#[derive(Debug)]
struct Waiting {
    request: RangeRequest,
    caller: oneshot::Sender<Answer>,
}

/// Gathers the gets of one serving thread.
#[derive(Debug)]
pub(super) struct ColdGets {
    reader: Reader,
    workers: Workers,
    /// The gets of this turn. No more than there are calls.
    waiting: Rc<RefCell<Vec<Waiting>>>,
}

impl ColdGets {
    /// Makes one that reads with the threads of `workers`.
    pub(super) fn new(reader: Reader, workers: Workers) -> Self {
        Self { reader, workers, waiting: Rc::default() }
    }

    /// Makes a get; only on a thread's local tasks. A get whose caller goes away before its turn is forgotten.
    pub(super) async fn get(&self, request: &RangeRequest) -> Result<Answer, Status> {
        let (caller, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.push(Waiting { request: request.clone(), caller });
            waiting.len() == 1
        };
        if is_first {
            let turn = Rc::clone(&self.waiting);
            tokio::task::spawn_local(hand_out(turn, self.reader.clone(), self.workers.clone()));
        }
        answer.await.map_err(|_ending| error::STOPPED)
    }
}

/// Hands out the gets of a turn.
async fn hand_out(turn: Rc<RefCell<Vec<Waiting>>>, reader: Reader, workers: Workers) {
    tokio::task::yield_now().await;
    let mut gathered = turn.take().into_iter();
    loop {
        let job: Vec<Waiting> = gathered.by_ref().take(TOGETHER_MAX).collect();
        if job.is_empty() {
            return;
        }
        let (reader, workers) = (reader.clone(), workers.clone());
        tokio::task::spawn_local(async move {
            let answers = workers.run(move || answer(&reader, job)).await;
            for (caller, answer) in answers.into_iter().flatten() {
                // Nobody listens if the caller has gone away.
                let _unheard = caller.send(answer);
            }
        });
    }
}

/// Makes the gets that somebody still waits for. The callers are told by their own thread, which is woken once.
fn answer(reader: &Reader, job: Vec<Waiting>) -> Vec<(oneshot::Sender<Answer>, Answer)> {
    let wanted = job.into_iter().filter(|waiting| !waiting.caller.is_closed());
    wanted.map(|Waiting { request, caller }| (caller, reader.range(&request))).collect()
}
